//! Records read with their version, and the one commit that a transition becomes.
//!
//! Owns the translation of a planned transition into operations (R2): the anchor with its version,
//! the difference of its index names and of its slots, and the news for the build's control ticket. Never decides
//! anything: that is `model::plan`.

use std::io::{self, Read as _};
use std::time::Duration;

use bytes::Bytes;
use distci_model::build::Build;
use distci_model::id::{BuildKey, TicketKey};
use distci_model::lock::Slot;
use distci_model::plan::{Intent, News, Refused, plan};
use distci_model::ticket::{Ticket, TicketState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::coordination::{
    CommitError, ConflictKind, Coordination, Expect, Life, NodePath, Op, Receipt, Version,
};
use crate::error::StoreError;
use crate::keys;
use crate::locks::SlotNode;

/// How often a commit that lost a race is planned anew. Each round, somebody's commit succeeded.
const MAX_ROUNDS: u32 = 256;
/// How long to try: an answer that gets lost may take seconds each time.
const LONGEST: Duration = Duration::from_secs(30);
/// So many lost rounds in a row are nothing but bad luck.
const EAGER_ROUNDS: u32 = 3;
/// The pause after the next one grows by this with every lost round,
const PAUSE: Duration = Duration::from_millis(1);
/// up to this many times as long.
const MOST_PAUSES: u32 = 50;

/// A record with the version at which it was read.
#[derive(Debug, Clone)]
pub(crate) struct Read<T> {
    pub(crate) record: T,
    pub(crate) version: Version,
}

/// The anchor of a task's ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Child {
    /// The ticket.
    pub(crate) ticket: Ticket,
    /// The task, by its place in the configuration.
    pub(crate) task: usize,
}

/// An anchor: a ticket with what its node holds beside.
pub(crate) trait Anchor: Serialize + DeserializeOwned + Clone {
    fn ticket(&self) -> &Ticket;
    fn with(&self, ticket: Ticket) -> Self;
}

impl Anchor for Child {
    fn ticket(&self) -> &Ticket {
        &self.ticket
    }
    fn with(&self, ticket: Ticket) -> Self {
        Self {
            ticket,
            ..self.clone()
        }
    }
}

impl Anchor for Build {
    fn ticket(&self) -> &Ticket {
        &self.ticket
    }
    fn with(&self, ticket: Ticket) -> Self {
        Self {
            ticket,
            ..self.clone()
        }
    }
}

/// Reads a JSON record.
pub(crate) async fn read<T: DeserializeOwned>(
    coordination: &dyn Coordination,
    path: &NodePath,
) -> Result<Option<Read<T>>, StoreError> {
    let Some(node) = coordination.get(path).await? else {
        return Ok(None);
    };
    let record = unpack(path, &node.data)?;
    Ok(Some(Read {
        record,
        version: node.version,
    }))
}

/// What begins every zstd frame, and no JSON.
const PACKED: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// From this size on a node's record is packed: a build of many tasks shall fit into one commit.
const PACK_FROM: usize = 8 * 1024;

/// No record is larger unpacked: a node holds at most 128 KiB of what packs to a tenth or so.
const MOST: u64 = 16 << 20;

/// Writes a record as a node holds it.
pub(crate) fn pack<T: Serialize>(path: &NodePath, record: &T) -> Result<Bytes, StoreError> {
    let text = encode(path.as_str(), record)?;
    if text.len() < PACK_FROM {
        return Ok(text);
    }
    let packed = zstd::encode_all(&*text, 1).map_err(|error| StoreError::corrupt(path, error))?;
    Ok(packed.into())
}

/// Reads a record as a node holds it.
pub(crate) fn unpack<T: DeserializeOwned>(path: &NodePath, data: &[u8]) -> Result<T, StoreError> {
    if !data.starts_with(&PACKED) {
        return decode(path.as_str(), data);
    }
    let corrupt = |error| StoreError::corrupt(path, error);
    let mut text = Vec::new();
    let unpacking = zstd::Decoder::new(data).map_err(corrupt)?;
    let length = unpacking
        .take(MOST + 1)
        .read_to_end(&mut text)
        .map_err(corrupt)?;
    if length as u64 > MOST {
        return Err(corrupt(io::Error::other("it is too large for a record")));
    }
    decode(path.as_str(), &text)
}

/// Reads JSON that we wrote.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, data: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(data).map_err(|error| StoreError::corrupt(what, error))
}

/// Writes JSON.
pub(crate) fn encode<T: Serialize>(what: &str, record: &T) -> Result<Bytes, StoreError> {
    let text = serde_json::to_vec(record).map_err(|error| StoreError::corrupt(what, error))?;
    Ok(text.into())
}

