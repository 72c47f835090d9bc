//! What the model lets frontends do, each by the function of the store that production calls.
//!
//! Owns the translation of an act into that call, and of its answer into what the asker goes on from.
//! An act runs until its first commit, or to its answer.

use std::collections::BTreeMap;

use distci_model::Timestamp;
use distci_model::decide::decide;
use distci_model::id::{Attempt, BuildRef, JobId, RequestId, TicketKey, WorkerName};
use distci_model::outcome::{Failure, Fault, Outcome, TaskResult};
use distci_model::wire::{CommitReply, CommitRequest, ControlOrder, Work};
use distci_store::{Claiming, Fired, Store, StoreError};

/// How a worker ends a task's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// As it should.
    Success,
    /// The user's side said no.
    Failure,
    /// Our side could not: the ticket is queued again.
    Fault,
}

/// An order of build control, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub(crate) u32);

/// What a frontend does for somebody, or by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// Posts a build.
    Post {
        /// Of which job.
        job: JobId,
        /// By which request.
        request: u8,
    },
    /// Claims a ticket for a worker.
    Claim {
        /// Which.
        ticket: TicketKey,
        /// For whom.
        worker: u8,
        /// By which of its requests.
        request: u8,
        /// Whether the times that builds wait for have come.
        late: bool,
    },
    /// Ends a task's run.
    Complete {
        /// Of which ticket.
        ticket: TicketKey,
        /// In the name of which attempt.
        attempt: Attempt,
        /// Which attempt it was that ended. The same, but for a planted defect.
        ended: Attempt,
        /// How.
        ending: Ending,
    },
    /// Hands a ticket back.
    Release {
        /// Which.
        ticket: TicketKey,
        /// By which attempt.
        attempt: Attempt,
    },
    /// Commits what build control decides of its order.
    Commit {
        /// By which ticket.
        ticket: TicketKey,
        /// By which attempt.
        attempt: Attempt,
        /// Of what was decided.
        order: OrderId,
        /// Whether the times that builds wait for have come.
        late: bool,
    },
    /// Gives a claim up.
    Expire {
        /// Of which ticket.
        ticket: TicketKey,
        /// Which.
        attempt: Attempt,
    },
    /// Cancels a build.
    Cancel {
        /// Which.
        build: BuildRef,
    },
    /// Queues a ticket whose time has come.
    Wake {
        /// Which.
        ticket: TicketKey,
    },
    /// Fires a moment of a schedule.
    Fire {
        /// Of which job.
        job: JobId,
        /// Which of its schedules.
        mark: String,
        /// Which moment, in seconds.
        due: i64,
    },
}

/// What the asker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has the claim; of a build, with what to decide of.
    Claimed(Attempt, Option<Box<ControlOrder>>),
    /// There is nothing to claim now.
    Taken,
    /// It is so.
    Done,
    /// Its attempt is over.
    Lost,
    /// The claim is still held: decide of this.
    Again(Box<ControlOrder>),
    /// What was asked cannot be, and never will.
    Refused,
    /// The store's code says that what is stored cannot be.
    Broken,
}

/// A worker by its number.
pub(crate) fn worker_name(worker: u8) -> Option<WorkerName> {
    format!("w{worker}").parse().ok()
}

/// When everything happens, but for what happens late.
pub(crate) fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// When everything happens that builds wait for.
fn at_last() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap_or_default()
}

fn moment(late: bool) -> Timestamp {
    if late { at_last() } else { at() }
}

/// The result of an attempt, which says of which attempt it is.
fn result(ending: Ending, attempt: Attempt) -> TaskResult {
    let outcome = match ending {
        Ending::Success => Outcome::Success,
        Ending::Failure => Outcome::Failure {
            reason: Failure::Exit { exit: 1 },
        },
        Ending::Fault => Outcome::Fault {
            reason: Fault::Worker {
                detail: String::new(),
            },
        },
    };
    TaskResult {
        outputs: BTreeMap::from([(ATTEMPT.to_owned(), attempt.to_string())]),
        ..TaskResult::of(outcome)
    }
}

/// The output of every result, which holds its attempt.
pub(crate) const ATTEMPT: &str = "attempt";

/// Does an act; `order` is that of a commit.
pub(crate) async fn perform(store: &Store, act: &Act, order: Option<&ControlOrder>) -> Told {
    match act {
        Act::Post { job, request } => {
            let request = RequestId::derive(&format!("post {request}"));
            let given = BTreeMap::new();
            told(&store.post_build(job, &request, &given, at()).await)
        }
        Act::Claim {
            ticket,
            worker,
            request,
            late,
        } => claim(store, ticket, (*worker, *request), moment(*late)).await,
        Act::Complete {
            ticket,
            attempt,
            ended,
            ending,
        } => {
            let result = result(*ending, *ended);
            told(&store.complete(ticket, *attempt, &result, at()).await)
        }
        Act::Release { ticket, attempt } => told(&store.release(ticket, *attempt, at()).await),
        Act::Expire { ticket, attempt } => told(&store.expire(ticket, *attempt, at()).await),
        Act::Cancel { build } => told(&store.cancel_build(build, at()).await),
        Act::Wake { ticket } => told(&store.wake(ticket).await),
        Act::Commit {
            ticket,
            attempt,
            late,
            ..
        } => commit(store, (ticket, *attempt), order, moment(*late)).await,
        Act::Fire { job, mark, due } => {
            let due = Timestamp::from_second(*due).unwrap_or_default();
            match store.fire(job, mark, due, due).await {
                Ok(Fired::Gone) => Told::Refused,
                fired => told(&fired),
            }
        }
    }
}

fn told<T>(answer: &Result<T, StoreError>) -> Told {
    match answer {
        Ok(_) => Told::Done,
        Err(StoreError::AttemptOver { .. } | StoreError::Gone) => Told::Lost,
        Err(
            StoreError::NotFound { .. } | StoreError::Stale { .. } | StoreError::Refused { .. },
        ) => Told::Refused,
        Err(_) => Told::Broken,
    }
}

async fn claim(
    store: &Store,
    ticket: &TicketKey,
    (worker, request): (u8, u8),
    at: Timestamp,
) -> Told {
    let Some(name) = worker_name(worker) else {
        return Told::Broken;
    };
    let request = RequestId::derive(&format!("claim {worker} {request}"));
    match store.claim(ticket, &name, &request, at).await {
        Ok(Claiming::Claimed(claim)) => match claim.work {
            Work::Control { order } => Told::Claimed(claim.attempt, Some(order)),
            Work::Task { .. } | Work::Errand { .. } => Told::Claimed(claim.attempt, None),
        },
        Ok(Claiming::Taken | Claiming::Blocked(_)) => Told::Taken,
        Err(error) => told::<()>(&Err(error)),
    }
}

async fn commit(
    store: &Store,
    (ticket, attempt): (&TicketKey, Attempt),
    order: Option<&ControlOrder>,
    at: Timestamp,
) -> Told {
    let Some(order) = order else {
        return Told::Broken;
    };
    let request = CommitRequest {
        mailbox: order.mailbox,
        decision: decide(&order.config, &order.build, &order.events),
    };
    match store.commit(ticket, attempt, &request, at).await {
        Ok(CommitReply::Again { order }) => Told::Again(order),
        Ok(CommitReply::Over) => Told::Done,
        Err(error) => told::<()>(&Err(error)),
    }
}
