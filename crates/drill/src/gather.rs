//! All that a cluster shows when everything is over.
//!
//! Owns the reading of builds, journals and consoles through the public API, and what scripts tell of
//! themselves on those. Judges nothing; what it cannot read is a flaw.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use distci_checker::history::{Bytes, Copied, History, Seen, Work};
use distci_client::{Client, ClientError, ConsoleFrom};
use distci_model::build::{Cause, Finished};
use distci_model::capability::Kind;
use distci_model::id::{Attempt, BuildRef, JobId, TaskName};
use distci_model::wire::{BuildSummary, BuildView, TaskState, TaskView};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::{Instant, sleep};

use crate::book::{AttemptId, Pages};
use crate::words::Told;

/// How long the last builds may take when nothing hurts the cluster any more.
const LAST: Duration = Duration::from_mins(5);
/// Between two looks whether all is over.
const LOOK: Duration = Duration::from_millis(500);
/// How long a reading is tried: nothing hurts the cluster any more.
const READING: Duration = Duration::from_secs(20);
/// Builds that are read at once.
const AT_ONCE: usize = 8;

/// Waits until every build of these jobs is over, but not for ever; gives their numbers.
pub(crate) async fn settle(client: &Client, jobs: &[&JobId]) -> Result<Vec<BuildRef>> {
    let end = Instant::now() + LAST;
    loop {
        let mut all = Vec::new();
        let mut open = 0;
        for job in jobs {
            for build in builds(client, job).await? {
                open += usize::from(build.finished.is_none());
                all.push(BuildRef {
                    job: (*job).clone(),
                    number: build.number,
                });
            }
        }
        // What a build triggers is posted before it is over: nothing more comes.
        if open == 0 || Instant::now() > end {
            return Ok(all);
        }
        sleep(LOOK).await;
    }
}

async fn builds(client: &Client, job: &JobId) -> Result<Vec<BuildSummary>> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = client.builds(job, cursor.as_deref()).await?;
        all.extend(page.items);
        let Some(next) = page.next else {
            return Ok(all);
        };
        cursor = Some(next);
    }
}

/// Reads all builds, and adds what the book says.
pub(crate) async fn history(
    client: &Client,
    builds: Vec<BuildRef>,
    downstream: Vec<JobId>,
    pages: Pages,
) -> Result<History> {
    let client = &client.clone().with_deadline(READING);
    let read: Vec<(Seen, Vec<Work>)> = stream::iter(builds)
        .map(|build| async move {
            read(client, &build)
                .await
                .with_context(|| build.to_string())
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let mut history = History {
        posts: pages.posts.into_values().collect(),
        downstream,
        flaws: pages.refusals,
        ..History::default()
    };
    for (seen, mut works) in read {
        for work in &mut works {
            let id: AttemptId = (work.build.clone(), work.task.clone(), work.attempt);
            work.acknowledged = pages.shown.contains(&id);
        }
        history.works.extend(works);
        history.builds.push(seen);
    }
    Ok(history)
}

/// One build with everything that its tasks told.
async fn read(client: &Client, build: &BuildRef) -> Result<(Seen, Vec<Work>)> {
    let number = build.number.to_string();
    let view = client.build(&build.job, &number).await?;
    let journal = client.journal(build).await?;
    let mut consoles = BTreeMap::new();
    let mut works = Vec::new();
    for task in &view.tasks {
        let accepted = match &task.state {
            TaskState::Finished { run } if run.worker.is_some() => Some(&**run),
            _ => None,
        };
        if task.kind != Kind::ExecuteShell {
            works.extend(accepted.map(|run| silent(build, task, run)));
            continue;
        }
        for attempt in (1..=task.state.attempt().get()).map(Attempt::new) {
            let run = accepted.filter(|run| run.attempt == attempt);
            match console(client, build, &task.name, attempt).await {
                Ok(Some(console)) => {
                    let told = Told::read(&console);
                    if let Some(run) = run {
                        consoles.insert(task.name.clone(), shown(&told, run, console.len()));
                    }
                    let unheard = || Some(unheard(build, task, run?, "it tells of no beginning"));
                    works.extend(work(&view, &task.name, attempt, told).or_else(unheard));
                }
                Ok(None) => {}
                Err(error) if error.is_passing() => {
                    let why = error.to_string();
                    works.extend(run.map(|run| unheard(build, task, run, &why)));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let seen = Seen {
        view,
        journal,
        consoles,
    };
    Ok((seen, works))
}

/// The console of the attempt that counts, which is as long as its result says, or it is not whole.
fn shown(told: &Told, run: &Finished, length: usize) -> Bytes {
    let mut shown = told.kept.clone();
    let said = run.result.console_bytes;
    if said != length as u64 {
        shown.digest = format!("{length} bytes, of {said}");
    }
    shown
}

/// What an attempt did, if it came so far as to say that it began.
fn work(view: &BuildView, task: &TaskName, attempt: Attempt, told: Told) -> Option<Work> {
    let began = told.began?;
    let copied = told.copied.and_then(|what| match &view.cause {
        Cause::Upstream { build } => Some(Copied {
            build: build.clone(),
            task: "join".parse().ok()?,
            what,
        }),
        _ => None,
    });
    // Who says that it ended, but not what it wrote, has lost the end of its console.
    let torn = || Bytes {
        length: 0,
        digest: "the last line is missing".to_owned(),
    };
    let ended = told.ended;
    Some(Work {
        build: view.build.clone(),
        task: task.clone(),
        attempt,
        began,
        ended: ended.map(|(at, _)| at),
        verdict: ended.map(|(_, verdict)| verdict),
        acknowledged: false,
        console: ended.map(|_| told.wrote.unwrap_or_else(torn)),
        made: told.made,
        found: told.found,
        copied: copied.into_iter().collect(),
        locks: told.locks,
    })
}

/// An attempt that counts, but whose console cannot be read or tells nothing.
fn unheard(build: &BuildRef, task: &TaskView, run: &Finished, why: &str) -> Work {
    Work {
        console: Some(Bytes {
            length: run.result.console_bytes,
            digest: format!("unknown: {why}"),
        }),
        ..silent(build, task, run)
    }
}

/// A task that runs no script tells nothing: its work is seen in what others find.
fn silent(build: &BuildRef, task: &TaskView, run: &Finished) -> Work {
    Work {
        build: build.clone(),
        task: task.name.clone(),
        attempt: run.attempt,
        began: run.started.unwrap_or(run.finished),
        ended: Some(run.finished),
        verdict: Some(run.result.outcome.verdict()),
        acknowledged: false,
        console: None,
        made: None,
        found: BTreeMap::new(),
        copied: Vec::new(),
        locks: BTreeMap::new(),
    }
}

/// All bytes of a console; none if the attempt never wrote any.
async fn console(
    client: &Client,
    build: &BuildRef,
    task: &TaskName,
    attempt: Attempt,
) -> Result<Option<Vec<u8>>, ClientError> {
    let mut bytes = Vec::new();
    loop {
        let from = ConsoleFrom {
            attempt: Some(attempt),
            offset: bytes.len() as u64,
        };
        let read = client.console(build, task, from, Duration::ZERO).await;
        let chunk = match read {
            Ok(chunk) => chunk,
            Err(ClientError::NotFound(_)) if bytes.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(&chunk.bytes);
        if chunk.bytes.is_empty() || bytes.len() as u64 >= chunk.length {
            return Ok(Some(bytes));
        }
    }
}
