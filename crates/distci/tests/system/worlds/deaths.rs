//! A worker that is killed while its task runs in a world of its own: another attempt, and nothing
//! left of the first.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use distci_components::traces;
use distci_model::outcome::Outcome;
use serde_json::json;

use super::{finished, images, shell};
use crate::rig::{Server, eventually, run};

/// It hangs in its first attempt, and so does what it left to itself.
const HANGS: &str = "echo this is attempt $DISTCI_ATTEMPT\n\
    [ $DISTCI_ATTEMPT -gt 1 ] && exit 0\n\
    trap '' TERM HUP; setsid sleep 86400 & while :; do sleep 86400; done";

#[test]
fn bubblewrap_leaves_nothing_of_a_killed_worker() -> Result<()> {
    killed("bubblewrap")
}

#[test]
fn lxc_leaves_nothing_of_a_killed_worker() -> Result<()> {
    killed("lxc")
}

#[test]
fn podman_leaves_nothing_of_a_killed_worker() -> Result<()> {
    killed("podman")
}

fn killed(driver: &str) -> Result<()> {
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let images = images(data.path())?;
    let server = Server::start(data.path(), &["frontend"])?;
    let arguments = ["--driver", driver, "--images", &images];
    let first = server.worker_with(dir.path(), &arguments)?;
    // Cells are named after their tickets, and these after their job: no other test has it.
    let job = format!("lost-{driver}-{}", std::process::id());
    let isolation = json!({ "isolation": { "image": "small", "driver": driver } });
    server.set_job(&json!({ "job_id": job, "tasks": [shell("a", HANGS, &isolation)] }))?;
    server.ask(&["trigger", &job])?;
    let build = format!("{job}#1");
    eventually("the first attempt", || {
        let (_, stdout, _) = run(server.client().args(["logs", &build]))?;
        Ok(stdout.contains("this is attempt 1").then_some(()))
    })?;
    let room = room(dir.path())?;
    ensure!(
        left(&room)?.iter().any(|one| one.starts_with("group ")),
        "a cell that runs is not seen: {:?}",
        left(&room)
    );
    first.kill()?;
    let _second = server.worker_with(dir.path(), &arguments)?;
    let build = finished(&server, &build)?;
    ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
    let attempts = build.tasks.iter().map(|task| task.state.attempt().get());
    ensure!(attempts.eq([2]), "{build:?}");
    let left = left(&room)?;
    ensure!(left.is_empty() && !room.exists(), "left behind: {left:#?}");
    Ok(())
}

/// The folder of the only attempt that runs in a worker's directory.
fn room(dir: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(dir.canonicalize()?.join("attempts"))?;
    let rooms = entries.flatten().map(|entry| entry.path());
    rooms
        .into_iter()
        .find(|path| path.is_dir())
        .context("no attempt")
}

/// What there is of an attempt: whatever names its folder, groups that are called like it, and
/// containers in the records of podman.
fn left(room: &Path) -> Result<Vec<String>> {
    let name = room.file_name().context("a name")?.to_string_lossy();
    let mut left = traces(&room.display().to_string());
    left.extend(traces(&name));
    let mut podman = Command::new("podman");
    for (option, name) in [
        ("--root", "root"),
        ("--runroot", "run"),
        ("--tmpdir", "tmp"),
    ] {
        podman
            .arg(option)
            .arg(Path::new("/run/distci/podman").join(name));
    }
    let (_, containers, _) = run(podman.args(["ps", "--all", "--format", "{{.Names}}"]))?;
    let containers = containers.lines().filter(|line| line.contains(&*name));
    left.extend(containers.map(|line| format!("container {line}")));
    Ok(left)
}
