//! `distci workers`: who is there, and what they do; asking some of them to leave.

use std::time::Duration;

use anyhow::Result;
use distci_client::Client;
use distci_model::id::NamePattern;
use distci_model::wire::{WorkerClaim, WorkerView};
use tokio::time::{sleep, timeout};

use crate::cli::{Drain, Workers, WorkersDeed};
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::table::Table;
use crate::view;

/// Between two looks at who is still there.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    connection: &Connection,
    arguments: &Workers,
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    if let Some(WorkersDeed::Drain(arguments)) = &arguments.deed {
        return drain(&client, arguments, out).await;
    }
    let workers = client.workers().await?;
    if arguments.read.json {
        out.json(&workers)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["WORKER", "WAITING", "HOLDS", "OFFERS"]);
    for worker in &workers {
        let offers = worker.capabilities.as_ref();
        table.row([
            worker.worker.as_str().into(),
            waiting(worker).into(),
            holds(worker).into(),
            offers.map_or_else(String::new, ToString::to_string).into(),
        ]);
    }
    view::print(&table, "no workers", out)?;
    // An older frontend does not tell of them.
    for order in client.drains().await.unwrap_or_default() {
        let age = view::age(order.at, now());
        out.say(format_args!("{} were asked to leave {age}", order.pattern))?;
    }
    Ok(Exit::Ok)
}

fn waiting(worker: &WorkerView) -> String {
    match worker.waiting {
        0 if worker.draining => "drains".to_owned(),
        waiting if worker.draining => format!("{waiting}, drains"),
        waiting => waiting.to_string(),
    }
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

async fn drain(client: &Client, arguments: &Drain, out: &mut Out) -> Result<Exit> {
    let mut patterns = arguments.patterns.clone();
    if arguments.all {
        patterns.push("*".parse()?);
    }
    let mut orders = Vec::new();
    for pattern in &patterns {
        orders.push(client.drain(pattern).await?);
        out.say(format_args!("asked {pattern} to leave"))?;
    }
    if arguments.json {
        out.json(&orders)?;
    }
    if !arguments.wait {
        return Ok(Exit::Ok);
    }
    let limit = arguments.timeout.unwrap_or(Duration::MAX);
    if let Ok(gone) = timeout(limit, gone(client, &patterns)).await {
        gone?;
        return Ok(Exit::Ok);
    }
    for worker in client.workers().await? {
        if is_awaited(&worker, &patterns) {
            let (name, holds) = (&worker.worker, holds(&worker));
            out.say(format_args!("{name} still has {holds}"))?;
        }
    }
    Ok(Exit::TimedOut)
}

/// Waits until none of those that were asked to leave holds anything.
async fn gone(client: &Client, patterns: &[NamePattern]) -> Result<()> {
    loop {
        let workers = client.workers().await?;
        if !workers.iter().any(|worker| is_awaited(worker, patterns)) {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

fn is_awaited(worker: &WorkerView, patterns: &[NamePattern]) -> bool {
    worker.draining && patterns.iter().any(|one| one.fits(&worker.worker))
}
