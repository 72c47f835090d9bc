//! Tickets: claiming, completing, releasing, expiring.
//!
//! Owns the acts of workers on tickets. Each is one commit (R2), planned by `model::plan` on the
//! record as read and void if that has changed. Every act may be repeated and is answered from
//! what is stored (R6).

use distci_model::Timestamp;
use distci_model::build::{Build, Finished, Progress};
use distci_model::errand::Errand;
use distci_model::id::{Attempt, BuildRef, RequestId, TicketKey, WorkerName};
use distci_model::lock::Hold;
use distci_model::order::order;
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::plan::{Intent, Refused};
use distci_model::ticket::{Claimed, Duty, Ticket, TicketState};
use distci_model::wire::{About, Claim, Work};

use crate::error::StoreError;
use crate::keys::{self, AttemptBlobs};
use crate::locks::Blocked;
use crate::store::Store;
use crate::transaction::{Anchor, Child, Read, Transaction, Tried, read, until_done};

/// What became of a wish to claim.
#[derive(Debug)]
pub enum Claiming {
    /// The worker has it.
    Claimed(Box<Claim>),
    /// Somebody else has it, or it is gone.
    Taken,
    /// It is still queued, for one of its locks has no free slot.
    Blocked(Blocked),
}

/// A ticket for people to read.
#[derive(Debug, Clone)]
pub struct TicketFacts {
    /// What it is about.
    pub about: About,
    /// Who holds it.
    pub claimed: Option<Claimed>,
    /// The latest attempt.
    pub attempt: Attempt,
    /// The lock that holds it up, if it is queued and one has no free slot for it.
    pub blocked: Option<Blocked>,
}

impl Store {
    /// Claims a ticket for a worker.
    ///
    /// # Idempotence
    /// A repeated `request` finds the claim that it made, for as long as it is held.
    pub async fn claim(
        &self,
        key: &TicketKey,
        worker: &WorkerName,
        request: &RequestId,
        at: Timestamp,
    ) -> Result<Claiming, StoreError> {
        let intent = |hold| Intent::Claim {
            worker: worker.clone(),
            request: request.clone(),
            hold,
            at,
        };
        match key.ticket.duty() {
            Duty::Control => {
                let build = match self.take::<Build>(key, intent).await?.held() {
                    Ok(build) => build,
                    Err(claiming) => return Ok(claiming),
                };
                let order = self.control_order(key, &build, at).await?.map(Box::new);
                let work = order.map(|order| Work::Control { order });
                Ok(claiming(key, &build.ticket, work))
            }
            Duty::Task => {
                let child = match self.take::<Child>(key, intent).await?.held() {
                    Ok(child) => child,
                    Err(claiming) => return Ok(claiming),
                };
                self.task_claim(key, &child, at).await
            }
            Duty::Errand => {
                let errand = match self.take::<Errand>(key, intent).await?.held() {
                    Ok(errand) => errand,
                    Err(claiming) => return Ok(claiming),
                };
                let order = self.errand_order(key, &errand, at).await?.map(Box::new);
                let work = order.map(|order| Work::Errand { order });
                Ok(claiming(key, &errand.ticket, work))
            }
        }
    }

    /// Claims a ticket with the slots of its locks. What it refuses, it refuses as seen: whoever is
    /// refused has a better idea, and nothing is lost if only a lagging view refused.
    async fn take<A: Anchor>(
        &self,
        key: &TicketKey,
        intent: impl Fn(Hold) -> Intent,
    ) -> Result<Taking<A>, StoreError> {
        let coordination = &*self.coordination;
        until_done!(coordination, async {
            let Some(before) = read::<A>(coordination, &keys::anchor(key)).await? else {
                return Ok(Tried::Done(Taking::Lost));
            };
            let ticket = before.record.ticket();
            let hold = match &ticket.state {
                TicketState::Queued => self.hold_for(key, ticket).await?,
                // The law answers: it may be this very claim.
                TicketState::Claimed(_) | TicketState::Parked { .. } | TicketState::Done(_) => {
                    Ok(Hold::Slots(Vec::new()))
                }
            };
            let hold = match hold {
                Ok(hold) => hold,
                Err(blocked) => return Ok(Tried::Done(Taking::Blocked(blocked))),
            };
            let mut transaction = Transaction::default();
            let planned = transaction.intend(coordination, key, &before, intent(hold));
            match planned.await? {
                Err(Refused::AlreadySo) => Ok(Tried::Done(Taking::Held(before.record))),
                Err(_) => Ok(Tried::Done(Taking::Lost)),
                // Of a slot that somebody else took first, the next look shows it.
                Ok(after) => Ok(match transaction.commit(coordination).await? {
                    Some(_) => Tried::Done(Taking::Held(after)),
                    None => Tried::Again,
                }),
            }
        })
    }

