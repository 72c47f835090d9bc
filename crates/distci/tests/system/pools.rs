//! Pools: workers that come when there is work and go when there is none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildPhase, BuildView, TaskState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::rig::{Process, Server, eventually, processes_with, run};

/// A pool over a server, in folders of its own.
struct Pool {
    folder: PathBuf,
    process: Process,
}

impl Pool {
    /// Starts `distci pool` with this file.
    fn start(server: &Server, folder: &Path, text: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let file = folder.join("pool.toml");
        fs::write(&file, text)?;
        let mut command = server.client();
        command
            .arg("pool")
            .arg(&file)
            .arg("--dir")
            .arg(folder.join("own"));
        let log = fs::File::create(folder.join("log"))?;
        Ok(Self {
            folder: folder.to_owned(),
            process: Process::start(command.stderr(log))?,
        })
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("log"))?)
    }

    /// The folders of its workers.
    fn workers(&self) -> usize {
        let workers = self.folder.join("own/workers");
        fs::read_dir(workers).map_or(0, Iterator::count)
    }

    /// Asks it to leave, and gives its exit code.
    fn leave(mut self) -> Result<i32> {
        let pid = Pid::from_raw(i32::try_from(self.process.0.id())?);
        kill(pid, Signal::SIGTERM)?;
        let status = eventually("the pool to leave", || Ok(self.process.0.try_wait()?))?;
        status.code().context("ended by a signal")
    }
}

/// A job of so many tasks, each of which takes a moment.
fn job(name: &str, tasks: usize, script: &str) -> Value {
    let task = |number: usize| {
        json!({
            "name": format!("t{number}"), "type": "execute-shell", "needs": [],
            "params": { "script": script }
        })
    };
    json!({ "job_id": name, "tasks": (0..tasks).map(task).collect::<Vec<_>>() })
}

fn finished(server: &Server, build: &str) -> Result<BuildView> {
    eventually(build, || {
        let build = server.build(build)?;
        Ok((build.phase == BuildPhase::Finished).then_some(build))
    })
}

fn succeeded(build: &BuildView) -> Result<()> {
    for task in &build.tasks {
        let TaskState::Finished { run } = &task.state else {
            anyhow::bail!("{task:?}");
        };
        ensure!(run.result.outcome == Outcome::Success, "{task:?}");
    }
    Ok(())
}

#[test]
fn workers_come_with_the_work_and_go_without_it() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["frontend"])?;
    let text = "name = 'p'\n[[group]]\nname = 'g'\nmax = 3\nidle = '2s'\n";
    let pool = Pool::start(&server, &data.path().join("pool"), text)?;
    server.set_job(&job("j", 7, "sleep 0.5"))?;
    server.ask(&["trigger", "j"])?;
    succeeded(&finished(&server, "j#1")?)?;
    eventually("the workers to leave", || {
        Ok((pool.workers() == 0).then_some(()))
    })?;
    let listed = server.ask(&["workers", "--json"])?;
    ensure!(
        serde_json::from_str::<Vec<Value>>(&listed)?.is_empty(),
        "{listed}"
    );
    // Labels that no group has start nobody.
    let mut odd = job("odd", 1, "true");
    odd["tasks"][0]["params"]["nodelabels"] = json!(["nobody-has-this"]);
    server.set_job(&odd)?;
    server.ask(&["trigger", "odd"])?;
    eventually("build control to be done", || {
        let build = server.build("odd#1")?;
        Ok(build
            .tasks
            .iter()
            .any(|task| matches!(task.state, TaskState::Queued { .. }))
            .then_some(()))
    })?;
    eventually("the workers to leave again", || {
        Ok((pool.workers() == 0).then_some(()))
    })?;
    server.ask(&["cancel", "odd#1"])?;
    ensure!(pool.leave()? == 0);
    Ok(())
}

