//! A cluster at one moment: what is stored, who is at what, and which commits are under way.
//!
//! Owns what an actor goes on to when it is told something, and which states count as one. Never says
//! what may happen.

use distci_model::id::Attempt;

use crate::act::{Act, Ending, OrderId};
use crate::engine::{Answer, Engine};
use crate::forest::{CommitId, TreeId};
use crate::laws;

/// How much may still go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Commits whose outcome nobody hears: they happen now, later, or never.
    pub unknown: u8,
    /// Commits that arrive a second time.
    pub twice: u8,
    /// Workers that die.
    pub crashes: u8,
    /// Claims given up whose holders are well.
    pub expiries: u8,
    /// Claims handed back undone.
    pub releases: u8,
    /// Tasks that fail.
    pub failures: u8,
    /// Tasks that end in a fault.
    pub faults: u8,
    /// Acts of a frontend that sees what was, and not what is.
    pub lags: u8,
}

/// What an actor is at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doing {
    /// Nothing.
    Idle,
    /// It asks for this until it is answered.
    Wants(u32),
    /// A commit that was made for it is under way.
    Waits(u32),
    /// It works on a task.
    Works(u32, Attempt),
    /// It has an order to decide of.
    Decides(u32, Attempt, OrderId),
    /// It has what it wanted.
    Gone,
}

/// A worker or a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor {
    pub(crate) doing: Doing,
    /// How many requests for work it has ended.
    pub(crate) requests: u8,
}

/// A commit under way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flight {
    /// Who waits for its outcome.
    pub(crate) who: Option<u8>,
    pub(crate) act: u32,
    pub(crate) commit: CommitId,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) tree: TreeId,
    /// What a frontend that lags behind may still see, the latest first.
    pub(crate) behind: Vec<TreeId>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) flights: Vec<Flight>,
    pub(crate) left: Budget,
    /// Whether the times that builds wait for have come.
    pub(crate) late: bool,
    /// The law that was broken.
    pub broken: Option<&'static str>,
}

/// What may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A frontend does something, for an actor or by itself, up to the commit or the answer.
    Try {
        /// For whom.
        who: Option<u8>,
        /// What.
        act: Act,
        /// What it still sees of the past, and for how many reads.
        lag: Option<(TreeId, usize)>,
    },
    /// A commit happens, or is refused.
    Deliver {
        /// Which of those under way.
        flight: usize,
        /// Whether it arrives again later.
        twice: bool,
    },
    /// Nobody will hear of a commit, whatever becomes of it.
    Forget {
        /// Which of those under way.
        flight: usize,
    },
    /// The times come that builds wait for.
    Wait,
    /// A worker dies, and another begins in its place.
    Crash {
        /// Which.
        who: u8,
    },
}

impl Budget {
    /// What an ending costs.
    pub(crate) fn spend(&mut self, act: &Act) {
        match act {
            Act::Complete {
                ending: Ending::Failure,
                ..
            } => self.failures -= 1,
            Act::Complete {
                ending: Ending::Fault,
                ..
            } => self.faults -= 1,
            Act::Release { .. } => self.releases -= 1,
            _ => {}
        }
    }
}

impl State {
    /// An actor is told what came of its act.
    pub(crate) fn hear(
        &mut self,
        engine: &mut Engine,
        (who, act): (Option<u8>, &Act),
        answer: Answer,
    ) {
        if answer == Answer::Broken {
            self.broken = Some(laws::IMPOSSIBLE);
        }
        let Some(who) = who else {
            return;
        };
        if let Act::Complete {
            ticket, attempt, ..
        } = act
            && answer == Answer::Done
            && !laws::shows_end(&engine.look(self.tree), ticket, *attempt)
        {
            self.broken = Some(laws::ACKNOWLEDGED);
        }
        let actor = &mut self.actors[usize::from(who)];
        actor.doing = match (act, answer) {
            (Act::Claim { ticket, .. }, Answer::Claimed(attempt, order)) => {
                actor.requests += 1;
                let ticket = engine.tickets.keep(ticket.clone());
                match order {
                    Some(order) => Doing::Decides(ticket, attempt, order),
                    None => Doing::Works(ticket, attempt),
                }
            }
            (
                Act::Commit {
                    ticket, attempt, ..
                },
                Answer::Again(order),
            ) => Doing::Decides(engine.tickets.keep(ticket.clone()), *attempt, order),
            (Act::Post { .. }, Answer::Done | Answer::Lost)
            | (Act::Cancel { .. } | Act::Fire { .. }, Answer::Done) => Doing::Gone,
            // Not yet.
            (Act::Post { .. } | Act::Cancel { .. } | Act::Fire { .. }, _) => {
                Doing::Wants(engine.acts.keep(act.clone()))
            }
            _ => Doing::Idle,
        };
    }

    /// Makes states equal that do not differ in what may come.
    pub(crate) fn tidy(&mut self, engine: &Engine) {
        let tree = self.tree;
        self.flights
            .retain(|it| it.who.is_some() || !engine.forest.is_doomed(tree, it.commit));
        self.flights.sort_unstable();
        self.flights
            .dedup_by(|one, other| one.who.is_none() && one == other);
        if self.left.lags == 0 {
            self.behind.clear();
        }
    }
}
