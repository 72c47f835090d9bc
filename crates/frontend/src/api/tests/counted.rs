//! A store whose reads are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use async_trait::async_trait;
use distci_store::coordination::{
    CommitError, Coordination, Health, Node, NodePath, Op, ReadError, Receipt, ServerFacts,
    Standing, Watch,
};
use tokio::sync::watch::Receiver;

/// A store that counts what it is asked.
#[derive(Debug)]
pub(super) struct Counted {
    inner: Box<dyn Coordination>,
    gets: AtomicUsize,
    lists: AtomicUsize,
}

impl Counted {
    pub(super) fn new(inner: impl Coordination + 'static) -> Arc<Self> {
        Arc::new(Self {
            inner: Box::new(inner),
            gets: AtomicUsize::default(),
            lists: AtomicUsize::default(),
        })
    }

    /// Nodes and directories that were read since the last call.
    pub(super) fn reads(&self) -> (usize, usize) {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (take(&self.gets), take(&self.lists))
    }
}

#[async_trait]
impl Coordination for Counted {
    async fn get(&self, path: &NodePath) -> Result<Option<Node>, ReadError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        // Others go on meanwhile, as they do when an answer takes its time.
        tokio::task::yield_now().await;
        self.inner.get(path).await
    }

    async fn list(&self, dir: &NodePath) -> Result<Vec<String>, ReadError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list(dir).await
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Receipt, CommitError> {
        self.inner.commit(ops).await
    }

    async fn catch_up(&self) -> Result<(), ReadError> {
        self.inner.catch_up().await
    }

    fn watch(&self, dir: &NodePath) -> Watch {
        self.inner.watch(dir)
    }

    fn health(&self) -> Receiver<Health> {
        self.inner.health()
    }

    fn standing(&self) -> Standing {
        self.inner.standing()
    }

    async fn servers(&self) -> Vec<ServerFacts> {
        self.inner.servers().await
    }
}