    async fn task_claim(
        &self,
        key: &TicketKey,
        child: &Child,
        at: Timestamp,
    ) -> Result<Claiming, StoreError> {
        let control = keys::build(&key.build);
        let Some(build) = read::<Build>(&*self.coordination, &control).await? else {
            return Ok(Claiming::Taken);
        };
        let config = self.config(&child.ticket.job, &build.record.config).await?;
        match order(&config, &build.record, child.task) {
            Ok(order) => {
                let order = Box::new(order);
                Ok(claiming(key, &child.ticket, Some(Work::Task { order })))
            }
            Err(reason) => {
                // Nobody can run it: it ends here, and the worker looks for another.
                let result = TaskResult::of(Outcome::Failure { reason });
                self.complete(key, child.ticket.attempt, &result, at)
                    .await?;
                Ok(Claiming::Taken)
            }
        }
    }

    /// Ends a task's run.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] if the attempt is not the ticket's claim, [`StoreError::Gone`] if
    /// the build does not wait for the ticket any more.
    ///
    /// # Idempotence
    /// The same result may be reported again, also after its build has taken notice of it.
    pub async fn complete(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        result: &TaskResult,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        task_only(key)?;
        self.check_references(key, attempt, result).await?;
        let intent = || Intent::Complete {
            attempt,
            result: Box::new(result.clone()),
            at,
        };
        match self.transition::<Child>(key, intent).await? {
            Transitioned::Missing if self.is_consumed(key, attempt).await? => Ok(()),
            outcome => done(outcome),
        }
    }

    /// Whether the build has taken notice of how this attempt ended.
    async fn is_consumed(&self, key: &TicketKey, attempt: Attempt) -> Result<bool, StoreError> {
        let build = read::<Build>(&*self.coordination, &keys::build(&key.build)).await?;
        let is_this = |progress: &Progress| match progress {
            Progress::Finished(run) => run.ticket == key.ticket && run.attempt == attempt,
            Progress::Backoff { last, .. } => last.ticket == key.ticket && last.attempt == attempt,
            Progress::Waiting
            | Progress::Posted { .. }
            | Progress::Asking { .. }
            | Progress::Skipped { .. } => false,
        };
        Ok(build.is_some_and(|build| build.record.checkpoint.tasks.iter().any(is_this)))
    }

