//! `cargo xtask prove`: explores the models of the protocol further than tests do.
//!
//! Owns nothing but the call: what is explored lives in `crates/proof`.

use std::process::{Command, ExitCode};

use anyhow::Context;

/// Explores all models in release mode; `deep` for as long as a night is.
pub(crate) fn run(deep: bool) -> anyhow::Result<ExitCode> {
    let status = Command::new(env!("CARGO"))
        .args(["run", "--release", "--package", "distci-proof"])
        .args(["--example", "prove", "--"])
        .args(deep.then_some("--deep"))
        .status()
        .context("starting the proof")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
