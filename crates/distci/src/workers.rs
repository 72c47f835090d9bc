//! `distci workers`: who is there, and what they do.

use anyhow::Result;
use distci_model::wire::{WorkerClaim, WorkerView};

use crate::cli::Read;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::table::Table;
use crate::view;

pub(crate) async fn run(connection: &Connection, arguments: &Read, out: &mut Out) -> Result<Exit> {
    let workers = connection.client()?.workers().await?;
    if arguments.json {
        out.json(&workers)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["WORKER", "WAITING", "HOLDS", "OFFERS"]);
    for worker in &workers {
        let offers = worker.capabilities.as_ref();
        table.row([
            worker.worker.as_str().into(),
            worker.waiting.into(),
            holds(worker).into(),
            offers.map_or_else(String::new, ToString::to_string).into(),
        ]);
    }
    view::print(&table, "no workers", out)?;
    Ok(Exit::Ok)
}

fn holds(worker: &WorkerView) -> String {
    let claim = |claim: &WorkerClaim| {
        let (whose, task) = claim.about.words();
        let since = view::span(claim.since, now());
        format!("{whose} {task} for {since}")
    };
    let claims: Vec<String> = worker.claims.iter().map(claim).collect();
    claims.join(", ")
}
