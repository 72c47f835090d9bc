//! `distci job set|get|rm`: configurations of jobs.

use std::path::Path;

use anyhow::Result;
use distci_client::ClientError;
use distci_model::id::JobId;

use crate::cli::Job;
use crate::connection::Connection;
use crate::diagnosis::JobFile;
use crate::exit::{Ended, Exit};
use crate::out::Out;

pub(crate) async fn run(connection: &Connection, deed: Job, out: &mut Out) -> Result<Exit> {
    match deed {
        Job::Set {
            file,
            if_revision,
            json,
        } => set(connection, &file, if_revision, json, out).await,
        Job::Get { job, json } => get(connection, &job, json, out).await,
        Job::Rm { jobs } => remove(connection, &jobs, out).await,
    }
}

async fn set(
    connection: &Connection,
    path: &Path,
    expect: Option<u32>,
    json: bool,
    out: &mut Out,
) -> Result<Exit> {
    let file = JobFile::read(path)?;
    // The frontend would refuse it too, but cannot show the line.
    let job = file.config(out)?.job_id.clone();
    let client = connection.client()?;
    let view = match client.set_job(&job, file.text.clone(), expect).await {
        Err(ClientError::Conflict(problem)) if expect.is_some() => {
            let advice = format!("see `distci job get {job} --json`");
            return Err(Ended::failed(format!("{} ({advice})", problem.detail)));
        }
        view => view?,
    };
    if json {
        out.json(&view)?;
    } else {
        out.line(format_args!("{} revision {}", view.job, view.revision))?;
    }
    Ok(Exit::Ok)
}

async fn get(connection: &Connection, job: &JobId, json: bool, out: &mut Out) -> Result<Exit> {
    let view = connection.client()?.job(job).await?;
    if json {
        out.json(&view)?;
    } else {
        out.json(&view.configuration)?;
    }
    Ok(Exit::Ok)
}

async fn remove(connection: &Connection, jobs: &[JobId], out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    for job in jobs {
        client.remove_job(job).await?;
        out.say(format_args!("removed {job}"))?;
    }
    Ok(Exit::Ok)
}
