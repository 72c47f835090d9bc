//! `distci frontends`: who serves this store.

use anyhow::Result;

use crate::cli::Read;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::table::Table;
use crate::view;

pub(crate) async fn run(connection: &Connection, arguments: &Read, out: &mut Out) -> Result<Exit> {
    let frontends = connection.client()?.frontends_seen().await?;
    if arguments.json {
        out.json(&frontends)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["FRONTEND", "ADDRESS", "VERSION", "ANSWERED"]);
    for frontend in &frontends {
        table.row([
            frontend.frontend.as_str().into(),
            frontend.address.as_str().into(),
            frontend.version.as_str().into(),
            if frontend.here { "yes" } else { "" }.into(),
        ]);
    }
    view::print(&table, "no frontends are announced yet", out)?;
    Ok(Exit::Ok)
}
