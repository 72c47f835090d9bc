//! Real ZooKeeper, Ceph and docker servers, started from the system's packages in a folder of one's
//! choice; and, since no forge runs in a folder, a [fake](FakeForge) of what forges are told. Beside
//! them, a look at what anybody [left](traces) on the machine.
//!
//! Owns the processes that it starts and nothing else on the machine: a process is ours only while
//! its command line is the one recorded in its folder. A value stops its servers when it is dropped;
//! whoever is killed leaves them running, and `open` on the folder finds them. Never part of the
//! product: tests, benchmarks and chores use it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use distci_components::{ZooKeeper, ZooKeeperPlan};
//! let plan = ZooKeeperPlan { servers: 3, ..ZooKeeperPlan::default() };
//! let ensemble = ZooKeeper::start("/tmp/ensemble".as_ref(), &plan)?;
//! ensemble.kill(ensemble.leader()?)?;
//! # Ok(())
//! # }
//! ```

mod ceph;
mod daemons;
mod docker;
mod forge;
mod packages;
mod patience;
mod ports;
pub mod shared;
mod traces;
mod zookeeper;

pub use crate::ceph::{Ceph, CephPlan, ObjectStore, S3Access};
pub use crate::daemons::{Daemon, Daemons};
pub use crate::docker::Docker;
pub use crate::forge::{CheckRun, Dialect, FakeApp, FakeForge, Mood, Status};
pub use crate::packages::{CEPH_PACKAGES, Package, ZOOKEEPER_PACKAGES, missing};
pub use crate::ports::take as take_ports;
pub use crate::traces::{processes, traces};
pub use crate::zookeeper::{Host, Mode, ZooKeeper, ZooKeeperPlan};
