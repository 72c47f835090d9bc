//! `distci exec FILE…`: job files, here and now.
//!
//! Owns a DistCI for the time of a few builds: the same store, frontend, worker and API as
//! everywhere, in a folder that goes away afterwards unless one was given.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use anyhow::Result;
use distci_client::{Client, new_request_id};
use distci_frontend::HookSecrets;
use distci_isolation::Images;
use distci_model::build::Downstream;
use distci_model::config::JobConfig;
use distci_model::id::BuildRef;
use distci_model::isolation::{Driver, ImageName};
use distci_model::wire::{BuildView, TriggerRequest, Triggered};
use distci_store::Store;
use tokio_util::sync::CancellationToken;

use crate::cli::Exec;
use crate::clock::now;
use crate::connection::{Connection, new_token};
use crate::diagnosis::JobFile;
use crate::exit::{Ended, Exit};
use crate::fetch::{choose, fetch};
use crate::follow::{Breadth, Follow};
use crate::local::{Local, Place};
use crate::out::Out;
use crate::plan::Plan;
use crate::signals::Signals;
use crate::{view, worker};

mod room;

use room::Room;

pub(crate) async fn run(
    connection: &Connection,
    mut arguments: Exec,
    out: &mut Out,
) -> Result<Exit> {
    let files = arguments
        .files
        .iter()
        .map(|path| JobFile::read(path))
        .collect::<Result<Vec<_>>>()?;
    let plan = plan(&files, &mut arguments, out)?;
    let mut signals = Signals::listen()?;
    let room = Room::make(connection.data.as_deref())?;
    let mut local = start(&room, &arguments, &plan).await?;
    let client = local.client()?;

    let cancel = CancellationToken::new();
    let mut console = arguments
        .json
        .then(|| Out::of_process().with_data_as_talk());
    let screen = console.as_mut().unwrap_or(out);
    let building = build(&client, &files, &plan, &cancel, screen);
    let ended = match attend(building, &mut local, &mut signals, &cancel).await {
        Ok(Some(ended)) => ended,
        unfinished => {
            // The folder goes away after those who write to it.
            local.abandon().await;
            return unfinished.map(|_| Exit::Interrupted);
        }
    };
    let shown = report(&client, &ended, &arguments, out).await;
    local.stop().await?;
    shown?;
    room.clear()?;
    Ok(verdict(&ended))
}

/// Waits for the builds to end. The first interrupt cancels them; the second gives nothing.
async fn attend(
    building: impl Future<Output = Result<Vec<BuildView>>>,
    local: &mut Local,
    signals: &mut Signals,
    cancel: &CancellationToken,
) -> Result<Option<Vec<BuildView>>> {
    let mut building = pin!(building);
    loop {
        tokio::select! {
            ended = &mut building => return ended.map(Some),
            error = local.failed() => return Err(error),
            () = signals.next() => {
                if cancel.is_cancelled() {
                    return Ok(None);
                }
                cancel.cancel();
            }
        }
    }
}

fn plan(files: &[JobFile], arguments: &mut Exec, out: &mut Out) -> Result<Plan> {
    let mut jobs: Vec<&JobConfig> = Vec::new();
    for file in files {
        jobs.push(file.config(out)?);
    }
    find_images(&jobs, arguments)?;
    let drivers = &mut arguments.machine.drivers;
    if drivers.is_empty() && !jobs.iter().any(|job| may_want_images(job)) {
        // Trying the others out takes longer than many a build.
        drivers.push(Driver::Process);
    }
    Plan::of(&jobs, &arguments.parameters).map_err(Ended::failed)
}

/// What a job's file in a repository asks for is not known yet.
fn may_want_images(job: &JobConfig) -> bool {
    let isolations = job
        .flat()
        .tasks
        .into_iter()
        .filter_map(|task| task.isolation);
    job.job_file.is_some()
        || isolations
            .into_iter()
            .any(|isolation| isolation.image.is_some())
}

