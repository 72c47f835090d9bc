//! The first seam: a small ordered tree of versioned nodes on which all frontends agree.
//!
//! Owns the words of the seam: paths, versions, operations, receipts, errors and events. Never
//! knows what a node means (the typed layer does) or how a path is spelled (`keys.rs` does).
//! Invariant: a commit happens wholly or not at all, in one order for everybody, and whoever holds
//! its receipt has every earlier event in the queue of each watch.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch::Receiver;

#[cfg(test)]
pub(crate) mod contract;
pub mod embedded;
mod path;
pub mod simulator;
pub mod tree;
mod watch;
pub mod zookeeper;

pub use path::{InvalidPath, NodePath};
pub use watch::Watch;

/// The most operations in one commit: a larger one would stall every other writer of a quorum.
pub const MAX_OPS: usize = 160;

/// The most bytes of paths and payloads in one commit, far below ZooKeeper's packet limit.
pub const MAX_COMMIT_BYTES: usize = 128 * 1024;

/// Reads the time at which a store accepts a commit; an argument, so that tests own the clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The version of a node: 0 at its creation, one more with every [`Op::Set`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// The version of a new node.
    pub const FIRST: Self = Self(0);

    /// The version after one more write. It wraps as ZooKeeper's does, after four thousand million
    /// writes to one node.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The payload; empty for directories and for nodes whose name says everything.
    pub data: Bytes,
    /// How often the payload was set.
    pub version: Version,
}

/// How long a node lives if nobody deletes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// For ever.
    Durable,
    /// Until the session that created it ends. Nothing can be created below such a node.
    Session,
}

/// The version that a write demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The node must have exactly this version.
    Exactly(Version),
    /// The node must exist.
    Any,
}

/// One step of a commit. It sees the effects of the steps before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Make a node that does not exist. Missing parents become durable nodes without data, in the
    /// same commit: a refused one makes none.
    Create {
        /// Where.
        path: NodePath,
        /// The first payload.
        data: Bytes,
        /// How long the node lives.
        life: Life,
    },
    /// Replace the payload of a node.
    Set {
        /// Which node.
        path: NodePath,
        /// The new payload.
        data: Bytes,
        /// The version that must be there.
        expect: Expect,
    },
    /// Remove a node that has no children.
    Delete {
        /// Which node.
        path: NodePath,
        /// The version that must be there.
        expect: Expect,
    },
    /// Change nothing, but refuse the commit unless the node has this version.
    Check {
        /// Which node.
        path: NodePath,
        /// The version that must be there.
        version: Version,
    },
}

impl Op {
    /// The node that the step is about.
    pub const fn path(&self) -> &NodePath {
        match self {
            Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Delete { path, .. }
            | Self::Check { path, .. } => path,
        }
    }

    /// The bytes that the step counts towards [`MAX_COMMIT_BYTES`].
    pub fn bytes(&self) -> usize {
        let data = match self {
            Self::Create { data, .. } | Self::Set { data, .. } => data.len(),
            Self::Delete { .. } | Self::Check { .. } => 0,
        };
        self.path().as_str().len() + data
    }
}

/// Proof that a commit happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// One for each step: the version after it, or the version that a delete or check saw.
    pub versions: Vec<Version>,
    /// When the store accepted the commit, by the store's clock; never before what an earlier
    /// receipt said.
    pub store_time: Timestamp,
    /// The same as that clock itself says, which may have been set back; `None` if the store did
    /// not tell.
    pub written: Option<Timestamp>,
}

/// Why a step was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConflictKind {
    /// The node to create is there already.
    #[error("node exists")]
    Exists,
    /// The node to set, delete or check is not there, or the parent of a new one cannot have
    /// children because it lives only as long as a session.
    #[error("node is missing")]
    Missing,
    /// The node has another version than the expected one.
    #[error("node has another version")]
    Version,
    /// The node to delete has children.
    #[error("node has children")]
    NotEmpty,
}

