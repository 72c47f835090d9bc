//! A cluster on loopback: an ensemble, a Ceph, three frontends and workers, each a process.
//!
//! Owns all of them: a dropped cluster leaves nothing behind but the logs in the target folder.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use distci_client::Client;
use distci_components::{Ceph, CephPlan, ZooKeeper, ZooKeeperPlan, take_ports};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::{Api, Request};
use crate::program::{Process, distci, eventually};
use crate::proxy::Proxy;

/// Frontends of a cluster.
const FRONTENDS: usize = 3;
const TOKEN: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// What kind of cluster.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The name of the folder with its logs.
    pub(crate) theme: &'static str,
    pub(crate) ceph: CephPlan,
    /// Whether workers send large bytes straight to the gateways.
    pub(crate) signed_urls: bool,
}

/// A process of `DistCI` that may come and go.
pub(crate) struct Node {
    name: String,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

impl Node {
    fn new(name: &str, logs: &Path, arguments: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            arguments,
            log: logs.join(format!("{name}.log")),
            process: None,
        }
    }

    /// Starts it, or starts it again.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = distci();
        command.args(&self.arguments).stderr(log);
        self.process = Some(Process::start(&mut command)?);
        Ok(())
    }

    /// `kill -9`. Gives when.
    pub(crate) fn kill(&mut self) -> Result<Instant> {
        let process = self.process.take();
        let process = process.with_context(|| format!("{} does not run", self.name))?;
        process.kill()?;
        Ok(Instant::now())
    }

    /// Freezes it: sockets stay open, and nothing answers. Gives when.
    pub(crate) fn pause(&self) -> Result<Instant> {
        self.signal(Signal::SIGSTOP)?;
        Ok(Instant::now())
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref();
        let process = process.with_context(|| format!("{} does not run", self.name))?;
        let pid = Pid::from_raw(i32::try_from(process.0.id())?);
        Ok(kill(pid, signal)?)
    }

    /// Whoever was not ended by us has no reason to end.
    fn require_running(&mut self) -> Result<()> {
        if let Some(process) = &mut self.process {
            let (name, log) = (&self.name, self.log.display());
            ensure!(process.runs()?, "{name} ended by itself: see {log}");
        }
        Ok(())
    }
}

/// A frontend with its two lines into the store.
pub(crate) struct Frontend {
    pub(crate) node: Node,
    pub(crate) to_zookeeper: Proxy,
    pub(crate) to_s3: Proxy,
}

/// A worker with its line to the frontends.
pub(crate) struct Worker {
    pub(crate) node: Node,
    pub(crate) to_frontends: Proxy,
}

/// Everything. Fields are dropped in their order: `DistCI` before the servers it needs.
pub(crate) struct Cluster {
    pub(crate) workers: Vec<Worker>,
    pub(crate) frontends: Vec<Frontend>,
    pub(crate) zookeeper: ZooKeeper,
    pub(crate) ceph: Ceph,
    ports: Vec<u16>,
    signed_urls: bool,
    logs: PathBuf,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts servers and frontends, and waits until they serve. Workers are hired later.
    pub(crate) fn start(plan: &Plan) -> Result<Self> {
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{}", plan.theme));
        if logs.exists() {
            std::fs::remove_dir_all(&logs)?;
        }
        std::fs::create_dir_all(&logs)?;
        let dir = tempfile::tempdir()?;
        let ensemble = ZooKeeperPlan {
            servers: 3,
            ..ZooKeeperPlan::default()
        };
        let mut cluster = Self {
            workers: Vec::new(),
            frontends: Vec::new(),
            zookeeper: ZooKeeper::start(&dir.path().join("zookeeper"), &ensemble)?,
            ceph: Ceph::start(&dir.path().join("ceph"), &plan.ceph)?,
            ports: take_ports(None, FRONTENDS)?,
            signed_urls: plan.signed_urls,
            logs,
            dir,
        };
        write_secret(&cluster.path("token"), TOKEN)?;
        write_secret(&cluster.path("secret-key"), &cluster.ceph.s3().secret_key)?;
        for number in 0..FRONTENDS {
            let mut frontend = cluster.frontend(number)?;
            frontend.node.start()?;
            cluster.frontends.push(frontend);
        }
        cluster.wait_until_serving()?;
        Ok(cluster)
    }

    /// Where the servers' data, the workers and the ledger are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The frontends as a stranger meets them.
    pub(crate) fn api(&self) -> Api {
        Api::new(&self.ports, TOKEN)
    }

