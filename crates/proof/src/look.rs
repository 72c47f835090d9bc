//! What a tree says: its tickets, their names, slots and numbers.
//!
//! Owns the reading of every node that a law is about, by the types and names of production. Judges
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use distci_model::build::Build;
use distci_model::id::{BuildKey, JobId, TicketId, TicketKey};
use distci_model::ticket::{DueName, QueueName, Ticket};
use distci_model::wire::BuildSummary;
use distci_store::Timetable;
use distci_store::coordination::tree::Tree;
use distci_store::coordination::{Node, NodePath};
use distci_store::keys;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What kind of node is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A build's anchor.
    Build,
    /// The anchor of a task's ticket.
    Child,
    /// A build's mailbox.
    Mailbox,
    /// The wish that a build be cancelled.
    Flag,
    /// A name in the queue, among the claims, or among the timers.
    Queue,
    /// See [`Queue`](Self::Queue).
    Claim,
    /// See [`Queue`](Self::Queue).
    Due,
    /// A slot of a lock.
    Slot,
    /// The numbers of a job's builds.
    Numbers,
    /// The schedules of a job.
    Timetable,
    /// Something else.
    Other,
}

impl Part {
    /// The kind of the node at a path.
    pub(crate) fn of(path: &NodePath) -> Self {
        let names: Vec<_> = path.as_str().trim_start_matches('/').split('/').collect();
        match names.as_slice() {
            ["b", _, _] => Self::Build,
            ["b", _, _, "m"] => Self::Mailbox,
            ["b", _, _, "x"] => Self::Flag,
            ["b", _, _, "w"] => Self::Other,
            ["b", _, _, _] => Self::Child,
            ["q", _, _] => Self::Queue,
            ["c", _, _] => Self::Claim,
            ["d", _, _] => Self::Due,
            ["s", _, _] => Self::Slot,
            ["j", _, _, "n"] => Self::Numbers,
            ["t", _, _] => Self::Timetable,
            _ => Self::Other,
        }
    }
}

/// The numbers of a job's builds.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Numbers {
    /// The next number.
    pub(crate) next: u64,
    /// Which request made which build.
    pub(crate) triggers: Vec<(String, u64)>,
    /// The builds that are over.
    pub(crate) recent: Vec<BuildSummary>,
}

#[derive(Deserialize)]
struct Child {
    ticket: Ticket,
}

#[derive(Deserialize)]
struct SlotNode {
    ticket: TicketKey,
}

/// A ticket with the version of its anchor.
#[derive(Debug, Clone)]
pub(crate) struct Anchored {
    pub(crate) ticket: Ticket,
    pub(crate) version: u32,
}

/// What a tree says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// All tickets.
    pub(crate) tickets: BTreeMap<TicketKey, Anchored>,
    /// The builds that are not over.
    pub(crate) builds: BTreeMap<BuildKey, Build>,
    /// The names in all indexes.
    pub(crate) names: BTreeSet<NodePath>,
    /// What is queued.
    pub(crate) queue: Vec<QueueName>,
    /// What waits for a time.
    pub(crate) due: Vec<DueName>,
    /// Who holds which slot.
    pub(crate) slots: BTreeMap<NodePath, TicketKey>,
    /// The builds that have a mailbox.
    pub(crate) mailboxes: BTreeSet<BuildKey>,
    /// The builds that somebody asked to cancel.
    pub(crate) flags: BTreeSet<BuildKey>,
    /// The numbers of each job.
    pub(crate) numbers: BTreeMap<JobId, Numbers>,
    /// The schedules of each job.
    pub(crate) timetables: BTreeMap<JobId, Timetable>,
    /// Whether something cannot be read.
    pub(crate) unreadable: bool,
}

impl Look {
    /// Looks at a tree.
    pub(crate) fn at(tree: &Tree) -> Self {
        let mut look = Self::default();
        for (path, entry) in tree.iter() {
            if look.take(path, &entry.node).is_none() {
                look.unreadable = true;
            }
        }
        look
    }

    fn take(&mut self, path: &NodePath, node: &Node) -> Option<()> {
        match Part::of(path) {
            Part::Build => {
                let key: BuildKey = path.name().parse().ok()?;
                let build: Build = read(node)?;
                let anchored = Anchored {
                    ticket: build.ticket.clone(),
                    version: node.version.0,
                };
                self.tickets
                    .insert(TicketKey::control(key.clone()), anchored);
                self.builds.insert(key, build);
            }
            Part::Child => {
                let ticket: TicketId = path.name().parse().ok()?;
                let build = above(path)?;
                let Child { ticket: record } = read(node)?;
                let anchored = Anchored {
                    ticket: record,
                    version: node.version.0,
                };
                self.tickets.insert(TicketKey { build, ticket }, anchored);
            }
            Part::Mailbox => drop(self.mailboxes.insert(above(path)?)),
            Part::Flag => drop(self.flags.insert(above(path)?)),
            Part::Queue => {
                self.queue.push(keys::parse_queue(path.name())?);
                self.names.insert(path.clone());
            }
            Part::Claim => {
                keys::parse_claim(path.name())?;
                self.names.insert(path.clone());
            }
            Part::Due => {
                self.due.push(keys::parse_due(path.name())?);
                self.names.insert(path.clone());
            }
            Part::Slot => {
                keys::parse_slot(path.name())?;
                let SlotNode { ticket } = read(node)?;
                self.slots.insert(path.clone(), ticket);
            }
            Part::Numbers => drop(self.numbers.insert(job_above(path)?, read(node)?)),
            Part::Timetable => {
                let job = path.name().parse().ok()?;
                self.timetables.insert(job, read(node)?);
            }
            Part::Other => {}
        }
        Some(())
    }
}

fn read<T: DeserializeOwned>(node: &Node) -> Option<T> {
    serde_json::from_slice(&node.data).ok()
}

fn above(path: &NodePath) -> Option<BuildKey> {
    path.parent()?.name().parse().ok()
}

fn job_above(path: &NodePath) -> Option<JobId> {
    path.parent()?.name().parse().ok()
}
