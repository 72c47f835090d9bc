//! Servers that all test processes of a user share, started by whoever comes first.
//!
//! Owns one folder a user, in memory where there is room. A test must bring a chroot or a key
//! prefix of its own, for others are at work beside it. Nothing here survives a reboot.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::{env, io};

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

use crate::ceph::{Ceph, CephPlan, S3Access};
use crate::daemons::{Daemon, Daemons};
use crate::zookeeper::{ZooKeeper, ZooKeeperPlan};

/// The layout of the folder: a change of it takes a folder of its own.
const LAYOUT: &str = "2";
const MEMORY: &str = "/dev/shm";
/// What must be free in memory for a folder there; logs of ZooKeeper are most of it.
const ROOM: u64 = 1 << 30;

const SINGLE: &str = "zookeeper";
const ENSEMBLE: &str = "ensemble";
const CEPH: &str = "ceph";

static SHARED: LazyLock<Shared> = LazyLock::new(|| Shared::in_folder(folder()));

/// What became of the shared servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// They were stopped.
    Stopped,
    /// There were none.
    NothingRan,
    /// They were left alone: another process uses them at this moment.
    InUse,
}

/// A ZooKeeper of one server: its `host:port`.
pub fn zookeeper() -> Result<String> {
    SHARED.zookeeper(SINGLE, 1)
}

/// A ZooKeeper of three servers: their `host:port,host:port,host:port`.
pub fn ensemble() -> Result<String> {
    SHARED.zookeeper(ENSEMBLE, 3)
}

/// A Ceph of one store in memory behind two gateways.
pub fn ceph() -> Result<S3Access> {
    SHARED.ceph()
}

/// Every shared daemon that runs.
pub fn daemons() -> Result<Vec<Daemon>> {
    SHARED.daemons()
}

/// Ends the shared servers and removes what they had, unless somebody else uses them.
pub fn stop() -> Result<Ending> {
    SHARED.stop()
}

/// A folder of servers for many processes.
struct Shared {
    folder: PathBuf,
    /// A lock that is held for as long as the process lives: it says that the servers are in use.
    in_use: Mutex<Option<File>>,
}

impl Shared {
    fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            in_use: Mutex::new(None),
        }
    }

    fn zookeeper(&self, name: &str, servers: usize) -> Result<String> {
        let _turn = self.turn()?;
        self.mark_in_use()?;
        let dir = self.folder.join(name);
        if is_running(&dir)? {
            let found = ZooKeeper::open(&dir)?;
            found.wait_until_serving().context(ADVICE)?;
            return Ok(found.connect());
        }
        Daemons::remove(&dir)?;
        let started = ZooKeeper::start(
            &dir,
            &ZooKeeperPlan {
                servers,
                ..ZooKeeperPlan::default()
            },
        )?;
        let connect = started.connect();
        started.leave();
        Ok(connect)
    }

    fn ceph(&self) -> Result<S3Access> {
        let _turn = self.turn()?;
        self.mark_in_use()?;
        let dir = self.folder.join(CEPH);
        if is_running(&dir)? {
            let found = Ceph::open(&dir)?;
            found.check().context(ADVICE)?;
            return Ok(found.s3().clone());
        }
        Daemons::remove(&dir)?;
        let started = Ceph::start(
            &dir,
            &CephPlan {
                gateways: 2,
                ..CephPlan::default()
            },
        )?;
        let s3 = started.s3().clone();
        started.leave();
        Ok(s3)
    }

    fn daemons(&self) -> Result<Vec<Daemon>> {
        let _turn = self.turn()?;
        let mut found = Vec::new();
        for part in [SINGLE, ENSEMBLE, CEPH] {
            let dir = self.folder.join(part);
            if dir.is_dir() {
                found.extend(Daemons::in_folder(&dir)?.all()?);
            }
        }
        found.retain(|daemon| daemon.pid().is_some());
        Ok(found)
    }

    fn stop(&self) -> Result<Ending> {
        let _turn = self.turn()?;
        // This process itself needs them no longer.
        self.in_use
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match self.open_file("users")?.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Ending::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let mut ending = Ending::NothingRan;
        for part in [SINGLE, ENSEMBLE, CEPH] {
            let dir = self.folder.join(part);
            if dir.is_dir() {
                ending = Ending::Stopped;
                Daemons::remove(&dir)?;
            }
        }
        Ok(ending)
    }

    /// Waits until no other process starts or stops something here, for as long as the file lives.
    fn turn(&self) -> Result<File> {
        let shown = || self.folder.display().to_string();
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(shown);
            }
            // A folder that somebody else laid out for us would make their servers ours.
            _ if fs::symlink_metadata(&self.folder)?.uid() != Uid::current().as_raw() => {
                bail!("{} belongs to somebody else", shown());
            }
            _ => {}
        }
        let turn = self.open_file("turn")?;
        turn.lock()?;
        Ok(turn)
    }

    fn mark_in_use(&self) -> Result<()> {
        let mut held = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            let users = self.open_file("users")?;
            users.lock_shared()?;
            *held = Some(users);
        }
        Ok(())
    }

    fn open_file(&self, name: &str) -> Result<File> {
        let path = self.folder.join(name);
        let opened = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        opened.with_context(|| path.display().to_string())
    }
}

const ADVICE: &str = "the shared servers run but do not serve; \
    `cargo xtask components down --shared` makes place for new ones";

/// Whether a start here was finished and all its daemons live.
fn is_running(dir: &Path) -> Result<bool> {
    if !Daemons::is_complete(dir) {
        return Ok(false);
    }
    let daemons = Daemons::in_folder(dir)?.all()?;
    Ok(daemons.iter().all(|daemon| daemon.pid().is_some()))
}

/// The user's folder: in memory where there is room, or else among the temporary files. One that
/// is there already decides, or a memory that fills would make two of them.
fn folder() -> PathBuf {
    let name = format!("distci-shared-{LAYOUT}-{}", Uid::current());
    let in_memory = Path::new(MEMORY).join(&name);
    let free = statvfs(MEMORY).map_or(0, |disk| disk.blocks_available() * disk.fragment_size());
    if in_memory.is_dir() || free > ROOM {
        in_memory
    } else {
        env::temp_dir().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(shared: &Shared) -> (String, u32) {
        let connect = shared.zookeeper(SINGLE, 1).unwrap();
        (connect, shared.daemons().unwrap()[0].pid().unwrap())
    }

    #[test]
    fn processes_share_until_the_last_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let one = Shared::in_folder(dir.path().to_owned());
        let other = Shared::in_folder(dir.path().to_owned());
        assert_eq!(one.stop().unwrap(), Ending::NothingRan);
        assert_eq!(server(&one), server(&other));
        assert_eq!(one.stop().unwrap(), Ending::InUse);
        assert_eq!(other.stop().unwrap(), Ending::Stopped);
        assert!(one.daemons().unwrap().is_empty());
    }

    #[test]
    fn a_dead_server_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::in_folder(dir.path().to_owned());
        let (_, pid) = server(&shared);
        shared.daemons().unwrap()[0].kill().unwrap();
        assert_ne!(server(&shared).1, pid);
        shared.stop().unwrap();
    }

    #[test]
    fn an_interrupted_start_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::in_folder(dir.path().to_owned());
        let (_, pid) = server(&shared);
        // As the start leaves it when its process is killed before the end.
        fs::remove_file(dir.path().join(SINGLE).join("complete")).unwrap();
        assert_ne!(server(&shared).1, pid);
        assert_eq!(shared.daemons().unwrap().len(), 1, "the first was ended");
        shared.stop().unwrap();
    }
}
