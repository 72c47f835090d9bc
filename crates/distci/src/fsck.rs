//! `distci fsck`: whether a store keeps its laws, and the mending of what is only an index.
//!
//! Owns how findings are told. Never makes a store where there is none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use distci_store::{Checkup, Finding, Mending, Store};

use crate::cli::Fsck;
use crate::clock::now;
use crate::cluster;
use crate::config::Config;
use crate::connection::Connection;
use crate::exit::{Ended, Exit};
use crate::out::Out;

/// Between two looks at the same: longer than any commit is on its way in a healthy cluster.
const MOMENT: Duration = Duration::from_secs(1);

pub(crate) async fn run(connection: &Connection, arguments: &Fsck, out: &mut Out) -> Result<Exit> {
    let store = open(connection, arguments).await?;
    store.acceptable().await?;
    let mending = if arguments.repair {
        Mending::Repair
    } else {
        Mending::Look
    };
    let checkup = store.fsck(mending, MOMENT).await?;
    if arguments.json {
        out.json(&checkup)?;
    } else {
        show(&checkup, out)?;
    }
    Ok(if checkup.findings.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

async fn open(connection: &Connection, arguments: &Fsck) -> Result<Store> {
    if let Some(file) = &arguments.config {
        let cluster = Config::load(file)?.cluster;
        let cluster = cluster.context("the configuration names no cluster")?;
        return cluster::open(&cluster, |_| Ok(())).await;
    }
    let directory = connection.data_directory();
    existing(&directory.context("there is no home folder: give --data or --config")?)
}

/// The store of a data folder that has one.
pub(crate) fn existing(directory: &Path) -> Result<Store> {
    if !directory.join("coord.redb").is_file() {
        let place = directory.display();
        return Err(Ended::unusable(format!("there is no store in {place}")));
    }
    Ok(Store::embedded(directory, Arc::new(now))?)
}

fn show(checkup: &Checkup, out: &mut Out) -> Result<()> {
    for finding in &checkup.repaired {
        tell("mended", finding, out)?;
    }
    for finding in &checkup.findings {
        tell("found", finding, out)?;
        let remedy = finding.remedy().map_or_else(
            || "no repair: a record is wrong, which a person has to judge".to_owned(),
            |remedy| format!("--repair {remedy}"),
        );
        out.line(format_args!("    {remedy}"))?;
    }
    let checked = checkup.checked;
    out.line(format_args!(
        "checked {} jobs, {} builds, {} tickets, {} errands, {} index names, {} slots, {} records, \
         {} results",
        checked.jobs,
        checked.builds,
        checked.tickets,
        checked.errands,
        checked.names,
        checked.slots,
        checked.records,
        checked.results
    ))?;
    let (mended, left) = (checkup.repaired.len(), checkup.findings.len());
    match (mended, left) {
        (0, 0) => out.line("everything is as it should be")?,
        (mended, 0) => out.line(format_args!("{mended} mended; nothing is wrong now"))?,
        (mended, left) => out.line(format_args!("{mended} mended; {left} wrong"))?,
    }
    Ok(())
}

fn tell(what: &str, finding: &Finding, out: &mut Out) -> Result<()> {
    out.line(format_args!("{what}: {}", finding.path))?;
    let (detail, meaning) = (&finding.detail, finding.flaw.meaning());
    out.line(format_args!("    {}: {detail}; {meaning}", finding.flaw))?;
    Ok(())
}
