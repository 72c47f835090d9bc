//! The figures of a cluster: three ZooKeeper servers that sync, a Ceph on a disk behind two
//! gateways, three frontends and their workers, all on this machine.
//!
//! Owns which figures there are, and their order: what wants a quiet cluster first, deaths last.

mod builds;
mod bytes;
mod deaths;
mod idle;
mod limits;
mod rig;

use crate::report::Report;
use crate::{pages, raw};
use limits::Limits;
use rig::Cluster;

/// Every figure of the group: the cluster is started only if one of them is wanted.
const FIGURES: [&str; 13] = [
    idle::MEMORY,
    builds::CLAIM,
    builds::BUILD,
    builds::ROW,
    builds::WRITES,
    builds::MORE_WRITES,
    builds::LINES,
    builds::MANY,
    bytes::SMALL,
    bytes::LARGE,
    idle::WORKERS,
    deaths::WORKER,
    deaths::SERVERS,
];

pub(crate) async fn measure(report: &mut Report, machine: &raw::Limits) -> anyhow::Result<()> {
    let pages = pages::CLUSTERED
        .iter()
        .map(|figure| format!("cluster: {figure}"));
    let pages = pages.into_iter().any(|figure| report.wants(&figure));
    let others = FIGURES.iter().any(|figure| report.wants(figure));
    if !pages && !others {
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let limits = Limits::measure(&cluster, machine).await?;
    report.note(format!("The servers of the cluster: {limits}."));
    report.note(busy("before")?);
    if pages {
        let workers = cluster.workers(4).await?;
        pages::measure_cluster(report, &cluster.site()?).await?;
        drop(workers);
    }
    idle::memory(report, &cluster).await?;
    builds::measure(report, &limits, &cluster).await?;
    idle::workers(report, &cluster).await?;
    bytes::measure(report, &limits, &cluster).await?;
    deaths::measure(report, cluster).await?;
    report.note(busy("after")?);
    Ok(())
}

/// How much else the machine does: figures of a busy one say little.
fn busy(when: &str) -> anyhow::Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(format!("Load of the machine {when}: {}.", load.trim()))
}
