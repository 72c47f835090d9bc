//! A small Ceph with S3 gateways: one monitor, a few stores, no manager.
//!
//! Owns the cluster's folder: its configuration, its maps and data. Ready means that an object went
//! in and came out again through every gateway.

mod config;
mod s3;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

pub use self::s3::S3Access;
use crate::daemons::{Daemon, Daemons, tail};
use crate::packages::{CEPH_PACKAGES, require};
use crate::patience::{LONG, wait_for};
use crate::ports;

const MONITOR: &str = "mon.a";

/// Where the object store daemons keep their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectStore {
    /// In memory: quick, and saved to the folder by a [`Ceph::stop`] alone.
    Memory,
    /// In a sparse file of the folder: survives a kill.
    BlueStore,
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CephPlan {
    /// Daemons that hold objects; with three, each object is held by all and written by two.
    pub osds: usize,
    /// Where they hold them.
    pub store: ObjectStore,
    /// How many serve S3.
    pub gateways: usize,
    /// Where the gateways listen.
    pub address: Ipv4Addr,
    /// The first of the ports: one a gateway, then two for the monitor; none: free ones. The
    /// object store daemons take theirs from 6800 on.
    pub base_port: Option<u16>,
}

impl Default for CephPlan {
    /// One store in memory behind one gateway, on free ports.
    fn default() -> Self {
        Self {
            osds: 1,
            store: ObjectStore::Memory,
            gateways: 1,
            address: Ipv4Addr::LOCALHOST,
            base_port: None,
        }
    }
}

/// A running cluster. Dropping the value kills it, unless it came from [`Ceph::open`].
#[derive(Debug)]
pub struct Ceph {
    daemons: Daemons,
    s3: S3Access,
    owned: bool,
}

impl Ceph {
    /// Makes a cluster in a folder and waits until every gateway serves.
    pub fn start(dir: &Path, plan: &CephPlan) -> Result<Self> {
        require(&CEPH_PACKAGES)?;
        let daemons = Daemons::in_folder(dir)?;
        if !daemons.all()?.is_empty() {
            bail!("{} holds a Ceph already", daemons.dir().display());
        }
        let ports = ports::take(plan.base_port, plan.gateways + 2)?;
        let (gateways, monitor) = ports.split_at(plan.gateways);
        let s3 = S3Access::on(plan.address, gateways);
        s3.save(daemons.dir())?;
        // Made before the first start: an error on the way takes the started ones with it.
        let ceph = Self {
            daemons,
            s3,
            owned: true,
        };
        config::write(ceph.dir(), plan, monitor)?;
        ceph.start_stores(plan)?;
        ceph.create_user()?;
        ceph.start_gateways()?;
        ceph.s3
            .create_bucket()
            .with_context(|| ceph.log_tail("rgw.1"))?;
        ceph.check()?;
        ceph.daemons.mark_complete()?;
        Ok(ceph)
    }

    /// Opens the cluster of a folder and starts what does not run; or makes a new one, where there
    /// is none or its start was interrupted. Errors: it has another number of stores or gateways.
    pub fn ensure(dir: &Path, plan: &CephPlan) -> Result<Self> {
        if !Daemons::is_complete(dir) {
            Daemons::remove(dir)?;
            return Self::start(dir, plan);
        }
        let found = Self::open(dir)?;
        let names = found.names()?;
        let stores = names.iter().filter(|name| name.starts_with("osd.")).count();
        let gateways = found.s3.endpoints.len();
        if (stores, gateways) != (plan.osds, plan.gateways) {
            let dir = dir.display();
            bail!("{dir} holds a Ceph of {stores} stores and {gateways} gateways");
        }
        found.restart_all()?;
        Ok(found)
    }

    /// Finds the cluster of a folder again, running or not. Dropping the value leaves it alone.
    pub fn open(dir: &Path) -> Result<Self> {
        let s3 = S3Access::load(dir).with_context(|| format!("no Ceph in {}", dir.display()))?;
        let daemons = Daemons::in_folder(dir)?;
        Ok(Self {
            daemons,
            s3,
            owned: false,
        })
    }

    /// The folder of the cluster.
    pub fn dir(&self) -> &Path {
        self.daemons.dir()
    }

    /// How to reach the gateways.
    pub fn s3(&self) -> &S3Access {
        &self.s3
    }

    /// The names of the daemons: `mon.a`, `osd.0`, `rgw.1`.
    pub fn names(&self) -> Result<Vec<String>> {
        let all = self.daemons.all()?;
        Ok(all.iter().map(|daemon| daemon.name().to_owned()).collect())
    }

    /// One daemon. Errors: the cluster has none of that name.
    pub fn daemon(&self, name: &str) -> Result<Daemon> {
        let all = self.daemons.all()?;
        let found = all.into_iter().find(|daemon| daemon.name() == name);
        found.with_context(|| format!("no daemon {name} in {}", self.dir().display()))
    }

    /// Every daemon, running or not.
    pub fn daemons(&self) -> Result<Vec<Daemon>> {
        self.daemons.all()
    }

