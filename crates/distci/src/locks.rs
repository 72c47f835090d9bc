//! `distci locks`: the locks that are held, by whom, and who waits for them.

use anyhow::Result;
use distci_model::id::{BuildRef, TaskName};
use distci_model::wire::Page;

use crate::cli::Read;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::table::{Cell, Table};
use crate::{pages, view};

pub(crate) async fn run(connection: &Connection, arguments: &Read, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    let mut items = pages::all(async |cursor| client.locks(cursor).await).await?;
    items.sort_by(|one, other| one.name.cmp(&other.name));
    if arguments.json {
        out.json(&Page { items, next: None })?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["LOCK", "BUILD", "TASK", "STATE", "SINCE"]);
    for lock in &items {
        let name = lock.name.as_str();
        for held in &lock.held {
            let (state, since) = (format!("holds slot {}", held.slot), held.since);
            let task = whole(held.task.as_ref());
            table.row(row(
                name,
                &held.build,
                [task, state, view::span(since, now())],
            ));
        }
        for waiter in &lock.waiting {
            let (state, since) = ("waits".to_owned(), waiter.since);
            let task = whole(waiter.task.as_ref());
            table.row(row(
                name,
                &waiter.build,
                [task, state, view::span(since, now())],
            ));
        }
    }
    view::print(&table, "no lock is held", out)?;
    Ok(Exit::Ok)
}

fn row(lock: &str, build: &BuildRef, [task, state, since]: [String; 3]) -> [Cell; 5] {
    [
        lock.into(),
        build.to_string().into(),
        task.into(),
        state.into(),
        since.into(),
    ]
}

/// The task, or that it is the build as a whole.
fn whole(task: Option<&TaskName>) -> String {
    task.map_or_else(|| "(build)".to_owned(), ToString::to_string)
}
