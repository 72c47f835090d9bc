//! Bytes to and from Ceph: small objects as they are, large ones the way of workers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use distci_client::{Client, new_request_id};
use distci_model::capability::{Capabilities, Kind};
use distci_model::outcome::LayerRef;
use distci_model::wire::{Claim, ClaimRequest, Held, Standing};
use futures::TryStreamExt;

use super::limits::{Limits, noise, rate};
use super::rig::{Cluster, SignedUrls};
use crate::report::Report;
use crate::rig::{finish, set_job, shell_for, trigger};

pub(super) const SMALL: &str = "cluster: 4 KiB to Ceph and back";
pub(super) const LARGE: &str = "cluster: 100 MB to Ceph and back";
/// A label that only the benchmark offers.
const LABEL: &str = "by-hand";

pub(super) async fn measure(
    report: &mut Report,
    limits: &Limits,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    if report.wants(SMALL) {
        let measured = format!("PUT {:.2} ms, GET {:.2} ms", limits.put, limits.get);
        report.add(SMALL, measured, "(figure only)", String::from("is one"));
    }
    if report.wants(LARGE) {
        large(report, limits, cluster).await?;
    }
    Ok(())
}

async fn large(report: &mut Report, limits: &Limits, cluster: &Cluster) -> anyhow::Result<()> {
    let file = cluster.path("noise");
    std::fs::write(&file, noise())?;
    let control = cluster.worker(&["--kind", "build-control"])?;
    let job = set_job(&cluster.client, "bytes", shell_for(LABEL, "true")).await?;
    let direct = &cluster.frontends.first().context("no frontend")?.client;
    let bearer = cluster.frontend(SignedUrls::No).await?;
    for (way, client) in [
        ("by signed addresses", direct),
        ("through a frontend", &bearer.client),
    ] {
        let (mut up, mut down) = (0.0_f64, 0.0_f64);
        for _ in 0..3 {
            let build = trigger(&cluster.client, &job).await?;
            let (to, from) = there_and_back(client, &file).await?;
            (up, down) = (up.max(to), down.max(from));
            cluster.client.cancel(&build).await?;
            finish(&cluster.client, &build).await?;
        }
        let measured = format!("up {up:.0} MB/s, down {down:.0} MB/s");
        let raw = format!(
            "PUT {:.0} MB/s, GET {:.0} MB/s",
            limits.write_rate, limits.read_rate
        );
        report.add(&format!("{LARGE}, {way}"), measured, "(figure only)", raw);
    }
    drop(control);
    Ok(())
}

/// Stores a file as the layer of a claim and reads it, as workers do: MB/s up and down.
async fn there_and_back(client: &Client, file: &Path) -> anyhow::Result<(f64, f64)> {
    let claim = claim(client).await?;
    let held = Held {
        ticket: claim.ticket,
        attempt: claim.attempt,
        standing: Standing::Held,
    };
    let start = Instant::now();
    let bytes = client.put_layer(&held, file).await?;
    let up = rate(start);
    let layer = LayerRef {
        ticket: held.ticket.ticket.clone(),
        attempt: held.attempt,
        build: None,
        bytes,
    };
    let start = Instant::now();
    let mut pieces = client.get_layer(&held.ticket.build, &layer).await?.stream;
    while pieces.try_next().await?.is_some() {}
    let down = rate(start);
    client.release(&held).await?;
    Ok((up, down))
}

async fn claim(client: &Client) -> anyhow::Result<Claim> {
    let request = ClaimRequest {
        worker: "bench".parse()?,
        capabilities: Capabilities::task(Kind::ExecuteShell, &[LABEL.parse()?]),
        request: new_request_id()?,
        wait: 20,
        age_ms: None,
    };
    let claim = tokio::time::timeout(Duration::from_secs(30), client.claim(&request));
    claim.await??.context("no task to claim")
}
