//! `distci completions SHELL`: what the shell needs to complete our arguments.

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::{Cli, Completions};
use crate::exit::Exit;
use crate::out::Out;

pub(crate) fn run(arguments: &Completions, out: &mut Out) -> Result<Exit> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(arguments.shell, &mut command, "distci", &mut script);
    out.bytes(&script)?;
    Ok(Exit::Ok)
}
