//! The state behind all sessions of a simulator.
//!
//! Owns the one true tree, what each session has seen of it, and the dice. Never waits. Invariant:
//! each session's copy is the true tree as it was some commits ago, and never before its receipts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch::{Receiver, Sender};

use super::{Defect, Dice, Faults, PerMille};
use crate::coordination::tree::{Change, Changes, Draft, Effect, Refusal, Tree};
use crate::coordination::watch::Watches;
use crate::coordination::{
    CommitError, Event, Expect, Health, Life, NodePath, Op, Outage, Receipt, Version,
};

pub(super) struct World {
    tree: Tree,
    // The session that each session node lives with.
    owners: BTreeMap<NodePath, u64>,
    followers: BTreeMap<u64, Follower>,
    sessions: u64,
    // What the latest receipt said.
    latest: Timestamp,
    faults: Faults,
    defect: Option<Defect>,
    is_full: bool,
    dice: Dice,
}

/// What one live session has seen.
struct Follower {
    replica: Tree,
    backlog: VecDeque<Arc<Committed>>,
    watches: Arc<Watches>,
    health: Sender<Health>,
    epoch: u64,
    /// Whether it is out of reach of the store.
    is_cut: bool,
}

/// How often a forgetful store forgets a commit that it has acknowledged.
const FORGETS: PerMille = PerMille(10);

/// One commit on its way to the sessions.
struct Committed {
    changes: Changes,
    events: Vec<Event>,
}

