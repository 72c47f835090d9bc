//! `distci drill` on one machine: the faults of a file are done, and promises that are broken are found.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use distci_components::take_ports;
use serde_json::{Value, json};

use crate::rig::{Server, distci, eventually, run};

/// A standalone that is started and killed by commands, as an operator would.
struct Standalone {
    dir: tempfile::TempDir,
    start: String,
}

impl Standalone {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = take_ports(None, 1)?[0];
        let program = distci();
        let start = format!(
            "'{}' standalone --listen 127.0.0.1:{port} --data '{data}' --driver process <&- >>'{data}/log' 2>&1 & \
             echo $! > '{data}/pid'",
            program.get_program().display(),
            data = dir.path().display(),
        );
        let standalone = Self { dir, start };
        shell(&standalone.start)?;
        eventually("the standalone", || {
            let (code, _, _) = run(standalone.server().client().arg("jobs"))?;
            Ok((code == 0).then_some(()))
        })?;
        Ok(standalone)
    }

    fn server(&self) -> Server {
        Server::attach(self.dir.path())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn kill_line(&self) -> String {
        format!("kill -9 $(cat '{}')", self.path("pid").display())
    }

    /// Runs a drill with these faults; gives its exit code, its report and what it said.
    fn drill(&self, faults: &Value, time: &str) -> Result<(i32, Value, String)> {
        let file = self.path("faults.json");
        std::fs::write(&file, faults.to_string())?;
        let mut command = self.server().client();
        command
            .args([
                "drill",
                "--for",
                time,
                "--clients",
                "12",
                "--seed",
                "7",
                "--json",
                "--faults",
            ])
            .arg(&file);
        let (code, stdout, stderr) = run(&mut command)?;
        let report = serde_json::from_str(&stdout).unwrap_or_default();
        Ok((code, report, stderr))
    }
}

fn shell(line: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", line]).status()?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

impl Drop for Standalone {
    fn drop(&mut self) {
        // It may be dead already.
        drop(shell(&self.kill_line()));
    }
}

fn broken(report: &Value) -> Vec<&str> {
    let breaches = report["verdict"]["breaches"].as_array();
    let laws = breaches.into_iter().flatten().map(|breach| &breach["law"]);
    laws.filter_map(Value::as_str).collect()
}

#[test]
fn a_standalone_that_is_killed_keeps_its_promises() -> Result<()> {
    let standalone = Standalone::start()?;
    let faults = json!({ "faults": [{
        "name": "kill -9", "hurt": standalone.kill_line(), "heal": standalone.start, "lasts": 1,
    }] });
    let (code, report, said) = standalone.drill(&faults, "4s")?;
    ensure!(code == 0, "{code}: {report:#} {said}");
    let done = report["faults"].as_array().context("no faults")?;
    ensure!(
        done.len() == 1 && done[0]["name"] == "kill -9",
        "{report:#}"
    );
    let cases = &report["verdict"]["cases"];
    for law in [
        "builds-finish",
        "consoles-are-whole",
        "workspaces-are-true",
        "locks-hold",
        "results-stay",
    ] {
        ensure!(
            cases[law].as_u64() > Some(0),
            "{law} had no case: {report:#}"
        );
    }
    // Its jobs are gone.
    ensure!(
        standalone
            .server()
            .ask(&["jobs", "--json"])?
            .matches("drill-")
            .count()
            == 0
    );
    Ok(())
}

#[test]
fn a_byte_of_a_console_that_is_lost_is_found() -> Result<()> {
    let standalone = Standalone::start()?;
    // Of a build that is over; and the frontend is killed, for it may remember what was on the disk.
    let lose = format!(
        "until record=$(find '{}' -name record | head -n 1) && test \"$record\" && \
         rm \"$(dirname \"$record\")\"/log/*/*; do sleep 0.1; done; {}",
        standalone.path("blobs").display(),
        standalone.kill_line()
    );
    let faults = json!({ "faults": [{
        "name": "a console is lost", "hurt": lose, "heal": standalone.start,
    }] });
    let (code, report, said) = standalone.drill(&faults, "4s")?;
    ensure!(code == 1, "{code}: {report:#} {said}");
    ensure!(
        broken(&report).contains(&"consoles-are-whole"),
        "{report:#}"
    );
    Ok(())
}

#[test]
fn faults_that_cannot_be_done_end_the_drill() -> Result<()> {
    let standalone = Standalone::start()?;
    let healed = standalone.path("healed");
    let faults = json!({ "faults": [{
        "name": "no such machine", "hurt": "echo unknown host >&2; exit 3", "lasts": 5,
        "heal": format!("touch '{}'", healed.display()),
    }] });
    let (code, _, said) = standalone.drill(&faults, "1s")?;
    ensure!(
        code == 2 && said.contains("no such machine") && said.contains("unknown host"),
        "{code}: {said}"
    );
    ensure!(
        healed.exists(),
        "what may have been done was not taken back"
    );

    let (code, _, said) = standalone.drill(&json!({ "faults": [{ "name": "x" }] }), "1s")?;
    ensure!(
        code == 1 && said.contains("faults[0]: missing field `hurt`"),
        "{code}: {said}"
    );
    let missing = Path::new("/nonexistent/faults.json");
    let mut command = standalone.server().client();
    let (code, _, said) = run(command.args(["drill", "--faults"]).arg(missing))?;
    ensure!(
        code == 2 && said.contains("/nonexistent/faults.json"),
        "{code}: {said}"
    );
    Ok(())
}