    /// A result refers to nothing but what its own attempt has stored.
    async fn check_references(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        result: &TaskResult,
    ) -> Result<(), StoreError> {
        let blobs = match self.check_claim(key, attempt).await {
            Ok(blobs) => blobs,
            // The law of the ticket answers this: it may be a repetition.
            Err(StoreError::AttemptOver { .. } | StoreError::Gone) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(layer) = &result.layer {
            let own =
                layer.ticket == key.ticket && layer.attempt == attempt && layer.build.is_none();
            if !own || self.blobs.head(&blobs.layer()).await?.is_none() {
                return Err(StoreError::refused(
                    "this attempt has not stored such a layer",
                ));
            }
        }
        let manifest = blobs.artifact_manifest();
        if result.artifacts > 0 && self.blobs.head(&manifest).await?.is_none() {
            return Err(StoreError::refused(
                "this attempt has stored no list of artifacts",
            ));
        }
        if result.tests.is_some() && self.blobs.head(&blobs.tests()).await?.is_none() {
            return Err(StoreError::refused(
                "this attempt has stored no report of tests",
            ));
        }
        Ok(())
    }

    /// Hands a ticket back undone.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] or [`StoreError::Gone`] if the attempt is not the ticket's claim.
    pub async fn release(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.act(key, || Intent::Release { attempt, at }).await
    }

    /// Takes a ticket from a worker that was not heard of.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] or [`StoreError::Gone`] if the attempt is not the ticket's claim
    /// any more.
    pub async fn expire(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.act(key, || Intent::Expire { attempt, at }).await
    }

    /// Queues a parked ticket whose time has come.
    ///
    /// # Idempotence
    /// A ticket that is awake already, or over, stays as it is.
    pub async fn wake(&self, key: &TicketKey) -> Result<(), StoreError> {
        match self.act(key, || Intent::Wake).await {
            Err(StoreError::Gone | StoreError::AttemptOver { .. }) => Ok(()),
            done => done,
        }
    }

    /// Does what is intended to a ticket of any kind.
    async fn act(&self, key: &TicketKey, intent: impl Fn() -> Intent) -> Result<(), StoreError> {
        match key.ticket.duty() {
            Duty::Control => done(self.transition::<Build>(key, intent).await?),
            Duty::Task => done(self.transition::<Child>(key, intent).await?),
            Duty::Errand => done(self.transition::<Errand>(key, intent).await?),
        }
    }

    /// Cancels a task's run, whether claimed or not.
    pub(crate) async fn cancel_ticket(
        &self,
        key: &TicketKey,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        task_only(key)?;
        match self
            .transition::<Child>(key, || Intent::Cancel { at })
            .await?
        {
            Transitioned::Now(_) | Transitioned::Before(_) | Transitioned::Missing => Ok(()),
            Transitioned::Refused(refused) => Err(StoreError::refused(refused.to_string())),
        }
    }

    /// Does what is intended, or makes sure that it cannot be: somebody drops his work because of it.
    async fn transition<A: Anchor>(
        &self,
        key: &TicketKey,
        intent: impl Fn() -> Intent,
    ) -> Result<Transitioned<A>, StoreError> {
        let coordination = &*self.coordination;
        until_done!(coordination, async {
            let Some(before) = read::<A>(coordination, &keys::anchor(key)).await? else {
                return Ok(Tried::Refused(Transitioned::Missing));
            };
            let mut transaction = Transaction::default();
            match transaction
                .intend(coordination, key, &before, intent())
                .await?
            {
                Err(Refused::AlreadySo) => Ok(Tried::Done(Transitioned::Before(before.record))),
                Err(refused) => Ok(Tried::Refused(Transitioned::Refused(refused))),
                Ok(after) => Ok(match transaction.commit(coordination).await? {
                    Some(_) => Tried::Done(Transitioned::Now(after)),
                    None => Tried::Again,
                }),
            }
        })
    }

    /// Where the holder of a claim stores what it makes. An errand makes nothing that is kept.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] or [`StoreError::Gone`] if this is not the ticket's claim now.
    pub(crate) async fn claimed_blobs(
        &self,
        key: &TicketKey,
        attempt: Attempt,
    ) -> Result<AttemptBlobs, StoreError> {
        match key.ticket.duty() {
            Duty::Errand => Err(StoreError::refused("an errand leaves nothing behind")),
            Duty::Control | Duty::Task => self.check_claim(key, attempt).await,
        }
    }

    /// Whether this attempt is the ticket's claim now, and where its blobs are.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] or [`StoreError::Gone`] if it is not.
    pub async fn check_claim(
        &self,
        key: &TicketKey,
        attempt: Attempt,
    ) -> Result<AttemptBlobs, StoreError> {
        until_done!(self.coordination, self.try_check_claim(key, attempt))
    }

    async fn try_check_claim(
        &self,
        key: &TicketKey,
        attempt: Attempt,
    ) -> Result<Tried<AttemptBlobs>, StoreError> {
        let ticket = self.ticket(key).await?.ok_or(StoreError::Gone)?;
        match ticket.state {
            TicketState::Claimed(_) if ticket.attempt == attempt => {
                Ok(Tried::Done(attempt_blobs(&ticket, key, attempt)))
            }
            TicketState::Claimed(_)
            | TicketState::Queued
            | TicketState::Parked { .. }
            | TicketState::Done(_) => Err(StoreError::AttemptOver {
                current: ticket.attempt.get(),
            }),
        }
    }

    /// The ticket as it is now.
    pub async fn ticket(&self, key: &TicketKey) -> Result<Option<Ticket>, StoreError> {
        let path = keys::anchor(key);
        let tree = &*self.coordination;
        Ok(match key.ticket.duty() {
            Duty::Control => ticket_of(read::<Build>(tree, &path).await?),
            Duty::Task => ticket_of(read::<Child>(tree, &path).await?),
            Duty::Errand => ticket_of(read::<Errand>(tree, &path).await?),
        })
    }

    /// What people want to know of a ticket.
    pub async fn ticket_facts(&self, key: &TicketKey) -> Result<Option<TicketFacts>, StoreError> {
        let coordination = &*self.coordination;
        if key.ticket.is_errand() {
            let errand = self.errand(key).await?;
            return Ok(errand.map(|errand| errand_facts(errand.record)));
        }
        let Some(build) = read::<Build>(coordination, &keys::build(&key.build)).await? else {
            return Ok(None);
        };
        let (ticket, task) = if key.ticket.is_control() {
            (build.record.ticket, None)
        } else {
            let child: Option<Read<Child>> = read(coordination, &keys::anchor(key)).await?;
            let Some(child) = child else { return Ok(None) };
            let config = self
                .config(&child.record.ticket.job, &build.record.config)
                .await?;
            let task = config
                .tasks
                .get(child.record.task)
                .map(|task| task.name.clone());
            (child.record.ticket, task)
        };
        let blocked = match &ticket.state {
            TicketState::Queued => self.hold_for(key, &ticket).await?.err(),
            TicketState::Claimed(_) | TicketState::Parked { .. } | TicketState::Done(_) => None,
        };
        Ok(Some(TicketFacts {
            about: About::Build {
                build: build.record.id,
                task,
            },
            attempt: ticket.attempt,
            claimed: claimed(ticket),
            blocked,
        }))
    }
}

fn errand_facts(errand: Errand) -> TicketFacts {
    let (job, number) = (errand.what.job().clone(), errand.what.build());
    let build = number.map(|number| BuildRef {
        job: job.clone(),
        number,
    });
    TicketFacts {
        about: About::Errand {
            errand: errand.what.name(),
            job,
            build,
        },
        attempt: errand.ticket.attempt,
        claimed: claimed(errand.ticket),
        blocked: None,
    }
}

fn claimed(ticket: Ticket) -> Option<Claimed> {
    match ticket.state {
        TicketState::Claimed(claimed) => Some(claimed),
        TicketState::Queued | TicketState::Parked { .. } | TicketState::Done(_) => None,
    }
}

fn ticket_of<A: Anchor>(anchor: Option<Read<A>>) -> Option<Ticket> {
    anchor.map(|anchor| anchor.record.ticket().clone())
}

/// A control ticket's anchor is a build: it must not be read as a task's.
pub(crate) fn task_only(key: &TicketKey) -> Result<(), StoreError> {
    match key.ticket.duty() {
        Duty::Task => Ok(()),
        Duty::Control | Duty::Errand => Err(StoreError::refused("the ticket is not a task's")),
    }
}

/// What became of a try to claim.
enum Taking<A> {
    /// The request holds the claim, by this call or an earlier one.
    Held(A),
    /// It does not, and will not.
    Lost,
    /// A lock has no room.
    Blocked(Blocked),
}

impl<A> Taking<A> {
    /// The anchor that is held, or what came of the wish to claim it.
    fn held(self) -> Result<A, Claiming> {
        match self {
            Self::Held(anchor) => Ok(anchor),
            Self::Lost => Err(Claiming::Taken),
            Self::Blocked(blocked) => Err(Claiming::Blocked(blocked)),
        }
    }
}

/// What became of an intent.
enum Transitioned<A> {
    /// It is so, by this call.
    Now(A),
    /// It was so before: an earlier try did it.
    Before(A),
    /// It may not be.
    Refused(Refused),
    /// There is no such ticket any more.
    Missing,
}

fn done<A>(outcome: Transitioned<A>) -> Result<(), StoreError> {
    match outcome {
        Transitioned::Now(_) | Transitioned::Before(_) => Ok(()),
        Transitioned::Refused(Refused::AttemptOver { current }) => Err(StoreError::AttemptOver {
            current: current.get(),
        }),
        Transitioned::Refused(refused) => Err(StoreError::refused(refused.to_string())),
        Transitioned::Missing => Err(StoreError::Gone),
    }
}

/// What a claim came to; without work, there is nothing left to do.
fn claiming(key: &TicketKey, ticket: &Ticket, work: Option<Work>) -> Claiming {
    let Some(work) = work else {
        return Claiming::Taken;
    };
    Claiming::Claimed(Box::new(Claim {
        ticket: key.clone(),
        attempt: ticket.attempt,
        lease: ticket.duty.lease().as_secs(),
        work,
    }))
}

/// Where the blobs of a run are whose result counts in `build`.
pub(crate) fn run_blobs(build: &Build, run: &Finished) -> AttemptBlobs {
    AttemptBlobs {
        job: build.ticket.job.clone(),
        number: run.build.unwrap_or(build.id.number),
        ticket: run.ticket.clone(),
        attempt: run.attempt,
    }
}

/// Where the blobs of an attempt are.
pub(crate) fn attempt_blobs(ticket: &Ticket, key: &TicketKey, attempt: Attempt) -> AttemptBlobs {
    AttemptBlobs {
        job: ticket.job.clone(),
        number: ticket.number,
        ticket: key.ticket.clone(),
        attempt,
    }
}
