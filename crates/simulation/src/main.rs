//! Runs seeds of the simulation, each in a process of its own, and says which broke a promise.
//!
//! Owns the processes and what is told of them. A process has one seed, which its environment names:
//! all its chance follows from that, the libraries' too.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the person who started it"
)]

use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use distci_simulation::{Defect, run};

/// Names the seed of a process.
const SEED: &str = "DISTCI_SIMULATION_SEED";
/// After so many seeds something is said.
const PROGRESS: u64 = 500;

/// Simulates a cluster for many seeds.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Tell what happened.
    #[arg(long)]
    story: bool,
    /// Break the store, to see that it is found out.
    #[arg(long)]
    defect: Option<Planted>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Planted {
    /// No step is refused because of a version.
    NoChecks,
    /// Now and then an acknowledged commit has not happened.
    Forgetful,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match std::env::var(SEED) {
        Ok(seed) => one(&arguments, seed.parse()?),
        Err(_) => all(&arguments),
    }
}

/// The run of this process.
fn one(arguments: &Arguments, seed: u64) -> Result<ExitCode> {
    let defect = arguments.defect.map(|planted| match planted {
        Planted::NoChecks => Defect::NoChecks,
        Planted::Forgetful => Defect::Forgetful,
    });
    let outcome = run(seed, defect)?;
    if arguments.story {
        print!("{}", outcome.story);
    }
    println!("{outcome}");
    if outcome.verdict.is_clean() {
        return Ok(ExitCode::SUCCESS);
    }
    for breach in &outcome.verdict.breaches {
        println!("{breach}");
    }
    Ok(ExitCode::FAILURE)
}

/// All seeds, several at a time.
fn all(arguments: &Arguments) -> Result<ExitCode> {
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let builds = AtomicU64::new(0);
    let is_told = AtomicBool::new(false);
    let at_once = std::thread::available_parallelism()?;
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= arguments.seeds {
                return Ok(());
            }
            let seed = arguments.from + number;
            let mut done = start(seed, arguments.story, arguments.defect)?;
            // The first that fails is told from its beginning: it replays exactly.
            if !done.status.success() && !arguments.story && !is_told.swap(true, Ordering::Relaxed)
            {
                done = start(seed, true, arguments.defect)?;
            }
            let told = String::from_utf8_lossy(&done.stdout);
            builds.fetch_add(figure(&told, "builds="), Ordering::Relaxed);
            if !done.status.success() || arguments.story {
                println!(
                    "seed {seed}:\n{told}{}",
                    String::from_utf8_lossy(&done.stderr)
                );
            }
            if !done.status.success() {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push(seed);
            }
            if (number + 1).is_multiple_of(PROGRESS) {
                eprintln!("{} seeds, {:.0?}", number + 1, begun.elapsed());
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once.get()).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(done) => done,
                Err(_) => anyhow::bail!("a thread has died"),
            })
    })?;
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    let (seeds, builds) = (arguments.seeds, builds.into_inner());
    println!(
        "{seeds} seeds, {builds} builds in {:.1?}: {} broke a promise",
        begun.elapsed(),
        failed.len()
    );
    for seed in &failed {
        println!("to see it again: cargo xtask simulate --from {seed} --seeds 1 --story");
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs a seed in a process of its own.
fn start(seed: u64, story: bool, defect: Option<Planted>) -> Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(SEED, seed.to_string());
    if story {
        command.arg("--story");
    }
    if let Some(defect) = defect.and_then(|it| it.to_possible_value()) {
        command.args(["--defect", defect.get_name()]);
    }
    command.output().context("the simulation cannot be started")
}

/// A figure of what a run told.
fn figure(told: &str, name: &str) -> u64 {
    let mut words = told
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(name));
    words.next().and_then(|word| word.parse().ok()).unwrap_or(0)
}
