//! `distci migrate`: the store of a data folder, copied into a cluster.
//!
//! Owns how the progress is told. The copy itself is the store's.

use std::io::{self, IsTerminal};
use std::time::Instant;

use anyhow::{Context, Result};
use distci_store::{Copied, Stage};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Migrate;
use crate::clock::now;
use crate::cluster;
use crate::config::Config;
use crate::exit::Exit;
use crate::fsck::existing;
use crate::out::Out;

pub(crate) async fn run(arguments: &Migrate, out: &mut Out) -> Result<Exit> {
    let config = Config::load(&arguments.config)?;
    let cluster = config
        .cluster
        .context("the configuration names no cluster")?;
    let source = existing(&arguments.from)?;
    let target = cluster::open(&cluster, |_| Ok(())).await?;
    let (bar, begun) = (bar()?, Instant::now());
    let tell = |stage| {
        let (what, done, of) = match stage {
            Stage::Blobs { done, of } => ("blobs", done, of),
            Stage::Nodes { done, of } => ("jobs, builds and tickets", done, of),
        };
        bar.set_message(what);
        bar.set_length(of);
        bar.set_position(done);
    };
    let copied = source.migrate(&target, now(), &tell).await;
    bar.finish_and_clear();
    let copied = copied?;
    if arguments.json {
        out.json(&copied)?;
    } else {
        out.line(summary(&copied, begun.elapsed().as_secs()))?;
    }
    Ok(Exit::Ok)
}

fn bar() -> Result<ProgressBar> {
    if !io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{msg} {pos}/{len} {wide_bar} {eta}")?;
    Ok(ProgressBar::new(0).with_style(style))
}

fn summary(copied: &Copied, seconds: u64) -> String {
    if *copied == Copied::default() {
        return "this store has been copied there before; nothing was to be done".to_owned();
    }
    let Copied {
        blobs,
        blob_bytes,
        blobs_there,
        jobs,
        builds,
        tickets,
        errands,
    } = copied;
    format!(
        "copied {blobs} blobs of {blob_bytes} bytes ({blobs_there} were there), {jobs} jobs, \
         {builds} active builds, {tickets} tickets, {errands} errands in {seconds} s; \
         frontends may start now"
    )
}
