//! The figures of DistCI on one machine, each beside the raw limit measured in the same run: of one
//! server on the embedded store, and of a cluster (its figures are called `cluster: …`).
//!
//! Started by `cargo xtask bench`. Every figure is measured through the public API of real
//! processes; nothing is mocked, and nothing here passes or fails.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark talks to a person"
)]

mod builds;
mod cluster;
mod idle;
mod isolation;
mod pages;
mod raw;
mod reads;
mod report;
mod rig;

use anyhow::Context;
use report::Report;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            measured = measure() => measured,
            // Servers outlive whoever does not end them.
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                anyhow::bail!("interrupted")
            }
        }
    })
}

async fn measure() -> anyhow::Result<()> {
    // `cargo bench` hands its own flag through; any other word selects figures by name.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let mut report = Report::new(wanted);
    let limits = raw::measure().await?;
    report.note(format!("The machine: {limits}."));
    builds::measure(&mut report, &limits).await?;
    reads::measure(&mut report, &limits).await?;
    idle::measure(&mut report).await?;
    pages::measure(&mut report).await?;
    isolation::measure(&mut report).await?;
    cluster::measure(&mut report, &limits).await?;
    println!("{}", report.table());
    let file = report.write()?;
    println!("written to {}", file.display());
    Ok(())
}