/// What became of one try to commit.
pub(crate) enum Tried<T> {
    /// It is so.
    Done(T),
    /// It cannot be, as far as could be seen. This counts only of a view that is known to be fresh.
    Refused(T),
    /// Somebody else was first, or the outcome is unknown: read again and plan anew. Since a plan
    /// on the new record recognises what was ours, nothing happens twice (protocol rule of
    /// ambiguous commits).
    Again,
}

/// Runs a future that gives [`Tried`] again and again until it is done. What is refused is tried once
/// more after catching up with the store, for another session may have changed what a lagging server
/// still shows as it was. A lost race needs no such care: the refused commit has itself caught up.
/// A macro, for a future made by a borrowing async closure is not known to be `Send`.
macro_rules! until_done {
    ($coordination:expr, $once:expr) => {{
        let mut rounds = $crate::transaction::Rounds::default();
        loop {
            let tried: Result<$crate::transaction::Tried<_>, $crate::error::StoreError> =
                $once.await;
            match tried {
                Ok($crate::transaction::Tried::Done(done)) => break Ok(done),
                Ok($crate::transaction::Tried::Refused(refused)) if rounds.is_fresh => {
                    break Ok(refused);
                }
                Err(error) if rounds.is_fresh || !error.is_refusal() => break Err(error),
                Ok($crate::transaction::Tried::Refused(_)) | Err(_) => {
                    if let Err(error) = $coordination.catch_up().await {
                        break Err(error.into());
                    }
                    rounds.is_fresh = true;
                }
                Ok($crate::transaction::Tried::Again) => {
                    if let Err(error) = rounds.lost().await {
                        break Err(error);
                    }
                }
            }
        }
    }};
}
pub(crate) use until_done;

/// The rounds of [`until_done`] so far.
#[derive(Debug)]
pub(crate) struct Rounds {
    began: Instant,
    lost: u32,
    /// Whether refusals of this round count.
    pub(crate) is_fresh: bool,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            lost: 0,
            is_fresh: false,
        }
    }
}

impl Rounds {
    /// Another round was lost: waits a moment if that was not the first time in a row, so that many
    /// who want the same do not spend a quorum write each on every round.
    pub(crate) async fn lost(&mut self) -> Result<(), StoreError> {
        self.lost += 1;
        self.is_fresh = false;
        if self.lost == MAX_ROUNDS || self.began.elapsed() > LONGEST {
            return Err(StoreError::Down(
                "every commit lost its race or its answer".into(),
            ));
        }
        if self.lost > EAGER_ROUNDS {
            tokio::time::sleep(PAUSE * self.lost.min(MOST_PAUSES)).await;
        }
        Ok(())
    }
}

/// The operations of one commit, in the making.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    ops: Vec<Op>,
}

impl Transaction {
    pub(crate) fn create(&mut self, path: NodePath, data: Bytes) {
        self.ops.push(Op::Create {
            path,
            data,
            life: Life::Durable,
        });
    }

    pub(crate) fn set(&mut self, path: NodePath, data: Bytes, version: Version) {
        self.ops.push(Op::Set {
            path,
            data,
            expect: Expect::Exactly(version),
        });
    }

    pub(crate) fn check(&mut self, path: NodePath, version: Version) {
        self.ops.push(Op::Check { path, version });
    }

    pub(crate) fn delete(&mut self, path: NodePath) {
        self.ops.push(Op::Delete {
            path,
            expect: Expect::Any,
        });
    }

    pub(crate) fn delete_at(&mut self, path: NodePath, version: Version) {
        self.ops.push(Op::Delete {
            path,
            expect: Expect::Exactly(version),
        });
    }

    /// Its steps.
    pub(crate) fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    /// How large it is so far.
    pub(crate) fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    /// Creates an anchor and its index entry.
    pub(crate) fn post<A: Anchor>(
        &mut self,
        key: &TicketKey,
        anchor: &A,
    ) -> Result<(), StoreError> {
        let path = keys::anchor(key);
        let data = pack(&path, anchor)?;
        self.create(path, data);
        if let Some(name) = anchor.ticket().index_name(key, Version::FIRST.0) {
            self.create(keys::index(&name), Bytes::new());
        }
        self.exchange_slots(key, &[], anchor.ticket())
    }