    /// The product's own client over all frontends.
    pub(crate) fn client(&self) -> Result<Client> {
        let urls = self.ports.iter().map(|port| url(*port)).collect();
        let client = Client::new(urls, Some(TOKEN.parse()?))?;
        Ok(client.with_deadline(Duration::from_mins(3)))
    }

    /// Waits until every frontend answers and has news of the store.
    pub(crate) fn wait_until_serving(&mut self) -> Result<()> {
        let api = self.api();
        let request = Request::ready();
        for (number, frontend) in self.frontends.iter_mut().enumerate() {
            eventually(&format!("frontend {number}"), || {
                frontend.node.require_running()?;
                let answer = api.once(number, &request, Duration::from_secs(5));
                Ok(answer
                    .is_ok_and(|answer| answer.status == 200)
                    .then_some(()))
            })?;
        }
        Ok(())
    }

    /// Starts a worker with these arguments; gives its place among the workers.
    pub(crate) fn hire(&mut self, name: &str, arguments: &str) -> Result<usize> {
        let to_frontends = Proxy::to(&self.ports)?;
        let urls: Vec<String> = to_frontends.ports().iter().map(|port| url(*port)).collect();
        let own = [
            "worker",
            "--url",
            &urls.join(","),
            "--token-file",
            &self.path("token").display().to_string(),
            "--name",
            name,
            "--dir",
            &self.path(name).display().to_string(),
        ]
        .map(str::to_owned);
        let given = arguments.split_whitespace().map(str::to_owned);
        let mut node = Node::new(name, &self.logs, own.into_iter().chain(given).collect());
        node.start()?;
        self.workers.push(Worker { node, to_frontends });
        Ok(self.workers.len() - 1)
    }

    /// Whoever was not ended by us still runs.
    pub(crate) fn require_running(&mut self) -> Result<()> {
        let frontends = self.frontends.iter_mut().map(|frontend| &mut frontend.node);
        let workers = self.workers.iter_mut().map(|worker| &mut worker.node);
        frontends.chain(workers).try_for_each(Node::require_running)
    }

    /// The invariants of the store, seen by the product's own check.
    pub(crate) fn require_sound(&self) -> Result<()> {
        let checked = distci()
            .arg("fsck")
            .arg("--config")
            .arg(self.path("frontend-0.toml"))
            .output()?;
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(checked.status.success(), "fsck: {}: {said}", checked.status);
        Ok(())
    }

    fn frontend(&self, number: usize) -> Result<Frontend> {
        let servers = (0..self.zookeeper.servers()).map(|server| self.zookeeper.port(server));
        let to_zookeeper = Proxy::to(&servers.collect::<Result<Vec<_>>>()?)?;
        let endpoints = self.ceph.s3().endpoints.iter();
        let gateways = endpoints
            .map(|endpoint| Ok(endpoint.rsplit(':').next().unwrap_or_default().parse()?));
        let to_s3 = Proxy::to(&gateways.collect::<Result<Vec<u16>>>()?)?;
        let config = self.path(&format!("frontend-{number}.toml"));
        let port = self.ports.get(number).context("no port is left")?;
        std::fs::write(&config, self.configuration(*port, &to_zookeeper, &to_s3))?;
        let name = format!("frontend-{number}");
        let arguments = ["frontend", "--config", &config.display().to_string()];
        let node = Node::new(&name, &self.logs, arguments.map(str::to_owned).to_vec());
        Ok(Frontend {
            node,
            to_zookeeper,
            to_s3,
        })
    }

    fn configuration(&self, port: u16, zookeeper: &Proxy, s3: &Proxy) -> String {
        let hosts: Vec<String> = zookeeper
            .ports()
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let endpoints: Vec<String> = s3.ports().iter().map(|port| url(*port)).collect();
        let access = self.ceph.s3();
        format!(
            "listen = [\"127.0.0.1:{port}\"]\n\
             token-file = \"token\"\n\
             [zookeeper]\n\
             hosts = {hosts:?}\n\
             chroot = \"/distci\"\n\
             session-timeout = 8\n\
             [s3]\n\
             endpoints = {endpoints:?}\n\
             bucket = {:?}\n\
             region = {:?}\n\
             access-key = {:?}\n\
             secret-key-file = \"secret-key\"\n\
             signed-urls = {}\n",
            access.bucket, access.region, access.access_key, self.signed_urls
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let mut file = File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(secret.as_bytes())?)
}
