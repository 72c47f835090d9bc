//! Real processes to measure, and a client for them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use distci_client::{Client, ClientError, Token, new_request_id};
use distci_model::capability::Capabilities;
use distci_model::id::{BuildRef, JobId};
use distci_model::wire::{BuildPhase, BuildView, Claim, ClaimRequest, TriggerRequest};
use tokio::task::JoinSet;

use crate::pages::Site;

/// A running server in a data directory of its own. Dropped, it is killed.
pub(crate) struct Server {
    process: Running,
    data: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Server {
    /// `distci standalone` with this many slots.
    pub(crate) async fn standalone(slots: usize) -> anyhow::Result<Self> {
        Self::start(&["standalone", "--slots", &slots.to_string()]).await
    }

    /// `distci frontend`: no worker but those that come.
    pub(crate) async fn frontend() -> anyhow::Result<Self> {
        Self::start(&["frontend"]).await
    }

    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::over(tempfile::tempdir()?, arguments).await
    }

    /// The same data under a new process, which has nothing of it in memory: a frontend.
    pub(crate) async fn anew(self) -> anyhow::Result<Self> {
        let Self { process, data, .. } = self;
        drop(process);
        std::fs::remove_file(data.path().join("url"))?;
        Self::over(data, &["frontend"]).await
    }

    async fn over(data: tempfile::TempDir, arguments: &[&str]) -> anyhow::Result<Self> {
        let process = Command::new(env!("CARGO_BIN_EXE_distci"))
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .env("DISTCI_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting distci")?;
        let process = Running(process);
        let url = appears(&data.path().join("url")).await?;
        let token: Token = appears(&data.path().join("token")).await?.parse()?;
        let client = Client::new(vec![url.clone()], Some(token))?;
        Ok(Self {
            process,
            data,
            url,
            client,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Its pages, and how to get in.
    pub(crate) fn site(&self) -> anyhow::Result<Site<'_>> {
        let token = std::fs::read_to_string(self.data.path().join("token"))?;
        Ok(Site {
            client: &self.client,
            url: &self.url,
            token: token.trim().to_owned(),
        })
    }

    /// A worker process of this server.
    pub(crate) fn worker(&self, arguments: &[&str]) -> anyhow::Result<Worker> {
        Worker::start(&self.url, &self.data.path().join("token"), arguments)
    }
}

/// A process that is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// A worker process. Dropped, it is killed.
pub(crate) struct Worker {
    process: Child,
    _scratch: tempfile::TempDir,
}

impl Worker {
    /// Starts a worker of these frontends, with commas between them.
    pub(crate) fn start(urls: &str, token: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir()?;
        let process = Command::new(env!("CARGO_BIN_EXE_distci"))
            .args(["worker", "--url", urls, "--token-file"])
            .arg(token)
            .arg("--dir")
            .arg(scratch.path())
            .args(arguments)
            .env("DISTCI_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting a worker")?;
        Ok(Self {
            process,
            _scratch: scratch,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Makes a job of these tasks.
pub(crate) async fn set_job(
    client: &Client,
    id: &str,
    tasks: serde_json::Value,
) -> anyhow::Result<JobId> {
    let job: JobId = id.parse()?;
    let text = serde_json::json!({ "job_id": id, "tasks": tasks }).to_string();
    client.set_job(&job, text, None).await?;
    Ok(job)
}

pub(crate) async fn trigger(client: &Client, job: &JobId) -> anyhow::Result<BuildRef> {
    let wish = TriggerRequest::default();
    let triggered = client.trigger(job, &wish, &new_request_id()?).await?;
    triggered.build().context("skipped")
}

/// Waits for the end of a build.
pub(crate) async fn finish(client: &Client, build: &BuildRef) -> anyhow::Result<BuildView> {
    watch(client, build, |view| view.phase == BuildPhase::Finished).await
}

/// Waits until a build is as it should be.
pub(crate) async fn watch(
    client: &Client,
    build: &BuildRef,
    wanted: impl Fn(&BuildView) -> bool,
) -> anyhow::Result<BuildView> {
    let mut seen = None;
    loop {
        let wait = Duration::from_secs(20);
        let watched = client.watch_build(build, seen.as_deref(), wait).await?;
        if wanted(&watched.view) {
            return Ok(watched.view);
        }
        seen = Some(watched.etag);
    }
}

/// The sum of the samples of a metric whose names begin so.
pub(crate) async fn metric(client: &Client, name: &str) -> anyhow::Result<f64> {
    let text = client.metrics().await?;
    let samples = text.lines().filter(|line| line.starts_with(name));
    Ok(samples
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

/// When a claim was answered, and how.
pub(crate) type Claimed = (Instant, Result<Option<Claim>, ClientError>);

/// A worker of build control that waits at this frontend.
pub(crate) async fn waiting_control(client: &Client) -> anyhow::Result<JoinSet<Claimed>> {
    let request = ClaimRequest {
        worker: "bench".parse()?,
        capabilities: Capabilities::control(),
        request: new_request_id()?,
        wait: 20,
        age_ms: None,
    };
    let mut waiting = JoinSet::new();
    let asking = client.clone();
    waiting.spawn(async move {
        let claim = asking.claim(&request).await;
        (Instant::now(), claim)
    });
    waits(client).await?;
    Ok(waiting)
}

/// Returns when a claim request is held by the server.
async fn waits(client: &Client) -> anyhow::Result<()> {
    while metric(client, "distci_claims_waiting").await? < 1.0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Ends a process as a power cut would.
pub(crate) fn end(process: &mut Child) {
    if let Err(error) = process.kill().and_then(|()| process.wait()) {
        eprintln!("a process could not be ended: {error}");
    }
}

/// Resident memory of a process in MB, without the pages that it shares as files.
pub(crate) fn resident(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    let kilobytes: f64 = line
        .split_whitespace()
        .nth(1)
        .context("no value")?
        .parse()?;
    Ok(kilobytes / 1024.0)
}

/// The time that a process has spent on processors. Linux counts it in hundredths of a second.
pub(crate) fn worked(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = times.map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The text of a file as soon as it is there.
pub(crate) async fn appears(file: &Path) -> anyhow::Result<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match std::fs::read_to_string(file) {
            Ok(text) if text.ends_with('\n') => return Ok(text.trim().to_owned()),
            Ok(_) | Err(_) if Instant::now() > deadline => {
                bail!("{} did not appear", PathBuf::from(file).display())
            }
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A list of tasks that each run `script`.
pub(crate) fn shell(script: &str, count: usize) -> serde_json::Value {
    let task = serde_json::json!({ "type": "execute-shell", "params": { "script": script } });
    serde_json::Value::Array(vec![task; count])
}

/// A list of one task that runs `script` on workers of a label.
pub(crate) fn shell_for(label: &str, script: &str) -> serde_json::Value {
    serde_json::json!([{
        "type": "execute-shell",
        "params": { "script": script, "nodelabels": [label] },
    }])
}
