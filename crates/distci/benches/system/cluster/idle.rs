//! What a cluster costs when nothing happens.

use std::time::Duration;

use anyhow::Context;

use super::rig::Cluster;
use crate::report::Report;
use crate::rig::{Worker, resident};

pub(super) const MEMORY: &str = "cluster: memory of a frontend and a worker, idle";
pub(super) const WORKERS: &str = "cluster: 50 idle workers";

const COUNT: usize = 50;
const FOR: Duration = Duration::from_secs(30);

pub(super) async fn memory(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    if report.wants(MEMORY) {
        let worker = cluster.worker(&[])?;
        cluster.is_told().await;
        let frontend = cluster.frontends.first().context("no frontend")?;
        let measured = format!(
            "frontend {:.1} MB, worker {:.1} MB",
            resident(frontend.id())?,
            resident(worker.id())?
        );
        report.add(MEMORY, measured, "< 40 MB, < 15 MB", String::new());
    }
    Ok(())
}

pub(super) async fn workers(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    if !report.wants(WORKERS) {
        return Ok(());
    }
    let workers: Vec<Worker> = (0..COUNT)
        .map(|_| cluster.worker(&["--kind", "execute-shell", "--slots", "1"]))
        .collect::<Result<_, _>>()?;
    // Until all of them wait, and their frontends have said so.
    cluster.is_told().await;
    cluster.is_told().await;
    let name = "distci_http_request_duration_seconds_count";
    let before = cluster.metric(name).await?;
    let writes = cluster.writes().await?;
    tokio::time::sleep(FOR).await;
    let written = writes.count()?;
    // The first readings of the metrics are among what is counted.
    let asked = cluster.metric(name).await? - before - 3.0;
    drop(workers);
    let memory: Vec<String> = cluster
        .frontends
        .iter()
        .map(|frontend| Ok(format!("{:.0}", resident(frontend.id())?)))
        .collect::<anyhow::Result<_>>()?;
    let measured = format!(
        "{:.2} requests/s, {} quorum writes in {} s; frontends of {} MB after all of the above",
        asked / FOR.as_secs_f64(),
        written.all,
        FOR.as_secs(),
        memory.join(", ")
    );
    let raw = String::from("2 requests/s: one held 25 s for each");
    report.add(WORKERS, measured, "no writes but digests", raw);
    Ok(())
}
