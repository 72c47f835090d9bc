//! The shared tree of a single process: memory to read from, one file to survive in.
//!
//! Owns the directory's `coord.redb`, the lock file beside it and the committer's thread. Never
//! shares the directory with another process. Invariant: memory shows exactly the commits that are
//! durable, so that a crash takes back nothing that anybody has seen, but session nodes.

mod committer;
mod disk;
mod file;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use tokio::sync::watch::{Receiver, Sender};
use tokio::sync::{mpsc, oneshot};

use self::committer::{Committer, Request};
use self::disk::{Disk, OpenFile};
use super::tree::Tree;
use super::watch::Watches;
use super::{
    Clock, CommitError, Coordination, Health, Node, NodePath, Op, Outage, ReadError, Receipt,
    ServerFacts, Standing, Watch, check_limits,
};

/// Commits that wait while the disk is busy. With more callers than that, the rest wait in line for
/// a place, which bounds the memory at 32 MiB of the largest commits.
const WAITING: usize = 256;

/// The epoch before the first return to health.
const FIRST_EPOCH: u64 = 1;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("store in {} is in use", .dir.display())]
    InUse {
        /// The directory of the store.
        dir: PathBuf,
    },
    /// The store was written by a version of the program that stores in another way.
    #[error("store has format {found}, and this version knows only format {known}")]
    Format {
        /// What the store says.
        found: u64,
        /// What this version writes.
        known: u64,
    },
    /// The file holds something that no version of this program writes.
    #[error("store holds {what}")]
    Corrupt {
        /// What is wrong.
        what: String,
    },
    /// The directory or the lock file cannot be used.
    #[error("store directory {} cannot be used", .dir.display())]
    Directory {
        /// The directory of the store.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of the store cannot be read or written.
    #[error("store file cannot be used")]
    File(#[source] Box<redb::Error>),
}

/// The shared tree in memory and in one file.
///
/// Dropping it waits until the last commits are on the disk, some milliseconds.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    // The order of the next three matters: without senders the committer comes to its end, then it
    // is awaited, and only then another process may have the directory.
    requests: mpsc::Sender<Request>,
    _committer: Joined,
    _lock: File,
}

impl Embedded {
    /// Opens the store in `dir`, making both if need be.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        Self::open_with(dir, clock, disk::file_in(dir))
    }

    fn open_with(dir: &Path, clock: Clock, open_file: OpenFile) -> Result<Self, OpenError> {
        let cannot_use = |source| OpenError::Directory {
            dir: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(cannot_use)?;
        let lock = lock(dir)?;
        let (disk, tree) = Disk::open(open_file)?;
        // The file's own syncs do not cover its name.
        sync_names(dir).map_err(cannot_use)?;

        let shared = Arc::new(Shared::new(tree));
        let (requests, waiting) = mpsc::channel(WAITING);
        let committer = Committer::new(waiting, shared.clone(), disk, clock);
        let thread = thread::Builder::new().name("committer".to_owned());
        let thread = thread.spawn(move || committer.run()).map_err(cannot_use)?;
        Ok(Self {
            shared,
            requests,
            _committer: Joined(Some(thread)),
            _lock: lock,
        })
    }
}

#[async_trait]
impl Coordination for Embedded {
    async fn get(&self, path: &NodePath) -> Result<Option<Node>, ReadError> {
        Ok(self
            .shared
            .read(|tree| tree.get(path).map(|entry| entry.node.clone())))
    }

    async fn list(&self, dir: &NodePath) -> Result<Vec<String>, ReadError> {
        Ok(self.shared.read(|tree| tree.children(dir)))
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Receipt, CommitError> {
        check_limits(&ops)?;
        let (reply, answer) = oneshot::channel();
        let request = Request { ops, reply };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| CommitError::Down(Outage::Closed))?;
        // Without an answer the committer died, and what it did last nobody knows.
        answer.await.unwrap_or(Err(CommitError::Unknown))
    }

    async fn catch_up(&self) -> Result<(), ReadError> {
        // There is one tree, and reads are of it.
        self.get(&NodePath::root()).await.map(drop)
    }

    fn watch(&self, dir: &NodePath) -> Watch {
        self.shared.watches.watch(dir)
    }

    fn health(&self) -> Receiver<Health> {
        self.shared.health.subscribe()
    }

    fn standing(&self) -> Standing {
        Standing {
            place: "a file of this process's own".to_owned(),
            session: None,
        }
    }

    async fn servers(&self) -> Vec<ServerFacts> {
        Vec::new()
    }
}

/// What the committer changes and everybody reads.
#[derive(Debug)]
struct Shared {
    // Written only by the committer, for microseconds a batch; never held across an await.
    tree: RwLock<Tree>,
    watches: Watches,
    health: Sender<Health>,
}

impl Shared {
    fn new(tree: Tree) -> Self {
        let health = Sender::new(Health::Connected { epoch: FIRST_EPOCH });
        Self {
            tree: RwLock::new(tree),
            watches: Watches::default(),
            health,
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Tree) -> T) -> T {
        // No code panics while it writes the tree, so a poisoned lock still guards a whole one.
        look(&self.tree.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Tree)) {
        change(&mut self.tree.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A thread that is awaited when its owner goes.
#[derive(Debug)]
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the committer of the embedded store panicked");
        }
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let cannot_use = |source| OpenError::Directory {
        dir: dir.to_owned(),
        source,
    };
    let file = File::create(dir.join("lock")).map_err(cannot_use)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(cannot_use(source)),
    }
}

/// Makes the names of the store's files, and of the directory itself, survive a loss of power.
fn sync_names(dir: &Path) -> io::Result<()> {
    let dir = dir.canonicalize()?;
    File::open(&dir)?.sync_all()?;
    dir.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
