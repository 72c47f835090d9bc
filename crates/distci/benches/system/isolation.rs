//! What a fresh world costs: from opening a cell to its first instruction and its end, beside the
//! same by the bare tool, begun by hand.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use distci_isolation::{Command, Ended, Groups, Isolation, Output, Place, Process, Site, Terms};
use tempfile::TempDir;

use crate::report::Report;

/// How often each is measured; the median counts.
const TIMES: usize = 20;

struct Nowhere;

#[async_trait]
impl Output for Nowhere {
    async fn take(&mut self, _: &[u8]) {}
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    if report.wants("isolation: process") {
        let process = Process {
            supervisor: supervisor(),
            groups: Groups::find(),
        };
        let ours = median(async || cell(&process, &Terms::default()).await).await?;
        let raw = median(async || bare("true", &[]).await).await?;
        report.add(
            "isolation: process, open, run `true`, close",
            format!("{ours:.1} ms"),
            "< 5 ms over fork and exec",
            format!("fork, exec, wait: {raw:.1} ms"),
        );
    }
    Ok(())
}

fn supervisor() -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_distci").into(), "supervise".into()]
}

async fn median(mut once: impl AsyncFnMut() -> anyhow::Result<Duration>) -> anyhow::Result<f64> {
    // The first fills caches that the others find full.
    once().await?;
    let mut all = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        all.push(once().await?);
    }
    all.sort();
    Ok(all[TIMES / 2].as_secs_f64() * 1000.0)
}

async fn cell(isolation: &dyn Isolation, terms: &Terms) -> anyhow::Result<Duration> {
    let folder = TempDir::new()?;
    let site = site(folder.path())?;
    let begun = Instant::now();
    let cell = isolation.open(&site, terms).await?;
    let command = Command {
        argv: vec!["true".into()],
        directory: cell.path(Place::Workspace),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
    };
    let never = Box::pin(std::future::pending());
    let finished = cell.run(&command, &mut Nowhere, never).await?;
    cell.close().await?;
    let took = begun.elapsed();
    if finished.ended != Ended::Exit(0) {
        bail!("{}: {:?}", isolation.driver(), finished.ended);
    }
    Ok(took)
}

fn site(root: &Path) -> anyhow::Result<Site> {
    let folder = |name: &str| {
        let path = root.join(name);
        std::fs::create_dir(&path)?;
        anyhow::Ok(path)
    };
    let name = root.file_name().context("a folder without a name")?;
    Ok(Site {
        name: format!("bench-{}", name.to_string_lossy().trim_start_matches('.')),
        folder: folder("cell")?,
        workspace: folder("workspace")?,
        temporary: folder("tmp")?,
        files: folder("files")?,
        key: root.into(),
    })
}

async fn bare(program: &str, arguments: &[&str]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let done = tokio::process::Command::new(program)
        .args(arguments)
        .output()
        .await?;
    if !done.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(begun.elapsed())
}
