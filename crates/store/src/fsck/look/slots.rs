//! What is looked at of locks: every slot is held by the ticket whose record lists it.

use distci_model::id::TicketKey;
use distci_model::lock::Slot;
use distci_model::ticket::Ticket;

use super::super::repair::Repair;
use super::{Flaw, Grounds, Look, Witness};
use crate::coordination::{NodePath, Version};
use crate::error::StoreError;
use crate::keys;
use crate::locks::SlotNode;
use crate::meta::Meta;
use crate::transaction::{Read, encode};

/// A slot that somebody is said to hold.
pub(super) struct SeenSlot {
    holder: TicketKey,
    version: Version,
}

impl Look<'_> {
    /// The slots that are held, before the tickets that hold them.
    pub(super) async fn slots(&mut self) -> Result<(), StoreError> {
        self.meta = self
            .record::<Meta>(&keys::meta())
            .await?
            .map(|meta| meta.version);
        for path in self.sharded(&keys::locks()).await? {
            let slot = keys::parse_slot(path.name());
            if slot.is_none_or(|slot| keys::slot(&slot) != path) {
                self.unknown(&path);
                continue;
            }
            self.checked.slots += 1;
            if let Some(Read { record, version }) = self.record::<SlotNode>(&path).await? {
                let holder = record.ticket;
                self.slots.insert(path, SeenSlot { holder, version });
            }
        }
        Ok(())
    }

    /// The slots that a ticket lists are there, and are its own.
    pub(super) fn held(
        &mut self,
        key: &TicketKey,
        ticket: &Ticket,
        version: Version,
    ) -> Result<(), StoreError> {
        for slot in &ticket.slots {
            let path = keys::slot(slot);
            let other = match self.slots.get(&path) {
                Some(seen) if seen.holder == *key => {
                    self.slots.remove(&path);
                    continue;
                }
                other => other.map(|seen| seen.holder.clone()),
            };
            self.missing_slot((key, ticket, version), slot, other)?;
        }
        Ok(())
    }

    fn missing_slot(
        &mut self,
        (key, ticket, version): (&TicketKey, &Ticket, Version),
        slot: &Slot,
        other: Option<TicketKey>,
    ) -> Result<(), StoreError> {
        let (path, anchor) = (keys::slot(slot), keys::anchor(key));
        let witness = vec![(anchor.clone(), Some(version))];
        let (detail, repair) = if let Some(other) = other {
            (format!("{anchor} lists it, and {other} has it"), None)
        } else {
            let payload = encode(path.as_str(), &SlotNode::of(key, ticket, slot))?;
            let repair = Repair::Slot {
                path: path.clone(),
                payload,
                anchor: (anchor.clone(), version),
            };
            (format!("{anchor} lists it"), Some(repair))
        };
        self.find(Flaw::SlotMissing, path, detail, Grounds { witness, repair });
        Ok(())
    }

    /// The slots that no ticket lists.
    pub(super) async fn leaked_slots(&mut self) -> Result<(), StoreError> {
        for (path, SeenSlot { holder, version }) in std::mem::take(&mut self.slots) {
            let anchor = keys::anchor(&holder);
            let node = self.store.coordination.get(&anchor).await?;
            let seen = node.map(|node| node.version);
            let repair = self.meta.map(|meta| Repair::NoSlot {
                path: path.clone(),
                version,
                anchor: seen.map(|version| (anchor.clone(), version)),
                meta,
            });
            let detail = match seen {
                None => format!("{anchor}, which has it, is not there"),
                Some(version) => format!("{anchor}, which has it, does not list it at {version}"),
            };
            let witness: Witness = vec![(anchor, seen)];
            self.find(Flaw::SlotLeaked, path, detail, Grounds { witness, repair });
        }
        Ok(())
    }
}

/// The slots that were seen, by their path.
pub(super) type SeenSlots = std::collections::BTreeMap<NodePath, SeenSlot>;
