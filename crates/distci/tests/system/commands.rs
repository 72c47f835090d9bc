//! The commands against a standalone.

use anyhow::{Context, Result, ensure};

use crate::rig::{Server, distci, eventually, run};

fn start(data: &std::path::Path) -> Result<Server> {
    Server::start(data, &["standalone"])
}

/// Sets a job with one task `t`.
fn set_script(server: &Server, job: &str, script: &str) -> Result<()> {
    let params = serde_json::json!({ "script": script });
    let task = serde_json::json!({ "name": "t", "type": "execute-shell", "params": params });
    server.set_job(&serde_json::json!({ "job_id": job, "tasks": [task] }))
}

#[test]
fn a_job_goes_from_its_file_to_its_artifacts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(&folder.path().join("data"))?;
    for file in ["chain/deploy.json", "chain/build.json"] {
        let file = crate::rig::project().join("examples").join(file);
        server.ask(&["job", "set", file.to_str().context("odd path")?])?;
    }
    let mut trigger = server.client();
    let (code, _, stderr) = run(trigger.args(["trigger", "chain-build", "--follow"]))?;
    ensure!(
        code == 0 && stderr.contains("triggered chain-deploy#1"),
        "{code}: {stderr}"
    );
    let console = server.ask(&["logs", "chain-deploy#1", "-f", "--task", "deploy"])?;
    assert_eq!(console, "made by chain-build build 1\n");

    let out = folder.path().join("out");
    let pages = ["artifacts", "chain-build", "get", "site/pages/*", "-o"];
    let (code, _, stderr) = run(server.client().args(pages).arg(&out))?;
    ensure!(code == 0, "{stderr}");
    let page = std::fs::read_to_string(out.join("site/pages/two.html"))?;
    assert_eq!(page, "<h1>two</h1>\n");
    ensure!(!out.join("site/version.txt").exists());
    let build = server.build("chain-build@success")?;
    ensure!(build.outcome.is_some_and(|outcome| outcome.is_success()));
    Ok(())
}

#[test]
fn the_exit_code_tells_what_happened() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path())?;
    set_script(&server, "fails", "exit 7")?;
    set_script(&server, "hangs", "sleep 86400")?;
    let expected: [(&[&str], i32); 10] = [
        (&["trigger", "fails", "--follow"], 1),
        (&["logs", "fails#1", "-f"], 1),
        (&["logs", "fails#1", "-f", "--task", "t"], 1),
        (&["trigger", "hangs", "--follow", "--timeout", "0"], 124),
        (&["cancel", "hangs#1"], 0),
        (&["logs", "hangs#1", "-f"], 3),
        (&["show", "nobody#1"], 5),
        (&["logs", "fails", "--task", "nobody"], 5),
        (&["artifacts", "fails", "get", "nothing"], 5),
        (&["trigger", "fails", "no=parameter"], 1),
    ];
    for (arguments, wanted) in expected {
        let (code, _, stderr) = run(server.client().args(arguments))?;
        ensure!(code == wanted, "{arguments:?} ended with {code}: {stderr}");
    }
    let nowhere = folder.path().join("nowhere");
    let (code, _, stderr) = run(distci().args(["jobs", "--data"]).arg(nowhere))?;
    ensure!(
        code == 2 && stderr.contains("standalone"),
        "{code}: {stderr}"
    );
    Ok(())
}

#[test]
fn a_followed_task_ends_with_the_verdict_of_its_build() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path())?;
    let task = |name: &str, script: &str, needs: &[&str]| {
        let params = serde_json::json!({ "script": script });
        serde_json::json!({ "name": name, "type": "execute-shell", "params": params, "needs": needs })
    };
    let tasks = [
        task("good", "echo fine", &[]),
        task("bad", "sleep 1; exit 1", &["good"]),
    ];
    server.set_job(&serde_json::json!({ "job_id": "job", "tasks": tasks }))?;
    server.ask(&["trigger", "job"])?;
    let mut logs = server.client();
    let (code, stdout, stderr) = run(logs.args(["logs", "job#1", "-f", "--task", "good"]))?;
    ensure!(code == 1 && stdout == "fine\n", "{code}: {stdout}{stderr}");
    Ok(())
}

