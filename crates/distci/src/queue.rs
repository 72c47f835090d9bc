//! `distci queue`: the tickets that wait for a worker, and what they wait for.

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
    let items = pages::all(async |cursor| client.queue(cursor).await).await?;
    if arguments.json {
        out.json(&Page { items, next: None })?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["BUILD", "TASK", "WAITS", "REQUIRES", "WORKERS", "BLOCKED"]);
    for ticket in &items {
        let (whose, task) = ticket.about.words();
        table.row([
            whose.into(),
            task.into(),
            view::span(ticket.since, now()).into(),
            ticket.requires.to_string().into(),
            ticket.workers.into(),
            view::block(ticket.blocked.as_ref()).into(),
        ]);
    }
    view::print(&table, "nothing waits", out)?;
    Ok(Exit::Ok)
}
