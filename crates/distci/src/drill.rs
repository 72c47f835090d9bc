//! `distci drill`: hurts a cluster under load, and judges it.
//!
//! Owns the reading of the arguments and where the report goes; the drill itself is `distci-drill`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use distci_client::Client;
use distci_drill::{Doors, Drill, Faults, Report};
use owo_colors::Style;

use crate::cli;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::{Ended, Exit};
use crate::out::{Out, Paint};
use crate::signals::Signals;

/// How long a client of the drill goes on asking when nobody answers: longer than a fault should last.
const PATIENCE: Duration = Duration::from_mins(5);

pub(crate) async fn run(
    connection: &Connection,
    arguments: cli::Drill,
    out: &mut Out,
) -> Result<Exit> {
    let drill = Drill {
        lasts: arguments.lasts,
        clients: usize::from(arguments.clients),
        seed: match arguments.seed {
            Some(seed) => seed,
            None => any_seed()?,
        },
        label: arguments.label,
        faults: faults(arguments.faults.as_deref())?,
        keep: arguments.keep,
        clock: now,
    };
    let doors = doors(connection)?;
    let mut signals = Signals::listen()?;
    let paint = out.talk_paint();
    let tell = |what: &str| tell(what, paint);
    tell(&format!("seed {}", drill.seed));
    let (report, history) = tokio::select! {
        done = drill.run(doors, &tell) => done?,
        // What was done to the cluster is taken back when the drill is dropped.
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    if let Some(file) = &arguments.report {
        write(file, &report.to_string())?;
    }
    if let Some(file) = &arguments.history {
        write(file, &serde_json::to_string(&history)?)?;
    }
    show(&report, arguments.json, out)?;
    for late in report.late() {
        out.say(format!(
            "late: {}: it took longer than the file aims at",
            late.name
        ))?;
    }
    Ok(if report.is_clean() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

fn faults(file: Option<&Path>) -> Result<Faults> {
    let Some(file) = file else {
        return Ok(Faults {
            faults: Vec::new(),
            check: None,
        });
    };
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| shown.to_string())?;
    Faults::parse(&text).map_err(|error| Ended::failed(format!("{shown}: {error:#}")))
}

/// Through all frontends that the connection names, and through each.
fn doors(connection: &Connection) -> Result<Doors> {
    let (urls, _) = connection.found()?;
    let client = |urls: Vec<String>| -> Result<Client> {
        let (_, token) = connection.found()?;
        Ok(Client::new(urls, token)?.with_deadline(PATIENCE))
    };
    let each = urls.iter().map(|url| client(vec![url.clone()]));
    Ok(Doors {
        each: each.collect::<Result<_>>()?,
        any: client(urls)?,
    })
}

fn any_seed() -> Result<u64> {
    let mut bytes = [0; 4];
    if let Err(error) = getrandom::fill(&mut bytes) {
        bail!("no random bytes: {error}");
    }
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

fn tell(what: &str, paint: Paint) {
    let at = now().strftime("%H:%M:%S").to_string();
    let line = format!("{}  {what}\n", paint.paint(at, Style::new().dimmed()));
    // Progress that nobody can read is none, and no reason to leave a cluster hurt.
    drop(std::io::Write::write_all(
        &mut std::io::stderr(),
        line.as_bytes(),
    ));
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| file.display().to_string())
}

fn show(report: &Report, json: bool, out: &mut Out) -> Result<()> {
    if json {
        return Ok(out.json(report)?);
    }
    // The report ends with a line of its own.
    Ok(out.bytes(report.to_string().as_bytes())?)
}
