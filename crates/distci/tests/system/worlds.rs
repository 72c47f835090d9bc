//! The worlds that tasks run in, through the whole program: limits that bite and are told by name,
//! caches that come back, and nothing left of what died.

mod deaths;
mod misdeeds;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use distci_model::outcome::{Failure, Outcome};
use distci_model::wire::{BuildPhase, BuildView, TaskState};
use serde_json::{Value, json};

use crate::rig::{Server, distci, eventually, run};

fn shell(name: &str, script: &str, more: &Value) -> Value {
    let mut task = json!({
        "name": name, "type": "execute-shell", "needs": [], "params": { "script": script }
    });
    if let (Some(task), Some(more)) = (task.as_object_mut(), more.as_object()) {
        task.extend(more.clone());
    }
    task
}

/// A folder of images in `folder`, with the image `small`.
fn images(folder: &Path) -> Result<String> {
    let images = folder.join("images");
    let images = images.to_str().context("odd path")?;
    let mut build = distci();
    build.args(["image", "build", "--busybox", "--name", "small"]);
    let (code, _, said) = run(build.args(["--images", images]))?;
    ensure!(code == 0, "{said}");
    Ok(images.to_owned())
}

fn finished(server: &Server, build: &str) -> Result<BuildView> {
    eventually(build, || {
        let build = server.build(build)?;
        Ok((build.phase == BuildPhase::Finished).then_some(build))
    })
}

fn outcome<'a>(build: &'a BuildView, task: &str) -> Option<&'a Outcome> {
    let task = build.tasks.iter().find(|one| one.name.as_str() == task)?;
    match &task.state {
        TaskState::Finished { run } => Some(&run.result.outcome),
        _ => None,
    }
}

#[test]
fn each_limit_is_told_by_its_name() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["standalone", "--slots", "2"])?;
    let greedy = [
        shell(
            "memory",
            "x=$(head -c 400000000 /dev/zero | tr '\\0' x); echo ${#x}",
            &json!({ "isolation": { "memory": "64 MiB" } }),
        ),
        shell(
            "processes",
            "for i in $(seq 100); do sleep 1000 & done; exit 1",
            &json!({ "isolation": { "processes": 30 } }),
        ),
        shell(
            "disk",
            "head -c 100000000 /dev/zero > big",
            &json!({ "isolation": { "disk": "32 MiB" } }),
        ),
        shell(
            "modest",
            "head -c 1000000 /dev/zero > small",
            &json!({ "isolation": { "disk": "32 MiB", "memory": "64 MiB", "processes": 30 } }),
        ),
    ];
    server.set_job(&json!({ "job_id": "limits", "tasks": greedy }))?;
    server.ask(&["trigger", "limits"])?;
    let build = finished(&server, "limits#1")?;
    let failure = |reason| Some(Outcome::Failure { reason });
    let memory = Failure::OutOfMemory {
        limit: Some(64 << 20),
    };
    let processes = Failure::TooManyProcesses { limit: Some(30) };
    let disk = Failure::DiskFull { limit: 32 << 20 };
    ensure!(
        outcome(&build, "memory") == failure(memory).as_ref(),
        "{build:?}"
    );
    ensure!(
        outcome(&build, "processes") == failure(processes).as_ref(),
        "{build:?}"
    );
    ensure!(
        outcome(&build, "disk") == failure(disk).as_ref(),
        "{build:?}"
    );
    ensure!(
        outcome(&build, "modest") == Some(&Outcome::Success),
        "{build:?}"
    );
    let shown = server.ask(&["show", "limits#1"])?;
    ensure!(
        shown.contains("out of memory: more than 64 MiB was wanted"),
        "{shown}"
    );
    ensure!(
        shown.contains("cpu ") && shown.contains("memory "),
        "{shown}"
    );
    Ok(())
}

