//! Planted defects: what a law of the protocol is for, taken away.
//!
//! Owns how each spoils the commits that production makes. Only tests and the report plant any.

use distci_model::id::TicketKey;
use distci_store::coordination::tree::Tree;
use distci_store::coordination::{Expect, Op};

use crate::act::Act;
use crate::look::Part;

/// A law that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    /// Build control parks without asking whether its mailbox rang meanwhile.
    NoMailboxCheck,
    /// Who ends a task's run does not make sure that the build is still as it was read.
    NoParentCheck,
    /// Who ends a task's run does not ring the mailbox.
    NoRing,
    /// A result is taken in the name of whatever attempt is the ticket's now.
    Unfenced,
    /// A claim asks for no version of the anchor, and the names are kept apart from it.
    ClaimWithoutVersion,
    /// Tasks' tickets are posted before the commit of the build, not in it.
    ChildrenApart,
    /// Tasks' tickets are removed before the commit of the build, not in it.
    ConsumedApart,
    /// A slot that was seen free is taken for one's own.
    LockOutsideTheClaim,
    /// Who ends a claim does not give its slots back.
    LockKept,
    /// A build is posted without the version of the job's numbers.
    NumberWithoutVersion,
    /// Builds downstream are posted before the commit of the build, not in it.
    TriggersApart,
    /// A schedule is fired without the version of the job's schedules.
    FireWithoutVersion,
    /// The wish to cancel rings nobody.
    CancelWithoutRing,
    /// A claim is given up without the version of the anchor.
    ExpiryWithoutVersion,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::NoMailboxCheck,
        Self::NoParentCheck,
        Self::NoRing,
        Self::Unfenced,
        Self::ClaimWithoutVersion,
        Self::ChildrenApart,
        Self::ConsumedApart,
        Self::LockOutsideTheClaim,
        Self::LockKept,
        Self::NumberWithoutVersion,
        Self::TriggersApart,
        Self::FireWithoutVersion,
        Self::CancelWithoutRing,
        Self::ExpiryWithoutVersion,
    ];

    /// What is committed in place of `ops`, which `act` would commit; `tree` is what it saw.
    pub(crate) fn spoil(self, act: &Act, ops: Vec<Op>, tree: &Tree) -> Vec<Op> {
        let commits = matches!(act, Act::Commit { .. });
        match (self, act) {
            (Self::NoMailboxCheck, Act::Commit { .. }) => without(ops, |op| {
                matches!(op, Op::Check { .. }) && Part::of(op.path()) == Part::Mailbox
            }),
            (Self::NoParentCheck, Act::Complete { .. } | Act::Expire { .. }) => {
                without(ops, |op| matches!(op, Op::Check { .. }))
            }
            (Self::NoRing, Act::Complete { .. } | Act::Expire { .. })
            | (Self::CancelWithoutRing, Act::Cancel { .. }) => without(ops, |op| {
                matches!(op, Op::Set { .. }) && Part::of(op.path()) == Part::Mailbox
            }),
            (Self::ClaimWithoutVersion, Act::Claim { ticket, .. })
            | (Self::ExpiryWithoutVersion, Act::Expire { ticket, .. }) => unversioned(ops, ticket),
            (Self::ChildrenApart, _) if commits => {
                let of_child = |op: &Op| {
                    matches!(op, Op::Create { .. })
                        && matches!(Part::of(op.path()), Part::Child | Part::Queue)
                };
                apart(ops, of_child, tree)
            }
            (Self::ConsumedApart, _) if commits => {
                let of_child =
                    |op: &Op| matches!(op, Op::Delete { .. }) && Part::of(op.path()) == Part::Child;
                apart(ops, of_child, tree)
            }
            (Self::TriggersApart, Act::Commit { ticket, .. }) => {
                let own = ticket.build.as_str();
                let downstream = |op: &Op| match Part::of(op.path()) {
                    Part::Build | Part::Mailbox | Part::Queue => {
                        matches!(op, Op::Create { .. }) && !op.path().as_str().contains(own)
                    }
                    Part::Numbers => true,
                    _ => false,
                };
                if ops.iter().any(|op| downstream(op) && is_new(op, tree)) {
                    apart(ops, downstream, tree)
                } else {
                    ops
                }
            }
            (Self::LockOutsideTheClaim, Act::Claim { .. }) => without(ops, |op| {
                matches!(op, Op::Create { .. }) && Part::of(op.path()) == Part::Slot
            }),
            (Self::LockKept, Act::Complete { .. } | Act::Expire { .. } | Act::Release { .. }) => {
                without(ops, |op| {
                    matches!(op, Op::Delete { .. }) && Part::of(op.path()) == Part::Slot
                })
            }
            (Self::NumberWithoutVersion, Act::Post { .. }) => any(ops, Part::Numbers),
            (Self::FireWithoutVersion, Act::Fire { .. }) => {
                any(any(ops, Part::Timetable), Part::Numbers)
            }
            _ => ops,
        }
    }
}

fn without(ops: Vec<Op>, is_left_out: impl Fn(&Op) -> bool) -> Vec<Op> {
    ops.into_iter().filter(|op| !is_left_out(op)).collect()
}

/// The same that asks for no version of nodes of this kind.
fn any(ops: Vec<Op>, part: Part) -> Vec<Op> {
    let spoilt = |op| match op {
        Op::Set { path, data, .. } if Part::of(&path) == part => Op::Set {
            path,
            data,
            expect: Expect::Any,
        },
        op => op,
    };
    ops.into_iter().map(spoilt).collect()
}

/// The anchor alone is written, whatever its version.
fn unversioned(ops: Vec<Op>, ticket: &TicketKey) -> Vec<Op> {
    let part = if ticket.ticket.is_control() {
        Part::Build
    } else {
        Part::Child
    };
    let names = |op: &Op| {
        matches!(op, Op::Delete { .. }) && matches!(Part::of(op.path()), Part::Queue | Part::Claim)
    };
    any(without(ops, names), part)
}

fn is_new(op: &Op, tree: &Tree) -> bool {
    matches!(op, Op::Create { .. }) && tree.get(op.path()).is_none()
}

/// The steps that are to come first, until what they do is done; and then the others.
fn apart(ops: Vec<Op>, first: impl Fn(&Op) -> bool, tree: &Tree) -> Vec<Op> {
    let is_done = |op: &Op| match op {
        Op::Create { path, .. } => tree.get(path).is_some(),
        Op::Delete { path, .. } => tree.get(path).is_none(),
        Op::Set { .. } | Op::Check { .. } => true,
    };
    if ops.iter().any(|op| first(op) && !is_done(op)) {
        ops.into_iter().filter(|op| first(op)).collect()
    } else {
        without(ops, first)
    }
}
