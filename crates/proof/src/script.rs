//! The store's seam as a model sees it: reads from the trees that it was given, and a commit that is
//! caught before anything becomes of it.
//!
//! Owns when a frontend that lags behind sees what the others have done: after so many reads. Never
//! changes a tree.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use distci_store::coordination::simulator::{Faults, Session, Simulator};
use distci_store::coordination::tree::Tree;
use distci_store::coordination::{
    CommitError, Coordination, Health, Node, NodePath, Op, ReadError, Receipt, ServerFacts,
    Standing, Watch,
};
use jiff::Timestamp;
use tokio::sync::watch::Receiver;

/// What a run of the store's code is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// What a frontend that lags behind sees first,
    pub(crate) old: Arc<Tree>,
    /// for so many reads, unless it catches up;
    pub(crate) reads: usize,
    /// and what it sees then.
    pub(crate) new: Arc<Tree>,
}

/// What a run of the store's code did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Played {
    /// How often it read.
    pub(crate) reads: usize,
    /// The commit that it waits for.
    pub(crate) ops: Option<Vec<Op>>,
    caught_up: bool,
}

/// A coordination store that plays scripts, one after the other.
pub(crate) struct Scripted {
    play: Mutex<(Script, Played)>,
    /// Lends the parts of the seam that no transition uses.
    idle: Session,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").finish_non_exhaustive()
    }
}

impl Default for Scripted {
    fn default() -> Self {
        let clock = Arc::new(|| Timestamp::UNIX_EPOCH);
        Self {
            play: Mutex::default(),
            idle: Simulator::new(0, Faults::none(), clock).session(),
        }
    }
}

impl Scripted {
    fn lock(&self) -> MutexGuard<'_, (Script, Played)> {
        self.play.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with another script.
    pub(crate) fn begin(&self, script: Script) {
        *self.lock() = (script, Played::default());
    }

    /// What was done since.
    pub(crate) fn end(&self) -> Played {
        self.lock().1.clone()
    }

    fn read<T>(&self, look: impl FnOnce(&Tree) -> T) -> T {
        let mut play = self.lock();
        let (script, played) = &mut *play;
        let is_old = !played.caught_up && played.reads < script.reads;
        played.reads += 1;
        look(if is_old { &script.old } else { &script.new })
    }
}

#[async_trait]
impl Coordination for Scripted {
    async fn get(&self, path: &NodePath) -> Result<Option<Node>, ReadError> {
        Ok(self.read(|tree| tree.get(path).map(|entry| entry.node.clone())))
    }

    async fn list(&self, dir: &NodePath) -> Result<Vec<String>, ReadError> {
        Ok(self.read(|tree| tree.children(dir)))
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Receipt, CommitError> {
        self.lock().1.ops = Some(ops);
        // What becomes of it is for the model to choose.
        pending().await
    }

    async fn catch_up(&self) -> Result<(), ReadError> {
        self.lock().1.caught_up = true;
        Ok(())
    }

    fn watch(&self, dir: &NodePath) -> Watch {
        self.idle.watch(dir)
    }

    fn health(&self) -> Receiver<Health> {
        self.idle.health()
    }

    fn standing(&self) -> Standing {
        self.idle.standing()
    }

    async fn servers(&self) -> Vec<ServerFacts> {
        Vec::new()
    }
}
