//! The examples of the manual, run as the manual runs them.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::rig::{distci, project, run};

/// Runs examples from the root of the project; their artifacts come to `out`. Gives the console.
fn exec(files: &[&str], out: &Path) -> Result<String> {
    let mut command = distci();
    command.current_dir(project()).arg("exec").args(files);
    let (code, stdout, stderr) = run(command.arg("--artifacts").arg(out))?;
    ensure!(code == 0, "exit code {code}: {stdout}{stderr}");
    Ok(stdout)
}

#[test]
fn hello() -> Result<()> {
    let out = tempfile::tempdir()?;
    exec(&["examples/hello.json"], out.path())?;
    let published = out.path().join("hello/1/dist");
    let report = std::fs::read_to_string(published.join("lines-of-rust.txt"))?;
    ensure!(report.contains("crates/model/src/lib.rs"), "{report}");
    ensure!(published.join("papers.tar.gz").exists());
    Ok(())
}

#[test]
fn chain() -> Result<()> {
    let out = tempfile::tempdir()?;
    let files = ["examples/chain/build.json", "examples/chain/deploy.json"];
    exec(&files, out.path())?;
    let receipt = std::fs::read_to_string(out.path().join("chain-deploy/1/receipt.txt"))?;
    assert_eq!(
        receipt,
        "made by chain-build build 1\none.html\nthree.html\ntwo.html\n"
    );
    Ok(())
}

#[test]
fn classic() -> Result<()> {
    let out = tempfile::tempdir()?;
    let files = ["examples/classic.json", "examples/classic-nightly.json"];
    let console = exec(&files, out.path())?;
    let line = "[distci-nightly#1 execute-shell] greeting.txt\n";
    ensure!(console.contains(line), "{console}");
    Ok(())
}

#[test]
fn distci_builds_itself() -> Result<()> {
    let out = tempfile::tempdir()?;
    exec(&["examples/self.json"], out.path())?;
    let log = std::fs::read_to_string(out.path().join("self/1/distci/tests.log"))?;
    ensure!(log.contains("test result: ok"), "{log}");
    Ok(())
}
