//! Who hears of everything that is asked of the store.
//!
//! Owns the measuring, where it happens: at the two seams, from the call to its answer. Never changes
//! an answer, and never waits. Streams are not measured, for they go at the pace of whoever reads or
//! sends.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch::Receiver;

use crate::blobs::BlobError;
use crate::coordination::{
    CommitError, Coordination, Health, Node, NodePath, Op, ReadError, Receipt, ServerFacts,
    Standing, Watch,
};

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A node, or the names below one.
    Read,
    /// A commit.
    Commit,
    /// What others have been told.
    CatchUp,
    /// A small blob is stored.
    Put,
    /// A blob, a part of one, or its size.
    Get,
    /// The names of blobs.
    List,
}

impl Act {
    /// All of them, in the order in which people are told of them.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Commit,
        Self::CatchUp,
        Self::Put,
        Self::Get,
        Self::List,
    ];

    /// Its name among measurements.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Commit => "commit",
            Self::CatchUp => "catch_up",
            Self::Put => "blob_put",
            Self::Get => "blob_get",
            Self::List => "blob_list",
        }
    }
}

/// Hears of everything that is asked of a store.
pub trait Observer: Send + Sync + fmt::Debug {
    /// Something was answered, or could not be: what was merely refused is an answer.
    fn done(&self, act: Act, took: Duration, trouble: Option<&(dyn Error + 'static)>);
}

/// A shared tree of which somebody hears.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) tree: Arc<dyn Coordination>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Observed {
    fn done<T, E>(&self, act: Act, began: Instant, answer: &Result<T, E>)
    where
        E: Error + Troubling + 'static,
    {
        let trouble = answer.as_ref().err().filter(|error| error.is_trouble());
        let trouble = trouble.map(|error| error as &(dyn Error + 'static));
        self.observer.done(act, began.elapsed(), trouble);
    }
}

/// An error that may be the store's own.
trait Troubling {
    fn is_trouble(&self) -> bool;
}

impl Troubling for ReadError {
    fn is_trouble(&self) -> bool {
        match self {
            Self::Down(_) => true,
        }
    }
}

impl Troubling for CommitError {
    fn is_trouble(&self) -> bool {
        match self {
            Self::Unknown | Self::Down(_) => true,
            Self::Conflict { .. } | Self::TooLarge { .. } => false,
        }
    }
}

impl Troubling for BlobError {
    fn is_trouble(&self) -> bool {
        match self {
            Self::Full | Self::Taken { .. } | Self::Down(_) => true,
            Self::TooLarge { .. } | Self::Interrupted(_) => false,
        }
    }
}

/// Does something with a blob, and lets the observer hear of it.
///
/// # Cancel safety
/// That of the work; of what was dropped nobody hears.
pub(crate) async fn observe<T>(
    observer: Option<&Arc<dyn Observer>>,
    act: Act,
    work: impl Future<Output = Result<T, BlobError>>,
) -> Result<T, BlobError> {
    let Some(observer) = observer else {
        return work.await;
    };
    let began = Instant::now();
    let answer = work.await;
    let trouble = answer.as_ref().err().filter(|error| error.is_trouble());
    let trouble = trouble.map(|error| error as &(dyn Error + 'static));
    observer.done(act, began.elapsed(), trouble);
    answer
}

#[async_trait]
impl Coordination for Observed {
    async fn get(&self, path: &NodePath) -> Result<Option<Node>, ReadError> {
        let began = Instant::now();
        let answer = self.tree.get(path).await;
        self.done(Act::Read, began, &answer);
        answer
    }

    async fn list(&self, dir: &NodePath) -> Result<Vec<String>, ReadError> {
        let began = Instant::now();
        let answer = self.tree.list(dir).await;
        self.done(Act::Read, began, &answer);
        answer
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Receipt, CommitError> {
        let began = Instant::now();
        let answer = self.tree.commit(ops).await;
        self.done(Act::Commit, began, &answer);
        answer
    }

    async fn catch_up(&self) -> Result<(), ReadError> {
        let began = Instant::now();
        let answer = self.tree.catch_up().await;
        self.done(Act::CatchUp, began, &answer);
        answer
    }

    fn watch(&self, dir: &NodePath) -> Watch {
        self.tree.watch(dir)
    }

    fn health(&self) -> Receiver<Health> {
        self.tree.health()
    }

    fn standing(&self) -> Standing {
        self.tree.standing()
    }

    async fn servers(&self) -> Vec<ServerFacts> {
        self.tree.servers().await
    }
}
