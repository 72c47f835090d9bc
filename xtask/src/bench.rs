//! `cargo xtask bench`: measures the figures of the project.
//!
//! Owns nothing but the call: what is measured lives beside the binary, in
//! `crates/distci/benches/system`.

use std::process::{Command, ExitCode};

use anyhow::Context;

/// Runs the benchmark in release mode; `words` select figures by name.
pub(crate) fn run(words: &[String]) -> anyhow::Result<ExitCode> {
    let status = Command::new(env!("CARGO"))
        .args(["bench", "--package", "distci", "--bench", "system", "--"])
        .args(words)
        .status()
        .context("starting cargo bench")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
