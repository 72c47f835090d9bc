//! The binary under test, and servers made of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use distci_model::wire::BuildView;

pub(crate) use crate::processes::processes_with;
pub(crate) use crate::program::{Process, distci, eventually};

/// The root of the project.
pub(crate) fn project() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Runs to the end and gives what was printed as text.
pub(crate) fn run(command: &mut Command) -> Result<(i32, String, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output()?;
    let code = status.code().context("ended by a signal")?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((code, text(stdout), text(stderr)))
}

/// The builds that `exec --json` printed.
pub(crate) fn builds(json: &str) -> Result<Vec<BuildView>> {
    serde_json::from_str(json).with_context(|| format!("not the JSON of builds: {json}"))
}

/// A data directory whose server may come and go.
pub(crate) struct Server {
    data: PathBuf,
    process: Option<Process>,
}

impl Server {
    /// Starts `distci` with these arguments over `data`, and waits until it answers.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Result<Self> {
        let url = data.join("url");
        if url.exists() {
            std::fs::remove_file(&url)?;
        }
        let mut command = distci();
        command
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data);
        let mut process = Process::start(&mut command)?;
        eventually("the server's address", || {
            ensure!(process.runs()?, "the server ended by itself");
            Ok(std::fs::read_to_string(&url)
                .ok()
                .filter(|text| text.ends_with('\n')))
        })?;
        Ok(Self {
            data: data.to_owned(),
            process: Some(process),
        })
    }

    /// The server over `data` that somebody else has started.
    pub(crate) fn attach(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            process: None,
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.kill()
    }

    /// The binary as a client of this server.
    pub(crate) fn client(&self) -> Command {
        let mut command = distci();
        command.arg("--data").arg(&self.data);
        command
    }

    /// Runs a client to its end; it must succeed.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let (code, stdout, stderr) = run(self.client().args(arguments))?;
        ensure!(
            code == 0,
            "distci {arguments:?} ended with {code}: {stderr}"
        );
        Ok(stdout)
    }

    /// A build as it is now.
    pub(crate) fn build(&self, build: &str) -> Result<BuildView> {
        let json = self.ask(&["show", build, "--json"])?;
        Ok(serde_json::from_str(&json)?)
    }

    /// Sets a job from JSON.
    pub(crate) fn set_job(&self, job: &serde_json::Value) -> Result<()> {
        let file = self.data.join("job.json");
        std::fs::write(&file, job.to_string())?;
        self.ask(&["job", "set", file.to_str().context("odd path")?])?;
        Ok(())
    }

    /// Starts a worker of this server that works in `dir`.
    pub(crate) fn worker(&self, dir: &Path) -> Result<Process> {
        self.worker_with(dir, &[])
    }

    /// The same with further arguments.
    pub(crate) fn worker_with(&self, dir: &Path, arguments: &[&str]) -> Result<Process> {
        let mut command = self.client();
        command.args(["worker", "--dir"]).arg(dir).args(arguments);
        Process::start(&mut command)
    }
}