    /// Kills a daemon as a power cut would.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.daemon(name)?.kill()
    }

    /// Freezes a daemon: its sockets stay open and nothing answers.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.daemon(name)?.pause()
    }

    /// Lets a paused daemon go on.
    pub fn resume(&self, name: &str) -> Result<()> {
        self.daemon(name)?.resume()
    }

    /// Starts a daemon again, killing it first if it runs; does not wait until it serves.
    pub fn restart(&self, name: &str) -> Result<()> {
        let daemon = self.daemon(name)?;
        daemon.kill()?;
        daemon.start_again()
    }

    /// Kills everything at once, as a power cut would. Stores in memory lose what they had.
    pub fn kill_all(&self) -> Result<()> {
        self.daemons.kill_all()
    }

    /// Starts every daemon that does not run, and waits until all gateways serve.
    pub fn restart_all(&self) -> Result<()> {
        for daemon in self.daemons.all()? {
            daemon.start_again()?;
        }
        self.check()
    }

    /// Proves that an object goes in and out through every gateway. Errors: it does not.
    pub fn check(&self) -> Result<()> {
        for (number, endpoint) in (1..).zip(&self.s3.endpoints) {
            let name = format!("rgw.{number}");
            self.wait_for_gateway(&name, endpoint)?;
            let probe = self.dir().join(format!("probe.{number}"));
            self.s3
                .round_trip(endpoint, &probe)
                .with_context(|| self.log_tail(&name))?;
        }
        Ok(())
    }

    /// Leaves the daemons running and gives up the ownership.
    pub fn leave(mut self) {
        self.owned = false;
    }

    /// Ends the daemons in the order in which all of them can save what they hold.
    pub fn stop(mut self) -> Result<()> {
        self.owned = false;
        // A gateway has nothing to save and takes long to say so; the stores need the monitor.
        for (kind, end) in [
            ("rgw.", Daemon::kill as fn(&Daemon) -> Result<()>),
            ("osd.", Daemon::stop),
            ("mon.", Daemon::stop),
        ] {
            let all = self.daemons.all()?;
            all.iter()
                .filter(|daemon| daemon.name().starts_with(kind))
                .try_for_each(end)?;
        }
        self.daemons.kill_all()
    }

    fn start_stores(&self, plan: &CephPlan) -> Result<()> {
        let keyring = self.path("keyring");
        let (monmap, osdmap) = (self.path("monmap"), self.path("osdmap"));
        let mkfs = ["ceph-mon", "-i", "a", "--mkfs", "--monmap", &monmap];
        self.run(&[&mkfs[..], &["--osdmap", &osdmap, "--keyring", &keyring]].concat())?;
        self.start_daemon(MONITOR, &["ceph-mon", "-i", "a", "-f"])?;
        for osd in 0..plan.osds {
            let id = osd.to_string();
            fs::create_dir_all(self.dir().join(format!("osd.{osd}")))?;
            self.run(&[
                "ceph-osd",
                "-i",
                &id,
                "--mkfs",
                "--osd-uuid",
                &config::uuid()?,
            ])?;
            self.start_daemon(&format!("osd.{osd}"), &["ceph-osd", "-i", &id, "-f"])?;
        }
        Ok(())
    }

    /// Also makes the gateways' pools, and therefore returns only once the stores serve.
    fn create_user(&self) -> Result<()> {
        let access = format!("--access-key={}", self.s3.access_key);
        let secret = format!("--secret-key={}", self.s3.secret_key);
        let user = ["--uid=distci", "--display-name=DistCI", "--max-buckets=0"];
        let create = [
            "timeout",
            "120",
            "radosgw-admin",
            "-n",
            "client.admin",
            "user",
            "create",
        ];
        self.run(&[&create[..], &user[..], &[&access, &secret]].concat())
            .with_context(|| self.log_tail("osd.0"))
    }

    fn start_gateways(&self) -> Result<()> {
        for (number, endpoint) in (1..).zip(&self.s3.endpoints) {
            let client = format!("client.rgw.{number}");
            // Without tcp_nodelay every small answer waits 40 ms for an acknowledgement.
            let address = endpoint.trim_start_matches("http://");
            let beast = format!("--rgw-frontends=beast endpoint={address} tcp_nodelay=1");
            self.start_daemon(
                &format!("rgw.{number}"),
                &["radosgw", "-n", &client, "-f", &beast],
            )?;
        }
        Ok(())
    }

    fn wait_for_gateway(&self, name: &str, endpoint: &str) -> Result<()> {
        let daemon = self.daemon(name)?;
        let answers = || {
            daemon.require_running()?;
            Ok(s3::answers(endpoint).then_some(()))
        };
        wait_for(name, LONG, answers).with_context(|| self.log_tail(name))
    }

    fn start_daemon(&self, name: &str, words: &[&str]) -> Result<()> {
        let conf = self.path("ceph.conf");
        let words = words.iter().copied().chain(["-c", &conf]);
        self.daemons
            .get(name)
            .start(&words.map(str::to_owned).collect::<Vec<_>>())
    }

    /// Runs one of Ceph's tools on this cluster.
    fn run(&self, words: &[&str]) -> Result<()> {
        let (program, arguments) = words.split_first().context("no program")?;
        let output = Command::new(program)
            .args(arguments)
            .arg("-c")
            .arg(self.path("ceph.conf"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| (*program).to_owned())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {said}", words.join(" "), output.status);
        }
        Ok(())
    }

    fn log_tail(&self, name: &str) -> String {
        let own = tail(&self.dir().join("log").join(format!("{name}.own.log")));
        format!("{}\n{own}", self.daemons.get(name).log_tail())
    }

    fn path(&self, file: &str) -> String {
        self.dir().join(file).display().to_string()
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        if self.owned && self.daemons.kill_all().is_err() {
            // Nobody is left to tell; the folder still names what runs, and `open` finds it.
        }
    }
}
