//! `cargo xtask components`: real ZooKeeper and Ceph servers that outlive the call, for trials.
//!
//! Owns the folder that it is given and the processes of that folder. What is stopped keeps its
//! data; removing the folder removes it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use distci_components::shared::{self, Ending};
use distci_components::{Ceph, CephPlan, Daemon, ObjectStore, S3Access, ZooKeeper, ZooKeeperPlan};

use crate::machine::Machine;
use crate::step::step;

/// What to do with the servers.
#[derive(Subcommand)]
pub(crate) enum Deed {
    /// Start what does not run, and print how to reach it.
    Up {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        plan: Plan,
    },
    /// Stop what runs; its data stays in the folder.
    Down(Which),
    /// Print what runs.
    Status(Which),
}

/// The folder.
#[derive(Args)]
pub(crate) struct Place {
    /// Folder of the servers [default: below the user's cache folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The servers of a folder, or those of the tests.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    place: Place,
    /// The servers that all tests share.
    #[arg(long, conflicts_with = "dir")]
    shared: bool,
}

/// How many servers.
#[derive(Args)]
pub(crate) struct Plan {
    /// Servers of ZooKeeper.
    #[arg(long, default_value_t = 1, value_parser = one_or_three, value_name = "1|3")]
    pub(crate) zookeeper: usize,
    /// Stores of Ceph; three hold every object three times.
    #[arg(long, default_value_t = 1, value_parser = one_or_three, value_name = "1|3")]
    pub(crate) osds: usize,
    /// S3 gateways of Ceph.
    #[arg(long, default_value_t = 1, value_parser = gateways, value_name = "N")]
    pub(crate) gateways: usize,
    /// First of the ports [default: any that are free].
    #[arg(long, value_name = "BASE", value_parser = clap::value_parser!(u16).range(1..65_000))]
    pub(crate) port: Option<u16>,
}

/// Where the ports of Ceph begin, counted from the first: ZooKeeper takes nine at most.
const CEPH_PORTS: u16 = 10;
/// Where others may begin: Ceph takes two beside those of its gateways.
pub(crate) const OTHER_PORTS: u16 = 30;
const MOST_GATEWAYS: usize = 16;

pub(crate) fn run(machine: &Machine, deed: Deed) -> Result<()> {
    match deed {
        Deed::Up { place, plan } => {
            let dir = place.dir_or(machine, "components");
            let (zookeeper, s3) = up(&dir, &plan)?;
            println!();
            print_access(&zookeeper, &s3);
            print_daemons(&daemons(&dir)?);
            println!("`cargo xtask components down` stops them.");
        }
        Deed::Down(which) if which.shared => match shared::stop()? {
            Ending::Stopped => println!("The tests' shared servers are stopped."),
            Ending::NothingRan => println!("The tests share no servers now."),
            Ending::InUse => println!("The tests' shared servers are in use, and run on."),
        },
        Deed::Down(which) => down(&which.place.dir_or(machine, "components"))?,
        Deed::Status(which) if which.shared => print_daemons(&shared::daemons()?),
        Deed::Status(which) => {
            let dir = which.place.dir_or(machine, "components");
            if let (Ok(zookeeper), Ok(ceph)) = open(&dir) {
                print_access(&zookeeper.connect(), ceph.s3());
            }
            print_daemons(&daemons(&dir)?);
        }
    }
    Ok(())
}

impl Place {
    /// The folder as given, or that name in the cache.
    pub(crate) fn dir_or(&self, machine: &Machine, name: &str) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| machine.cache.join(name))
    }
}

/// Starts what does not run, and returns where ZooKeeper and the objects are.
pub(crate) fn up(dir: &Path, plan: &Plan) -> Result<(String, S3Access)> {
    let zookeeper = ZooKeeperPlan {
        servers: plan.zookeeper,
        base_port: plan.port,
        fsync: true,
        ..ZooKeeperPlan::default()
    };
    let ceph = CephPlan {
        osds: plan.osds,
        store: ObjectStore::BlueStore,
        gateways: plan.gateways,
        base_port: plan.port.map(|port| port + CEPH_PORTS),
        ..CephPlan::default()
    };
    let zookeeper = step("ZooKeeper", || {
        ZooKeeper::ensure(&zookeeper_in(dir), &zookeeper)
    })?;
    let ceph = step("Ceph", || Ceph::ensure(&ceph_in(dir), &ceph))?;
    let access = (zookeeper.connect(), ceph.s3().clone());
    zookeeper.leave();
    ceph.leave();
    Ok(access)
}

/// Stops what runs in a folder, and says how much that was.
pub(crate) fn down(dir: &Path) -> Result<()> {
    let running = daemons(dir)?.len();
    let (zookeeper, ceph) = open(dir);
    if let Ok(ceph) = ceph {
        ceph.stop()?;
    }
    if let Ok(zookeeper) = zookeeper {
        zookeeper.stop()?;
    }
    println!(
        "Stopped {running} servers; their data stays in {}.",
        dir.display()
    );
    Ok(())
}

/// The servers of a folder that run.
pub(crate) fn daemons(dir: &Path) -> Result<Vec<Daemon>> {
    let (zookeeper, ceph) = open(dir);
    let mut found = Vec::new();
    if let Ok(zookeeper) = zookeeper {
        for server in 0..zookeeper.servers() {
            found.push(zookeeper.daemon(server)?);
        }
    }
    if let Ok(ceph) = ceph {
        found.extend(ceph.daemons()?);
    }
    found.retain(|daemon| daemon.pid().is_some());
    Ok(found)
}

/// Prints where ZooKeeper and the objects are.
pub(crate) fn print_access(zookeeper: &str, s3: &S3Access) {
    println!("ZooKeeper  {zookeeper}");
    println!("S3         {}", s3.endpoints.join(" "));
    println!("           bucket {}, region {}", s3.bucket, s3.region);
    println!(
        "           access key {}, secret key {}",
        s3.access_key, s3.secret_key
    );
}

/// Prints the daemons with their pids and memory.
pub(crate) fn print_daemons(daemons: &[Daemon]) {
    let mut sum = 0;
    for daemon in daemons {
        let memory = daemon.memory().unwrap_or_default() >> 20;
        let pid = daemon
            .pid()
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        sum += memory;
        println!(
            "{:<12} pid {pid:>7} {memory:>6} MiB  {}",
            daemon.name(),
            daemon.log().display()
        );
    }
    println!("{} processes, {sum} MiB", daemons.len());
}

fn open(dir: &Path) -> (Result<ZooKeeper>, Result<Ceph>) {
    (
        ZooKeeper::open(&zookeeper_in(dir)),
        Ceph::open(&ceph_in(dir)),
    )
}

fn zookeeper_in(dir: &Path) -> PathBuf {
    dir.join("zookeeper")
}

fn ceph_in(dir: &Path) -> PathBuf {
    dir.join("ceph")
}

fn one_or_three(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3".to_owned()),
    }
}

fn gateways(text: &str) -> Result<usize, String> {
    let range = 1..=MOST_GATEWAYS;
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("from 1 to {MOST_GATEWAYS}"))
}