/// Nobody else will ever offer an image that this machine does not have.
fn find_images(jobs: &[&JobConfig], arguments: &Exec) -> Result<()> {
    let wanted: BTreeSet<ImageName> = jobs
        .iter()
        .flat_map(|job| job.flat().tasks)
        .filter_map(|task| task.isolation?.image?.parse().ok())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let images = Images::at(worker::images(arguments.machine.images.clone())?);
    for name in wanted {
        images.get(&name).map_err(|error| {
            Ended::failed(format!("{error}; `distci image build` makes images"))
        })?;
    }
    Ok(())
}

async fn start(room: &Room, arguments: &Exec, plan: &Plan) -> Result<Local> {
    let place = Place {
        store: Store::embedded(room.path(), Arc::new(now))?,
        listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        token: new_token()?,
        hooks: HookSecrets::default(),
        public_url: None,
        dead_worker: None,
    };
    let mut local = Local::start(place).await?;
    let directory = room.path().join("worker");
    local.start_worker(distci_worker::Settings {
        // Who runs a file here means this machine, whatever it is labelled.
        labels: worker::labels(plan.labels.clone()),
        git_credentials: arguments.git_credentials.clone(),
        ..worker::settings(
            worker::identity(worker::new_name()?)?,
            arguments.slots,
            directory,
            &arguments.machine,
        )?
    })?;
    Ok(local)
}

/// Sets all jobs, triggers the first ones and follows everything to its end.
async fn build(
    client: &Client,
    files: &[JobFile],
    plan: &Plan,
    cancel: &CancellationToken,
    out: &mut Out,
) -> Result<Vec<BuildView>> {
    for file in files {
        let job = &file.config(out)?.job_id;
        client.set_job(job, file.text.clone(), None).await?;
    }
    let mut builds: Vec<BuildRef> = Vec::new();
    for (job, parameters) in &plan.first {
        let request = TriggerRequest {
            parameters: parameters.clone(),
        };
        match client.trigger(job, &request, &new_request_id()?).await? {
            Triggered::Build(build) => builds.push(build),
            Triggered::Skipped { skipped } => {
                out.say(format_args!("{job} is skipped: {skipped} is still running"))?;
            }
        }
    }
    let breadth = if files.len() == 1 {
        Breadth::Builds
    } else {
        Breadth::Downstream
    };
    let follow = Follow {
        client: client.clone(),
        breadth,
        cancel: cancel.clone(),
    };
    follow.run(builds, out).await
}

/// Says how the builds ended, and brings their artifacts to where they were wanted.
async fn report(
    client: &Client,
    ended: &[BuildView],
    arguments: &Exec,
    out: &mut Out,
) -> Result<()> {
    let paint = out.talk_paint();
    let mut published = 0;
    for build in ended {
        let artifacts = client.artifacts(&build.build).await?;
        published += artifacts.len();
        let summary = view::build(build, now(), paint);
        for line in summary.iter().chain(&view::artifacts(&artifacts, paint)) {
            out.say(line)?;
        }
        if let Some(directory) = &arguments.artifacts {
            let directory = directory
                .join(build.build.job.as_str())
                .join(build.build.number.to_string());
            let chosen = choose(artifacts, &[])?;
            if !chosen.is_empty() {
                fetch(client, &build.build, &chosen, &directory).await?;
                out.say(format_args!("  kept in {}", directory.display()))?;
            }
        }
    }
    if published > 0 && arguments.artifacts.is_none() {
        out.say("artifacts are not kept; --artifacts DIR keeps them")?;
    }
    if arguments.json {
        out.json(&ended)?;
    }
    Ok(())
}

fn verdict(ended: &[BuildView]) -> Exit {
    let refused = |downstream: &Downstream| matches!(downstream, Downstream::Refused { .. });
    Exit::of_all(ended.iter().map(|build| {
        let exit = Exit::of_outcome(build.outcome.as_ref());
        if exit == Exit::Ok && build.downstream.iter().any(refused) {
            return Exit::Failed;
        }
        exit
    }))
}
