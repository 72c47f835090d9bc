//! Whoever dies, the build goes on.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_model::outcome::{Fault, Outcome};
use distci_model::wire::{BuildPhase, BuildView, TaskState};

use crate::rig::{Process, Server, distci, eventually, processes_with, run};

fn job(tasks: &[(&str, &str)]) -> serde_json::Value {
    let task = |(name, script): &(&str, &str)| serde_json::json!({ "name": name, "type": "execute-shell", "params": { "script": script } });
    serde_json::json!({ "job_id": "job", "tasks": tasks.iter().map(task).collect::<Vec<_>>() })
}

/// Waits until the console of a task holds `text`.
fn printed(server: &Server, task: &str, text: &str) -> Result<()> {
    eventually(text, || {
        let (_, stdout, _) = run(server.client().args(["logs", "job#1", "--task", task]))?;
        Ok(stdout.contains(text).then_some(()))
    })
}

fn finished(server: &Server) -> Result<BuildView> {
    eventually("the end of the build", || {
        let build = server.build("job#1")?;
        Ok((build.phase == BuildPhase::Finished).then_some(build))
    })
}

/// The number of the last attempt of each task.
fn attempts(build: &BuildView) -> Vec<u32> {
    let tasks = build.tasks.iter();
    tasks.map(|task| task.state.attempt().get()).collect()
}

const FIRST_HANGS: &str =
    "echo this is attempt $DISTCI_ATTEMPT\n[ $DISTCI_ATTEMPT -gt 1 ] || sleep 86400";

/// Brings a build to where its second of three tasks hangs in its first attempt.
fn hang_in_the_middle(server: &Server) -> Result<()> {
    server.set_job(&job(&[
        ("before", "echo kept > file"),
        ("hang", FIRST_HANGS),
        ("after", "cat file"),
    ]))?;
    server.ask(&["trigger", "job"])?;
    printed(server, "hang", "this is attempt 1")
}

#[test]
fn a_killed_worker_loses_its_attempt_and_nothing_else() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(data.path(), &["frontend"])?;
    let worker = server.worker(&dir.path().join("first"))?;
    hang_in_the_middle(&server)?;
    worker.kill()?;
    let here = dir.path().to_string_lossy().into_owned();
    eventually("the end of the dead worker's processes", || {
        Ok(processes_with(&here)?.is_empty().then_some(()))
    })?;
    let _second = server.worker(&dir.path().join("second"))?;
    let build = finished(&server)?;
    ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
    ensure!(attempts(&build) == [1, 2, 1], "{build:?}");
    for attempt in ["1", "2"] {
        let arguments = ["logs", "job#1", "--task", "hang", "--attempt", attempt];
        let console = server.ask(&arguments)?;
        ensure!(
            console.contains(&format!("this is attempt {attempt}")),
            "{console}"
        );
    }
    Ok(())
}

#[test]
fn a_killed_standalone_resumes_where_it_was() -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut server = Server::start(data.path(), &["standalone", "--slots", "2"])?;
    hang_in_the_middle(&server)?;
    server.kill()?;
    let server = Server::start(data.path(), &["standalone", "--slots", "2"])?;
    let build = finished(&server)?;
    ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
    ensure!(attempts(&build) == [1, 2, 1], "{build:?}");
    let console = server.ask(&["logs", "job#1", "--task", "hang", "--attempt", "1"])?;
    ensure!(
        console.contains("this is attempt 1"),
        "the first attempt's console is lost: {console}"
    );
    Ok(())
}

