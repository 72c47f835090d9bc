//! The shared tree as its users must fear it: several sessions, and faults drawn from a seed.
//!
//! Owns a tree in memory and a lagging copy of it for each session, as servers of an ensemble have.
//! Never reads a clock of its own, waits for time or draws real randomness: the same seed and the
//! same calls give the same run. Invariant: whatever it does, it keeps the seam's contract.

mod dice;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch::Receiver;

pub use self::dice::Dice;
use self::world::{Opened, World};
use super::{
    Clock, CommitError, Coordination, Health, Node, NodePath, Op, ReadError, Receipt, ServerFacts,
    Standing, Watch, check_limits,
};

/// The most times that one call lets others go first, so that no odds can hold it for ever.
const LONGEST_DELAY: u32 = 16;

/// How often something happens: so many times in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerMille(pub u16);

/// How often each fault happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// A commit is lost on its way to the store: unknown, and it did not happen.
    pub lost_before: PerMille,
    /// The reply to a commit is lost: unknown, and it happened.
    pub lost_after: PerMille,
    /// A session loses its connection for a moment, and with it events: there is a gap.
    pub missed_events: PerMille,
    /// A session hears of another's commit only later.
    pub lag: PerMille,
    /// A session ends while it commits: unknown, and its nodes vanish.
    pub expiry: PerMille,
    /// A call lets others go first, before and after it is served; drawn anew each time it does.
    pub delay: PerMille,
}

impl Faults {
    /// No fault at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Everything, often, but for expiry: that is the end of a session.
    pub const fn hostile() -> Self {
        Self {
            lost_before: PerMille(50),
            lost_after: PerMille(50),
            missed_events: PerMille(20),
            lag: PerMille(500),
            expiry: PerMille(0),
            delay: PerMille(500),
        }
    }
}

/// A store that does not keep the seam's contract, to show that those who look for that find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// No step is refused because of a version.
    NoChecks,
    /// Now and then an acknowledged commit has not happened.
    Forgetful,
}

/// A simulated store, on which sessions are opened.
pub struct Simulator {
    world: Arc<Mutex<World>>,
    clock: Clock,
}

impl Simulator {
    /// An empty store whose faults are drawn from `seed`.
    pub fn new(seed: u64, faults: Faults, clock: Clock) -> Self {
        Self {
            world: Arc::new(Mutex::new(World::new(seed, faults))),
            clock,
        }
    }

    /// Opens a session, as one frontend does.
    pub fn session(&self) -> Session {
        let this = lock(&self.world).open();
        Session {
            this,
            world: self.world.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Changes the odds from now on; with [`Faults::none`] the store heals.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.world).set_faults(faults);
    }

    /// Leaves no room on the store's disk, or makes some.
    pub fn set_full(&self, is_full: bool) {
        lock(&self.world).set_full(is_full);
    }

    /// Breaks the store from now on.
    pub fn set_defect(&self, defect: Defect) {
        lock(&self.world).set_defect(Some(defect));
    }

    /// Lets every session hear of all that happened. Without it a lagging session that makes no
    /// calls might wait for ever.
    pub fn settle(&self) {
        lock(&self.world).settle();
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").finish_non_exhaustive()
    }
}

/// One client's session with a [`Simulator`]. Dropping it ends the session.
pub struct Session {
    this: Opened,
    world: Arc<Mutex<World>>,
    clock: Clock,
}

impl Session {
    /// Ends the session behind its user's back, as a store does that has not heard from it.
    pub fn expire(&self) {
        lock(&self.world).end(self.this.id);
    }

    /// Breaks the connection for a moment: what this session has not heard yet becomes a gap.
    pub fn reconnect(&self) {
        lock(&self.world).reconnect(self.this.id);
    }

    /// Takes the store out of this session's reach until [`Session::mend`].
    pub fn cut(&self) {
        lock(&self.world).cut(self.this.id);
    }

    /// The store has not heard from this session for so long that its nodes vanish. Its user goes on
    /// with another session when the store is in reach again, as [`Health::Disconnected`] says.
    pub fn lapse(&self) {
        lock(&self.world).lapse(self.this.id);
    }

    /// The store is in reach again; what was not heard is a gap.
    pub fn mend(&self) {
        lock(&self.world).mend(self.this.id);
    }

    /// Lets others go first, as often as the dice say.
    async fn delay(&self) {
        for _ in 0..LONGEST_DELAY {
            if !lock(&self.world).delays() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Coordination for Session {
    async fn get(&self, path: &NodePath) -> Result<Option<Node>, ReadError> {
        self.delay().await;
        let node = lock(&self.world).read(self.this.id, |tree| tree.get(path).cloned());
        node.map(|entry| entry.map(|entry| entry.node))
            .map_err(ReadError::Down)
    }

    async fn list(&self, dir: &NodePath) -> Result<Vec<String>, ReadError> {
        self.delay().await;
        lock(&self.world)
            .read(self.this.id, |tree| tree.children(dir))
            .map_err(ReadError::Down)
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Receipt, CommitError> {
        check_limits(&ops)?;
        self.delay().await;
        let written = (self.clock)();
        let committed = lock(&self.world).commit(self.this.id, &ops, written);
        self.delay().await;
        committed
    }

    async fn catch_up(&self) -> Result<(), ReadError> {
        self.delay().await;
        let caught_up = lock(&self.world).catch_up(self.this.id);
        caught_up.map_err(ReadError::Down)
    }

    fn watch(&self, dir: &NodePath) -> Watch {
        self.this.watches.watch(dir)
    }

    fn health(&self) -> Receiver<Health> {
        self.this.health.clone()
    }

    fn standing(&self) -> Standing {
        Standing {
            place: "a simulator, for tests".to_owned(),
            session: None,
        }
    }

    async fn servers(&self) -> Vec<ServerFacts> {
        Vec::new()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        lock(&self.world).end(self.this.id);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.this.id)
            .finish_non_exhaustive()
    }
}

/// A test that panicked elsewhere must not hide behind a poisoned lock.
fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
