//! How long builds and their parts take on a cluster, and what they cost its servers.

use std::time::Instant;

use anyhow::Context;
use distci_client::Client;
use distci_model::decide::decide;
use distci_model::wire::{Claim, CommitRequest, Held, Standing, Work};

use super::limits::Limits;
use super::rig::{Cluster, Written};
use crate::builds::{LINES as SCRIPT, follow};
use crate::report::{Report, Times};
use crate::rig::{finish, set_job, shell, trigger, waiting_control};

pub(super) const CLAIM: &str = "cluster: post to claim";
pub(super) const BUILD: &str = "cluster: build of 1 `true` task";
pub(super) const ROW: &str = "cluster: build of 5 `true` tasks in a row";
pub(super) const WRITES: &str = "cluster: writes of a build of 1 task";
pub(super) const MORE_WRITES: &str = "cluster: writes of each further task";
pub(super) const MANY: &str = "cluster: 200 builds at once, 4 slots";
pub(super) const LINES: &str = "cluster: line to follower at another frontend";

/// Commits of a build of so many tasks in a row (docs/architecture.md).
const fn commits(tasks: u32) -> u32 {
    4 * tasks + 3
}

pub(super) async fn measure(
    report: &mut Report,
    limits: &Limits,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    if report.wants(CLAIM) {
        post_to_claim(report, limits, cluster).await?;
    }
    let workers = cluster.workers(4).await?;
    if report.wants(BUILD) {
        let aim = "p50 < 100 ms (200 ms)";
        trigger_to_finish(report, limits, cluster, (BUILD, 1, aim)).await?;
    }
    if report.wants(ROW) {
        trigger_to_finish(report, limits, cluster, (ROW, 5, "p50 < 400 ms")).await?;
    }
    if report.wants(WRITES) || report.wants(MORE_WRITES) {
        writes(report, cluster).await?;
    }
    if report.wants(MANY) {
        many_builds(report, limits, cluster).await?;
    }
    drop(workers);
    if report.wants(LINES) {
        line_to_follower(report, limits, cluster).await?;
    }
    Ok(())
}

/// From the sending of a trigger to each of the frontends in turn, until a worker that waits at the
/// first of them holds the claim of the control ticket.
async fn post_to_claim(
    report: &mut Report,
    limits: &Limits,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let job = set_job(&cluster.client, "claimed", shell("true", 1)).await?;
    let first = cluster.frontends.first().context("no frontend")?;
    let (mut same, mut other) = (Times::new()?, Times::new()?);
    let mut builds = Vec::new();
    for (round, frontend) in (0..330).zip(cluster.frontends.iter().cycle()) {
        let mut waiting = waiting_control(&first.client).await?;
        if round == 0 {
            cluster.is_told().await;
        }
        let start = Instant::now();
        builds.push(trigger(&frontend.client, &job).await?);
        let (end, claim) = waiting.join_next().await.context("no worker")??;
        decide_first(&first.client, claim?.context("no claim")?).await?;
        if round >= 30 {
            let times = if frontend.url == first.url {
                &mut same
            } else {
                &mut other
            };
            times.add(end.duration_since(start));
        }
    }
    let measured = format!("{other}; posted where the worker waits: {same}");
    let raw = limits.multis(2) + 2.0 * limits.echo;
    let raw = format!("{raw:.2} ms: 2 multis, 2 echoes");
    report.add(CLAIM, measured, "p50 < 10 ms, p99 < 50 ms", raw);
    // Others do the rest, before anything else is measured.
    let workers = cluster.workers(2).await?;
    for build in &builds {
        finish(&cluster.client, build).await?;
    }
    drop(workers);
    Ok(())
}

/// Commits what a worker of build control would: the build's task is posted, and the claim is over.
async fn decide_first(client: &Client, claim: Claim) -> anyhow::Result<()> {
    let Work::Control { order } = claim.work else {
        anyhow::bail!("a task where a decision was asked for");
    };
    let request = CommitRequest {
        mailbox: order.mailbox,
        decision: decide(&order.config, &order.build, &order.events),
    };
    let held = Held {
        ticket: claim.ticket,
        attempt: claim.attempt,
        standing: Standing::Held,
    };
    client.commit(&held, &request).await?;
    Ok(())
}

