//! What users get wrong is refused at the door, with the place and the reason.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::rig::{Server, distci, run};

/// Lints `text`; gives the exit code and what was said.
fn lint(text: &str) -> Result<(i32, String)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("job.json");
    std::fs::write(&file, text)?;
    let (code, stdout, stderr) = run(distci().arg("lint").arg(file))?;
    Ok((code, stdout + &stderr))
}

#[test]
fn lint_names_line_path_and_what_was_meant() -> Result<()> {
    let task = r#"{"type": "execute-shell", "params": {"scirpt": "make"}}"#; // spelling:ignore-line
    let (code, said) = lint(&format!("{{\n\"job_id\": \"j\",\n\"tasks\": [{task}]\n}}"))?;
    ensure!(code == 1, "exit code {code}");
    let place = "tasks[0].params.scirpt"; // spelling:ignore-line
    for part in [place, "did you mean `script`?", ":3:"] {
        ensure!(said.contains(part), "no {part:?} in {said}");
    }
    Ok(())
}

#[test]
fn a_file_that_is_no_text_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("job.json");
    std::fs::write(&file, b"{\"job_id\": \"\xff\"}")?;
    let (code, stdout, stderr) = run(distci().args(["lint", "--json"]).arg(&file))?;
    ensure!(
        code == 1 && stdout.contains("\"column\": 13"),
        "{code}: {stdout}{stderr}"
    );
    let (code, _, stderr) = run(distci().args(["lint", "/dev/zero"]))?;
    ensure!(code == 1, "{code}: {stderr}");
    Ok(())
}

#[test]
fn exec_refuses_before_it_begins() -> Result<()> {
    for text in [
        "{",
        "[]",
        r#"{"job_id": "a/b", "tasks": []}"#,
        r#"{"tasks": 3}"#,
    ] {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("job.json");
        std::fs::write(&file, text)?;
        let (code, stdout, stderr) = run(distci().arg("exec").arg(&file))?;
        ensure!(code == 1 && stdout.is_empty(), "{text}: {code}, {stdout}");
        ensure!(
            stderr.contains("job.json"),
            "the file is not named: {stderr}"
        );
    }
    let (code, _, stderr) = run(distci().args(["exec", "/not/here.json"]))?;
    ensure!(code != 0 && stderr.contains("/not/here.json"), "{stderr}");
    Ok(())
}

#[test]
fn a_refused_job_leaves_nothing_and_unknown_things_are_said() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::start(dir.path(), &["frontend"])?;
    let mut command = server.client();
    command
        .args(["job", "set", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut setting = command.spawn()?;
    let mut input = setting.stdin.take().context("no input")?;
    input.write_all(br#"{"job_id": "j", "tasks": [], "nonsense": 1}"#)?;
    drop(input);
    let output = setting.wait_with_output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let jobs = server.ask(&["jobs", "--json"])?;
    ensure!(!jobs.contains("\"j\""), "something was stored: {jobs}");
    for arguments in [
        &["show", "nobody#1"][..],
        &["trigger", "nobody"],
        &["logs", "nobody#7"],
        &["artifacts", "nobody"],
        &["job", "get", "nobody"],
    ] {
        let (code, _, stderr) = run(server.client().args(arguments))?;
        ensure!(
            code == 5 && stderr.contains("nobody"),
            "{arguments:?}: {code}, {stderr}"
        );
    }
    Ok(())
}

#[test]
fn without_the_token_nothing_is_done() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::start(dir.path(), &["frontend"])?;
    let url = std::fs::read_to_string(dir.path().join("url"))?;
    let mut command = distci();
    command
        .args(["--url", url.trim(), "jobs"])
        .env("DISTCI_TOKEN", "wrong");
    let (code, _, stderr) = run(&mut command)?;
    ensure!(code == 4, "exit code {code}: {stderr}");
    let mut command = distci();
    let (code, _, stderr) = run(command.args(["--url", url.trim(), "jobs", "--data", "/nowhere"]))?;
    ensure!(
        code == 4 && stderr.contains("no token for"),
        "{code}: {stderr}"
    );
    let mut command = distci();
    let slash = format!("{}/", url.trim());
    command
        .args(["--url", &slash, "jobs", "--data"])
        .arg(dir.path());
    let (code, _, stderr) = run(&mut command)?;
    ensure!(
        code == 0,
        "the token of {slash} is not found: {code}, {stderr}"
    );
    let token = std::fs::metadata(dir.path().join("token"))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&token.permissions());
    ensure!(mode & 0o777 == 0o600, "the token's mode is {mode:o}");
    drop(server);
    Ok(())
}