/// What a session needs to know of itself.
pub(super) struct Opened {
    pub(super) id: u64,
    pub(super) watches: Arc<Watches>,
    pub(super) health: Receiver<Health>,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            tree: Tree::default(),
            owners: BTreeMap::new(),
            followers: BTreeMap::new(),
            sessions: 0,
            latest: Timestamp::default(),
            faults,
            defect: None,
            is_full: false,
            dice: Dice::new(seed),
        }
    }

    pub(super) const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub(super) fn open(&mut self) -> Opened {
        self.sessions += 1;
        let follower = Follower::new(self.tree.clone());
        let (watches, health) = (follower.watches.clone(), follower.health.subscribe());
        self.followers.insert(self.sessions, follower);
        Opened {
            id: self.sessions,
            watches,
            health,
        }
    }

    /// Ends a session: it is fenced for ever, its watches end and its nodes vanish.
    pub(super) fn end(&mut self, id: u64) {
        let Some(follower) = self.followers.remove(&id) else {
            return;
        };
        follower.watches.close();
        follower.health.send_replace(Health::Fenced);
        self.bury(id);
    }

    /// The nodes of a session vanish.
    fn bury(&mut self, id: u64) {
        let owned = self.owners.iter().filter(|(_, owner)| **owner == id);
        let delete = |path: &NodePath| Op::Delete {
            path: path.clone(),
            expect: Expect::Any,
        };
        let ops: Vec<_> = owned.map(|(path, _)| delete(path)).collect();
        // Nothing can be below a session node, so nothing refuses this.
        if self.accept(id, &ops).is_ok() {
            self.spread();
        }
    }

    pub(super) fn settle(&mut self) {
        let followers = self.followers.values_mut();
        followers.filter(|it| !it.is_cut).for_each(Follower::hear);
    }

    pub(super) const fn set_defect(&mut self, defect: Option<Defect>) {
        self.defect = defect;
    }

    pub(super) const fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// The store is out of a session's reach until it is mended.
    pub(super) fn cut(&mut self, id: u64) {
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.is_cut = true;
            follower.health.send_replace(Health::Disconnected);
        }
    }

    /// The store has waited for a session long enough: its nodes vanish. Whoever comes back goes on
    /// with another one.
    pub(super) fn lapse(&mut self, id: u64) {
        if self.followers.contains_key(&id) {
            self.bury(id);
        }
    }

    pub(super) fn mend(&mut self, id: u64) {
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.is_cut = false;
            follower.reconnect();
        }
    }

    /// Whether a session reaches the store.
    fn reaches(&self, id: u64) -> Result<&Follower, Outage> {
        match self.followers.get(&id) {
            None => Err(Outage::Fenced),
            Some(follower) if follower.is_cut => Err(Outage::Disconnected),
            Some(follower) => Ok(follower),
        }
    }

    pub(super) fn reconnect(&mut self, id: u64) {
        let follower = self.followers.get_mut(&id);
        if let Some(follower) = follower.filter(|it| !it.is_cut) {
            follower.reconnect();
        }
    }

    pub(super) const fn delays(&mut self) -> bool {
        self.dice.roll(self.faults.delay)
    }

    /// Lets a session see the newest state, whatever the odds of lag are.
    pub(super) fn catch_up(&mut self, id: u64) -> Result<(), Outage> {
        self.hear(id);
        self.reaches(id).map(drop)
    }

    pub(super) fn read<T>(&mut self, id: u64, look: impl FnOnce(&Tree) -> T) -> Result<T, Outage> {
        if !self.dice.roll(self.faults.lag) {
            self.hear(id);
        }
        self.reaches(id).map(|follower| look(&follower.replica))
    }

    pub(super) fn commit(
        &mut self,
        id: u64,
        ops: &[Op],
        written: Timestamp,
    ) -> Result<Receipt, CommitError> {
        self.reaches(id).map_err(CommitError::Down)?;
        if self.is_full {
            return Err(CommitError::Down(Outage::Full));
        }
        if self.dice.roll(self.faults.lost_before) {
            self.reconnect(id);
            return Err(CommitError::Unknown);
        }
        let accepted = self.accept(id, ops);
        if self.dice.roll(self.faults.expiry) {
            self.end(id);
            return Err(CommitError::Unknown);
        }
        if self.dice.roll(self.faults.lost_after) {
            self.reconnect(id);
            self.spread();
            return Err(CommitError::Unknown);
        }
        self.hear(id);
        self.spread();
        self.latest = self.latest.max(written);
        match accepted {
            Ok(versions) => Ok(Receipt {
                versions,
                store_time: self.latest,
                written: Some(written),
            }),
            Err(Refusal { index, kind }) => Err(CommitError::Conflict { index, kind }),
        }
    }

    fn accept(&mut self, id: u64, ops: &[Op]) -> Result<Vec<Version>, Refusal> {
        let unguarded = match self.defect {
            Some(Defect::NoChecks) => Some(self.unguarded(ops)),
            Some(Defect::Forgetful) | None => None,
        };
        let mut draft = Draft::new(&self.tree);
        let Effect { versions, events } = draft.commit(unguarded.as_deref().unwrap_or(ops))?;
        if self.defect == Some(Defect::Forgetful) && self.dice.roll(FORGETS) {
            return Ok(versions);
        }
        let changes = draft.into_changes();
        self.tree.apply(&changes);
        let committed = Arc::new(Committed { changes, events });
        self.note_owners(id, &committed);
        for follower in self.followers.values_mut() {
            follower.backlog.push_back(committed.clone());
        }
        Ok(versions)
    }

    /// The same steps without their guards.
    fn unguarded(&self, ops: &[Op]) -> Vec<Op> {
        let version = |path: &NodePath| {
            let entry = self.tree.get(path);
            entry.map_or(Version::FIRST, |entry| entry.node.version)
        };
        let strip = |op: &Op| match op.clone() {
            Op::Set { path, data, .. } => Op::Set {
                path,
                data,
                expect: Expect::Any,
            },
            Op::Delete { path, .. } => Op::Delete {
                path,
                expect: Expect::Any,
            },
            Op::Check { path, .. } => Op::Check {
                version: version(&path),
                path,
            },
            create @ Op::Create { .. } => create,
        };
        ops.iter().map(strip).collect()
    }

    fn note_owners(&mut self, id: u64, committed: &Committed) {
        for event in &committed.events {
            let Some(path) = event.path() else { continue };
            let lives_with_session = matches!(
                committed.changes.get(path),
                Some(Change::Write(entry)) if entry.life == Life::Session
            );
            match event {
                Event::Created(_) if lives_with_session => {
                    self.owners.insert(path.clone(), id);
                }
                Event::Created(_) | Event::Deleted(_) => {
                    self.owners.remove(path);
                }
                Event::Changed(_) | Event::Gap => {}
            }
        }
    }

    /// Lets the sessions hear of what happened, but for those that lag.
    fn spread(&mut self) {
        let ids: Vec<_> = self.followers.keys().copied().collect();
        for id in ids {
            if !self.dice.roll(self.faults.lag) {
                self.hear(id);
            }
        }
    }

    fn hear(&mut self, id: u64) {
        let follower = self.followers.get_mut(&id);
        let Some(follower) = follower.filter(|it| !it.is_cut) else {
            return;
        };
        if !follower.backlog.is_empty() && self.dice.roll(self.faults.missed_events) {
            follower.reconnect();
        } else {
            follower.hear();
        }
    }
}

impl Follower {
    fn new(replica: Tree) -> Self {
        let epoch = 1;
        Self {
            replica,
            backlog: VecDeque::new(),
            watches: Arc::default(),
            health: Sender::new(Health::Connected { epoch }),
            epoch,
            is_cut: false,
        }
    }

    fn hear(&mut self) {
        while let Some(committed) = self.backlog.pop_front() {
            self.replica.apply(&committed.changes);
            self.watches.publish(&committed.events);
        }
    }

    /// After a lost connection the session sees the latest tree, but not what led to it.
    fn reconnect(&mut self) {
        for committed in self.backlog.drain(..) {
            self.replica.apply(&committed.changes);
        }
        self.watches.lose();
        self.epoch += 1;
        self.health
            .send_replace(Health::Connected { epoch: self.epoch });
    }
}
