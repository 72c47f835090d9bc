//! How long the death of one process keeps others waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use distci_client::Client;
use distci_model::id::{BuildRef, JobId};
use distci_model::wire::{BuildView, TaskState};

use super::rig::Cluster;
use crate::report::Report;
use crate::rig::{Worker, finish, metric, set_job, shell, shell_for, trigger, watch};

pub(super) const WORKER: &str = "cluster: worker killed, its attempt begun anew";
pub(super) const SERVERS: &str = "cluster: longest wait of a client, kill of";

/// How often the client of the deaths asks.
const PERIOD: Duration = Duration::from_millis(50);
/// How long it asks before and after.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(12);

pub(super) async fn measure(report: &mut Report, mut cluster: Cluster) -> anyhow::Result<()> {
    if report.wants(WORKER) {
        worker_dies(report, &cluster).await?;
    }
    if report.wants(SERVERS) {
        let workers = cluster.workers(4).await?;
        nothing_dies(report, &cluster).await?;
        frontend_dies(report, &mut cluster).await?;
        leader_dies(report, &cluster).await?;
        drop(workers);
    }
    Ok(())
}

async fn worker_dies(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let control = cluster.worker(&["--kind", "build-control"])?;
    let mortal = |cluster: &Cluster| -> anyhow::Result<Worker> {
        let words = [
            "--kind",
            "execute-shell",
            "--label",
            "mortal",
            "--slots",
            "1",
        ];
        cluster.worker(&words)
    };
    let first = mortal(cluster)?;
    let job = set_job(&cluster.client, "long", shell_for("mortal", "sleep 300")).await?;
    let build = trigger(&cluster.client, &job).await?;
    watch(&cluster.client, &build, |view| runs(view, 1)).await?;
    let second = mortal(cluster)?;
    // The claim was told of, and beats have been heard.
    tokio::time::sleep(AFTER).await;
    let start = Instant::now();
    drop(first);
    watch(&cluster.client, &build, |view| runs(view, 2)).await?;
    let measured = format!("{:.1} s", start.elapsed().as_secs_f64());
    let raw = String::from("30 s: the lease");
    report.add(WORKER, measured, "≤ 45 s", raw);
    cluster.client.cancel(&build).await?;
    finish(&cluster.client, &build).await?;
    drop((second, control));
    Ok(())
}

/// Whether a task of the build runs, in this attempt.
fn runs(view: &BuildView, wanted: u32) -> bool {
    let runs = |state: &TaskState| matches!(state, TaskState::Running { attempt, .. } if attempt.get() == wanted);
    view.tasks.iter().any(|task| runs(&task.state))
}

async fn nothing_dies(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let job = set_job(&cluster.client, "nothing-dies", shell("true", 1)).await?;
    let asked = ask_during(&cluster.client, &job, async || Ok(())).await?;
    asked.add_to(report, cluster, "nothing").await
}

/// The frontend dies that the client asks.
async fn frontend_dies(report: &mut Report, cluster: &mut Cluster) -> anyhow::Result<()> {
    let job = set_job(&cluster.client, "frontend-dies", shell("true", 1)).await?;
    let before = triggers(cluster).await?;
    let client = cluster.client.clone();
    let asked = ask_during(&client, &job, async || {
        let after = triggers(cluster).await?;
        let grown = after
            .iter()
            .zip(before)
            .map(|(after, before)| after - before);
        let most = grown.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let asked = most.and_then(|(index, _)| cluster.frontends.get_mut(index));
        asked.context("no frontend")?.kill();
        Ok(())
    })
    .await?;
    for frontend in &mut cluster.frontends {
        frontend.restart().await?;
    }
    asked.add_to(report, cluster, "its frontend").await
}

async fn leader_dies(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let job = set_job(&cluster.client, "leader-dies", shell("true", 1)).await?;
    let leader = cluster.zookeeper.leader()?;
    let kill = async || cluster.zookeeper.kill(leader);
    let asked = ask_during(&cluster.client, &job, kill).await?;
    cluster.zookeeper.restart(leader)?;
    asked.add_to(report, cluster, "the ZooKeeper leader").await
}

/// How many builds each frontend was asked for.
async fn triggers(cluster: &Cluster) -> anyhow::Result<Vec<f64>> {
    let name = "distci_http_request_duration_seconds_count{method=\"POST\",\
        route=\"/api/v1/jobs/{job}/builds\"";
    let frontends = cluster.frontends.iter();
    futures::future::try_join_all(frontends.map(|frontend| metric(&frontend.client, name))).await
}

/// What became of a client that triggered a build every 50 ms.
struct Asked {
    /// The longest time without an answer.
    gap: Duration,
    builds: Vec<BuildRef>,
}

/// Asks for builds for a while, does `deed`, and asks on.
async fn ask_during(
    client: &Client,
    job: &JobId,
    deed: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Asked> {
    let over = AtomicBool::new(false);
    let asking = async {
        let mut asked = Asked {
            gap: Duration::ZERO,
            builds: Vec::new(),
        };
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut answered = Instant::now();
        while !over.load(Ordering::Relaxed) {
            tick.tick().await;
            asked.builds.push(trigger(client, job).await?);
            asked.gap = asked.gap.max(answered.elapsed());
            answered = Instant::now();
        }
        Ok::<_, anyhow::Error>(asked)
    };
    let doing = async {
        tokio::time::sleep(BEFORE).await;
        deed().await?;
        tokio::time::sleep(AFTER).await;
        over.store(true, Ordering::Relaxed);
        Ok(())
    };
    let (asked, ()) = tokio::try_join!(asking, doing)?;
    Ok(asked)
}

impl Asked {
    /// Once every build has ended.
    async fn add_to(
        &self,
        report: &mut Report,
        cluster: &Cluster,
        dead: &str,
    ) -> anyhow::Result<()> {
        for build in &self.builds {
            finish(&cluster.client, build).await?;
        }
        let (gap, builds) = (self.gap.as_secs_f64(), self.builds.len());
        let measured = format!("{gap:.2} s; all of {builds} builds finished");
        let aim = if dead == "nothing" { "" } else { "≤ 5 s" };
        let raw = format!("{} ms: how often it asks", PERIOD.as_millis());
        report.add(&format!("{SERVERS} {dead}"), measured, aim, raw);
        Ok(())
    }
}
