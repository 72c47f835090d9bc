//! The processes of a drill's cluster.
//!
//! Owns what runs where: servers of ZooKeeper on disks of their own in memory, a Ceph at the hub of the
//! network, frontends and workers each on a machine of its own whose clock can be shifted.

use std::fs::{self, DirBuilder};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use distci_components::{
    Ceph, CephPlan, Daemon, Daemons, Host, ObjectStore, ZooKeeper, ZooKeeperPlan,
};

use crate::cluster::{TOKEN, configuration, keep_secrets, wait_until_ready};
use crate::drill::lan::{HUB, Lan};
use crate::step::{run_quietly, step};

const SERVERS: u8 = 3;
const FRONTENDS: u8 = 3;
/// Where frontends listen.
const PORT: u16 = 7000;
/// Of so many workers one decides about builds.
const DECIDES: usize = 5;
/// The library that shifts a process's clock. The loader fills in where libraries are.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

/// What runs, and where.
pub(crate) struct Site {
    dir: PathBuf,
    binary: String,
    zookeeper: ZooKeeper,
    ceph: Ceph,
    daemons: Daemons,
    frontends: Vec<Machine>,
    workers: Vec<Machine>,
}

/// A machine with one process of the program.
pub(crate) struct Machine {
    /// Its name, and that of its process.
    pub(crate) name: String,
    /// Its process.
    pub(crate) daemon: Daemon,
    /// The file that says how far its clock is off.
    pub(crate) clock: PathBuf,
    host: Host,
}

impl Site {
    /// Starts everything, and waits until it serves.
    pub(crate) fn build(lan: &Lan, dir: &Path, binary: &Path, workers: usize) -> Result<Self> {
        let zookeeper = step("ZooKeeper", || start_zookeeper(lan, dir))?;
        let ceph = step("Ceph", || {
            let plan = CephPlan {
                store: ObjectStore::BlueStore,
                gateways: 2,
                address: HUB,
                ..CephPlan::default()
            };
            Ceph::start(&dir.join("ceph"), &plan)
        })?;
        let program = dir.join("distci");
        // It holds the token and the key of the objects.
        DirBuilder::new().mode(0o700).create(&program)?;
        let mut site = Self {
            daemons: Daemons::in_folder(&program)?,
            dir: program,
            binary: binary.display().to_string(),
            zookeeper,
            ceph,
            frontends: Vec::new(),
            workers: Vec::new(),
        };
        keep_secrets(&site.dir, site.ceph.s3())?;
        step("frontends", || site.start_frontends(lan))?;
        step("workers", || site.start_workers(lan, workers))?;
        Ok(site)
    }

    /// The folder of the program's own processes.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The program.
    pub(crate) fn binary(&self) -> &str {
        &self.binary
    }

    /// The frontends.
    pub(crate) fn frontends(&self) -> &[Machine] {
        &self.frontends
    }

    /// The workers that decide about builds.
    pub(crate) fn deciders(&self) -> impl Iterator<Item = &Machine> {
        self.workers.iter().step_by(DECIDES)
    }

    /// The workers that run tasks.
    pub(crate) fn runners(&self) -> impl Iterator<Item = &Machine> {
        let workers = self.workers.iter().enumerate();
        workers
            .filter(|(place, _)| place % DECIDES != 0)
            .map(|(_, worker)| worker)
    }

    /// The servers of the ensemble: name of the machine, process, address for clients.
    pub(crate) fn servers(&self) -> Result<Vec<(String, Daemon, String)>> {
        let server = |place: usize| {
            let address = self.zookeeper.address(place)?.to_string();
            Ok((
                format!("zk-{}", place + 1),
                self.zookeeper.daemon(place)?,
                address,
            ))
        };
        (0..self.zookeeper.servers()).map(server).collect()
    }

    /// The disk of a server of the ensemble.
    pub(crate) fn disk(&self, server: u8) -> PathBuf {
        disk(self.zookeeper.dir(), server)
    }

    /// A process of the Ceph.
    pub(crate) fn ceph(&self, name: &str) -> Result<Daemon> {
        self.ceph.daemon(name)
    }

