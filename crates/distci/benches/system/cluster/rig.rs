//! A whole cluster to measure, and what its servers tell of themselves.
//!
//! Owns the processes of the cluster and their folder. Dropped, it kills the ones and removes the
//! other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use distci_client::{Client, Token};
use distci_components::{
    Ceph, CephPlan, ObjectStore, S3Access, ZooKeeper, ZooKeeperPlan, take_ports,
};
use distci_store::blobs::{Blobs, S3Settings};
use distci_store::coordination::zookeeper::{Identity, Settings};
use distci_store::coordination::{Event, Watch, zookeeper};
use distci_store::keys;
use futures::FutureExt;
use serde_json::json;

use crate::pages::Site;
use crate::rig::{Worker, end, metric};

const FRONTENDS: usize = 3;
/// Long enough for every frontend to have told the others what its workers wait for.
const CARDS: Duration = Duration::from_millis(2500);

/// A running cluster.
pub(super) struct Cluster {
    pub(super) frontends: Vec<Frontend>,
    /// Knows all frontends, as workers and people do.
    pub(super) client: Client,
    pub(super) zookeeper: ZooKeeper,
    ceph: Ceph,
    dir: tempfile::TempDir,
}

/// One of the frontends. Dropped, it is killed.
pub(super) struct Frontend {
    process: Child,
    config: PathBuf,
    pub(super) url: String,
    /// Knows this frontend alone.
    pub(super) client: Client,
}

/// What the ensemble has written since this was made.
pub(super) struct Writes<'a> {
    cluster: &'a Cluster,
    leader: usize,
    zxid: u64,
    cards: Watch,
    digests: Watch,
    _session: zookeeper::ZooKeeper,
}

/// How many writes there were.
#[derive(Clone, Copy)]
pub(super) struct Written {
    pub(super) all: u32,
    /// Of those, frontends that told each other for whom their workers wait, …
    pub(super) cards: u32,
    /// … and which claims they hear of.
    pub(super) digests: u32,
}

