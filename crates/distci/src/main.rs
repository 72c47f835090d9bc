//! The `distci` program.
//!
//! Owns nothing but the fork in the road: the supervisor of a task's processes, which must be
//! small and alone, or the command line.

mod answer;
mod artifacts;
mod builds;
mod cancel;
mod cli;
mod clock;
mod cluster;
mod completions;
mod config;
mod connection;
mod console;
mod diagnosis;
mod document;
mod drill;
mod events;
mod exec;
mod exit;
mod fares;
mod fetch;
mod follow;
mod forges;
mod frontend;
mod frontends;
mod fsck;
mod grep;
mod image;
mod job;
mod jobs;
mod lines;
mod lint;
mod local;
mod locks;
mod logs;
mod migrate;
mod open;
mod out;
mod pages;
mod plan;
mod polls;
mod pool;
mod queue;
mod reading;
mod rerun;
mod run;
mod schedule;
mod schema;
mod selector;
mod show;
mod signals;
mod standalone;
mod table;
mod test_reports;
mod trigger;
mod view;
mod webhook;
mod why;
mod worker;
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before arguments are parsed or a thread is started: the supervisor costs each task its memory.
    let word = std::env::args_os().nth(1);
    match word.as_ref().and_then(|word| word.to_str()) {
        Some("supervise") => distci_isolation::supervisor::main(),
        Some("agent") => distci_isolation::agent::main(),
        _ => run::main(),
    }
}
