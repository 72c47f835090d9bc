//! The line from a frontend to the store: whatever goes over it takes time.
//!
//! Owns the delays. Never loses anything: that is for the simulated store, which knows what a loss
//! means for its session.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use distci_store::coordination::simulator::{Dice, PerMille, Session};
use distci_store::coordination::{
    CommitError, Coordination, Health, Node, NodePath, Op, ReadError, Receipt, ServerFacts,
    Standing, Watch,
};
use tokio::sync::watch::Receiver;
use tokio::time::sleep;

/// How often a call is held up, and for how many milliseconds at most.
const HELD_UP: PerMille = PerMille(4);
const LONGEST: usize = 2500;
/// How long a call takes otherwise, each way, in microseconds at most: one of these for each session. Who is
/// far away acts on what is long past.
const WAYS: [usize; 4] = [500, 5_000, 50_000, 300_000];

/// A session with the store that is some way off.
pub(crate) struct Line {
    session: Arc<Session>,
    dice: Mutex<Dice>,
    way: usize,
}

impl Line {
    pub(crate) fn new(session: Arc<Session>, mut dice: Dice) -> Self {
        let way = WAYS[dice.below(WAYS.len())];
        let dice = Mutex::new(dice);
        Self { session, dice, way }
    }

    async fn travel(&self) {
        let time = {
            let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
            if dice.roll(HELD_UP) {
                Duration::from_millis(dice.below(LONGEST) as u64)
            } else {
                Duration::from_micros(dice.below(self.way) as u64)
            }
        };
        sleep(time).await;
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.session.fmt(f)
    }
}

#[async_trait]
impl Coordination for Line {
    async fn get(&self, path: &NodePath) -> Result<Option<Node>, ReadError> {
        self.travel().await;
        self.session.get(path).await
    }

    async fn list(&self, dir: &NodePath) -> Result<Vec<String>, ReadError> {
        self.travel().await;
        self.session.list(dir).await
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Receipt, CommitError> {
        self.travel().await;
        let committed = self.session.commit(ops).await;
        self.travel().await;
        committed
    }

    async fn catch_up(&self) -> Result<(), ReadError> {
        self.travel().await;
        self.session.catch_up().await
    }

    fn watch(&self, dir: &NodePath) -> Watch {
        self.session.watch(dir)
    }

    fn health(&self) -> Receiver<Health> {
        self.session.health()
    }

    fn standing(&self) -> Standing {
        self.session.standing()
    }

    async fn servers(&self) -> Vec<ServerFacts> {
        self.session.servers().await
    }
}