#[test]
fn a_worker_outlives_its_frontend() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let listen = free_address()?;
    let start = || -> Result<Process> {
        let mut command = distci();
        command
            .args(["frontend", "--listen", &listen, "--data"])
            .arg(data.path());
        Process::start(&mut command)
    };
    let first = start()?;
    let answers = || {
        eventually("the frontend", || {
            let (code, _, _) = run(distci().arg("--data").arg(data.path()).arg("jobs"))?;
            Ok((code == 0).then_some(()))
        })
    };
    answers()?;
    let server = Server::attach(data.path());
    let _worker = server.worker(dir.path())?;
    let go = dir.path().join("go");
    let script = format!(
        "echo begun\nwhile ! [ -e {} ]; do sleep 0.1; done\necho ended",
        go.display()
    );
    server.set_job(&job(&[("wait", &script)]))?;
    server.ask(&["trigger", "job"])?;
    printed(&server, "wait", "begun")?;
    first.kill()?;
    std::fs::write(&go, "")?;
    let _second = start()?;
    answers()?;
    let build = finished(&server)?;
    ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
    ensure!(
        attempts(&build) == [1],
        "the attempt was not kept: {build:?}"
    );
    printed(&server, "wait", "ended")
}

fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .to_string())
}

#[test]
fn a_cancelled_build_stops_its_processes() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["standalone"])?;
    server.set_job(&job(&[("hang", FIRST_HANGS), ("after", "true")]))?;
    server.ask(&["trigger", "job"])?;
    printed(&server, "hang", "this is attempt 1")?;
    server.ask(&["cancel", "job#1"])?;
    let build = finished(&server)?;
    ensure!(
        build.outcome.as_ref().is_some_and(Outcome::is_cancelled),
        "{build:?}"
    );
    let (code, _, _) = run(server
        .client()
        .args(["trigger", "job", "--follow", "--timeout", "1"]))?;
    ensure!(code == 124, "exit code {code}");
    Ok(())
}

#[test]
fn a_full_disk_is_our_fault_and_said() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let small = Small::mount(dir.path())?;
    let server = Server::start(data.path(), &["frontend"])?;
    let _worker = server.worker(&small.0)?;
    // The script fits; the layer of what it made does not.
    let script = "head -c 80000000 /dev/urandom > big";
    server.set_job(&job(&[("fill", script)]))?;
    server.ask(&["trigger", "job"])?;
    let build = finished(&server)?;
    let TaskState::Finished { run } = &build.tasks.first().context("no task")?.state else {
        anyhow::bail!("{build:?}");
    };
    let full = matches!(
        run.result.outcome,
        Outcome::Fault {
            reason: Fault::DiskFull { .. } | Fault::Lost { .. }
        }
    );
    ensure!(full && run.attempt.get() == 3, "{build:?}");
    Ok(())
}

#[test]
fn a_standalone_gets_over_a_task_that_fills_its_disk() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let small = Small::mount(dir.path())?;
    let server = Server::start(&small.0.join("data"), &["standalone"])?;
    let task = |name: &str, script: &str| job(&[(name, script)]);
    server.set_job(&task("fill", "cat /dev/zero > big || echo no more; exit 3"))?;
    server.ask(&["trigger", "job"])?;
    let build = finished(&server)?;
    // It may be its own doing or somebody else's, so it was tried again.
    let full = matches!(
        build.tasks.first().context("no task")?.state,
        TaskState::Finished { ref run } if run.attempt.get() == 3
            && matches!(run.result.outcome, Outcome::Fault { reason: Fault::DiskFull { .. } })
    );
    ensure!(full, "{build:?}");
    printed(&server, "fill", "no room was left")?;
    server.set_job(&task("again", "echo room again"))?;
    server.ask(&["trigger", "job", "--follow"])?;
    Ok(())
}

/// A file system with little room. Dropped, it is unmounted.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(dir: &std::path::Path) -> Result<Self> {
        let place = dir.join("small");
        std::fs::create_dir(&place)?;
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=150m", "tmpfs"])
            .arg(&place);
        let (code, _, stderr) = run(&mut mount)?;
        ensure!(
            code == 0,
            "this test mounts a small disk, which needs root: {stderr}"
        );
        Ok(Self(place))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The worker's last processes may hold it for a moment.
        for _ in 0..50 {
            if Command::new("umount")
                .arg(&self.0)
                .status()
                .is_ok_and(|status| status.success())
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