/// Why the store does not answer. Nothing of the request happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Outage {
    /// The disk has no room. The store accepts commits again by itself as soon as there is some.
    #[error("no space left on the store's disk")]
    Full,
    /// The store was closed by its owner.
    #[error("store is closed")]
    Closed,
    /// The connection to the store is lost for the moment.
    #[error("store is out of reach")]
    Disconnected,
    /// The store has shut this handle out for ever: its session ended and cannot be renewed, or its
    /// credentials are refused.
    #[error("store has shut this client out")]
    Fenced,
    /// The store answers, but does not let this client do what was asked. A person must act.
    #[error("store refuses the request")]
    Refused(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The disk gave an error after which it cannot be trusted. A person must act.
    #[error("store's disk is broken")]
    Broken(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Why a commit has no receipt.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A step was refused, so nothing happened.
    #[error("step {index} conflicts: {kind}")]
    Conflict {
        /// The first step that was refused.
        index: usize,
        /// Why.
        kind: ConflictKind,
    },
    /// The commit may have happened, or may even happen later. Repeat the identical commit, which
    /// its versions let happen once at most, and if that conflicts, read what is there.
    #[error("commit has an unknown outcome")]
    Unknown,
    /// The commit is larger than any store takes, so nothing happened.
    #[error("commit of {ops} steps and {bytes} bytes is too large")]
    TooLarge {
        /// Its steps; at most [`MAX_OPS`] are taken.
        ops: usize,
        /// Its bytes; at most [`MAX_COMMIT_BYTES`] are taken.
        bytes: usize,
    },
    /// The store takes no commits now, and nothing happened.
    #[error("store is down")]
    Down(#[source] Outage),
}

/// Why a read has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The store gives no answers now.
    #[error("store is down")]
    Down(#[source] Outage),
}

/// News about the nodes below a watched directory. A hint: read the node before you act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node came into being.
    Created(NodePath),
    /// The node went away.
    Deleted(NodePath),
    /// The node has a new payload.
    Changed(NodePath),
    /// Events were lost: list the directory again before you trust what you know.
    Gap,
}

impl Event {
    /// The node that the event is about, or nothing for a gap.
    pub const fn path(&self) -> Option<&NodePath> {
        match self {
            Self::Created(path) | Self::Deleted(path) | Self::Changed(path) => Some(path),
            Self::Gap => None,
        }
    }
}

/// Whether the store can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It can. Whoever mirrors the store lists it again when the epoch has grown.
    Connected {
        /// Grows with every return to health.
        epoch: u64,
    },
    /// Not now; it comes back by itself, with a new session if the old one ended meanwhile.
    Disconnected,
    /// Never again through this handle: its session ended and cannot be renewed, or its credentials
    /// are refused.
    Fenced,
}

/// What a handle is of, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What the store is, in words.
    pub place: String,
    /// The session with it, if it has sessions.
    pub session: Option<SessionFacts>,
}

/// A session with a store on other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// Its id as the store's own tools show it; none while there is no session.
    pub id: Option<String>,
    /// How long the store waits for it when it is silent.
    pub timeout: Duration,
    /// How often its connection, or that of an earlier one, was lost.
    pub losses: u64,
    /// How many sessions ended before it.
    pub ended: u64,
}

/// One of the servers that are the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Where it is.
    pub address: String,
    /// How it stands, or why that is not known.
    pub state: Result<ServerState, String>,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// What it is among the others.
    pub role: String,
    /// Its version.
    pub version: String,
    /// How long it takes to answer: least, average, longest, in milliseconds.
    pub latency: String,
    /// How many clients it has.
    pub connections: Option<u64>,
    /// How many requests wait in it.
    pub outstanding: Option<u64>,
}

/// The shared tree.
///
/// The root is a directory without a node: it can be listed and watched, `get` finds nothing there,
/// creating it finds it in the way, and the other steps find it missing.
#[async_trait]
pub trait Coordination: Send + Sync + fmt::Debug {
    /// The node at `path`, if there is one.
    ///
    /// A read never lags behind the caller's own receipts and events; it may lag behind commits of
    /// other sessions.
    async fn get(&self, path: &NodePath) -> Result<Option<Node>, ReadError>;

    /// The names of the direct children of `dir`, in order. A missing directory has none.
    async fn list(&self, dir: &NodePath) -> Result<Vec<String>, ReadError>;

    /// Does all of `ops` in their order, or nothing.
    ///
    /// # Cancel safety
    ///
    /// A dropped commit has an unknown outcome, as with [`CommitError::Unknown`].
    async fn commit(&self, ops: Vec<Op>) -> Result<Receipt, CommitError>;

    /// Makes later reads of this handle show every commit that anybody was told of before this call.
    /// The events of those commits are queued when it returns, as before a receipt.
    async fn catch_up(&self) -> Result<(), ReadError>;

    /// News about everything strictly below `dir`, from before this call returns: whatever is not
    /// told is shown by every read that this handle makes after it.
    ///
    /// # Ordering
    ///
    /// The events of a commit are queued in the order of its steps, after it is durable and before
    /// its receipt: once the queue is drained, all commits up to the latest receipt are seen. An
    /// event is queued only when reads show what it tells.
    fn watch(&self, dir: &NodePath) -> Watch;

    /// The state of the store as this handle sees it, with its changes.
    fn health(&self) -> Receiver<Health>;

    /// What the handle is of, as far as this process knows. For people: nothing is decided by it.
    fn standing(&self) -> Standing;

    /// The servers that are the store, none if it is in this process; each is asked now, and has a
    /// quarter of a second. For people as well.
    async fn servers(&self) -> Vec<ServerFacts>;
}

/// Refuses what no store takes, before anything else is looked at.
pub(crate) fn check_limits(ops: &[Op]) -> Result<(), CommitError> {
    let bytes = ops.iter().map(Op::bytes).sum();
    if ops.len() > MAX_OPS || bytes > MAX_COMMIT_BYTES {
        return Err(CommitError::TooLarge {
            ops: ops.len(),
            bytes,
        });
    }
    Ok(())
}
