//! Chores of the project as a program: `cargo xtask <chore>`.
//!
//! Owns what a person or a continuous-integration run does to the work tree: set-up and the gate.
//! It knows no crate of the product by its insides, and a chore never repairs what it finds.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore talks to the person who started it"
)]

mod bench;
mod cluster;
mod components;
mod deny;
mod drill;
mod fuzz;
mod machine;
mod prove;
mod reasons;
mod setup;
mod simulate;
mod step;
mod tally;
mod test;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::machine::Machine;

/// Chores of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure the figures of the project, each beside the raw limit of this machine.
    Bench {
        /// Only figures whose names contain one of these words.
        words: Vec<String>,
    },
    /// Run real ZooKeeper and Ceph servers in a folder, for trials.
    #[command(subcommand)]
    Components(components::Deed),
    /// Run a whole cluster on this machine: servers, frontends, workers.
    #[command(subcommand)]
    Cluster(cluster::Deed),
    /// Hurt a whole cluster of network namespaces under load, and judge whether it kept its promises.
    Drill(drill::Drill),
    /// Explore the models of the protocol further than the tests do.
    Prove {
        /// As far as a night is long.
        #[arg(long)]
        deep: bool,
    },
    /// Run the parsers of strangers' bytes over bytes that get ever nearer to the truth.
    Fuzz(fuzz::Fuzz),
    /// Install what the gate needs and this machine lacks.
    Setup,
    /// Run seeds of the simulation: a whole cluster with faults, in one thread each.
    Simulate(simulate::Seeds),
    /// Run the whole gate: everything that must hold before a change lands.
    Test,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = Machine::here().and_then(|machine| match arguments.chore {
        Chore::Bench { words } => bench::run(&words),
        Chore::Components(deed) => components::run(&machine, deed).map(|()| ExitCode::SUCCESS),
        Chore::Cluster(deed) => cluster::run(&machine, deed).map(|()| ExitCode::SUCCESS),
        Chore::Drill(drill) => drill::run(&machine, &drill),
        Chore::Prove { deep } => prove::run(deep),
        Chore::Fuzz(fuzz) => fuzz::run(&machine, &fuzz).map(|()| ExitCode::SUCCESS),
        Chore::Setup => setup::run(&machine).map(|()| ExitCode::SUCCESS),
        Chore::Simulate(seeds) => simulate::run(&machine, &seeds),
        Chore::Test => Ok(test::run(&machine)),
    });
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