    /// Replaces an anchor, and its index entry if that changes.
    pub(crate) fn replace<A: Anchor>(
        &mut self,
        key: &TicketKey,
        before: &Read<A>,
        after: &A,
    ) -> Result<(), StoreError> {
        let path = keys::anchor(key);
        let data = pack(&path, after)?;
        self.set(path, data, before.version);
        let old = before.record.ticket().index_name(key, before.version.0);
        let new = after.ticket().index_name(key, before.version.next().0);
        if old != new {
            // The new name first: whoever follows a claim hears that it changed, not that it ended.
            if let Some(new) = new {
                self.create(keys::index(&new), Bytes::new());
            }
            if let Some(old) = old {
                self.delete(keys::index(&old));
            }
        }
        self.exchange_slots(key, &before.record.ticket().slots, after.ticket())
    }

    /// Takes the slots that the ticket holds from now on, and gives back those that it does not hold
    /// any more. Nobody but the one whose record lists it ever gives a slot back.
    fn exchange_slots(
        &mut self,
        key: &TicketKey,
        before: &[Slot],
        after: &Ticket,
    ) -> Result<(), StoreError> {
        for slot in after.slots.iter().filter(|slot| !before.contains(slot)) {
            let path = keys::slot(slot);
            let data = encode(path.as_str(), &SlotNode::of(key, after, slot))?;
            self.create(path, data);
        }
        for slot in before.iter().filter(|slot| !after.slots.contains(slot)) {
            self.delete(keys::slot(slot));
        }
        Ok(())
    }

    /// Removes an anchor, its index entry and the slots that it holds.
    pub(crate) fn remove<A: Anchor>(&mut self, key: &TicketKey, before: &Read<A>) {
        if let Some(name) = before.record.ticket().index_name(key, before.version.0) {
            self.delete(keys::index(&name));
        }
        for slot in &before.record.ticket().slots {
            self.delete(keys::slot(slot));
        }
        self.delete_at(keys::anchor(key), before.version);
    }

    /// Tells the build's control ticket that there is news: the mailbox rings; a parked ticket
    /// wakes, and any other must still be as it was read. Both halves are needed: without the
    /// first, a control that parks now misses the news; without the second, one that has parked.
    pub(crate) async fn ring(
        &mut self,
        coordination: &dyn Coordination,
        build: &BuildKey,
    ) -> Result<(), StoreError> {
        let mailbox = keys::mailbox(build);
        self.ops.push(Op::Set {
            path: mailbox,
            data: Bytes::new(),
            expect: Expect::Any,
        });
        let control = TicketKey::control(build.clone());
        let path = keys::anchor(&control);
        let Some(parent) = read::<Build>(coordination, &path).await? else {
            // Archived since the caller looked: without its mailbox the commit loses that race.
            return Ok(());
        };
        match plan(&parent.record.ticket, Intent::Wake) {
            Ok(woken) => {
                let after = parent.record.with(woken.ticket);
                self.replace(&control, &parent, &after)
            }
            // It waits for a slot, and may need none after these news: under a new name it is
            // offered anew.
            Err(_) if waits_for_slot(&parent.record.ticket) => {
                let same = parent.record.clone();
                self.replace(&control, &parent, &same)
            }
            Err(
                Refused::AlreadySo
                | Refused::NotQueued
                | Refused::WrongDuty
                | Refused::WrongSlots
                | Refused::AttemptOver { .. },
            ) => {
                self.check(path, parent.version);
                Ok(())
            }
        }
    }

    /// Plans `intent` on an anchor that was read, and adds everything that follows.
    pub(crate) async fn intend<A: Anchor>(
        &mut self,
        coordination: &dyn Coordination,
        key: &TicketKey,
        before: &Read<A>,
        intent: Intent,
    ) -> Result<Result<A, Refused>, StoreError> {
        let planned = match plan(before.record.ticket(), intent) {
            Ok(planned) => planned,
            Err(refused) => return Ok(Err(refused)),
        };
        let after = before.record.with(planned.ticket);
        self.replace(key, before, &after)?;
        match planned.news {
            News::Control => self.ring(coordination, &key.build).await?,
            News::None => {}
        }
        Ok(Ok(after))
    }

    /// Commits. `None`: it lost a race, or the outcome is unknown.
    pub(crate) async fn commit(
        self,
        coordination: &dyn Coordination,
    ) -> Result<Option<Receipt>, StoreError> {
        match coordination.commit(self.ops).await {
            Ok(receipt) => Ok(Some(receipt)),
            Err(CommitError::Conflict {
                kind: ConflictKind::NotEmpty,
                index,
            }) => {
                let error = format!("step {index} deletes a node that has children");
                Err(StoreError::corrupt("a build", error))
            }
            Err(CommitError::Conflict { .. } | CommitError::Unknown) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether nobody can claim the ticket before a slot is free.
fn waits_for_slot(ticket: &Ticket) -> bool {
    ticket.state == TicketState::Queued && ticket.locks_missing().next().is_some()
}
