//! `distci open`: a page in the browser, whose reader need not sign in.
//!
//! Owns the address that does it. It carries a pass that a frontend gives for a minute, behind the `#`,
//! where neither servers nor their logs see it; the page of signing in takes it from there.

use std::process::Stdio;
use std::str::FromStr;

use anyhow::{Context, Result};
use distci_client::Client;
use tokio::process::Command;

use crate::cli::Open;
use crate::connection::Connection;
use crate::exit::{Ended, Exit};
use crate::out::Out;
use crate::selector::{InvalidSelector, Selector};

/// Programs that show an address, the first that there is; `BROWSER` comes before them.
const PROGRAMS: [&str; 3] = ["xdg-open", "open", "sensible-browser"];

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A page of its own.
    Page(&'static str),
    /// A job.
    Job(Selector),
    /// One of its builds.
    Build(Selector),
}

impl FromStr for Destination {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let pages = ["/queue", "/workers", "/cluster"];
        if let Some(page) = pages.into_iter().find(|page| page[1..] == *text) {
            return Ok(Self::Page(page));
        }
        let selector = text.parse()?;
        Ok(if text.contains(['#', '@', '/']) {
            Self::Build(selector)
        } else {
            Self::Job(selector)
        })
    }
}

impl Destination {
    async fn path(&self, client: &Client) -> Result<String> {
        Ok(match self {
            Self::Page(path) => (*path).to_owned(),
            Self::Job(selector) => {
                // Whoever mistypes a name is told here, and not by a page.
                client.job(selector.job()).await?;
                format!("/jobs/{}", selector.job())
            }
            Self::Build(selector) => {
                let build = selector.view(client).await?.build;
                format!("/jobs/{}/builds/{}", build.job, build.number)
            }
        })
    }
}

pub(crate) async fn run(connection: &Connection, arguments: &Open, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    let path = match &arguments.what {
        Some(what) => what.path(&client).await?,
        None => "/".to_owned(),
    };
    let frontend = client.frontends().first().context("no frontend is known")?;
    let frontend = frontend.trim_end_matches('/');
    let pass = client.pass().await?.pass;
    let address = format!("{frontend}/sign-in?to={path}#{pass}");
    if arguments.print {
        out.line(&address)?;
        return Ok(Exit::Ok);
    }
    show(&address).await?;
    out.say(format!("opened {frontend}{path}"))?;
    Ok(Exit::Ok)
}

/// Has the first program that can be started show it.
async fn show(address: &str) -> Result<()> {
    let wanted = std::env::var("BROWSER").ok();
    let programs = wanted.iter().map(String::as_str).chain(PROGRAMS);
    for program in programs.filter(|program| !program.is_empty()) {
        let mut command = Command::new(program);
        command
            .arg(address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Ok(mut child) = command.spawn()
            && child.wait().await.is_ok_and(|status| status.success())
        {
            return Ok(());
        }
    }
    Err(Ended::failed(
        "no browser could be started; `distci open --print` prints the address",
    ))
}
