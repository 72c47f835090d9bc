//! How long builds and their parts take.

use std::time::{Duration, Instant};

use anyhow::Context;
use distci_client::{Client, ConsoleFrom};
use distci_model::id::BuildRef;

use crate::raw::Limits;
use crate::report::{Report, Times};
use crate::rig::{Server, finish, set_job, shell, trigger, waiting_control};

pub(crate) async fn measure(report: &mut Report, limits: &Limits) -> anyhow::Result<()> {
    if report.wants("post to claim") {
        post_to_claim(report, limits).await?;
    }
    let server = Server::standalone(4).await?;
    for (tasks, target) in [(1, "p50 < 50 ms"), (5, "p50 < 150 ms")] {
        let figure = format!("build of {tasks} `true` task(s)");
        if report.wants(&figure) {
            trigger_to_finish(report, limits, &server, (tasks, &figure, target)).await?;
        }
    }
    if report.wants("16 triggers at once") {
        triggers_at_once(report, limits, &server).await?;
    }
    if report.wants("200 builds at once") {
        many_builds(report, limits, &server).await?;
    }
    if report.wants("line to follower") {
        line_to_follower(report, limits, &server).await?;
    }
    Ok(())
}

/// From the sending of a trigger to a waiting worker's holding the claim of its control ticket.
async fn post_to_claim(report: &mut Report, limits: &Limits) -> anyhow::Result<()> {
    let server = Server::frontend().await?;
    let job = set_job(&server.client, "bench", shell("true", 1)).await?;
    let mut times = Times::new()?;
    for round in 0..220 {
        let mut waiting = waiting_control(&server.client).await?;
        let start = Instant::now();
        trigger(&server.client, &job).await?;
        let (end, claim) = waiting.join_next().await.context("no worker")??;
        claim?.context("no claim")?;
        if round >= 20 {
            times.add(end.duration_since(start));
        }
    }
    let raw = format!(
        "{:.2} ms: 2 commits, 2 echoes",
        2.0 * limits.commit + 2.0 * limits.echo
    );
    report.add("post to claim", times.to_string(), "p50 < 2 ms", raw);
    Ok(())
}

async fn trigger_to_finish(
    report: &mut Report,
    limits: &Limits,
    server: &Server,
    (tasks, figure, target): (usize, &str, &str),
) -> anyhow::Result<()> {
    let job = set_job(
        &server.client,
        &format!("true-{tasks}"),
        shell("true", tasks),
    )
    .await?;
    let mut times = Times::new()?;
    for round in 0..60 {
        let start = Instant::now();
        let build = trigger(&server.client, &job).await?;
        finish(&server.client, &build).await?;
        if round >= 10 {
            times.add(start.elapsed());
        }
    }
    let commits = 3 + 4 * u32::try_from(tasks)?;
    let shells = f64::from(u32::try_from(tasks)?) * limits.shell;
    let raw = f64::from(commits) * limits.commit + shells;
    let raw = format!("{raw:.1} ms: {commits} commits, {tasks} `sh -c true`");
    report.add(figure, times.to_string(), target, raw);
    Ok(())
}

async fn triggers_at_once(
    report: &mut Report,
    limits: &Limits,
    server: &Server,
) -> anyhow::Result<()> {
    let job = set_job(&server.client, "at-once", shell("true", 1)).await?;
    let start = Instant::now();
    let builds =
        futures::future::try_join_all((0..16).map(|_| trigger(&server.client, &job))).await?;
    let took = start.elapsed();
    for build in &builds {
        finish(&server.client, build).await?;
    }
    let numbers: std::collections::BTreeSet<_> = builds.iter().map(|build| build.number).collect();
    let measured = format!(
        "{} builds in {:.1} ms",
        numbers.len(),
        took.as_secs_f64() * 1000.0
    );
    let raw = format!("{:.1} ms: 16 commits", 16.0 * limits.commit);
    report.add("16 triggers at once", measured, "16 builds < 1 s", raw);
    Ok(())
}

async fn many_builds(report: &mut Report, limits: &Limits, server: &Server) -> anyhow::Result<()> {
    let job = set_job(&server.client, "many", shell("true", 1)).await?;
    let start = Instant::now();
    let builds =
        futures::future::try_join_all((0..200).map(|_| trigger(&server.client, &job))).await?;
    for build in &builds {
        finish(&server.client, build).await?;
    }
    let rate = 200.0 / start.elapsed().as_secs_f64() * 60.0;
    let raw = format!(
        "{:.0} `sh -c true` a minute, 4 at a time",
        limits.shells_a_minute
    );
    report.add(
        "200 builds at once, 4 slots",
        format!("{rate:.0} a minute"),
        "> 2000 a minute",
        raw,
    );
    Ok(())
}

/// From a script's printing of a line to a follower's reading it.
async fn line_to_follower(
    report: &mut Report,
    limits: &Limits,
    server: &Server,
) -> anyhow::Result<()> {
    let job = set_job(&server.client, "lines", shell(LINES, 1)).await?;
    let build = trigger(&server.client, &job).await?;
    let times = follow(&server.client, &build).await?;
    finish(&server.client, &build).await?;
    let raw = format!("{:.2} ms: 2 echoes", 2.0 * limits.echo);
    report.add("line to follower", times.to_string(), "p50 < 200 ms", raw);
    Ok(())
}

/// Prints the time, a line each; the pauses let no line wait for the one before it.
pub(crate) const LINES: &str =
    "i=0\nwhile [ $i -lt 60 ]; do date +%s%N; sleep 0.13; i=$((i+1)); done";

/// Follows a build of [`LINES`] to its end: how old each line is when it is read.
pub(crate) async fn follow(client: &Client, build: &BuildRef) -> anyhow::Result<Times> {
    let task = "execute-shell".parse()?;
    let (mut times, mut offset, mut rest) = (Times::new()?, 0, Vec::new());
    loop {
        let from = ConsoleFrom {
            attempt: None,
            offset,
        };
        let wait = Duration::from_secs(10);
        let Ok(chunk) = client.console(build, &task, from, wait).await else {
            // The task has not begun.
            tokio::task::yield_now().await;
            continue;
        };
        let now = std::time::UNIX_EPOCH.elapsed()?;
        offset += chunk.bytes.len() as u64;
        rest.extend_from_slice(&chunk.bytes);
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Ok(nanos) = String::from_utf8_lossy(&line).trim().parse() {
                times.add(now.saturating_sub(Duration::from_nanos(nanos)));
            }
        }
        if chunk.complete {
            return Ok(times);
        }
    }
}
