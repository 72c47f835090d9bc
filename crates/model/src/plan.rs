//! The law of one ticket: record + intent -> transition, or why not.
//!
//! Owns every rule about who may do what to a ticket when. Total over states and intents; never
//! touches the store. The store turns a [`Transition`] into exactly one commit that carries the
//! anchor's version, so what was planned on a stale record never happens.

use std::time::Duration;

use crate::Timestamp;
use crate::errand::back_off;
use crate::id::{Attempt, RequestId, WorkerName};
use crate::lock::{Hold, LockNeed, Slot};
use crate::outcome::{Failure, Fault, Outcome, TaskResult};
use crate::past::{End, Past, remember};
use crate::ticket::{Claimed, Done, Duty, Ticket, TicketState};

/// How long an errand waits after its first loss, and at most.
const LOSS_WAITS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(10));

/// What somebody wants to do to a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// A worker takes it.
    Claim {
        /// Who.
        worker: WorkerName,
        /// The request, kept across retries.
        request: RequestId,
        /// What it brings for the ticket's locks.
        hold: Hold,
        /// Now.
        at: Timestamp,
    },
    /// The holder reports a task's end.
    Complete {
        /// The attempt that it worked on.
        attempt: Attempt,
        /// What it reports.
        result: Box<TaskResult>,
        /// Now.
        at: Timestamp,
    },
    /// The holder hands it back undone; costs nothing of the budget.
    Release {
        /// The attempt that it held.
        attempt: Attempt,
        /// Now.
        at: Timestamp,
    },
    /// The holder was not heard of for the time of its lease.
    Expire {
        /// The attempt that it held.
        attempt: Attempt,
        /// Now.
        at: Timestamp,
    },
    /// A task's run is not wanted any more.
    Cancel {
        /// Now.
        at: Timestamp,
    },
    /// There is news for a parked control ticket, or its time has come.
    Wake,
    /// The control holder has decided and waits for news.
    Park {
        /// The attempt that it holds.
        attempt: Attempt,
        /// How long at most.
        until: Option<Timestamp>,
    },
    /// The control holder has decided and goes on deciding.
    Stay {
        /// The attempt that it holds.
        attempt: Attempt,
    },
}

/// Who has to hear of a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nobody.
    None,
    /// The build's control ticket: its mailbox rings, and it wakes if parked.
    Control,
}

/// A ticket after a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The new record.
    pub ticket: Ticket,
    /// Who has to hear of it.
    pub news: News,
}

/// Why an intent has no transition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The ticket already stands as the intent wants it: a repeated request; answer success.
    #[error("it is already so")]
    AlreadySo,
    /// Somebody else has the ticket, or nobody.
    #[error("the attempt is over; the ticket is at attempt {current}")]
    AttemptOver {
        /// The latest attempt.
        current: Attempt,
    },
    /// The ticket cannot be claimed now.
    #[error("the ticket is not queued")]
    NotQueued,
    /// Tasks are completed, control tickets are committed; not the other way round.
    #[error("not an act for this kind of ticket")]
    WrongDuty,
    /// The claim brings other slots than the ticket's locks require.
    #[error("the slots are not those that the ticket needs")]
    WrongSlots,
}

/// What becomes of `ticket` if `intent` is done to it.
///
/// # Errors
/// [`Refused`] if nothing may become of it; `AlreadySo` marks repetition.
pub fn plan(ticket: &Ticket, intent: Intent) -> Result<Transition, Refused> {
    match &ticket.state {
        TicketState::Queued => plan_queued(ticket, intent),
        TicketState::Claimed(claimed) => plan_claimed(ticket, claimed, intent),
        TicketState::Parked { .. } => plan_parked(ticket, &intent),
        TicketState::Done(done) => plan_done(ticket, done, intent),
    }
}

fn plan_queued(ticket: &Ticket, intent: Intent) -> Result<Transition, Refused> {
    match intent {
        Intent::Claim {
            worker,
            request,
            hold,
            at,
        } => {
            let slots = slots_with(ticket, hold)?;
            let claimed = Claimed {
                worker,
                request,
                since: at,
                cancel: false,
            };
            let ticket = Ticket {
                attempt: ticket.attempt.next(),
                slots,
                state: TicketState::Claimed(claimed),
                ..ticket.clone()
            };
            Ok(Transition {
                ticket,
                news: News::None,
            })
        }
        Intent::Cancel { at } => match ticket.duty {
            Duty::Task => Ok(finish(ticket, None, cancelled(), at)),
            Duty::Control | Duty::Errand => Err(Refused::WrongDuty),
        },
        Intent::Wake => Err(Refused::AlreadySo),
        Intent::Complete { .. }
        | Intent::Release { .. }
        | Intent::Expire { .. }
        | Intent::Park { .. }
        | Intent::Stay { .. } => Err(over(ticket)),
    }
}

