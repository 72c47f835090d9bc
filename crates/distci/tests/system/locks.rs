//! Locks and concurrency of whole builds: what must not run at once never does.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildPhase, BuildView, LockView, Page, QueueView};
use serde_json::{Value, json};

use crate::rig::{Process, Server, eventually};

/// A job of one script that holds these locks.
fn job(name: &str, script: &str, locks: &Value) -> Value {
    json!({ "job_id": name, "tasks": [
        { "name": "a", "type": "execute-shell", "locks": locks, "params": { "script": script } }
    ]})
}

fn finished(server: &Server, build: &str) -> Result<BuildView> {
    eventually(build, || {
        let build = server.build(build)?;
        Ok((build.phase == BuildPhase::Finished).then_some(build))
    })
}

/// A script that fails if another one is between its beginning and its end.
fn alone(dir: &Path) -> String {
    let dir = dir.display();
    format!("mkdir '{dir}/in'\nsleep 0.1\nrmdir '{dir}/in'")
}

#[test]
fn two_jobs_with_one_lock_never_overlap() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(data.path(), &["standalone", "--slots", "4"])?;
    let script = alone(dir.path());
    server.set_job(&job("x", &script, &json!(["deploy"])))?;
    server.set_job(&job("y", &script, &json!(["deploy", "other"])))?;
    for _ in 0..4 {
        server.ask(&["trigger", "x"])?;
        server.ask(&["trigger", "y"])?;
    }
    for number in 1..=4 {
        for job in ["x", "y"] {
            let build = finished(&server, &format!("{job}#{number}"))?;
            ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
        }
    }
    let locks: Page<LockView> = serde_json::from_str(&server.ask(&["locks", "--json"])?)?;
    ensure!(locks.items.is_empty(), "{locks:?}");
    Ok(())
}

#[test]
fn builds_of_a_limited_job_never_overlap_and_all_run() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(data.path(), &["standalone", "--slots", "4"])?;
    let mut limited = job("x", &alone(dir.path()), &json!([]));
    limited["concurrency"] = json!({});
    server.set_job(&limited)?;
    for _ in 0..5 {
        server.ask(&["trigger", "x"])?;
    }
    let mut ends = Vec::new();
    for number in 1..=5 {
        let build = finished(&server, &format!("x#{number}"))?;
        ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
        ends.push(build.finished);
    }
    ensure!(ends.is_sorted(), "who came first went later: {ends:?}");
    Ok(())
}

#[test]
fn the_lock_of_a_killed_worker_goes_on() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(data.path(), &["frontend"])?;
    let mut worker = server.client();
    worker.args(["worker", "--slots", "2", "--dir"]);
    let worker = Process::start(worker.arg(dir.path().join("first")))?;
    let trace = dir.path().join("trace");
    let trace = trace.display();
    let first = format!(
        "echo first $DISTCI_ATTEMPT >> '{trace}'\n[ $DISTCI_ATTEMPT -gt 1 ] || sleep 86400"
    );
    let second = format!("echo second >> '{trace}'");
    server.set_job(&job("x", &first, &json!(["deploy"])))?;
    server.set_job(&job("y", &second, &json!(["deploy"])))?;
    server.ask(&["trigger", "x"])?;
    eventually("the first to begin", || {
        Ok(std::fs::exists(dir.path().join("trace"))?.then_some(()))
    })?;
    server.ask(&["trigger", "y"])?;
    let blocked = eventually("the second to wait", || {
        let queue: Page<QueueView> = serde_json::from_str(&server.ask(&["queue", "--json"])?)?;
        Ok(queue.items.into_iter().find_map(|ticket| ticket.blocked))
    })?;
    let holders: Vec<_> = blocked.held_by.iter().map(ToString::to_string).collect();
    ensure!(
        blocked.lock == "deploy" && holders == ["x#1"],
        "{blocked:?}"
    );
    eventually("the list of locks", || {
        let locks = server.ask(&["locks"])?;
        let told = ["deploy", "x#1", "holds slot 0", "y#1", "waits"];
        Ok(told.iter().all(|told| locks.contains(told)).then_some(()))
    })?;
    worker.kill()?;
    let _other = server.worker(&dir.path().join("second"))?;
    for build in ["x#1", "y#1"] {
        let build = finished(&server, build)?;
        ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
    }
    let trace = std::fs::read_to_string(dir.path().join("trace"))?;
    let lines: Vec<_> = trace.lines().collect();
    // Not before the claim of the dead one was given up, and after the older build.
    ensure!(lines == ["first 1", "first 2", "second"], "{lines:?}");
    Ok(())
}

#[test]
fn skipped_and_superseded_builds_say_why() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["standalone", "--slots", "2"])?;
    for when_full in ["skip", "cancel_older"] {
        let mut limited = job(when_full, "sleep 86400", &json!([]));
        limited["concurrency"] = json!({ "when_full": when_full });
        server.set_job(&limited)?;
        server.ask(&["trigger", when_full])?;
    }
    let skipped = server.ask(&["trigger", "skip"])?;
    ensure!(
        skipped.contains("skipped: skip#1 is still running"),
        "{skipped}"
    );
    let told: Value = serde_json::from_str(&server.ask(&["trigger", "skip", "--json"])?)?;
    ensure!(told["skipped"]["number"] == 1, "{told}");
    server.ask(&["trigger", "cancel_older"])?;
    let older = finished(&server, "cancel_older#1")?;
    let outcome = older.outcome.context("no outcome")?;
    ensure!(outcome.is_cancelled(), "{outcome}");
    let shown = server.ask(&["show", "cancel_older#1"])?;
    ensure!(shown.contains("superseded by cancel_older#2"), "{shown}");
    server.ask(&["cancel", "skip#1"])?;
    server.ask(&["cancel", "cancel_older#2"])?;
    finished(&server, "skip#1")?;
    finished(&server, "cancel_older#2")?;
    Ok(())
}