impl Cluster {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        eprintln!("starting ZooKeeper and Ceph in {}", dir.path().display());
        let plan = ZooKeeperPlan {
            servers: 3,
            fsync: true,
            ..ZooKeeperPlan::default()
        };
        let zookeeper = ZooKeeper::start(&dir.path().join("zookeeper"), &plan)?;
        let plan = CephPlan {
            osds: 1,
            store: ObjectStore::BlueStore,
            gateways: 2,
            ..CephPlan::default()
        };
        let ceph = Ceph::start(&dir.path().join("ceph"), &plan)?;
        fs::write(dir.path().join("token"), "benchmark-benchmark-benchmark\n")?;
        fs::write(dir.path().join("secret"), &ceph.s3().secret_key)?;
        let mut cluster = Self {
            client: client(vec!["http://127.0.0.1:9".to_owned()])?,
            frontends: Vec::new(),
            zookeeper,
            ceph,
            dir,
        };
        for _ in 0..FRONTENDS {
            let frontend = cluster.frontend(SignedUrls::Yes).await?;
            cluster.frontends.push(frontend);
        }
        cluster.client = client(cluster.urls())?;
        tokio::time::sleep(CARDS).await;
        Ok(cluster)
    }

    /// The pages of one of its frontends.
    pub(super) fn site(&self) -> anyhow::Result<Site<'_>> {
        let frontend = self.frontends.first().context("no frontend")?;
        Ok(Site {
            client: &frontend.client,
            url: &frontend.url,
            token: fs::read_to_string(self.path("token"))?.trim().to_owned(),
        })
    }

    fn urls(&self) -> Vec<String> {
        let urls = self.frontends.iter().map(|frontend| frontend.url.clone());
        urls.collect()
    }

    /// One more frontend, ready.
    pub(super) async fn frontend(&self, signed: SignedUrls) -> anyhow::Result<Frontend> {
        let port = *take_ports(None, 1)?.first().context("no port")?;
        let config = self.path(&format!("frontend-{port}.toml"));
        fs::write(&config, self.configuration(port, signed))?;
        let url = format!("http://127.0.0.1:{port}");
        let client = client(vec![url.clone()])?;
        let frontend = Frontend {
            process: spawn(&config)?,
            config,
            url,
            client,
        };
        frontend.is_ready().await?;
        Ok(frontend)
    }

    /// A worker that knows all frontends.
    pub(super) fn worker(&self, arguments: &[&str]) -> anyhow::Result<Worker> {
        self.worker_of(&self.urls().join(","), arguments)
    }

    /// A worker that knows these frontends.
    pub(super) fn worker_of(&self, urls: &str, arguments: &[&str]) -> anyhow::Result<Worker> {
        Worker::start(urls, &self.path("token"), arguments)
    }

    /// Returns when every frontend knows where workers wait.
    pub(super) async fn is_told(&self) {
        tokio::time::sleep(CARDS).await;
    }

    /// Workers of one slot each, when every frontend knows where they wait.
    pub(super) async fn workers(&self, count: usize) -> anyhow::Result<Vec<Worker>> {
        let workers: Vec<Worker> = (0..count)
            .map(|_| self.worker(&["--slots", "1"]))
            .collect::<Result<_, _>>()?;
        tokio::time::sleep(CARDS).await;
        Ok(workers)
    }

    /// A session of our own with the ensemble.
    pub(super) async fn session(&self, chroot: &str) -> anyhow::Result<zookeeper::ZooKeeper> {
        let settings = Settings {
            hosts: self.zookeeper.connect(),
            chroot: chroot.to_owned(),
            session_timeout: Duration::from_secs(10),
            identity: Identity::Anonymous,
            tls: None,
        };
        Ok(zookeeper::ZooKeeper::connect(settings).await?)
    }

    /// The bucket, as a frontend sees it, and below a prefix of ours.
    pub(super) fn blobs(&self) -> anyhow::Result<Blobs> {
        let s3 = self.ceph.s3().clone();
        Ok(Blobs::s3(&S3Settings {
            endpoints: s3.endpoints,
            bucket: s3.bucket,
            region: s3.region,
            access_key: s3.access_key,
            secret_key: s3.secret_key,
            prefix: Some("raw".to_owned()),
            signed_urls: true,
        })?)
    }

    /// Counts what the ensemble writes from now on.
    pub(super) async fn writes(&self) -> anyhow::Result<Writes<'_>> {
        let session = self.session("/distci").await?;
        let (cards, digests) = {
            use distci_store::coordination::Coordination as _;
            (
                session.watch(&keys::members()),
                session.watch(&keys::digests()),
            )
        };
        let leader = self.zookeeper.leader()?;
        Ok(Writes {
            cluster: self,
            leader,
            zxid: self.zookeeper.zxid(leader)?,
            cards,
            digests,
            _session: session,
        })
    }

    /// The sum of a metric over all frontends.
    pub(super) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for frontend in &self.frontends {
            sum += metric(&frontend.client, name).await?;
        }
        Ok(sum)
    }

    /// A folder on the disk that the servers use.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configuration(&self, port: u16, signed: SignedUrls) -> String {
        // Strings and lists of JSON are TOML, too.
        let zookeeper = self.zookeeper.connect();
        let hosts = json!(zookeeper.split(',').collect::<Vec<_>>());
        let (token, secret) = (json!(self.path("token")), json!(self.path("secret")));
        let S3Access {
            endpoints,
            bucket,
            region,
            access_key,
            ..
        } = self.ceph.s3();
        let (endpoints, bucket) = (json!(endpoints), json!(bucket));
        let (region, access_key) = (json!(region), json!(access_key));
        let signed = signed == SignedUrls::Yes;
        format!(
            "listen = [\"127.0.0.1:{port}\"]\ntoken-file = {token}\n\n\
             [zookeeper]\nhosts = {hosts}\nchroot = \"/distci\"\nsession-timeout = 10\n\n\
             [s3]\nendpoints = {endpoints}\nbucket = {bucket}\nregion = {region}\n\
             access-key = {access_key}\nsecret-key-file = {secret}\nsigned-urls = {signed}\n"
        )
    }
}

/// Whether workers of a frontend move large bytes past it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SignedUrls {
    Yes,
    No,
}

impl Frontend {
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(&mut self) {
        end(&mut self.process);
    }

    /// Starts it again if it has ended, and waits until it serves.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        if self.process.try_wait()?.is_some() {
            self.process = spawn(&self.config)?;
        }
        self.is_ready().await
    }

    /// Returns when it serves: the client asks again until then.
    async fn is_ready(&self) -> anyhow::Result<()> {
        self.client.jobs(None).await?;
        Ok(())
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl Writes<'_> {
    /// How much was written.
    pub(super) fn count(mut self) -> anyhow::Result<Written> {
        let zxid = self.cluster.zookeeper.zxid(self.leader)?;
        Ok(Written {
            // The lower half counts within the reign of a leader.
            all: u32::try_from(zxid - self.zxid).context("another leader came")?,
            cards: changes(&mut self.cards),
            digests: changes(&mut self.digests),
        })
    }
}

/// The events that have come.
fn changes(watch: &mut Watch) -> u32 {
    let events = std::iter::from_fn(|| watch.next().now_or_never().flatten());
    let writes = events.filter(|event| !matches!(event, Event::Gap));
    u32::try_from(writes.count()).unwrap_or(u32::MAX)
}

fn client(urls: Vec<String>) -> anyhow::Result<Client> {
    let token: Token = "benchmark-benchmark-benchmark".parse()?;
    Ok(Client::new(urls, Some(token))?)
}

fn spawn(config: &Path) -> anyhow::Result<Child> {
    Command::new(env!("CARGO_BIN_EXE_distci"))
        .args(["frontend", "--config"])
        .arg(config)
        .env("DISTCI_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("starting a frontend")
}
