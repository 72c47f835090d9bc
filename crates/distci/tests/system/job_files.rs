//! Jobs whose tasks are in a repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildPhase, BuildView, TaskState};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::{Server, distci, eventually, run};

/// A repository to which commits are made.
struct Repository(TempDir);

impl Repository {
    fn new() -> Result<Self> {
        let repository = Self(tempfile::tempdir()?);
        repository.git("git init -q -b main")?;
        Ok(repository)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, script: &str) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(self.path());
        for (name, value) in [("NAME", "a"), ("EMAIL", "a@example.org")] {
            for who in ["AUTHOR", "COMMITTER"] {
                command.env(format!("GIT_{who}_{name}"), value);
            }
        }
        let (code, stdout, stderr) = run(&mut command)?;
        ensure!(code == 0, "{script}: {stderr}");
        Ok(stdout.trim().to_owned())
    }

    /// A commit with these files.
    fn commit(&self, files: &[(&str, String)]) -> Result<String> {
        for (path, text) in files {
            let path = self.path().join(path);
            std::fs::create_dir_all(path.parent().context("no folder")?)?;
            std::fs::write(path, text)?;
        }
        self.git("git add -A; git commit -qm change; git rev-parse HEAD")
    }

    fn job(&self, more: &Value) -> Value {
        let mut file = json!({ "repository": self.path(), "ref": "${commit}" });
        let extra = more.as_object().cloned().unwrap_or_default();
        file.as_object_mut()
            .into_iter()
            .for_each(|file| file.extend(extra.clone()));
        json!({
            "job_id": "job", "job_file": file,
            "parameters": { "commit": { "default": "HEAD" } },
        })
    }
}

fn task(name: &str, script: &str) -> Value {
    json!({ "name": name, "type": "execute-shell", "params": { "script": script } })
}

fn file(tasks: &[Value]) -> (&'static str, String) {
    (".distci.json", json!({ "tasks": tasks }).to_string())
}

fn names(build: &BuildView) -> Vec<&str> {
    build.tasks.iter().map(|task| task.name.as_str()).collect()
}

fn finished(server: &Server, build: &str) -> Result<BuildView> {
    eventually("the end of the build", || {
        let build = server.build(build)?;
        Ok((build.phase == BuildPhase::Finished).then_some(build))
    })
}

#[test]
fn each_commit_is_built_as_its_own_file_says() -> Result<()> {
    let repository = Repository::new()?;
    let first = repository.commit(&[file(&[task("one", "true")])])?;
    let second = repository.commit(&[
        (
            ".distci.json",
            json!({ "include": [".distci/more.json"] }).to_string(),
        ),
        (
            ".distci/more.json",
            json!({ "tasks": [
                { "type": "git-checkout", "params": {
                    "repository": repository.path(), "ref": "${tasks.job-file.commit}" } },
                task("two", "test -f .distci/more.json"),
            ] })
            .to_string(),
        ),
    ])?;
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["standalone"])?;
    server.set_job(&repository.job(&json!({})))?;
    for (number, commit, expected) in [
        (1, &first, &["job-file", "one"][..]),
        (2, &second, &["job-file", "git-checkout", "two"]),
        (3, &first, &["job-file", "one"]),
    ] {
        server.ask(&["trigger", "job", &format!("commit={commit}")])?;
        let build = finished(&server, &format!("job#{number}"))?;
        ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
        ensure!(names(&build) == expected, "{build:?}");
        let shown = serde_json::to_string(&build.tasks[0].state)?;
        ensure!(shown.contains(commit.as_str()), "{shown}");
    }
    Ok(())
}

#[test]
fn what_the_job_does_not_allow_fails_with_the_line() -> Result<()> {
    let repository = Repository::new()?;
    let text = "{\n  \"tasks\": [\n    { \"type\": \"execute-shell\",\n      \"params\": { \"script\": \"\",\n        \"nodelabels\": [\"secrets\"] } }\n  ]\n}";
    repository.commit(&[(".distci.json", text.to_owned())])?;
    let folder = tempfile::tempdir()?;
    let job = folder.path().join("job.json");
    std::fs::write(
        &job,
        repository.job(&json!({ "labels": ["linux*"] })).to_string(),
    )?;
    let (code, stdout, stderr) = run(distci().arg("exec").arg(&job))?;
    let said =
        ".distci.json:5:24: tasks[0].params.nodelabels[0]: the job does not allow \"secrets\"";
    ensure!(code == 1, "{code}: {stdout}{stderr}");
    ensure!(
        stdout.contains(said) && stderr.contains(said),
        "{stdout}{stderr}"
    );
    ensure!(stderr.contains("failure: configuration"), "{stderr}");
    // The same is known before it is pushed.
    let mut lint = distci();
    lint.arg("lint").arg(repository.path().join(".distci.json"));
    let (code, stdout, _) = run(lint.arg("--for").arg(&job))?;
    ensure!(
        code == 1 && stdout.contains("does not allow \"secrets\""),
        "{stdout}"
    );
    ensure!(stdout.contains(".distci.json:5:24"), "{stdout}");
    Ok(())
}

