//! Servers that all test processes of a user share, started by whoever comes first.
//!
//! Owns one folder a user, in memory where there is room. A test must bring a chroot or a key
//! prefix of its own, for others are at work beside it. Nothing here survives a reboot.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{env, fs::TryLockError};

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

use crate::ceph::{Ceph, CephPlan, S3Access};
use crate::daemons::{Daemon, Daemons};
use crate::zookeeper::{ZooKeeper, ZooKeeperPlan};

/// The layout of the folder: a change of it takes a folder of its own.
const LAYOUT: &str = "1";
const MEMORY: &str = "/dev/shm";
/// What must be free in memory for a folder there; logs of ZooKeeper are most of it.
const ROOM: u64 = 1 << 30;

const SINGLE: &str = "zookeeper";
const ENSEMBLE: &str = "ensemble";
const CEPH: &str = "ceph";

/// Held for as long as the process lives: says that the servers are in use.
static IN_USE: Mutex<Option<File>> = Mutex::new(None);

/// What became of the shared servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// They were stopped.
    Stopped,
    /// There were none.
    NothingRan,
    /// They were left alone: tests of another run use them at this moment.
    InUse,
}

/// A ZooKeeper of one server: its `host:port`.
pub fn zookeeper() -> Result<String> {
    shared_zookeeper(SINGLE, 1)
}

/// A ZooKeeper of three servers: their `host:port,host:port,host:port`.
pub fn ensemble() -> Result<String> {
    shared_zookeeper(ENSEMBLE, 3)
}

/// A Ceph of one store in memory behind two gateways.
pub fn ceph() -> Result<S3Access> {
    let folder = Folder::lock()?;
    folder.mark_in_use()?;
    let dir = folder.path.join(CEPH);
    if let Some(ceph) = running(&dir)?.and_then(|_| Ceph::open(&dir).ok()) {
        ceph.check()?;
        return Ok(ceph.s3().clone());
    }
    clear(&dir)?;
    let ceph = Ceph::start(
        &dir,
        &CephPlan {
            gateways: 2,
            ..CephPlan::default()
        },
    )?;
    let s3 = ceph.s3().clone();
    ready(&dir)?;
    ceph.leave();
    Ok(s3)
}

/// Every shared daemon that runs.
pub fn daemons() -> Result<Vec<Daemon>> {
    let folder = Folder::lock()?;
    let mut found = Vec::new();
    for part in [SINGLE, ENSEMBLE, CEPH] {
        let dir = folder.path.join(part);
        if dir.is_dir() {
            found.extend(Daemons::in_folder(&dir)?.all()?);
        }
    }
    found.retain(|daemon| daemon.pid().is_some());
    Ok(found)
}

/// Ends the shared servers and removes what they had, unless somebody else uses them.
pub fn stop() -> Result<Ending> {
    let folder = Folder::lock()?;
    // This process itself needs them no longer.
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner).take();
    match folder.users()?.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Ending::InUse),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let mut ending = Ending::NothingRan;
    for part in [SINGLE, ENSEMBLE, CEPH] {
        let dir = folder.path.join(part);
        if dir.is_dir() {
            ending = Ending::Stopped;
        }
        clear(&dir)?;
    }
    Ok(ending)
}

fn shared_zookeeper(name: &str, servers: usize) -> Result<String> {
    let folder = Folder::lock()?;
    folder.mark_in_use()?;
    let dir = folder.path.join(name);
    if let Some(found) = running(&dir)?.and_then(|_| ZooKeeper::open(&dir).ok()) {
        found.wait_until_serving()?;
        return Ok(found.connect());
    }
    clear(&dir)?;
    let plan = ZooKeeperPlan {
        servers,
        ..ZooKeeperPlan::default()
    };
    let started = ZooKeeper::start(&dir, &plan)?;
    let connect = started.connect();
    ready(&dir)?;
    started.leave();
    Ok(connect)
}

/// The daemons of a folder if its start was finished and all of them live.
fn running(dir: &Path) -> Result<Option<Daemons>> {
    if !dir.join("ready").exists() {
        return Ok(None);
    }
    let daemons = Daemons::in_folder(dir)?;
    let all_live = daemons.all()?.iter().all(|daemon| daemon.pid().is_some());
    Ok(all_live.then_some(daemons))
}

/// Notes that the start was finished: one that was interrupted is begun anew.
fn ready(dir: &Path) -> Result<()> {
    fs::write(dir.join("ready"), "").with_context(|| dir.display().to_string())
}

/// Ends whatever runs in a folder and removes the folder.
fn clear(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        Daemons::in_folder(dir)?.kill_all()?;
        fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

/// The user's folder, locked against other processes while the value lives.
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    fn lock() -> Result<Self> {
        let path = base().join(format!("distci-shared-{LAYOUT}-{}", Uid::current()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| path.display().to_string());
            }
            // A folder that somebody else laid out for us would make their servers ours.
            _ if fs::symlink_metadata(&path)?.uid() != Uid::current().as_raw() => {
                bail!("{} belongs to somebody else", path.display());
            }
            _ => {}
        }
        let lock = open(&path.join("lock"))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    fn users(&self) -> Result<File> {
        open(&self.path.join("users"))
    }

    fn mark_in_use(&self) -> Result<()> {
        let mut held = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            let users = self.users()?;
            users.lock_shared()?;
            *held = Some(users);
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File> {
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    opened.with_context(|| path.display().to_string())
}

/// Memory where there is room, or else the folder for temporary files. A folder that is there
/// already decides, or a filling memory would make two of them.
fn base() -> PathBuf {
    let memory = Path::new(MEMORY);
    let there = memory
        .join(format!("distci-shared-{LAYOUT}-{}", Uid::current()))
        .is_dir();
    let room =
        || statvfs(memory).is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() > ROOM);
    if there || room() {
        memory.to_owned()
    } else {
        env::temp_dir()
    }
}
