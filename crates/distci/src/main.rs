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
mod exec;
mod exit;
mod fetch;
mod follow;
mod forges;
mod frontend;
mod frontends;
mod fsck;
mod image;
mod job;
mod jobs;
mod lines;
mod lint;
mod local;
mod locks;
mod logs;
mod migrate;
mod out;
mod pages;
mod plan;
mod polls;
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
mod trigger;
mod view;
mod webhook;
mod why;
mod worker;
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before arguments are parsed or a thread is started: the supervisor costs each task its memory.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "supervise")
    {
        return distci_isolation::supervisor::main();
    }
    run::main()
}
