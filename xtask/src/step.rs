//! One step of a chore: said, run, timed.
//!
//! A step that fails ends the chore; its output is then on the screen, never lost.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Names a step, runs it, and says how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {name}");
    let begun = Instant::now();
    let done = work();
    let verdict = if done.is_ok() { "ok" } else { "FAILED" };
    println!("    {verdict}: {name}, {}", seconds(begun.elapsed()));
    done.with_context(|| name.to_owned())
}

/// Runs a command whose output a person should see as it comes.
pub(crate) fn run_loudly(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| shown.clone())?;
    if !status.success() {
        bail!("`{shown}`: {status}");
    }
    Ok(())
}

/// Runs a command whose output matters only if it ends badly, and returns that output.
pub(crate) fn run_quietly(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = attempt(command)?;
    let text = text_of(&output);
    if !output.status.success() {
        print!("{text}");
        bail!("`{shown}`: {}", output.status);
    }
    Ok(text)
}

/// Runs a command whose failure is an answer too.
pub(crate) fn attempt(command: &mut Command) -> Result<Output> {
    let shown = show(command);
    command.stdin(Stdio::null()).output().with_context(|| shown)
}

/// What a command wrote, standard output first.
pub(crate) fn text_of(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// A time as people read it.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