#[test]
fn a_killed_pool_takes_its_workers_along_and_another_goes_on() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["frontend"])?;
    let text = |name: &str| format!("name = '{name}'\n[[group]]\nname = 'g'\nmin = 1\nmax = 2\n");
    let folder = data.path().join("first");
    let first = Pool::start(&server, &folder, &text("first"))?;
    server.set_job(&job(
        "j",
        1,
        "[ -e DIR/go ] || { touch DIR/seen; sleep 1000; }"
            .replace("DIR", &data.path().display().to_string())
            .as_str(),
    ))?;
    server.ask(&["trigger", "j"])?;
    eventually("the task to run", || {
        Ok(data.path().join("seen").exists().then_some(()))
    })?;
    first.process.kill()?;
    let left = || processes_with(&folder.display().to_string());
    eventually("its workers to be gone", || {
        Ok(left()?.is_empty().then_some(()))
    })?;
    fs::write(data.path().join("go"), "")?;
    let second = Pool::start(&server, &data.path().join("second"), &text("second"))?;
    let build = finished(&server, "j#1")?;
    succeeded(&build)?;
    // What the first left in its folder is undone when it starts again.
    ensure!(fs::read_dir(folder.join("own/workers"))?.count() > 0);
    let first = Pool::start(&server, &folder, &text("first"))?;
    eventually("one worker, the minimum", || {
        Ok((first.workers() == 1).then_some(()))
    })?;
    ensure!(second.leave()? == 0 && first.leave()? == 0);
    ensure!(left()?.is_empty(), "{:?}", left()?);
    Ok(())
}

#[test]
fn a_pool_that_leaves_lets_its_workers_finish() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["frontend"])?;
    let text = "name = 'p'\n[[group]]\nname = 'g'\nmin = 2\nmax = 2\n";
    let pool = Pool::start(&server, &data.path().join("pool"), text)?;
    let script = "touch DIR/seen; until [ -e DIR/go ]; do sleep 0.1; done";
    let script = script.replace("DIR", &data.path().display().to_string());
    server.set_job(&job("j", 1, &script))?;
    server.ask(&["trigger", "j"])?;
    eventually("the task to run", || {
        Ok(data.path().join("seen").exists().then_some(()))
    })?;
    let pid = Pid::from_raw(i32::try_from(pool.process.0.id())?);
    kill(pid, Signal::SIGTERM)?;
    eventually("the other to be gone", || {
        Ok((pool.workers() == 1).then_some(()))
    })?;
    fs::write(data.path().join("go"), "")?;
    // A second request would end it at once, so this only waits.
    let mut process = pool.process;
    let status = eventually("the pool to leave", || Ok(process.0.try_wait()?))?;
    ensure!(status.code() == Some(0), "{status}");
    // Whoever decides that the build is over comes by itself.
    let _control = server.worker(&data.path().join("worker"))?;
    let build = finished(&server, "j#1")?;
    succeeded(&build)?;
    let attempts = server.ask(&["show", "j#1", "--json"])?;
    ensure!(
        attempts.contains("\"attempt\": 1") || attempts.contains("\"attempt\":1"),
        "{attempts}"
    );
    Ok(())
}

#[test]
fn workers_come_by_a_command_and_a_broken_one_is_told() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["frontend"])?;
    let folder = data.path().join("pool");
    fs::create_dir_all(&folder)?;
    let script = folder.join("start");
    let distci = env!("CARGO_BIN_EXE_distci");
    let dir = data.path().join("instance");
    let text = format!(
        "#!/bin/sh\nexec '{distci}' worker $DISTCI_WORKER_ARGUMENTS --dir '{}'\n",
        dir.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let text = "name = 'p'\n\
        [[group]]\nname = 'broken'\nmin = 1\nmax = 5\ncommand = ['sh', '-c', 'echo out of quota; exit 7']\n\
        labels = ['small']\n\
        [[group]]\nname = 'good'\nmax = 2\ncommand = ['./start']\nlabels = ['big']\nidle = '2s'\n";
    let pool = Pool::start(&server, &folder, text)?;
    let mut job = job("j", 3, "true");
    for task in job["tasks"].as_array_mut().context("tasks")? {
        task["params"]["nodelabels"] = json!(["big"]);
    }
    server.set_job(&job)?;
    server.ask(&["trigger", "j"])?;
    succeeded(&finished(&server, "j#1")?)?;
    eventually("the failure to be told", || {
        let log = pool.log()?;
        let told = log.contains("exit code 7") && log.contains("out of quota");
        Ok(told.then_some(()))
    })?;
    ensure!(pool.leave()? == 0);
    Ok(())
}

