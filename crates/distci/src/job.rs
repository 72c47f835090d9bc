//! `distci job set|get|history|diff|rm`: configurations of jobs.

use std::path::Path;

use anyhow::Result;
use distci_client::{Client, ClientError};
use distci_model::id::JobId;
use distci_model::revision::{Fate, compare};
use distci_model::wire::{JobView, Page};
use owo_colors::Style;

use crate::cli::Job;
use crate::clock::now;
use crate::connection::Connection;
use crate::diagnosis::JobFile;
use crate::exit::{Ended, Exit};
use crate::out::Out;
use crate::table::Table;
use crate::view;

pub(crate) async fn run(connection: &Connection, deed: Job, out: &mut Out) -> Result<Exit> {
    match deed {
        Job::Set {
            file,
            if_revision,
            json,
        } => set(connection, &file, if_revision, json, out).await,
        Job::Get {
            job,
            revision,
            json,
        } => get(connection, &job, revision, json, out).await,
        Job::History { job, limit, json } => history(connection, &job, limit, json, out).await,
        Job::Diff { job, before, after } => diff(connection, &job, (before, after), out).await,
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

async fn get(
    connection: &Connection,
    job: &JobId,
    revision: Option<u32>,
    json: bool,
    out: &mut Out,
) -> Result<Exit> {
    let view = read(&connection.client()?, job, revision).await?;
    if json {
        out.json(&view)?;
    } else {
        out.json(&view.configuration)?;
    }
    Ok(Exit::Ok)
}

/// A job as it is, or as it was at a revision.
async fn read(client: &Client, job: &JobId, revision: Option<u32>) -> Result<JobView> {
    Ok(match revision {
        Some(revision) => client.revision(job, revision).await?,
        None => client.job(job).await?,
    })
}

async fn history(
    connection: &Connection,
    job: &JobId,
    limit: usize,
    json: bool,
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    let (mut items, mut next) = (Vec::new(), None);
    loop {
        let page = client.revisions(job, next.as_deref()).await?;
        items.extend(page.items);
        next = page.next;
        if next.is_none() || items.len() >= limit {
            break;
        }
    }
    let is_whole = next.is_none() && items.len() <= limit;
    items.truncate(limit);
    if json {
        let next = items.last().filter(|_| !is_whole);
        let next = next.map(|last| last.revision.to_string());
        out.json(&Page { items, next })?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["REVISION", "AGE", "HASH"]);
    for one in &items {
        let age = one.since.map(|since| view::age(since, now()));
        let hash: String = one.hash.chars().take(12).collect();
        table.row([
            one.revision.into(),
            age.unwrap_or_default().into(),
            hash.into(),
        ]);
    }
    view::print(&table, "no revisions", out)?;
    let last = items.last().map_or(1, |last| last.revision);
    if is_whole && last > 1 {
        out.say(format_args!("those before {last} were not noted"))?;
    }
    Ok(Exit::Ok)
}

/// Prints a patch of the configuration as `job get` prints it. As with diff, to find a difference is
/// no failure here: whoever asks wants one.
async fn diff(
    connection: &Connection,
    job: &JobId,
    (before, after): (u32, Option<u32>),
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    let (before, after) = (
        read(&client, job, Some(before)).await?,
        read(&client, job, after).await?,
    );
    let text = |view: &JobView| serde_json::to_string_pretty(&view.configuration);
    let hunks = compare(&text(&before)?, &text(&after)?);
    if hunks.is_empty() {
        out.say("the two are the same")?;
        return Ok(Exit::Ok);
    }
    let paint = out.data_paint();
    let bold = Style::new().bold();
    out.line(paint.paint(format_args!("--- {job} revision {}", before.revision), bold))?;
    out.line(paint.paint(format_args!("+++ {job} revision {}", after.revision), bold))?;
    for hunk in &hunks {
        out.line(paint.paint(hunk, Style::new().cyan()))?;
        for line in &hunk.0 {
            let style = match line.fate {
                Fate::Kept => Style::new(),
                Fate::Gone => Style::new().red(),
                Fate::New => Style::new().green(),
            };
            let text = format!("{}{}", line.fate.sign(), view::plain(&line.text));
            out.line(paint.paint(text, style))?;
        }
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
