//! Slots of locks: which are free, who holds them.
//!
//! Owns the choice of slots for a claim, and the list of those that are held. Never creates or
//! deletes one: what a transition does to slots follows from its records, in `transaction.rs`.
//! Choosing only reads, so whoever finds no free slot has cost the store no write.

use std::collections::{BTreeMap, BTreeSet};

use distci_model::Timestamp;
use distci_model::build::Build;
use distci_model::id::{BuildRef, LockKey, TicketKey};
use distci_model::lock::{Hold, LockNeed, Slot};
use distci_model::ticket::{Duty, Ticket};
use serde::{Deserialize, Serialize};

use crate::coordination::{Event, Watch};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::read;

/// Most slots of a lock that are looked at for one whose holder can be named.
const MAX_LOOKED_AT: usize = 8;

/// What a slot's node holds, for people and for checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotNode {
    /// What people call the lock.
    pub(crate) name: String,
    /// Who holds the slot.
    pub(crate) ticket: TicketKey,
    /// Since when.
    pub(crate) since: Timestamp,
}

impl SlotNode {
    /// What the node of a slot holds that `ticket` has.
    pub(crate) fn of(key: &TicketKey, ticket: &Ticket, slot: &Slot) -> Self {
        let need = ticket.locks.iter().find(|need| need.key == slot.lock);
        Self {
            name: need.map(|need| need.name.clone()).unwrap_or_default(),
            ticket: key.clone(),
            since: ticket.slots_since(),
        }
    }
}

/// A lock that has no free slot for a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Which.
    pub lock: LockKey,
    /// What people call it.
    pub name: String,
}

/// A slot that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSlot {
    /// Which one of its lock.
    pub slot: u16,
    /// What people call the lock.
    pub name: String,
    /// Who holds it.
    pub ticket: TicketKey,
    /// Since when.
    pub since: Timestamp,
}

/// News of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockNews {
    /// A slot of this lock is free.
    Freed(LockKey),
    /// News were missed: slots of any lock may be free.
    Gap,
}

/// Follows the slots.
#[derive(Debug)]
pub struct LockWatch(Watch);

impl LockWatch {
    /// Forgets the news that are queued, for whoever tries every lock next needs none of them.
    pub fn skip(&mut self) {
        self.0.skip();
    }

    /// The next news; `None` when the store is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<LockNews> {
        loop {
            let freed = match self.0.next().await? {
                Event::Deleted(path) => keys::parse_slot(path.name()),
                Event::Gap => return Some(LockNews::Gap),
                Event::Created(_) | Event::Changed(_) => None,
            };
            if let Some(slot) = freed {
                return Some(LockNews::Freed(slot.lock));
            }
        }
    }
}

impl Store {
    /// Follows the slots that become free. A hint: whoever hears of one has to try.
    pub fn watch_locks(&self) -> LockWatch {
        LockWatch(self.coordination.watch(&keys::locks()))
    }

    /// What a claim of a queued ticket is to bring, or the lock that has no room for it. All locks
    /// are chosen at once, and taken in one commit: who waits for one holds none.
    pub(crate) async fn hold_for(
        &self,
        key: &TicketKey,
        ticket: &Ticket,
    ) -> Result<Result<Hold, Blocked>, StoreError> {
        let mut slots = Vec::new();
        for need in ticket.locks_missing() {
            if let Some(slot) = self.free_slot(need).await? {
                slots.push(slot);
            } else if self.is_cancelled(key, ticket).await? {
                return Ok(Ok(Hold::Waived));
            } else {
                let (lock, name) = (need.key.clone(), need.name.clone());
                return Ok(Err(Blocked { lock, name }));
            }
        }
        Ok(Ok(Hold::Slots(slots)))
    }

    async fn is_cancelled(&self, key: &TicketKey, ticket: &Ticket) -> Result<bool, StoreError> {
        match ticket.duty {
            Duty::Control => {
                let flag = self
                    .coordination
                    .get(&keys::cancel_flag(&key.build))
                    .await?;
                Ok(flag.is_some())
            }
            Duty::Task | Duty::Errand => Ok(false),
        }
    }

    /// The lowest slot of a lock that nobody holds.
    pub(crate) async fn free_slot(&self, need: &LockNeed) -> Result<Option<Slot>, StoreError> {
        let held = self.slots_of(&need.key).await?;
        let free = (0..need.slots).find(|slot| !held.contains(slot));
        Ok(free.map(|slot| Slot {
            lock: need.key.clone(),
            slot,
        }))
    }

    async fn slots_of(&self, lock: &LockKey) -> Result<BTreeSet<u16>, StoreError> {
        let names = self.coordination.list(&keys::lock_shard(lock)).await?;
        let slots = names.iter().filter_map(|name| keys::parse_slot(name));
        let of_it = slots.filter(|slot| slot.lock == *lock);
        Ok(of_it.map(|slot| slot.slot).collect())
    }

    /// The slots of a lock that are held now, at most `most`.
    pub async fn lock_holders(
        &self,
        lock: &LockKey,
        most: usize,
    ) -> Result<Vec<HeldSlot>, StoreError> {
        let mut held = Vec::new();
        for slot in self.slots_of(lock).await?.into_iter().take(most) {
            let path = keys::slot(&Slot {
                lock: lock.clone(),
                slot,
            });
            // Given back since it was listed.
            if let Some(node) = read::<SlotNode>(&*self.coordination, &path).await? {
                let SlotNode {
                    name,
                    ticket,
                    since,
                } = node.record;
                held.push(HeldSlot {
                    slot,
                    name,
                    ticket,
                    since,
                });
            }
        }
        Ok(held)
    }

    /// The locks of which a slot is held, with how many.
    pub async fn locks(&self) -> Result<BTreeMap<LockKey, usize>, StoreError> {
        let mut locks = BTreeMap::new();
        for name in self.list_shards(&keys::locks()).await? {
            if let Some(slot) = keys::parse_slot(&name) {
                *locks.entry(slot.lock).or_default() += 1;
            }
        }
        Ok(locks)
    }

    /// The build that holds a slot of a lock of builds; `None` if none is held any more.
    pub(crate) async fn build_that_holds(
        &self,
        lock: &LockKey,
    ) -> Result<Option<BuildRef>, StoreError> {
        for held in self.lock_holders(lock, MAX_LOOKED_AT).await? {
            let path = keys::build(&held.ticket.build);
            if let Some(build) = read::<Build>(&*self.coordination, &path).await? {
                return Ok(Some(build.record.id));
            }
        }
        Ok(None)
    }
}