async fn trigger_to_finish(
    report: &mut Report,
    limits: &Limits,
    cluster: &Cluster,
    (figure, tasks, aim): (&str, u32, &str),
) -> anyhow::Result<()> {
    let count = usize::try_from(tasks)?;
    let job = set_job(
        &cluster.client,
        &format!("true-{tasks}"),
        shell("true", count),
    )
    .await?;
    let mut times = Times::new()?;
    for (_, frontend) in (0..200 / count).zip(cluster.frontends.iter().cycle()) {
        let start = Instant::now();
        let build = trigger(&frontend.client, &job).await?;
        finish(&frontend.client, &build).await?;
        times.add(start.elapsed());
    }
    let commits = commits(tasks);
    let raw = limits.multis(commits) + limits.put + f64::from(tasks) * limits.shell;
    let raw = format!("{raw:.1} ms: {commits} multis, a PUT, {tasks} `sh -c true`");
    report.add(figure, times.to_string(), aim, raw);
    Ok(())
}

/// Counted by the leader: everything that it orders has a number of its own.
async fn writes(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    const BUILDS: u32 = 50;
    let mut totals = Vec::new();
    for tasks in [1, 5] {
        let job = set_job(
            &cluster.client,
            &format!("writes-{tasks}"),
            shell("true", tasks),
        )
        .await?;
        finish(&cluster.client, &trigger(&cluster.client, &job).await?).await?;
        let writes = cluster.writes().await?;
        for (_, frontend) in (0..BUILDS).zip(cluster.frontends.iter().cycle()) {
            let build = trigger(&frontend.client, &job).await?;
            finish(&frontend.client, &build).await?;
        }
        totals.push(writes.count()?);
    }
    let [one, five] = totals.as_slice() else {
        anyhow::bail!("two counts");
    };
    let each = |count: u32| f64::from(count) / f64::from(BUILDS);
    let told = |written: &Written| {
        format!(
            "cards {:.2}, digests {:.2}",
            each(written.cards),
            each(written.digests)
        )
    };
    let measured = format!("{:.2}; of these {}", each(one.all), told(one));
    report.add(WRITES, measured, "≤ 8", format!("{}", commits(1)));
    let more = (each(five.all) - each(one.all)) / 4.0;
    let measured = format!("{more:.2} (a build of 5 has {})", told(five));
    report.add(MORE_WRITES, measured, "≤ 4", String::from("4"));
    Ok(())
}

async fn many_builds(
    report: &mut Report,
    limits: &Limits,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let job = set_job(&cluster.client, "many", shell("true", 1)).await?;
    let lost_before = cluster.metric("distci_claim_races_lost_total").await?;
    let claims_before = cluster.metric("distci_claims_total").await?;
    let writes = cluster.writes().await?;
    let start = Instant::now();
    let frontends = cluster.frontends.iter().cycle().take(200);
    let builds =
        futures::future::try_join_all(frontends.map(|frontend| trigger(&frontend.client, &job)))
            .await?;
    let posted = start.elapsed();
    for build in &builds {
        finish(&cluster.client, build).await?;
    }
    let rate = 200.0 / start.elapsed().as_secs_f64() * 60.0;
    let written = f64::from(writes.count()?.all) / 200.0;
    let lost = cluster.metric("distci_claim_races_lost_total").await? - lost_before;
    let claims = cluster.metric("distci_claims_total").await? - claims_before;
    let share = 100.0 * lost / (lost + claims);
    let measured = format!(
        "{rate:.0} a minute (all posted after {:.0} ms), {share:.1} % of claims lost \
         ({lost} of {}), {written:.1} writes a build",
        posted.as_secs_f64() * 1000.0,
        lost + claims,
    );
    let raw = limits.multis_a_second * 60.0 / f64::from(commits(1));
    let raw = format!(
        "{raw:.0} a minute: {:.0} multis/s, {} a build",
        limits.multis_a_second,
        commits(1)
    );
    report.add(MANY, measured, "≥ 1500 a minute, ≤ 2 % lost", raw);
    Ok(())
}

/// The worker knows the first frontend alone, and the follower the second.
async fn line_to_follower(
    report: &mut Report,
    limits: &Limits,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let [first, second, ..] = cluster.frontends.as_slice() else {
        anyhow::bail!("two frontends");
    };
    let worker = cluster.worker_of(&first.url, &["--slots", "1"])?;
    let job = set_job(&cluster.client, "lines", shell(SCRIPT, 1)).await?;
    let build = trigger(&cluster.client, &job).await?;
    let times = follow(&second.client, &build).await?;
    finish(&cluster.client, &build).await?;
    drop(worker);
    let raw = format!(
        "{:.1} ms: a PUT, a GET, 3 echoes",
        limits.put + limits.get + 3.0 * limits.echo
    );
    report.add(LINES, times.to_string(), "p50 < 150 ms, p99 < 500 ms", raw);
    Ok(())
}
