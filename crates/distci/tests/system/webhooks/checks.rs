//! An app of GitHub and a standalone: from the push to the check run that says how it ended, and
//! from the wish to check again to the next one.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use distci_components::{CheckRun, FakeApp, FakeForge};
use serde_json::{Value, json};

use super::Hooked;
use crate::rig::{distci, eventually, run};

const REPOSITORY: &str = "acme/app";

/// The file that names the forge and its app. Gives its path.
fn write_forges(folder: &Path, forge: &FakeForge, pem: &str) -> Result<String> {
    let file = folder.join("forges.toml");
    std::fs::write(folder.join("app.pem"), pem)?;
    let text = format!(
        "['{}']\nkind = 'github'\napi = '{}'\napp-id = 4711\nprivate-key-file = 'app.pem'\n",
        forge.host(),
        forge.api()
    );
    std::fs::write(&file, text)?;
    Ok(file.to_str().context("odd path")?.to_owned())
}

fn job(forge: &FakeForge) -> Value {
    let repository = format!("http://{}/{REPOSITORY}.git", forge.host());
    json!({
        "job_id": "app",
        "status": {},
        "triggers": [{ "on": "push", "repository": repository, "refs": ["**"] }],
        "tasks": [{ "name": "unit", "type": "execute-shell",
            "params": { "script": "test $DISTCI_BRANCH != bad" } }],
    })
}

fn push(forge: &FakeForge, sha: &str, branch: &str, message: &str) -> String {
    let mut push = super::push(sha, branch);
    push["head_commit"]["message"] = message.into();
    push["repository"]["html_url"] = format!("http://{}/{REPOSITORY}", forge.host()).into();
    push.to_string()
}

/// The check runs of a commit, once the last of so many is over.
fn completed(forge: &FakeForge, sha: &str, count: usize) -> Result<Vec<CheckRun>> {
    eventually("a check run that is completed", || {
        let mut runs = forge.check_runs();
        runs.retain(|run| run.head_sha == sha);
        ensure!(runs.len() <= count, "too many check runs: {runs:?}");
        let over = runs.len() == count && runs.iter().all(|run| run.status == "completed");
        Ok(over.then_some(runs))
    })
}

#[test]
fn a_signed_push_becomes_one_check_run_and_can_be_checked_again() -> Result<()> {
    let app = FakeApp::new(4711)?;
    let forge = FakeForge::start_with_app(&app, 0)?;
    forge.install(REPOSITORY);
    let folder = tempfile::tempdir()?;
    let file = write_forges(folder.path(), &forge, &app.pem()?)?;
    let public = "https://ci.example.org";
    let hooked = Hooked::with(&["--forges", &file, "--public-url", public])?;
    hooked.server.set_job(&job(&forge))?;

    let (good, bad, skipped) = ("1".repeat(40), "2".repeat(40), "3".repeat(40));
    let (status, _) = hooked.told("push", "1", &push(&forge, &good, "main", "Good"))?;
    ensure!(status == 200);
    let run = completed(&forge, &good, 1)?.remove(0);
    assert_eq!(run.name, "distci/app");
    assert_eq!(run.external_id, "app#1");
    assert_eq!(run.conclusion.as_deref(), Some("success"));
    let page = "https://ci.example.org/jobs/app/builds/1";
    assert_eq!(run.details_url.as_deref(), Some(page));
    assert_eq!(run.summary, "app\\#1 succeeded");
    ensure!(
        run.started_at.is_some() && run.completed_at >= run.started_at,
        "{run:?}"
    );

    hooked.told("push", "2", &push(&forge, &bad, "bad", "Bad"))?;
    let run = completed(&forge, &bad, 1)?.remove(0);
    assert_eq!(run.conclusion.as_deref(), Some("failure"));
    let why = hooked.server.ask(&["why", "app#2"])?;
    ensure!(
        why.contains("unit ended with failure: exit code 1"),
        "{why}"
    );
    ensure!(
        run.summary
            .contains("unit ended with failure\\: exit code 1"),
        "{run:?}"
    );

    hooked.told("push", "3", &push(&forge, &skipped, "main", "No [skip ci]"))?;
    let run = completed(&forge, &skipped, 1)?.remove(0);
    assert_eq!(run.conclusion.as_deref(), Some("skipped"));
    ensure!(run.title.contains("skipped"), "{run:?}");

    let again = json!({
        "action": "rerequested",
        "check_run": { "head_sha": bad, "external_id": "app#2", "name": "distci/app" },
        "repository": { "html_url": format!("http://{}/{REPOSITORY}", forge.host()) },
    });
    let (_, answer) = hooked.told("check_run", "4", &again.to_string())?;
    assert_eq!(answer.builds[0].build.to_string(), "app#3");
    let runs = completed(&forge, &bad, 2)?;
    let names: Vec<_> = runs.iter().map(|run| run.external_id.as_str()).collect();
    assert_eq!(names, ["app#2", "app#3"]);
    // One for each commit and for what was checked again, all with one token.
    assert_eq!((forge.check_runs().len(), forge.drawn()), (4, 1));
    Ok(())
}

#[test]
fn a_key_that_is_none_ends_the_start_with_the_place_and_the_remedy() -> Result<()> {
    let app = FakeApp::new(4711)?;
    let forge = FakeForge::start_with_app(&app, 0)?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let cut = app.pem()?;
    let (cut, _) = cut.rsplit_once("-----END").context("no end")?;
    for (pem, said) in [
        (
            cut,
            "app.pem: line 1: what begins here has no -----END-----",
        ),
        ("ghp_token", "give the .pem file as GitHub hands it out"),
    ] {
        let file = write_forges(folder.path(), &forge, pem)?;
        let mut command = distci();
        command.args([
            "standalone",
            "--listen",
            "127.0.0.1:0",
            "--forges",
            &file,
            "--data",
        ]);
        let (code, _, stderr) = run(command.arg(&data))?;
        assert_eq!(code, 2, "{stderr}");
        ensure!(
            stderr.contains(said) && stderr.contains("forges.toml"),
            "{stderr}"
        );
        let line = pem.lines().nth(1).unwrap_or(pem);
        ensure!(!stderr.contains(line), "{stderr}");
    }
    Ok(())
}