#[test]
fn many_artifacts_come_in_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(&folder.path().join("data"))?;
    let make = serde_json::json!({ "script": "for i in $(seq 100 150); do echo $i > $i; done" });
    let publish = serde_json::json!({ "artifacts": ["*"] });
    let tasks = [
        serde_json::json!({ "name": "make", "type": "execute-shell", "params": make }),
        serde_json::json!({ "name": "publish", "type": "publish-artifacts", "params": publish }),
    ];
    server.set_job(&serde_json::json!({ "job_id": "many", "tasks": tasks }))?;
    server.ask(&["trigger", "many", "--follow"])?;
    let out = folder.path().join("out");
    let output = out.to_str().context("odd path")?;
    let said = server.ask(&["artifacts", "many", "get", "-o", output])?;
    let names: Vec<String> = (100..=150)
        .map(|i| out.join(i.to_string()).display().to_string())
        .collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), names);
    assert_eq!(std::fs::read_to_string(out.join("137"))?, "137\n");
    Ok(())
}

#[test]
fn a_stale_address_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("url"), "http://127.0.0.1:1\n")?;
    let (code, _, stderr) = run(distci().arg("--data").arg(folder.path()).arg("jobs"))?;
    ensure!(code == 2 && stderr.contains("stale"), "{code}: {stderr}");
    Ok(())
}

#[test]
fn a_lost_race_for_a_job_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path())?;
    set_script(&server, "job", "echo one")?;
    set_script(&server, "job", "echo two")?;
    let file = folder.path().join("job.json");
    let text = std::fs::read_to_string(&file)?.replace("two", "three");
    std::fs::write(&file, text)?;
    let mut late = server.client();
    late.args(["job", "set"])
        .arg(&file)
        .args(["--if-revision", "1"]);
    ensure!(run(&mut late)?.0 == 1);
    let mut right = server.client();
    right
        .args(["job", "set"])
        .arg(&file)
        .args(["--if-revision", "2"]);
    assert_eq!(run(&mut right)?.1, "job revision 3\n");
    Ok(())
}

#[test]
fn a_lone_console_comes_byte_for_byte() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path())?;
    set_script(&server, "bytes", r"printf 'ol\351\r\n\033[31mred'")?;
    server.ask(&["trigger", "bytes", "--follow"])?;
    let mut logs = server.client();
    let output = logs.args(["logs", "bytes", "--task", "t"]).output()?;
    assert_eq!(output.stdout, b"ol\xe9\r\n\x1b[31mred");
    Ok(())
}

#[test]
fn a_standalone_that_is_asked_to_stop_leaves_in_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = distci();
    command.args(["standalone", "--listen", "127.0.0.1:0", "--data"]);
    let mut child = command.arg(folder.path()).spawn()?;
    let url = folder.path().join("url");
    let there = || Ok(url.exists().then_some(()));
    let begun = eventually("the address", there);
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
    let status = child.wait()?;
    begun?;
    ensure!(status.success(), "{status}");
    ensure!(!url.exists(), "the address is still announced");
    Ok(())
}

#[test]
fn the_example_of_a_schedule_is_shown_without_a_server() -> Result<()> {
    let text = include_str!("../../../../docs/schedules.md");
    let example = text.split("```").nth(1).context("no example")?;
    let example = example.strip_prefix("json").context("not JSON")?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("job.json");
    std::fs::write(&file, example)?;
    let show = |more: &[&str]| {
        let mut command = distci();
        command.arg("schedule").arg("--file").arg(&file).args(more);
        run(&mut command)
    };
    let (code, stdout, stderr) = show(&["--next", "3"])?;
    ensure!(code == 0, "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    ensure!(lines.len() == 1 + 3 + 3, "{stdout}");
    ensure!(
        lines[1].contains("Europe/Berlin") && lines[1].contains(" 04:"),
        "{stdout}"
    );
    ensure!(lines[4].ends_with("12:00 +00:00"), "{stdout}");
    let (_, json, _) = show(&["--json"])?;
    let views: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(
        views[1]["next"]
            .as_array()
            .is_some_and(|next| next.len() == 5),
        "{json}"
    );
    Ok(())
}
