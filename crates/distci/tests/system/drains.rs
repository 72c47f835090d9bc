//! Workers that leave by themselves, and workers that are asked to.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildPhase, WorkerView};
use serde_json::json;

use crate::rig::{Process, Server, eventually, run};

/// A job of this script.
fn set_job(server: &Server, job: &str, script: &str) -> Result<()> {
    let task = json!({ "name": "t", "type": "execute-shell", "params": { "script": script } });
    server.set_job(&json!({ "job_id": job, "tasks": [task] }))
}

/// A worker of this name for tasks alone, of one slot.
fn worker(server: &Server, dir: &Path, name: &str) -> Result<Process> {
    let arguments = ["--kind", "execute-shell", "--name", name];
    server.worker_with(&dir.join(name), &arguments)
}

fn workers(server: &Server) -> Result<Vec<WorkerView>> {
    Ok(serde_json::from_str(&server.ask(&["workers", "--json"])?)?)
}

fn view(server: &Server, name: &str) -> Result<Option<WorkerView>> {
    let workers = workers(server)?;
    Ok(workers
        .into_iter()
        .find(|view| view.worker.as_str() == name))
}

fn left(mut process: Process) -> Result<()> {
    let status = eventually("a worker to leave", || Ok(process.0.try_wait()?))?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

#[test]
fn who_is_asked_to_leave_finishes_its_task() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(data.path(), &["frontend"])?;
    let mut control = server.client();
    control.args(["worker", "--kind", "build-control", "--name", "control"]);
    let _control = Process::start(control.arg("--dir").arg(dir.path().join("control")))?;
    let busy = worker(&server, dir.path(), "w-busy")?;
    let go = dir.path().join("go");
    let script = format!(
        "echo attempt $DISTCI_ATTEMPT\nwhile ! [ -e '{}' ]; do sleep 0.1; done",
        go.display()
    );
    set_job(&server, "x", &script)?;
    server.ask(&["trigger", "x"])?;
    eventually("the task to begin", || {
        let busy = view(&server, "w-busy")?;
        Ok(busy.filter(|view| view.claims.len() == 1))
    })?;
    let idle = worker(&server, dir.path(), "w-idle")?;
    eventually("the other worker", || view(&server, "w-idle"))?;

    let mut drain = server.client();
    let (code, _, said) = run(drain.args(["workers", "drain", "w-*"]))?;
    ensure!(code == 0 && said.contains("asked w-* to leave"), "{said}");
    left(idle)?;
    let drained = view(&server, "w-busy")?.context("it is still there")?;
    ensure!(drained.draining, "{drained:?}");
    let table = server.ask(&["workers"])?;
    ensure!(table.contains("drains"), "{table}");
    let mut wait = server.client();
    wait.args(["workers", "drain", "w-busy", "--wait", "--timeout", "1"]);
    let (code, _, said) = run(&mut wait)?;
    ensure!(code == 124 && said.contains("x#1"), "{code}: {said}");

    // Whoever comes later under the same name works, also before the other has left.
    let _next = worker(&server, dir.path(), "w-idle")?;
    set_job(&server, "y", "true")?;
    let mut trigger = server.client();
    let (code, _, said) = run(trigger.args(["trigger", "y", "--follow"]))?;
    ensure!(code == 0, "{code}: {said}");

    std::fs::write(&go, "")?;
    left(busy)?;
    server.ask(&["workers", "drain", "w-busy", "--wait"])?;
    let build = eventually("the build", || {
        let build = server.build("x#1")?;
        Ok((build.phase == BuildPhase::Finished).then_some(build))
    })?;
    ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
    let console = server.ask(&["logs", "x#1", "--task", "t"])?;
    ensure!(console == "attempt 1\n", "{console}");
    Ok(())
}

#[test]
fn a_standalone_outlives_its_worker() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(data.path(), &["standalone"])?;
    eventually("its worker", || Ok(workers(&server)?.pop()))?;
    server.ask(&["workers", "drain", "--all", "--wait"])?;
    eventually("it to leave", || {
        Ok(workers(&server)?.is_empty().then_some(()))
    })?;
    set_job(&server, "x", "true")?;
    server.ask(&["trigger", "x"])?;
    // Nothing is left to do for the one that comes then.
    let mut other = server.client();
    other.env("DISTCI_WORKER_NAME", "named");
    other.args(["worker", "--idle", "3s", "--dir"]);
    let other = Process::start(other.arg(dir.path()))?;
    eventually("the worker's name", || view(&server, "named"))?;
    left(other)?;
    let build = server.build("x#1")?;
    ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
    Ok(())
}
