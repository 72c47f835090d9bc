//! What is done about a finding.
//!
//! Owns the commits. Each carries the version of the anchor that was judged: whoever was faster has
//! changed what it is about, and then nothing is done.

use bytes::Bytes;
use distci_model::build::Build;
use distci_model::id::TicketKey;
use distci_model::plan::{Intent, plan};
use distci_model::ticket::TicketState;
use serde::{Serialize, Serializer};

use crate::coordination::{NodePath, Version};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Anchor, Transaction, read};

/// What is to be done, and the version of the anchor for which it is right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Repair {
    /// Enter the name.
    Name {
        name: NodePath,
        anchor: (NodePath, Version),
    },
    /// Remove the name. An anchor that is not there never comes back.
    NoName {
        name: NodePath,
        anchor: Option<(NodePath, Version)>,
    },
    /// Enter the slot.
    Slot {
        path: NodePath,
        payload: Bytes,
        anchor: (NodePath, Version),
    },
    /// Free the slot. Its path may be used again at once, at the same version: that no other check
    /// has freed it meanwhile, the version of `/meta` says, which every freeing raises.
    NoSlot {
        path: NodePath,
        version: Version,
        anchor: Option<(NodePath, Version)>,
        meta: Version,
    },
    /// Wake the build, with a mailbox if it has none.
    Wake {
        control: TicketKey,
        version: Version,
    },
    /// Write down what the class requires.
    Class { path: NodePath, payload: Bytes },
}

impl Repair {
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Name { .. } => "enters the name",
            Self::NoName { .. } => "removes the name",
            Self::Slot { .. } => "enters the slot",
            Self::NoSlot { .. } => "frees the slot",
            Self::Wake { .. } => "wakes the build",
            Self::Class { .. } => "writes down the requirements",
        }
    }

    /// Does it, unless it is not right any more. Another look tells.
    pub(super) async fn apply(&self, store: &Store, fence: &mut Fence) -> Result<(), StoreError> {
        let mut transaction = Transaction::default();
        match self {
            Self::Name { name, anchor } => {
                transaction.check(anchor.0.clone(), anchor.1);
                transaction.create(name.clone(), Bytes::new());
            }
            Self::NoName { name, anchor } => {
                if let Some((anchor, version)) = anchor.clone() {
                    transaction.check(anchor, version);
                }
                transaction.delete(name.clone());
            }
            Self::Slot {
                path,
                payload,
                anchor,
            } => {
                transaction.check(anchor.0.clone(), anchor.1);
                transaction.create(path.clone(), payload.clone());
            }
            Self::NoSlot {
                path,
                version,
                anchor,
                meta,
            } => {
                if let Some((anchor, version)) = anchor.clone() {
                    transaction.check(anchor, version);
                }
                transaction.delete_at(path.clone(), *version);
                return fence.commit(store, transaction, *meta).await;
            }
            Self::Wake { control, version } => {
                wake(store, &mut transaction, control, *version).await?;
            }
            Self::Class { path, payload } => transaction.create(path.clone(), payload.clone()),
        }
        transaction.commit(&*store.coordination).await?;
        Ok(())
    }
}

/// The version of `/meta`, as long as nobody but this check has raised it.
#[derive(Debug, Default)]
pub(super) struct Fence(Option<Version>);

impl Fence {
    /// Commits if `/meta` is as it was when the look began, or as this check left it.
    async fn commit(
        &mut self,
        store: &Store,
        mut transaction: Transaction,
        seen: Version,
    ) -> Result<(), StoreError> {
        let (path, version) = (keys::meta(), self.0.unwrap_or(seen));
        let Some(meta) = store.coordination.get(&path).await? else {
            return Ok(());
        };
        transaction.set(path, meta.data, version);
        if transaction.commit(&*store.coordination).await?.is_some() {
            self.0 = Some(version.next());
        }
        Ok(())
    }
}

impl Serialize for Repair {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.words())
    }
}

/// A build that holds no claim knows no version of its mailbox, so that a new one deceives nobody.
async fn wake(
    store: &Store,
    transaction: &mut Transaction,
    control: &TicketKey,
    version: Version,
) -> Result<(), StoreError> {
    let (tree, path) = (&*store.coordination, keys::anchor(control));
    let Some(build) = read::<Build>(tree, &path).await? else {
        return Ok(());
    };
    let held = matches!(build.record.ticket.state, TicketState::Claimed(_));
    if build.version != version || held {
        return Ok(());
    }
    let mailbox = keys::mailbox(&control.build);
    match tree.get(&mailbox).await? {
        Some(node) => transaction.set(mailbox, Bytes::new(), node.version),
        None => transaction.create(mailbox, Bytes::new()),
    }
    if let Ok(woken) = plan(build.record.ticket(), Intent::Wake) {
        let after = build.record.with(woken.ticket);
        return transaction.replace(control, &build, &after);
    }
    transaction.check(path, version);
    Ok(())
}