#[test]
fn a_cache_comes_back_and_no_failure_spoils_it() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["standalone"])?;
    let script = "mkdir -p deps/a; echo $DISTCI_BUILD >> deps/a/seen\n\
        cat deps/a/seen; ln -sf a/seen deps/link; [ \"$fail\" = no ]";
    let cache = json!({ "cache": [{ "name": "deps", "path": "deps" }] });
    let after = json!({ "needs": ["use"], "name": "after" });
    let job = json!({
        "job_id": "cached", "parameters": { "fail": { "default": "no" } },
        "tasks": [shell("use", script, &cache), shell("after", "ls", &after)]
    });
    server.set_job(&job)?;
    for (number, fail) in [(1, "no"), (2, "no"), (3, "yes"), (4, "no")] {
        server.ask(&["trigger", "cached", &format!("fail={fail}")])?;
        finished(&server, &format!("cached#{number}"))?;
    }
    let console = |number: u32, task: &str| {
        server.ask(&["logs", &format!("cached#{number}"), "--task", task])
    };
    ensure!(
        console(1, "use")?.contains("there is none yet"),
        "{}",
        console(1, "use")?
    );
    let second = console(2, "use")?;
    ensure!(
        second.contains("as build 1 left it") && second.contains("bytes saved"),
        "{second}"
    );
    // The third failed, so the fourth begins where the second ended.
    let fourth = console(4, "use")?;
    ensure!(fourth.contains("as build 2 left it"), "{fourth}");
    // A cache is no part of the workspace that later tasks get.
    ensure!(
        !console(2, "after")?.contains("deps"),
        "{}",
        console(2, "after")?
    );
    Ok(())
}

#[test]
fn a_killed_worker_leaves_no_disk_and_no_group() -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(data.path(), &["frontend"])?;
    let worker = server.worker(dir.path())?;
    let task = shell(
        "a",
        "echo ready; sleep 86400",
        &json!({ "isolation": { "disk": "16 MiB", "memory": "64 MiB" } }),
    );
    server.set_job(&json!({ "job_id": "x", "tasks": [task] }))?;
    server.ask(&["trigger", "x"])?;
    eventually("the task to run", || {
        Ok((!left(dir.path())?.is_empty()).then_some(()))
    })?;
    worker.kill()?;
    // Whoever works on the same directory next finds what is left.
    let _next = server.worker(dir.path())?;
    eventually("the machine to be clean", || {
        Ok(left(dir.path())?.is_empty().then_some(()))
    })
}

/// The mounts below a folder.
fn left(dir: &Path) -> Result<Vec<String>> {
    let dir = dir.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let below = mounts.lines().filter(|line| line.contains(&dir));
    Ok(below.map(str::to_owned).collect())
}

#[test]
fn an_image_that_is_not_there_is_told_at_once() -> Result<()> {
    let images = tempfile::tempdir()?;
    let file = images.path().join("job.json");
    let task = shell("a", "true", &json!({ "isolation": { "image": "nowhere" } }));
    std::fs::write(&file, json!({ "job_id": "x", "tasks": [task] }).to_string())?;
    let mut exec = distci();
    exec.arg("exec")
        .arg("--images")
        .arg(images.path())
        .arg(&file);
    let (code, _, said) = run(&mut exec)?;
    ensure!(
        code == 1 && said.contains("nowhere: there is none"),
        "{code}: {said}"
    );
    Ok(())
}

#[test]
fn tasks_run_in_fresh_worlds_of_an_image() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let images = images(folder.path())?;
    let task = |name: &str, driver: &str, script: &str, more: Value| {
        let isolation = json!({ "isolation": { "image": "small", "driver": driver } });
        let mut task = shell(name, script, &isolation);
        if let (Some(task), Some(more)) = (task.as_object_mut(), more.as_object()) {
            task.extend(more.clone());
        }
        task
    };
    let first = "test ! -e /left && touch /left && echo made > file && pwd\n\
        echo \"FOUND=$(id -u)\" >> $DISTCI_OUTPUT";
    let second = "test ! -e /left && cat file && [ \"$UID_BEFORE\" = 0 ] && rm file";
    let env = json!({ "needs": ["first"], "env": { "UID_BEFORE": "${tasks.first.FOUND}" } });
    let third = json!({ "needs": ["second"] });
    let tasks = [
        task("first", "lxc", first, json!({})),
        task("second", "bubblewrap", second, env),
        task("third", "lxc", "test ! -e file", third),
    ];
    let file = folder.path().join("job.json");
    std::fs::write(&file, json!({ "job_id": "x", "tasks": tasks }).to_string())?;
    let mut exec = distci();
    exec.args([
        "exec",
        "--driver",
        "lxc",
        "--driver",
        "bubblewrap",
        "--images",
    ]);
    let (code, _, said) = run(exec.arg(images).arg(&file))?;
    ensure!(code == 0, "{said}");
    Ok(())
}
