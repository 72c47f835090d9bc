//! The page of a build with many tasks, at the server.

use distci_model::wire::{BuildView, TaskState};
use serde_json::{Value, json};

use super::Site;
use super::http::{Copy, Line};
use crate::report::Report;
use crate::rig::{finish, set_job, trigger, watch};

pub(super) const FINISHED: &str = "pages: a build of 20 tasks, finished";
pub(super) const RUNNING: &str = "pages: a build of 20 tasks, running";
/// The job of such builds, of which the first is finished.
pub(super) const JOB: &str = "graph";

const TARGET: &str = "< 20 ms";

/// Five rows of four tasks, each of which needs two of the row before; the scripts of the first row and
/// of the last task.
pub(super) fn tasks(first: &str, last: &str) -> Value {
    let name = |row: usize, column: usize| format!("t{row}{column}");
    let task = |number: usize| {
        let (row, column) = (number / 4, number % 4);
        let needs = match row {
            0 => Vec::new(),
            _ => vec![name(row - 1, column), name(row - 1, (column + 1) % 4)],
        };
        let script = match number {
            0..4 => first,
            19 => last,
            _ => "true",
        };
        json!({ "name": name(row, column), "type": "execute-shell", "needs": needs,
            "params": { "script": script } })
    };
    (0..20).map(task).collect()
}

pub(super) async fn measure(
    report: &mut Report,
    site: &Site<'_>,
    place: &str,
) -> anyhow::Result<()> {
    let mut line = Line::open(site.url, &site.token).await?;
    let job = set_job(site.client, JOB, tasks("true", "true")).await?;
    let build = trigger(site.client, &job).await?;
    finish(site.client, &build).await?;
    page(
        report,
        &mut line,
        &format!("/jobs/{JOB}/builds/1"),
        &format!("{place}{FINISHED}"),
    )
    .await?;
    set_job(site.client, JOB, tasks("true", "sleep 600")).await?;
    let build = trigger(site.client, &job).await?;
    let last_runs = |view: &BuildView| {
        let last = view.tasks.last();
        last.is_some_and(|task| matches!(task.state, TaskState::Running { .. }))
    };
    watch(site.client, &build, last_runs).await?;
    page(
        report,
        &mut line,
        &format!("/jobs/{JOB}/builds/2"),
        &format!("{place}{RUNNING}"),
    )
    .await?;
    site.client.cancel(&build).await?;
    finish(site.client, &build).await?;
    Ok(())
}

async fn page(
    report: &mut Report,
    line: &mut Line,
    path: &str,
    figure: &str,
) -> anyhow::Result<()> {
    let copy = Copy::of(line, &[path]).await?;
    let (times, bytes) = line.times(path).await?;
    let raw = format!(
        "{}: the same {bytes} bytes from memory",
        copy.times(path).await?
    );
    report.add(figure, times.to_string(), TARGET, raw);
    Ok(())
}
