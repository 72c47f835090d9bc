//! `cargo xtask simulate`: runs seeds of the simulation.
//!
//! Owns nothing but the call: the simulation is the crate `distci-simulation`, which runs as many seeds
//! at once as there are processors and names those that broke a promise.

use std::process::{Command, ExitCode};

use anyhow::Context;

/// Which seeds, and whether to tell what happened in them.
#[derive(Debug, clap::Args)]
pub(crate) struct Seeds {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long = "seeds", value_name = "SEEDS", default_value_t = 1000)]
    count: u64,
    /// Tell what happened, line by line.
    #[arg(long)]
    story: bool,
    /// Break the simulated store (`no-checks`, `forgetful`), to see that it is found out.
    #[arg(long)]
    defect: Option<String>,
}

/// Runs them in release mode.
pub(crate) fn run(seeds: &Seeds) -> anyhow::Result<ExitCode> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--release", "--package", "distci-simulation", "--"]);
    command.args(["--from", &seeds.from.to_string()]);
    command.args(["--seeds", &seeds.count.to_string()]);
    if seeds.story {
        command.arg("--story");
    }
    if let Some(defect) = &seeds.defect {
        command.args(["--defect", defect]);
    }
    let status = command.status().context("starting cargo run")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
