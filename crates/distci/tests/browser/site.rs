//! A DistCI with something to look at.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::browser::Browser;
use crate::program::{Process, distci, eventually};

/// A frontend over a store of its own, which may be killed and come back at the same address.
pub(crate) struct Site {
    data: TempDir,
    port: u16,
    frontend: Option<Process>,
    worker: Option<Process>,
}

impl Site {
    /// Starts a frontend and a worker.
    pub(crate) fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut site = Self {
            data: tempfile::tempdir()?,
            port,
            frontend: None,
            worker: None,
        };
        site.revive()?;
        let mut worker = site.client();
        worker.args(["worker", "--slots", "4", "--driver", "process", "--dir"]);
        site.worker = Some(Process::start(worker.arg(site.path("worker")))?);
        Ok(site)
    }

    /// `kill -9` of the frontend.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.frontend.take().context("it does not run")?.kill()
    }

    /// Starts a frontend at the same address.
    pub(crate) fn revive(&mut self) -> Result<()> {
        let url = self.path("url");
        if url.exists() {
            std::fs::remove_file(&url)?;
        }
        let mut command = self.client();
        let address = format!("127.0.0.1:{}", self.port);
        let mut frontend = Process::start(command.args(["frontend", "--listen", &address]))?;
        eventually("the frontend's address", || {
            ensure!(frontend.runs()?, "the frontend ended by itself");
            Ok(url.exists().then_some(()))
        })?;
        self.frontend = Some(frontend);
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// The address of a page.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Command {
        let mut command = distci();
        command.arg("--data").arg(self.data.path());
        command
    }

    /// Runs a client to its end; it must succeed.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let done = self.client().args(arguments).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "distci {arguments:?}: {said}");
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Sets a job.
    pub(crate) fn set_job(&self, job: &Value) -> Result<()> {
        let file = self.path("job.json");
        std::fs::write(&file, job.to_string())?;
        self.ask(&["job", "set", file.to_str().context("odd path")?])?;
        Ok(())
    }

    /// Waits until a build has ended, however.
    pub(crate) fn finish(&self, build: &str) -> Result<()> {
        eventually(build, || {
            let view: Value = serde_json::from_str(&self.ask(&["show", build, "--json"])?)?;
            Ok((view["phase"] == "finished").then_some(()))
        })
    }

    /// What readers sign in with.
    pub(crate) fn token(&self) -> Result<String> {
        let token = std::fs::read_to_string(self.path("token"))?;
        Ok(token.trim().to_owned())
    }

    /// A browser whose reader is signed in.
    pub(crate) async fn browse(&self) -> Result<Browser> {
        let browser = Browser::open().await?;
        browser.sign_in(&self.at("/"), &self.token()?).await?;
        Ok(browser)
    }
}

/// A shell task.
pub(crate) fn shell(name: &str, needs: &[&str], script: &str) -> Value {
    json!({ "name": name, "type": "execute-shell", "needs": needs, "params": { "script": script } })
}
