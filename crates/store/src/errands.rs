//! Errands: tickets of no build, by which DistCI looks at repositories and tells forges.
//!
//! Owns `/e`: when an errand comes to be, what its holder is told, and the commits that follow from
//! what he found. What follows is `model::errand`'s to say. Invariant: a commit that a look has found
//! is taken notice of in the very commit that posts its build.

mod polls;
mod reports;

use distci_model::Timestamp;
use distci_model::errand::{
    AfterErrand, Errand, ErrandOrder, ErrandResult, MAX_FOUND, MAX_HEADS, MAX_REF, What, after,
};
use distci_model::id::{Attempt, TicketKey};
use distci_model::plan::{Intent, Refused, plan};
use distci_model::ticket::{Stamp, Ticket, TicketState};

use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Anchor, Read, Transaction, Tried, read, until_done};

pub(crate) use polls::{Polls, poll_key};

impl Anchor for Errand {
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

/// How far a completion is after one commit.
enum Step {
    /// It is over.
    Over,
    /// It took notice of one commit that was found; there may be more.
    Noted,
}

impl Store {
    /// What the holder of an errand is to do; `None` if there is nothing left to do.
    pub(crate) async fn errand_order(
        &self,
        key: &TicketKey,
        errand: &Errand,
        at: Timestamp,
    ) -> Result<Option<ErrandOrder>, StoreError> {
        match &errand.what {
            What::Report(report) => Ok(Some(ErrandOrder::Report {
                repository: report.repository.clone(),
                sha: report.sha.clone(),
                context: report.context.clone(),
                state: report.wanted,
                description: report.description.clone(),
                url: None,
                check: report.check.clone(),
            })),
            What::Poll(poll) => {
                if let Some((_, trigger)) = self.poll_trigger(&errand.ticket, poll).await? {
                    return Ok(Some(ErrandOrder::Poll {
                        repository: trigger.repository,
                        refs: trigger.refs,
                    }));
                }
                // Its end finds that nobody wants it any more.
                let heads = poll.heads.clone().unwrap_or_default();
                let nothing = ErrandResult::Looked { heads };
                self.complete_errand(key, errand.ticket.attempt, &nothing, at)
                    .await?;
                Ok(None)
            }
        }
    }

    /// Ends a try at an errand: posts the builds of what was found, and puts the errand where its
    /// law says.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] if the attempt is not the errand's claim, [`StoreError::Gone`] if
    /// there is no such errand any more.
    ///
    /// # Idempotence
    /// A repeated completion of an attempt is as good as the first, until the next attempt begins.
    pub async fn complete_errand(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        result: &ErrandResult,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        if !key.ticket.is_errand() {
            return Err(StoreError::refused("the ticket is no errand"));
        }
        check_heads(result)?;
        for noted in 0.. {
            let may_note = noted < MAX_FOUND;
            let step = until_done!(
                self.coordination,
                self.try_complete_errand(key, attempt, (result, may_note), at)
            )?;
            if matches!(step, Step::Over) {
                break;
            }
        }
        Ok(())
    }

    async fn try_complete_errand(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        (result, may_note): (&ErrandResult, bool),
        at: Timestamp,
    ) -> Result<Tried<Step>, StoreError> {
        let Some(mut before) = self.errand(key).await? else {
            return Err(StoreError::Gone);
        };
        if before.record.completed == attempt {
            return Ok(Tried::Done(Step::Over));
        }
        let held = intend(&before.record.ticket, Intent::Stay { attempt })?;
        let mut transaction = Transaction::default();
        let read_as = before.record.clone();
        if let (What::Poll(poll), ErrandResult::Looked { heads }) = (&read_as.what, result) {
            let Some((job, trigger)) = self.poll_trigger(&held, poll).await? else {
                transaction.remove(key, &before);
                let removed = transaction.commit(&*self.coordination).await?;
                return Ok(removed.map_or(Tried::Again, |_| Tried::Done(Step::Over)));
            };
            if let Some(found) = poll.found(heads).first().filter(|_| may_note) {
                let noted = self.note_found(key, &before, (job, &trigger, found), at);
                return noted.await;
            }
            if let What::Poll(poll) = &mut before.record.what {
                poll.every = trigger.every();
            }
        }
        let (mut errand, next) = after(&before.record, result, at);
        before.record = read_as;
        errand.completed = attempt;
        match resting(&held, next, attempt, at)? {
            None => transaction.remove(key, &before),
            Some(ticket) => transaction.replace(key, &before, &errand.with(ticket))?,
        }
        let committed = transaction.commit(&*self.coordination).await?;
        if committed.is_some() {
            tell(&before.record, &errand, next);
        }
        Ok(committed.map_or(Tried::Again, |_| Tried::Done(Step::Over)))
    }