    /// The ports of the gateways.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = &str> {
        let endpoints = self.ceph.s3().endpoints.iter();
        endpoints.filter_map(|endpoint| endpoint.rsplit(':').next())
    }

    /// Where the frontends are.
    pub(crate) fn urls(&self) -> Vec<String> {
        let url = |machine: &Machine| format!("http://{}:{PORT}", machine.host.address);
        self.frontends.iter().map(url).collect()
    }

    fn start_frontends(&mut self, lan: &Lan) -> Result<()> {
        for number in 1..=FRONTENDS {
            let machine = self.machine(lan, &format!("fe-{number}"), [2, number])?;
            let config = self.dir.join(format!("{}.toml", machine.name));
            let address = format!("{}:{PORT}", machine.host.address);
            let text = configuration(
                &self.dir,
                &address,
                &self.zookeeper.connect(),
                self.ceph.s3(),
            );
            fs::write(&config, text)?;
            let config = config.display().to_string();
            self.start(&machine, &["frontend", "--config", &config])?;
            self.frontends.push(machine);
        }
        let urls = self.urls();
        let mut machines = self.frontends.iter().zip(&urls);
        machines.try_for_each(|(machine, url)| wait_until_ready(&machine.daemon, url))
    }

    fn start_workers(&mut self, lan: &Lan, workers: usize) -> Result<()> {
        let (urls, token) = (self.urls().join(","), self.dir.join(TOKEN));
        for place in 0..workers {
            let name = format!("w-{}", place + 1);
            let machine = self.machine(lan, &name, [3, u8::try_from(place + 1)?])?;
            let dir = self.dir.join(&name);
            mount_memory(&dir, "64m")?;
            let (dir, token) = (dir.display().to_string(), token.display().to_string());
            let common = [
                "worker",
                "--url",
                &urls,
                "--token-file",
                &token,
                "--dir",
                &dir,
            ];
            let kinds = if place % DECIDES == 0 {
                "--kind build-control --slots 2"
            } else {
                "--kind execute-shell --kind publish-artifacts --kind copy-artifacts --slots 2 \
                 --driver process"
            };
            let kinds: Vec<&str> = kinds.split_whitespace().collect();
            self.start(
                &machine,
                &[&common[..], &["--name", &name], &kinds].concat(),
            )?;
            self.workers.push(machine);
        }
        Ok(())
    }

    fn machine(&self, lan: &Lan, name: &str, last: [u8; 2]) -> Result<Machine> {
        let clock = self.dir.join(format!("{name}.clock"));
        fs::write(&clock, "+0\n")?;
        Ok(Machine {
            name: name.to_owned(),
            daemon: self.daemons.get(name),
            clock,
            host: lan.host(name, Ipv4Addr::new(10, 77, last[0], last[1]))?,
        })
    }

    fn start(&self, machine: &Machine, words: &[&str]) -> Result<()> {
        let clock = format!("FAKETIME_TIMESTAMP_FILE={}", machine.clock.display());
        let preload = format!("LD_PRELOAD={FAKETIME}");
        // Monotonic clocks stay as they are: only a machine's date is ever wrong.
        let environment = ["env", &preload, &clock, "FAKETIME_DONT_FAKE_MONOTONIC=1"];
        let environment = environment
            .iter()
            .copied()
            .chain(["FAKETIME_CACHE_DURATION=1"]);
        let mut prefix = machine.host.prefix.clone();
        prefix.extend(environment.map(str::to_owned));
        let command = std::iter::once(&*self.binary).chain(words.iter().copied());
        let command: Vec<String> = command.map(str::to_owned).collect();
        machine.daemon.start_behind(&prefix, &command)
    }
}

fn start_zookeeper(lan: &Lan, dir: &Path) -> Result<ZooKeeper> {
    let dir = dir.join("zookeeper");
    let mut hosts = Vec::new();
    for number in 1..=SERVERS {
        hosts.push(lan.host(&format!("zk-{number}"), Ipv4Addr::new(10, 77, 1, number))?);
        mount_memory(&disk(&dir, number - 1), "256m")?;
    }
    let plan = ZooKeeperPlan {
        servers: usize::from(SERVERS),
        hosts,
        ..ZooKeeperPlan::default()
    };
    ZooKeeper::start(&dir, &plan)
}

/// Where a server of the ensemble keeps everything: servers count from 0.
fn disk(dir: &Path, server: u8) -> PathBuf {
    dir.join(format!("zookeeper-{server}"))
}

/// A disk of its own, that can be full without anybody else's being so.
fn mount_memory(dir: &Path, size: &str) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut mount = Command::new("mount");
    mount.args([
        "-t",
        "tmpfs",
        "-o",
        &format!("mode=700,size={size}"),
        "tmpfs",
    ]);
    run_quietly(mount.arg(dir)).map(drop)
}