#[test]
fn what_cannot_be_read_is_the_failure_of_its_owner() -> Result<()> {
    let repository = Repository::new()?;
    std::os::unix::fs::symlink("/etc/passwd", repository.path().join(".distci.json"))?;
    repository.commit(&[("other.json", "{".to_owned())])?;
    let folder = tempfile::tempdir()?;
    let job = folder.path().join("job.json");
    for (more, said) in [
        (json!({}), ".distci.json is a symbolic link"),
        (
            json!({ "path": "none.json" }),
            "none.json is not in the commit",
        ),
        (json!({ "path": "other.json" }), "other.json:1:"),
        (json!({ "ref": "nowhere" }), "has no branch, tag or ref"),
    ] {
        std::fs::write(&job, repository.job(&more).to_string())?;
        let (code, stdout, stderr) = run(distci().arg("exec").arg(&job))?;
        ensure!(
            code == 1 && stderr.contains("failure: "),
            "{code}: {stdout}{stderr}"
        );
        ensure!(stdout.contains(said), "{said}: {stdout}{stderr}");
    }
    Ok(())
}

#[test]
fn a_death_between_reading_and_laying_loses_nothing() -> Result<()> {
    let repository = Repository::new()?;
    repository.commit(&[file(&[task("one", "echo x > f"), task("two", "cat f")])])?;
    let (data, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let worker_dir = |name: &str| -> PathBuf { dir.path().join(name) };
    let mut server = Server::start(data.path(), &["frontend"])?;
    server.set_job(&repository.job(&json!({})))?;
    let control = server.worker_with(&worker_dir("control"), &["--kind", "build-control"])?;
    server.ask(&["trigger", "job"])?;
    let is = |wanted: fn(&TaskState) -> bool, server: &Server| {
        eventually("the task that reads", || {
            Ok(wanted(&server.build("job#1")?.tasks[0].state).then_some(()))
        })
    };
    is(|state| matches!(state, TaskState::Queued { .. }), &server)?;
    control.kill()?;
    // Now nobody takes notice of what is read.
    let reader = server.worker_with(&worker_dir("reader"), &["--kind", "job-file"])?;
    is(|state| matches!(state, TaskState::Finished { .. }), &server)?;
    reader.kill()?;
    server.kill()?;
    let server = Server::start(data.path(), &["standalone"])?;
    let build = finished(&server, "job#1")?;
    ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
    ensure!(names(&build) == ["job-file", "one", "two"], "{build:?}");
    Ok(())
}

#[test]
fn a_part_of_it_is_run_again_with_what_was_read() -> Result<()> {
    let repository = Repository::new()?;
    let flag = repository.path().join("flag");
    let script = format!("test -e '{}'", flag.display());
    repository.commit(&[file(&[task("one", "true"), task("two", &script)])])?;
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["standalone"])?;
    server.set_job(&repository.job(&json!({})))?;
    server.ask(&["trigger", "job"])?;
    let build = finished(&server, "job#1")?;
    ensure!(build.outcome != Some(Outcome::Success), "{build:?}");
    std::fs::write(&flag, "")?;
    repository.commit(&[file(&[task("other", "true")])])?;
    for (number, arguments, expected, is_kept) in [
        (2, &["--failed"][..], &["job-file", "one", "two"][..], true),
        (3, &[], &["job-file", "other"], false),
        (4, &["--from", "job-file"], &["job-file", "other"], false),
    ] {
        server.ask(&[&["rerun", "job#1"], arguments].concat())?;
        let build = finished(&server, &format!("job#{number}"))?;
        ensure!(
            build.outcome == Some(Outcome::Success),
            "{arguments:?}: {build:?}"
        );
        ensure!(names(&build) == expected, "{arguments:?}: {build:?}");
        let TaskState::Finished { run: reading } = &build.tasks[0].state else {
            anyhow::bail!("{build:?}");
        };
        ensure!(reading.build.is_some() == is_kept, "{reading:?}");
    }
    Ok(())
}