/// The slots that a ticket holds when it is claimed: one of each of its locks, and no others.
fn slots_with(ticket: &Ticket, hold: Hold) -> Result<Vec<Slot>, Refused> {
    let taken = match hold {
        Hold::Slots(taken) => taken,
        Hold::Waived => {
            return match ticket.duty {
                Duty::Control => Ok(ticket.slots.clone()),
                Duty::Task | Duty::Errand => Err(Refused::WrongDuty),
            };
        }
    };
    let mut slots = ticket.slots.clone();
    slots.extend(taken);
    slots.sort_unstable();
    slots.dedup();
    let one_of = |need: &LockNeed| slots.iter().any(|slot| need.has(slot));
    if slots.len() == ticket.locks.len() && ticket.locks.iter().all(one_of) {
        Ok(slots)
    } else {
        Err(Refused::WrongSlots)
    }
}

fn plan_claimed(ticket: &Ticket, claimed: &Claimed, intent: Intent) -> Result<Transition, Refused> {
    match intent {
        Intent::Claim { request, .. } if request == claimed.request => Err(Refused::AlreadySo),
        Intent::Claim { .. } => Err(Refused::NotQueued),
        Intent::Complete {
            attempt,
            result,
            at,
        } => {
            holds(ticket, attempt)?;
            task_only(ticket)?;
            Ok(end_attempt(ticket, claimed, *result, at))
        }
        Intent::Release { attempt, at } => {
            holds(ticket, attempt)?;
            Ok(requeue(ticket, claimed, ticket.losses, (at, End::Released)))
        }
        Intent::Expire { attempt, at } => {
            holds(ticket, attempt)?;
            Ok(expire(ticket, claimed, at))
        }
        Intent::Cancel { .. } if claimed.cancel => Err(Refused::AlreadySo),
        Intent::Cancel { .. } => {
            task_only(ticket)?;
            let claimed = Claimed {
                cancel: true,
                ..claimed.clone()
            };
            let ticket = Ticket {
                state: TicketState::Claimed(claimed),
                ..ticket.clone()
            };
            Ok(Transition {
                ticket,
                news: News::None,
            })
        }
        // The holder is awake: its commit will fail on the mailbox and read the news.
        Intent::Wake => Err(Refused::AlreadySo),
        Intent::Park { attempt, until } => {
            holds(ticket, attempt)?;
            rests(ticket)?;
            let ticket = Ticket {
                state: TicketState::Parked { until },
                ..ticket.clone()
            };
            Ok(Transition {
                ticket,
                news: News::None,
            })
        }
        Intent::Stay { attempt } => {
            holds(ticket, attempt)?;
            rests(ticket)?;
            Ok(Transition {
                ticket: ticket.clone(),
                news: News::None,
            })
        }
    }
}

fn plan_parked(ticket: &Ticket, intent: &Intent) -> Result<Transition, Refused> {
    match intent {
        Intent::Wake => {
            let ticket = Ticket {
                state: TicketState::Queued,
                ..ticket.clone()
            };
            Ok(Transition {
                ticket,
                news: News::None,
            })
        }
        Intent::Park { attempt, .. } if *attempt == ticket.attempt => Err(Refused::AlreadySo),
        Intent::Claim { .. } => Err(Refused::NotQueued),
        Intent::Cancel { .. } => Err(Refused::WrongDuty),
        Intent::Complete { .. }
        | Intent::Release { .. }
        | Intent::Expire { .. }
        | Intent::Park { .. }
        | Intent::Stay { .. } => Err(over(ticket)),
    }
}

fn plan_done(ticket: &Ticket, done: &Done, intent: Intent) -> Result<Transition, Refused> {
    match intent {
        Intent::Complete {
            attempt, result, ..
        } if attempt == ticket.attempt && *result == done.result => Err(Refused::AlreadySo),
        Intent::Cancel { .. } => Err(Refused::AlreadySo),
        Intent::Claim { .. } => Err(Refused::NotQueued),
        Intent::Complete { .. }
        | Intent::Release { .. }
        | Intent::Expire { .. }
        | Intent::Wake
        | Intent::Park { .. }
        | Intent::Stay { .. } => Err(over(ticket)),
    }
}

