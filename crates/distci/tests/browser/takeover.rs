//! A browser whose frontend is gone while it looks, and who is led to another one.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::browser::Browser;
use crate::console::{every_line, shows};
use crate::place::{Cluster, TOKEN};
use crate::program::{Process, distci, eventually};
use crate::site::shell;

/// One address in front of several frontends: a connection goes to the first that takes it.
struct Entrance {
    port: u16,
    _leading: JoinSet<()>,
}

impl Entrance {
    async fn to(frontends: Vec<u16>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let mut leading = JoinSet::new();
        leading.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut incoming, _)) = listener.accept().await {
                let frontends = frontends.clone();
                connections.spawn(async move {
                    for port in frontends {
                        if let Ok(mut outgoing) = TcpStream::connect(("127.0.0.1", port)).await {
                            // Either side may end it as it likes.
                            drop(copy_bidirectional(&mut incoming, &mut outgoing).await);
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self {
            port,
            _leading: leading,
        })
    }

    fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Two frontends over one store, and a worker that knows both.
struct Pair {
    frontends: Vec<Process>,
    ports: Vec<u16>,
    _worker: Process,
    cluster: Cluster,
}

impl Pair {
    fn start() -> Result<Self> {
        let cluster = Cluster::new("takeover")?;
        let ports = distci_components::take_ports(None, 2)?;
        let mut frontends = Vec::new();
        for port in &ports {
            let address = format!("127.0.0.1:{port}");
            let mut frontend =
                cluster.distci(&["frontend", "--listen", &address], &cluster.text())?;
            frontends.push(Process::start(&mut frontend)?);
        }
        let mut worker = client(&ports);
        worker.args(["worker", "--driver", "process", "--dir"]);
        worker.arg(cluster.folder().join("worker"));
        let worker = Process::start(&mut worker)?;
        let mut pair = Self {
            frontends,
            ports,
            _worker: worker,
            cluster,
        };
        let ports = pair.ports.clone();
        for (frontend, port) in pair.frontends.iter_mut().zip(ports) {
            eventually("a frontend that serves", || {
                ensure!(frontend.runs()?, "a frontend ended by itself");
                let served = client(&[port]).arg("jobs").output()?;
                Ok(served.status.success().then_some(()))
            })?;
        }
        Ok(pair)
    }

    fn ask(&self, arguments: &[&str]) -> Result<()> {
        let done = client(&self.ports).args(arguments).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "distci {arguments:?}: {said}");
        Ok(())
    }
}

fn client(ports: &[u16]) -> Command {
    let urls: Vec<String> = ports
        .iter()
        .map(|port| format!("http://127.0.0.1:{port}"))
        .collect();
    let mut command = distci();
    command
        .env("DISTCI_TOKEN", TOKEN)
        .args(["--url", &urls.join(",")]);
    command
}

#[tokio::test]
async fn who_watches_a_console_is_led_to_another_frontend_and_misses_no_line() -> Result<()> {
    let mut pair = Pair::start()?;
    let go = pair.cluster.folder().join("go");
    let script = format!(
        "for i in $(seq 1 40); do echo line $i; sleep 0.05; done\n\
         until [ -e {go} ]; do sleep 0.05; done; for i in $(seq 41 300); do echo line $i; done",
        go = go.display()
    );
    let file = pair.cluster.folder().join("job.json");
    let job = json!({ "job_id": "j", "tasks": [shell("a", &[], &script)] });
    std::fs::write(&file, job.to_string())?;
    pair.ask(&["job", "set", file.to_str().context("odd path")?])?;
    pair.ask(&["trigger", "j"])?;
    let entrance = Entrance::to(pair.ports.clone()).await?;
    let browser = Browser::open().await?;
    // Who signed in at one is known to all.
    browser
        .sign_in(&entrance.at("/jobs/j/builds/1"), TOKEN)
        .await?;
    let first = browser.find("footer").await?.text().await?;
    browser.see(".tasks", "console").await?;
    browser
        .visit(&entrance.at("/jobs/j/builds/1/console?task=a"))
        .await?;
    shows(&browser, 40, "line 40").await?;
    pair.frontends.remove(0).kill()?;
    std::fs::write(&go, "")?;
    shows(&browser, 300, "line 300").await?;
    browser.see("[data-status]", "300 lines").await?;
    every_line(&browser, 300).await?;
    browser.visit(&entrance.at("/jobs/j/builds/1")).await?;
    browser.see(".head", "success").await?;
    let second = browser.find("footer").await?.text().await?;
    ensure!(first != second, "{first} has served all the time");
    // A connection ended before its answer did, and the browser said so.
    browser.leave().await
}
