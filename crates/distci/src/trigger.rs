//! `distci trigger JOB`: asks for a build, and follows it if wanted.
//!
//! Owns what happens after any build was asked for, which `rerun` shares.

use std::time::Duration;

use anyhow::Result;
use distci_client::{Client, new_request_id};
use distci_model::id::BuildRef;
use distci_model::wire::{TriggerRequest, Triggered};
use tokio_util::sync::CancellationToken;

use crate::cli::{Following, Trigger};
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::{Ended, Exit};
use crate::follow::{Breadth, Follow};
use crate::out::Out;
use crate::signals::Signals;
use crate::view;

pub(crate) async fn run(
    connection: &Connection,
    arguments: Trigger,
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    let mut request = TriggerRequest::default();
    for (name, value) in arguments.parameters {
        if request.parameters.insert(name.clone(), value).is_some() {
            return Err(Ended::failed(format!("parameter {name:?} is given twice")));
        }
    }
    let triggered = client
        .trigger(&arguments.job, &request, &new_request_id()?)
        .await?;
    after(connection, triggered, &arguments.following, out).await
}

/// Names the build, or follows it to its end. That a build was skipped is no failure: the job is
/// meant to be so.
pub(crate) async fn after(
    connection: &Connection,
    triggered: Triggered,
    following: &Following,
    out: &mut Out,
) -> Result<Exit> {
    if following.json {
        out.json(&triggered)?;
        return Ok(Exit::Ok);
    }
    let build = match triggered {
        Triggered::Build(build) => build,
        Triggered::Skipped { skipped } => {
            out.line(format_args!("skipped: {skipped} is still running"))?;
            return Ok(Exit::Ok);
        }
    };
    if !following.follow {
        out.line(&build)?;
        return Ok(Exit::Ok);
    }
    out.say(format_args!("following {build}"))?;
    let client = connection.patient_client()?;
    let mut signals = Signals::listen()?;
    let done = tokio::select! {
        exit = to_its_end(client, build.clone(), out) => Some(exit),
        () = at_most(following.timeout) => None,
        () = signals.next() => {
            out.say(format_args!("{build} goes on; `distci cancel '{build}'` stops it"))?;
            return Ok(Exit::Interrupted);
        }
    };
    if let Some(exit) = done {
        return exit;
    }
    out.say(format_args!("{build} is not over yet, and goes on"))?;
    Ok(Exit::TimedOut)
}

async fn at_most(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

async fn to_its_end(client: Client, build: BuildRef, out: &mut Out) -> Result<Exit> {
    let follow = Follow {
        client: client.clone(),
        breadth: Breadth::Builds,
        cancel: CancellationToken::new(),
    };
    let mut exits = Vec::new();
    for view in follow.run(vec![build], out).await? {
        let paint = out.talk_paint();
        let artifacts = client.artifacts(&view.build).await?;
        let summary = view::build(&view, now(), paint);
        for line in summary.iter().chain(&view::artifacts(&artifacts, paint)) {
            out.say(line)?;
        }
        exits.push(Exit::of_outcome(view.outcome.as_ref()));
    }
    Ok(Exit::of_all(exits))
}
