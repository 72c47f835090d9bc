//! Locks that were full when a ticket was tried.
//!
//! Owns who is passed over because of which lock, and in which order they are tried again. All of it
//! is learnt from refusals, and a hint: the store alone says whether a slot is free. Invariant: of
//! those that wait for one lock, one at a time is tried, so that a slot that becomes free is not
//! raced for by all who want it.

use std::collections::{BTreeSet, HashMap};

use distci_model::id::LockKey;
use distci_model::ticket::{Priority, QueueName, Stamp};
use distci_store::Blocked;
use tokio::time::Instant;

/// The locks that held up entries of the queue.
#[derive(Debug, Default)]
pub(super) struct FullLocks {
    locks: HashMap<LockKey, FullLock>,
    /// The lock that held an entry up last.
    of: HashMap<QueueName, LockKey>,
}

/// One of them.
#[derive(Debug)]
struct FullLock {
    name: String,
    /// Who waits for it, the first first.
    waiting: BTreeSet<Place>,
    /// When it will be tried again, if it is believed to be full.
    full: Option<Instant>,
    /// Who is tried now.
    tried: Option<QueueName>,
}

/// The place of an entry among those that wait for a lock.
type Place = (Priority, Stamp, QueueName);

fn place(entry: &QueueName) -> Place {
    (entry.priority, entry.stamp, entry.clone())
}

impl FullLocks {
    /// Whether no lock is known to stand in the way of an entry.
    pub(super) fn admit(&self, entry: &QueueName) -> bool {
        let lock = self.of.get(entry).and_then(|lock| self.locks.get(lock));
        lock.is_none_or(|lock| lock.full.is_none() && lock.tried.is_none())
    }

    /// The lock that held an entry up last.
    pub(super) fn of(&self, entry: &QueueName) -> Option<&LockKey> {
        self.of.get(entry)
    }

    /// Who waits for a lock, the first first.
    pub(super) fn waiting(&self, lock: &LockKey) -> impl Iterator<Item = &QueueName> {
        let waiting = self.locks.get(lock).map(|lock| lock.waiting.iter());
        waiting.into_iter().flatten().map(|(_, _, entry)| entry)
    }

    /// All that are believed to be full.
    pub(super) fn all(&self) -> Vec<Blocked> {
        let full = self.locks.iter().filter(|(_, lock)| lock.full.is_some());
        full.map(|(key, lock)| Blocked {
            lock: key.clone(),
            name: lock.name.clone(),
        })
        .collect()
    }

    /// An entry is tried now.
    pub(super) fn begin(&mut self, entry: &QueueName) {
        if let Some(lock) = self.lock_of(entry) {
            lock.tried = Some(entry.clone());
        }
    }

    /// An entry is not tried any more.
    pub(super) fn end(&mut self, entry: &QueueName) {
        if let Some(lock) = self.lock_of(entry) {
            lock.tried.take_if(|tried| tried == entry);
        }
    }

    /// An entry found a lock full.
    pub(super) fn refuse(&mut self, entry: &QueueName, blocked: &Blocked) {
        self.forget(entry);
        let Blocked { lock, name } = blocked;
        self.of.insert(entry.clone(), lock.clone());
        let lock = self.locks.entry(lock.clone()).or_insert_with(|| FullLock {
            name: name.clone(),
            waiting: BTreeSet::new(),
            full: None,
            tried: None,
        });
        lock.waiting.insert(place(entry));
    }

    /// Believes a lock to be full until `until`, or not at all. Gives until when it was believed to
    /// be so far.
    pub(super) fn believe(&mut self, lock: &LockKey, until: Option<Instant>) -> Option<Instant> {
        let lock = self.locks.get_mut(lock)?;
        std::mem::replace(&mut lock.full, until)
    }

    /// An entry is gone, or waits for something else. Gives what is to be taken back of the belief
    /// in its lock, if nobody else waits for that.
    pub(super) fn forget(&mut self, entry: &QueueName) -> Option<(LockKey, Instant)> {
        self.end(entry);
        let key = self.of.remove(entry)?;
        let lock = self.locks.get_mut(&key)?;
        lock.waiting.remove(&place(entry));
        if !lock.waiting.is_empty() {
            return None;
        }
        let gone = self.locks.remove(&key)?;
        Some((key, gone.full?))
    }

    fn lock_of(&mut self, entry: &QueueName) -> Option<&mut FullLock> {
        self.locks.get_mut(self.of.get(entry)?)
    }
}