#[test]
fn a_worker_that_never_comes_up_makes_room_for_one_that_does() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["frontend"])?;
    let folder = data.path().join("pool");
    let text = "name = 'p'\n[[group]]\nname = 'lost'\nmax = 1\nidle = '1s'\nboot = '1s'\n\
        command = ['sleep', '86400']\n";
    let pool = Pool::start(&server, &folder, text)?;
    server.set_job(&job("j", 1, "true"))?;
    server.ask(&["trigger", "j"])?;
    let told = "it took no ticket and did not leave";
    eventually("the first to be given up", || {
        Ok(pool.log()?.contains(told).then_some(()))
    })?;
    eventually("another one", || {
        Ok((pool.log()?.matches("starting 1").count() > 1).then_some(()))
    })?;
    ensure!(pool.leave()? == 0);
    let left = processes_with(&folder.display().to_string())?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// What a small image needs to run this program: a shell, and the libraries that it is linked to.
fn image_of_the_program(images: &Path, folder: &Path) -> Result<()> {
    let root = folder.join("root");
    let busybox = Path::new("/bin/busybox");
    fs::create_dir_all(root.join("bin"))?;
    for name in ["sh", "sleep", "true", "cat", "id", "busybox"] {
        fs::copy(busybox, root.join("bin").join(name))?;
    }
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n")?;
    fs::write(root.join("etc/os-release"), "ID=tiny\n")?;
    let (_, libraries, _) = run(Command::new("ldd").arg(env!("CARGO_BIN_EXE_distci")))?;
    for word in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let to = root.join(word.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::copy(word, to)?;
    }
    let archive = folder.join("root.tar");
    let mut tar = Command::new("tar");
    let (code, _, said) = run(tar.arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."))?;
    ensure!(code == 0, "{said}");
    let mut build = crate::rig::distci();
    build
        .args(["image", "build", "--name", "tiny", "--tar"])
        .arg(&archive);
    let (code, _, said) = run(build.arg("--images").arg(images))?;
    ensure!(code == 0, "{said}");
    Ok(())
}

#[test]
fn workers_come_in_containers() -> Result<()> {
    let data = tempfile::tempdir()?;
    let images = data.path().join("images");
    image_of_the_program(&images, data.path())?;
    let server = Server::start(data.path(), &["frontend"])?;
    let text = format!(
        "name = 'p'\nimages = '{}'\n[[group]]\nname = 'lxc'\nmax = 2\nidle = '2s'\n\
         image = 'tiny'\ndriver = 'lxc'\nlabels = ['boxed']\n",
        images.display()
    );
    let pool = Pool::start(&server, &data.path().join("pool"), &text)?;
    let mut job = job(
        "j",
        2,
        "cat /etc/os-release; echo alone > /left; [ ! -d /usr/share ]",
    );
    for task in job["tasks"].as_array_mut().context("tasks")? {
        task["params"]["nodelabels"] = json!(["boxed"]);
    }
    server.set_job(&job)?;
    server.ask(&["trigger", "j"])?;
    let build = finished(&server, "j#1")?;
    if let Err(error) = succeeded(&build) {
        anyhow::bail!("{error:#}\n{}", pool.log()?);
    }
    let console = server.ask(&["logs", "j#1", "--task", "t0"])?;
    ensure!(console.contains("ID=tiny"), "{console}");
    eventually("the containers to be gone", || {
        Ok((pool.workers() == 0).then_some(()))
    })?;
    let folder = pool.folder.display().to_string();
    ensure!(pool.leave()? == 0);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&folder), "{mounts}");
    ensure!(!Path::new("/left").exists());
    Ok(())
}

#[test]
fn what_cannot_be_started_is_told_before_anything_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pool.toml");
    let ask = |text: &str| {
        fs::write(&file, text)?;
        let mut pool = crate::rig::distci();
        pool.args(["pool", "--check", "--url", "http://127.0.0.1:9"])
            .arg(&file);
        run(pool.arg("--dir").arg(folder.path().join("own")))
    };
    let (code, _, said) =
        ask("images = 'none'\n[[group]]\nname = 'g'\nmax = 1\nimage = 'x'\ndriver = 'lxc'\n")?;
    ensure!(
        code == 2 && said.contains("group g") && said.contains('x'),
        "{code}: {said}"
    );
    let (code, _, said) = ask("[[group]]\nname = 'g'\nmax = 0\n")?;
    ensure!(
        code == 2 && said.contains("pool.toml:3:1: group.max"),
        "{code}: {said}"
    );
    let (code, shown, said) = ask("[[group]]\nname = 'g'\nmax = 1\n")?;
    ensure!(
        code == 0 && shown.contains("can be started"),
        "{code}: {said}"
    );
    Ok(())
}