    pub(crate) async fn errand(&self, key: &TicketKey) -> Result<Option<Read<Errand>>, StoreError> {
        read(&*self.coordination, &keys::anchor(key)).await
    }
}

/// The ticket of an errand whose try is over; `None` if it is done for good. A worker that answers
/// is alive, so what was lost before does not count any more.
fn resting(
    held: &Ticket,
    next: AfterErrand,
    attempt: Attempt,
    at: Timestamp,
) -> Result<Option<Ticket>, StoreError> {
    let (intent, due) = match next {
        AfterErrand::Remove => return Ok(None),
        AfterErrand::Queue => (Intent::Release { attempt, at }, at),
        AfterErrand::Park { until } => (Intent::Park { attempt, until }, until.unwrap_or(at)),
    };
    Ok(Some(Ticket {
        losses: 0,
        // It takes its place in the queue when it is due, and not when it was made.
        stamp: Stamp::at(due),
        ..intend(held, intent)?
    }))
}

fn intend(ticket: &Ticket, intent: Intent) -> Result<Ticket, StoreError> {
    match plan(ticket, intent) {
        Ok(planned) => Ok(planned.ticket),
        Err(Refused::AttemptOver { current }) => Err(StoreError::AttemptOver {
            current: current.get(),
        }),
        Err(refused) => Err(StoreError::refused(refused.to_string())),
    }
}

/// What a look may bring: all of it is kept in the errand's anchor.
fn check_heads(result: &ErrandResult) -> Result<(), StoreError> {
    let ErrandResult::Looked { heads } = result else {
        return Ok(());
    };
    if heads.len() > MAX_HEADS {
        return Err(StoreError::refused(format!(
            "a look has at most {MAX_HEADS} refs"
        )));
    }
    let fits = |name: &str, sha: &str| {
        let is_id = matches!(sha.len(), 40 | 64) && sha.bytes().all(|b| b.is_ascii_hexdigit());
        name.len() <= MAX_REF && is_id
    };
    if let Some((name, _)) = heads.iter().find(|(name, sha)| !fits(name, sha)) {
        let name: String = name.chars().take(80).collect();
        return Err(StoreError::refused(format!(
            "{name:?} is no ref at a commit"
        )));
    }
    Ok(())
}

/// When it will be tried next, for people.
pub(crate) fn due(ticket: &Ticket) -> Option<Timestamp> {
    match &ticket.state {
        TicketState::Parked { until } => *until,
        TicketState::Queued | TicketState::Claimed(_) | TicketState::Done(_) => None,
    }
}

fn tell(before: &Errand, now: &Errand, next: AfterErrand) {
    let job = now.what.job();
    match (&now.what, &now.setback) {
        (What::Report(report), Some(setback)) if next == AfterErrand::Remove => {
            let (context, sha) = (&report.context, &report.sha);
            tracing::warn!(%job, %context, %sha, "a forge was never told: {}", setback.detail);
        }
        (_, Some(setback)) if before.setback.as_ref() != Some(setback) && now.failures <= 1 => {
            tracing::warn!(%job, "an errand came to nothing: {}", setback.detail);
        }
        (_, Some(_) | None) => {}
    }
}