fn over(ticket: &Ticket) -> Refused {
    Refused::AttemptOver {
        current: ticket.attempt,
    }
}

fn holds(ticket: &Ticket, attempt: Attempt) -> Result<(), Refused> {
    if ticket.attempt == attempt {
        Ok(())
    } else {
        Err(over(ticket))
    }
}

fn task_only(ticket: &Ticket) -> Result<(), Refused> {
    match ticket.duty {
        Duty::Task => Ok(()),
        Duty::Control | Duty::Errand => Err(Refused::WrongDuty),
    }
}

/// Tasks end; what is not a task's rests in between.
fn rests(ticket: &Ticket) -> Result<(), Refused> {
    match ticket.duty {
        Duty::Control | Duty::Errand => Ok(()),
        Duty::Task => Err(Refused::WrongDuty),
    }
}

fn cancelled() -> TaskResult {
    TaskResult::of(Outcome::Failure {
        reason: Failure::Cancelled,
    })
}

fn finish(
    ticket: &Ticket,
    claimed: Option<&Claimed>,
    result: TaskResult,
    at: Timestamp,
) -> Transition {
    let done = Done {
        result,
        worker: claimed.map(|claimed| claimed.worker.clone()),
        started: claimed.map(|claimed| claimed.since),
        finished: at,
    };
    let ticket = Ticket {
        slots: Vec::new(),
        state: TicketState::Done(Box::new(done)),
        ..ticket.clone()
    };
    Transition {
        ticket,
        news: News::Control,
    }
}

/// Queues the ticket again, unless its holder was asked to stop anyway.
fn requeue(
    ticket: &Ticket,
    claimed: &Claimed,
    losses: u32,
    (at, end): (Timestamp, End),
) -> Transition {
    if claimed.cancel {
        return finish(ticket, Some(claimed), cancelled(), at);
    }
    let slots = if ticket.duty.keeps_slots() {
        ticket.slots.clone()
    } else {
        Vec::new()
    };
    let mut past = ticket.past.clone();
    // An errand lives for months; what became of it is its own to say.
    if ticket.duty != Duty::Errand {
        remember(&mut past, past_claim(ticket, claimed, at, end));
    }
    let ticket = Ticket {
        losses,
        slots,
        queued: Some(at),
        past,
        state: TicketState::Queued,
        ..ticket.clone()
    };
    Transition {
        ticket,
        news: News::None,
    }
}

/// What is remembered of the claim that a ticket is in.
pub fn past_claim(ticket: &Ticket, claimed: &Claimed, until: Timestamp, end: End) -> Past {
    Past {
        attempt: ticket.attempt,
        queued: ticket.queued,
        worker: claimed.worker.clone(),
        since: claimed.since,
        until,
        end,
    }
}

fn end_attempt(
    ticket: &Ticket,
    claimed: &Claimed,
    result: TaskResult,
    at: Timestamp,
) -> Transition {
    let losses = ticket.losses.saturating_add(1);
    if result.outcome.is_retryable() && !spent(ticket, losses) {
        let end = End::ended(&result.outcome);
        requeue(ticket, claimed, losses, (at, end))
    } else {
        finish(ticket, Some(claimed), result, at)
    }
}

fn expire(ticket: &Ticket, claimed: &Claimed, at: Timestamp) -> Transition {
    let losses = ticket.losses.saturating_add(1);
    if ticket.duty == Duty::Errand {
        return put_off(ticket, losses, at);
    }
    if claimed.cancel || !spent(ticket, losses) {
        return requeue(ticket, claimed, losses, (at, End::Lost));
    }
    let lost = Outcome::Fault {
        reason: Fault::Lost { attempts: losses },
    };
    finish(ticket, Some(claimed), TaskResult::of(lost), at)
}

/// An errand is tried for ever, but not without a pause: it may be what kills its workers.
fn put_off(ticket: &Ticket, losses: u32, at: Timestamp) -> Transition {
    let (first, longest) = LOSS_WAITS;
    let wait = back_off(first, longest, losses);
    let until = Some(at.saturating_add(wait).unwrap_or(Timestamp::MAX));
    let ticket = Ticket {
        losses,
        state: TicketState::Parked { until },
        ..ticket.clone()
    };
    Transition {
        ticket,
        news: News::None,
    }
}

fn spent(ticket: &Ticket, losses: u32) -> bool {
    ticket.duty.max_losses().is_some_and(|most| losses >= most)
}

#[cfg(test)]
mod tests;
