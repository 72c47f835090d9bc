//! `cargo xtask simulate`: runs seeds of the simulation.
//!
//! Owns the call, and the seeds that the gate runs beside its tests. The simulation is the crate
//! `distci-simulation`, which runs as many seeds at once as there are processors and names those that
//! broke a promise.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::cluster::build_program;
use crate::machine::Machine;
use crate::step::step;

/// How the simulation is built: optimised, for it runs for long, but not as slowly as a release.
const PROFILE: &str = "simulation";
/// How many seeds the gate runs.
const GATE: u64 = 10_000;

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

/// Runs them.
pub(crate) fn run(machine: &Machine, seeds: &Seeds) -> Result<ExitCode> {
    let program = step("build", || {
        build_program(machine, "distci-simulation", PROFILE)
    })?;
    let mut command = Command::new(program);
    command.args(["--from", &seeds.from.to_string()]);
    command.args(["--seeds", &seeds.count.to_string()]);
    if seeds.story {
        command.arg("--story");
    }
    if let Some(defect) = &seeds.defect {
        command.args(["--defect", defect]);
    }
    let status = command.status().context("starting the simulation")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Seeds that run while something else does, on what that leaves of the processors. Dropped, they end.
pub(crate) struct Beside(Child);

impl Beside {
    /// Starts the gate's seeds.
    pub(crate) fn start(machine: &Machine) -> Result<Self> {
        let program: PathBuf = build_program(machine, "distci-simulation", PROFILE)?;
        let child = machine
            .command("nice -n 19")
            .arg(program)
            .args(["--from", "0", "--seeds", &GATE.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self(child.context("starting the simulation")?))
    }

    /// Waits for the last seed. Errors: a seed that broke a promise; all that was told of it is printed.
    pub(crate) fn finish(mut self) -> Result<()> {
        let mut told = String::new();
        let output = self.0.stdout.take();
        output
            .context("the simulation tells nothing")?
            .read_to_string(&mut told)?;
        print!("{told}");
        let status = self.0.wait()?;
        if !status.success() {
            bail!("a promise was broken: {status}");
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Those that have ended are no longer there, which is as well.
        let killed = self.0.kill().and_then(|()| self.0.wait());
        drop(killed);
    }
}
