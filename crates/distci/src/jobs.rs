//! `distci jobs`: the jobs and how their latest builds went.

use anyhow::Result;
use distci_model::wire::Page;

use crate::cli::Read;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::table::Table;
use crate::{pages, view};

pub(crate) async fn run(connection: &Connection, arguments: &Read, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    let items = pages::all(async |cursor| client.jobs(cursor).await).await?;
    if arguments.json {
        out.json(&Page { items, next: None })?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["JOB", "LATEST", "STATE", "AGE", "DESCRIPTION"]);
    for job in &items {
        let latest = job.latest.as_ref();
        table.row([
            job.job.as_str().into(),
            latest
                .map_or_else(String::new, |build| format!("#{}", build.number))
                .into(),
            latest.map_or_else(
                || "".into(),
                |build| view::state(build.phase, build.outcome.as_ref()),
            ),
            latest
                .map_or_else(String::new, |build| view::age(build.created, now()))
                .into(),
            job.description.clone().unwrap_or_default().into(),
        ]);
    }
    view::print(&table, "no jobs yet: `distci job set FILE` adds one", out)?;
    Ok(Exit::Ok)
}
