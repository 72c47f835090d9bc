//! `distci builds JOB`: the latest builds of a job.

use anyhow::Result;
use distci_model::wire::{BuildSummary, Page};

use crate::cli::Builds;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::table::Table;
use crate::view;

pub(crate) async fn run(
    connection: &Connection,
    arguments: &Builds,
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    let mut items: Vec<BuildSummary> = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let page = client.builds(&arguments.job, next.as_deref()).await?;
        items.extend(page.items);
        next = page.next;
        if next.is_none() || items.len() >= arguments.limit {
            break;
        }
    }
    if arguments.json {
        // Pages stay whole, so that `next` goes on exactly where this ends.
        out.json(&Page { items, next })?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["BUILD", "STATE", "CAUSE", "AGE", "TOOK"]);
    for build in items.iter().take(arguments.limit) {
        let took = build.finished.map(|end| view::span(build.created, end));
        table.row([
            format!("{}#{}", arguments.job, build.number).into(),
            view::state(build.phase, build.outcome.as_ref()),
            view::cause(&build.cause).into(),
            view::age(build.created, now()).into(),
            took.unwrap_or_default().into(),
        ]);
    }
    view::print(&table, "no builds yet", out)?;
    Ok(Exit::Ok)
}
