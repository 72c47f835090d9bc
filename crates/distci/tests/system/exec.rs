//! `exec`: its verdicts, its refusals, its end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{distci, project, run};

/// A job file with one task `t`.
fn script_job(folder: &Path, job: &str, script: &str) -> Result<PathBuf> {
    let params = serde_json::json!({ "script": script });
    let task = serde_json::json!({ "name": "t", "type": "execute-shell", "params": params });
    let config = serde_json::json!({ "job_id": job, "tasks": [task] });
    let file = folder.join(format!("{job}.json"));
    std::fs::write(&file, config.to_string())?;
    Ok(file)
}

#[test]
fn the_verdict_of_the_build_is_the_exit_code() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fine = script_job(folder.path(), "fine", "echo \"hello from $JOB_NAME\"")?;
    let (code, stdout, stderr) = run(distci().arg("exec").arg(&fine))?;
    ensure!(
        code == 0 && stdout == "[t] hello from fine\n",
        "{code}: {stdout}{stderr}"
    );
    ensure!(stderr.contains("fine#1  success"), "{stderr}");
    let fails = script_job(folder.path(), "fails", "echo no >&2; exit 3")?;
    let (code, _, stderr) = run(distci().arg("exec").args([&fine, &fails]))?;
    ensure!(
        code == 1 && stderr.contains("failure: exit code 3"),
        "{code}: {stderr}"
    );
    Ok(())
}

#[test]
fn a_chain_with_a_missing_link_does_not_begin() -> Result<()> {
    let mut command = distci();
    command
        .current_dir(project())
        .args(["exec", "examples/chain/build.json"]);
    let (code, stdout, stderr) = run(&mut command)?;
    ensure!(code == 1 && stdout.is_empty(), "{code}: {stdout}");
    ensure!(stderr.contains("add the file of chain-deploy"), "{stderr}");
    Ok(())
}

#[test]
fn an_interrupt_cancels_and_cleans_up() -> Result<()> {
    ends_by(Signal::SIGINT)
}

#[test]
fn a_lost_terminal_cancels_and_cleans_up() -> Result<()> {
    ends_by(Signal::SIGHUP)
}

fn ends_by(signal: Signal) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = script_job(folder.path(), "slow", "echo begun; sleep 86400")?;
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary)?;
    let mut command = distci();
    command.arg("exec").arg(&file).env("TMPDIR", &temporary);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
    let status = child.wait()?;
    ensure!(line == "[t] begun\n", "{line}");
    ensure!(status.code() == Some(3), "{status}");
    assert_eq!(std::fs::read_dir(&temporary)?.count(), 0);
    Ok(())
}
