//! Build control's side of the store: what a decision needs, and its commit.
//!
//! Owns the one commit in which results are consumed, the checkpoint is written, tickets are posted
//! and downstream builds are triggered, all or nothing, with the control ticket's version.

use std::collections::BTreeMap;

use distci_model::Timestamp;
use distci_model::build::{
    Archived, Build, Cause, Checkpoint, Downstream, Event, Finished, Progress, Wishes,
};
use distci_model::capability::Capabilities;
use distci_model::config::{DownstreamJob, JobConfig, Scope, TaskConfig};
use distci_model::decide::{Decision, Next};
use distci_model::id::{Attempt, BuildKey, RequestId, TicketId, TicketKey};
use distci_model::lock::LockNeed;
use distci_model::outcome::{Failure, Fault, Outcome, TaskResult, Verdict};
use distci_model::past::{End, Past, remember};
use distci_model::plan::{Intent, Refused, past_claim, plan};
use distci_model::ticket::{Done, Duty, Priority, Ticket, TicketState};
use distci_model::wire::{BuildPhase, BuildSummary, CommitReply, CommitRequest, ControlOrder};

use crate::builds::{Post, Posted, check_parameters, ticket};
use crate::cancel::CancelFlag;
use crate::coordination::Version;
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::tickets::task_only;
use crate::transaction::{Child, Read, Transaction, Tried, encode, pack, read, until_done};

/// Most bytes of what the tasks of one build report: exports, outputs and messages. They are in the
/// build's anchor, which has to fit into one commit; without a limit such a build could never end.
const MAX_REPORTED: usize = 32 * 1024;
/// From this size on a commit takes no further downstream build.
const TRIGGERS: usize = 24 * 1024;
/// Most builds that trigger each other in a row: rounds that were closed all the same end here.
const MAX_DEPTH: u32 = 32;
/// Most names of failed tasks in a list of builds.
const MAX_NAMED: usize = 16;

impl Store {
    /// Everything that a decision about a build depends on; `None` if it is archived by now. The
    /// mailbox is read first, so that whatever comes later is noticed by the commit.
    pub(crate) async fn control_order(
        &self,
        key: &TicketKey,
        build: &Build,
        at: Timestamp,
    ) -> Result<Option<ControlOrder>, StoreError> {
        let Some(mailbox) = self.mailbox(&key.build).await? else {
            return Ok(None);
        };
        let mut build = build.clone();
        let (mut events, mut reported) = (vec![Event::Clock { at }], reported(&build));
        if let Some(CancelFlag { at, by }) = self.cancel_flag(&key.build).await? {
            events.push(Event::Cancelled { at, by });
        }
        let wishes = keys::wishes(&key.build);
        if let Some(wishes) = read::<Wishes>(&*self.coordination, &wishes).await? {
            events.extend(wishes.record.events());
        }
        for progress in build.checkpoint.tasks.clone() {
            let Progress::Posted { ticket, .. } = progress else {
                continue;
            };
            let child = TicketKey {
                build: key.build.clone(),
                ticket: ticket.clone(),
            };
            let anchor = read::<Child>(&*self.coordination, &keys::anchor(&child)).await?;
            let run = anchor.and_then(|anchor| finished(ticket, anchor.record.ticket));
            if let Some(mut run) = run {
                self.lay_file(&mut build, &mut run).await?;
                reported += bytes_of(&run.result);
                if reported > MAX_REPORTED {
                    run.result = unreportable(&run.result);
                }
                events.push(Event::Finished(Box::new(run)));
            }
        }
        let config = self.config(&build.ticket.job, &build.config).await?;
        Ok(Some(ControlOrder {
            config: (*config).clone(),
            build,
            mailbox: mailbox.0,
            events,
        }))
    }

    async fn mailbox(&self, build: &BuildKey) -> Result<Option<Version>, StoreError> {
        let node = self.coordination.get(&keys::mailbox(build)).await?;
        Ok(node.map(|node| node.version))
    }

    /// Commits a decision of build control.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] if the attempt is not the control ticket's claim any more.
    ///
    /// # Idempotence
    /// A decision that was committed already is recognised by the checkpoint's revision.
    pub async fn commit(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        request: &CommitRequest,
        at: Timestamp,
    ) -> Result<CommitReply, StoreError> {
        if !key.ticket.is_control() {
            return Err(StoreError::refused("the ticket is not a build's"));
        }
        match self.check_claim(key, attempt).await {
            Ok(_) => {
                self.cancel_tickets(key, &request.decision.cancel, at)
                    .await?;
            }
            // Only the holder stops tasks; whoever else asks learns below where it stands.
            Err(StoreError::AttemptOver { .. } | StoreError::Gone) => {}
            Err(error) => return Err(error),
        }
        until_done!(
            self.coordination,
            self.try_commit(key, attempt, request, at)
        )
    }

    async fn cancel_tickets(
        &self,
        key: &TicketKey,
        tickets: &[TicketId],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        for ticket in tickets {
            let child = TicketKey {
                build: key.build.clone(),
                ticket: ticket.clone(),
            };
            self.cancel_ticket(&child, at).await?;
        }
        Ok(())
    }

    async fn try_commit(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        request: &CommitRequest,
        at: Timestamp,
    ) -> Result<Tried<CommitReply>, StoreError> {
        let path = keys::anchor(key);
        let decision = &request.decision;
        let Some(before) = read::<Build>(&*self.coordination, &path).await? else {
            return over_or_lost(decision);
        };
        if before.record.checkpoint.revision == decision.checkpoint.revision {
            return self.committed(key, attempt, &before.record, at).await;
        }
        let intent = match decision.next {
            Next::Park { until } => Intent::Park { attempt, until },
            Next::Again | Next::Archive { .. } => Intent::Stay { attempt },
        };
        let planned = plan(&before.record.ticket, intent).map_err(|refused| refusal(&refused))?;
        if before.record.checkpoint.revision + 1 != decision.checkpoint.revision {
            // Decided from another checkpoint, or we read an old one: either way, decide anew.
            return self.again(key, &before.record, at).await;
        }
        let parks = !matches!(decision.next, Next::Again);
        let is_last = matches!(decision.next, Next::Archive { .. });
        if is_last && !before.record.ticket.past.is_empty() {
            return self.note_past(key, attempt, &before, at).await;
        }
        let Some(mailbox) = self.mailbox(&key.build).await? else {
            return Ok(Tried::Again);
        };
        if parks && mailbox.0 != request.mailbox {
            // There is news: whoever parks now would sleep over it.
            return self.again(key, &before.record, at).await;
        }
        let Some(config) = self.config_after(key, &before.record, decision).await? else {
            return self.again(key, &before.record, at).await;
        };
        let mut transaction = Transaction::default();
        if parks && !is_last {
            transaction.check(keys::mailbox(&key.build), mailbox);
        }
        let noted = (!is_last).then_some(at);
        let mut after = Build {
            config,
            ..decided(&before.record, planned.ticket, decision, noted)
        };
        self.fill(&mut transaction, key, &mut after, (decision, at))
            .await?;
        match &decision.next {
            Next::Archive { outcome } => {
                let archived = Archived {
                    build: at_rest(after),
                    outcome: outcome.clone(),
                };
                transaction.delete_at(keys::mailbox(&key.build), mailbox);
                self.archive(transaction, key, &before, archived).await
            }
            Next::Park { .. } | Next::Again => {
                transaction.replace(key, &before, &after)?;
                match transaction.commit(&*self.coordination).await? {
                    Some(_) => self.committed(key, attempt, &after, at).await,
                    None => Ok(Tried::Again),
                }
            }
        }
    }

    /// Notes earlier claims before the build is archived. Its record is the same whoever writes it, so
    /// it tells of no claim that is not in the checkpoint by then.
    async fn note_past(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        before: &Read<Build>,
        at: Timestamp,
    ) -> Result<Tried<CommitReply>, StoreError> {
        let build = &before.record;
        let mut after = build.clone();
        after.ticket.past.clear();
        after.checkpoint.decisions = decisions(build, None);
        after.checkpoint.revision += 1;
        let mut transaction = Transaction::default();
        transaction.replace(key, before, &after)?;
        match transaction.commit(&*self.coordination).await? {
            Some(_) => self.committed(key, attempt, &after, at).await,
            None => Ok(Tried::Again),
        }
    }

    async fn fill(
        &self,
        transaction: &mut Transaction,
        key: &TicketKey,
        after: &mut Build,
        (decision, at): (&Decision, Timestamp),
    ) -> Result<(), StoreError> {
        self.consume(transaction, key, decision).await?;
        self.post_children(transaction, key, after, (decision, at))
            .await?;
        self.trigger(transaction, after, decision, at).await
    }

    /// What the holder is told of a decision that is committed, by this try or an earlier one.
    async fn committed(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        build: &Build,
        at: Timestamp,
    ) -> Result<Tried<CommitReply>, StoreError> {
        match &build.ticket.state {
            TicketState::Claimed(_) if build.ticket.attempt == attempt => {
                self.again(key, build, at).await
            }
            TicketState::Claimed(_)
            | TicketState::Queued
            | TicketState::Parked { .. }
            | TicketState::Done(_) => Ok(Tried::Done(CommitReply::Over)),
        }
    }

    async fn again(
        &self,
        key: &TicketKey,
        build: &Build,
        at: Timestamp,
    ) -> Result<Tried<CommitReply>, StoreError> {
        let order = self.control_order(key, build, at).await?.map(Box::new);
        Ok(order.map_or(Tried::Again, |order| {
            Tried::Done(CommitReply::Again { order })
        }))
    }

    async fn consume(
        &self,
        transaction: &mut Transaction,
        key: &TicketKey,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        for ticket in &decision.consume {
            let child = TicketKey {
                build: key.build.clone(),
                ticket: ticket.clone(),
            };
            task_only(&child)?;
            let path = keys::anchor(&child);
            if let Some(before) = read::<Child>(&*self.coordination, &path).await? {
                transaction.remove(&child, &before);
            }
        }
        Ok(())
    }

    async fn post_children(
        &self,
        transaction: &mut Transaction,
        key: &TicketKey,
        build: &Build,
        (decision, at): (&Decision, Timestamp),
    ) -> Result<(), StoreError> {
        let config = self.config(&build.ticket.job, &build.config).await?;
        for posting in &decision.post {
            let task = config.tasks.get(posting.task);
            let task = task.ok_or_else(|| StoreError::refused("there is no such task"))?;
            let requires: Capabilities = task.requires();
            self.ensure_class(&requires).await?;
            let Ticket { job, number, .. } = &build.ticket;
            // Stamped with the build's own time: what began first goes on first.
            let ticket = Ticket {
                queued: Some(at),
                priority: priority(&config, task),
                locks: LockNeed::of_task(&task.locks),
                ..ticket(Duty::Task, job, *number, &requires, build.created)
            };
            let child = Child {
                ticket: Ticket {
                    attempt: posting.after,
                    ..ticket
                },
                task: posting.task,
            };
            let key = TicketKey {
                build: key.build.clone(),
                ticket: posting.ticket.clone(),
            };
            transaction.post(&key, &child)?;
        }
        Ok(())
    }

    /// Posts downstream builds in the same commit, as many as fit; the next decision asks for the
    /// rest. What cannot be posted is remembered with the reason: a missing job downstream must not
    /// hold up the build.
    async fn trigger(
        &self,
        transaction: &mut Transaction,
        build: &mut Build,
        decision: &Decision,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let config = self.config(&build.ticket.job, &build.config).await?;
        for &place in &decision.trigger {
            if transaction.bytes() > TRIGGERS {
                break;
            }
            let wanted = config.downstream_jobs.get(place);
            let wanted = wanted.ok_or_else(|| StoreError::refused("there is no such trigger"))?;
            let downstream = self.trigger_one(transaction, build, wanted, at).await?;
            build.checkpoint.downstream.push(downstream);
        }
        Ok(())
    }

    async fn trigger_one(
        &self,
        transaction: &mut Transaction,
        build: &Build,
        wanted: &DownstreamJob,
        at: Timestamp,
    ) -> Result<Downstream, StoreError> {
        let id = &wanted.job;
        let refused = |why: String| {
            Ok(Downstream::Refused {
                job: id.clone(),
                why,
            })
        };
        let depth = build.depth + 1;
        if depth > MAX_DEPTH {
            return refused(format!(
                "{MAX_DEPTH} builds have triggered each other already; one more is refused"
            ));
        }
        let job = match self.read_job(id).await {
            Ok(job) => job,
            Err(error @ StoreError::NotFound { .. }) => return refused(error.to_string()),
            Err(error) => return Err(error),
        };
        let config = self.config(&job.key, &job.node.record.config).await?;
        let given = match handed_on(build, wanted, &config) {
            Ok(given) => given,
            Err(why) => return refused(why.to_string()),
        };
        let parameters = match check_parameters(&config, &given) {
            Ok(parameters) => parameters,
            Err(why) => return refused(why),
        };
        let request = RequestId::derive(&format!(
            "{} of {} triggers {id}",
            build.id, build.ticket.job
        ));
        let cause = Cause::Upstream {
            build: build.id.clone(),
        };
        let post = Post {
            request,
            parameters,
            cause,
            depth,
            resumed: None,
            at,
        };
        match self.post_in(transaction, job, &config, post).await? {
            Posted::Build { build, .. } => Ok(Downstream::Triggered { build }),
            Posted::Skipped { holder } => refused(format!("skipped: {holder} is still running")),
        }
    }

    /// The last commit: the record first, then everything of the build goes at once.
    async fn archive(
        &self,
        mut transaction: Transaction,
        key: &TicketKey,
        before: &Read<Build>,
        archived: Archived,
    ) -> Result<Tried<CommitReply>, StoreError> {
        let coordination = &*self.coordination;
        let build = &archived.build;
        let summary = summary(build, &archived.outcome);
        let numbers_path = keys::numbers(&build.id.job);
        let record_key = keys::record(&build.ticket.job, build.id.number);
        let text = encode(record_key.as_str(), &archived)?;
        let data =
            zstd::encode_all(&*text, 3).map_err(|error| StoreError::corrupt(&record_key, error))?;
        self.blobs.put(&record_key, data.into()).await?;
        let _turn = self.turns.take(&build.id.job).await;
        let numbers = read::<crate::jobs::Numbers>(coordination, &numbers_path).await?;
        if let Some(mut numbers) = numbers {
            numbers.record.archive(summary);
            numbers.record.leave(build.id.number);
            let data = pack(&numbers_path, &numbers.record)?;
            transaction.set(numbers_path, data, numbers.version);
        }
        let flag = keys::cancel_flag(&key.build);
        if coordination.get(&flag).await?.is_some() {
            transaction.delete(flag);
        }
        let wishes = keys::wishes(&key.build);
        if coordination.get(&wishes).await?.is_some() {
            transaction.delete(wishes);
        }
        self.report_end(&mut transaction, &key.build, &archived)
            .await?;
        transaction.remove(key, before);
        let committed = transaction.commit(coordination).await?;
        Ok(if committed.is_some() {
            Tried::Done(CommitReply::Over)
        } else {
            Tried::Again
        })
    }
}

/// What a downstream build is given: parameters of the same name, and what the trigger says.
fn handed_on(
    build: &Build,
    wanted: &DownstreamJob,
    config: &JobConfig,
) -> Result<BTreeMap<String, String>, Failure> {
    let same_name = |(name, _): &(&String, &String)| config.parameters.contains_key(*name);
    let handed = build.parameters.iter().filter(same_name);
    let mut given: BTreeMap<String, String> = handed
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let scope = Scope::of(&build.parameters, build.cause.told());
    for (name, value) in &wanted.parameters {
        given.insert(name.clone(), scope.fill(value)?);
    }
    Ok(given)
}

/// How urgent a task's tickets are: never as urgent as what decides about builds.
fn priority(config: &JobConfig, task: &TaskConfig) -> Priority {
    let written = task.priority.or(config.priority);
    let own = written.filter(|priority| *priority != Priority::CONTROL);
    own.unwrap_or(Priority::NORMAL)
}

/// A build after a decision, whose ticket is then this.
fn decided(
    before: &Build,
    ticket: Ticket,
    decision: &Decision,
    decided: Option<Timestamp>,
) -> Build {
    Build {
        ticket: Ticket {
            past: Vec::new(),
            ..ticket
        },
        checkpoint: Checkpoint {
            decisions: decisions(before, decided),
            ..decision.checkpoint.clone()
        },
        ..before.clone()
    }
}

/// What the checkpoint remembers of a build's own claims: those before, and the one that decides now,
/// unless that ends the build.
fn decisions(build: &Build, decided: Option<Timestamp>) -> Vec<Past> {
    let (checkpoint, ticket) = (&build.checkpoint, &build.ticket);
    let now = match (decided, &ticket.state) {
        (Some(at), TicketState::Claimed(claimed)) => {
            Some(past_claim(ticket, claimed, at, End::Decided))
        }
        _ => None,
    };
    let mut decisions = checkpoint.decisions.clone();
    for claim in ticket.past.iter().cloned().chain(now) {
        // One claim may decide several times, and be lost after that.
        decisions.retain(|known| known.attempt != claim.attempt);
        remember(&mut decisions, claim);
    }
    decisions
}

/// A build as its record has it: the same bytes, whoever ends it. One who lost his claim over it may
/// still write a record, and does no harm.
fn at_rest(build: Build) -> Build {
    let ticket = Ticket {
        attempt: Attempt::default(),
        losses: 0,
        queued: None,
        past: Vec::new(),
        slots: Vec::new(),
        state: TicketState::Parked { until: None },
        ..build.ticket
    };
    Build { ticket, ..build }
}

/// A build that is gone was archived, by us or by nobody else: only an archiving decision may be
/// answered with success.
fn over_or_lost(decision: &Decision) -> Result<Tried<CommitReply>, StoreError> {
    match decision.next {
        Next::Archive { .. } => Ok(Tried::Refused(CommitReply::Over)),
        Next::Park { .. } | Next::Again => Err(StoreError::Gone),
    }
}

fn refusal(refused: &Refused) -> StoreError {
    match refused {
        Refused::AttemptOver { current } => StoreError::AttemptOver {
            current: current.get(),
        },
        Refused::AlreadySo | Refused::NotQueued | Refused::WrongDuty | Refused::WrongSlots => {
            StoreError::refused(refused.to_string())
        }
    }
}

/// A task's run as build control hears of it; `None` while it is not over.
pub(crate) fn finished(id: TicketId, ticket: Ticket) -> Option<Finished> {
    let TicketState::Done(done) = ticket.state else {
        return None;
    };
    let Done {
        result,
        worker,
        started,
        finished,
    } = *done;
    Some(Finished {
        ticket: id,
        run: 1,
        build: None,
        attempt: ticket.attempt,
        result,
        past: ticket.past,
        queued: ticket.queued,
        worker,
        started,
        finished,
    })
}

/// What the finished tasks of a build have reported, in bytes.
fn reported(build: &Build) -> usize {
    let bytes = |progress: &Progress| match progress {
        Progress::Finished(run) => bytes_of(&run.result),
        Progress::Backoff { last, .. } => bytes_of(&last.result),
        Progress::Waiting
        | Progress::Posted { .. }
        | Progress::Asking { .. }
        | Progress::Skipped { .. } => 0,
    };
    build.checkpoint.tasks.iter().map(bytes).sum()
}

fn bytes_of(result: &TaskResult) -> usize {
    result.value_bytes() + result.outcome.to_string().len()
}

/// A result for which the build has no room: it keeps its verdict if that was not success, and what
/// it refers to.
fn unreportable(result: &TaskResult) -> TaskResult {
    let detail =
        format!("the build's tasks report over {MAX_REPORTED} bytes of values and messages");
    let outcome = match result.outcome.verdict() {
        Verdict::Fault => Outcome::Fault {
            reason: Fault::Worker { detail },
        },
        Verdict::Success | Verdict::Failure => Outcome::Failure {
            reason: Failure::LimitExceeded { detail },
        },
    };
    TaskResult {
        outcome,
        exports: BTreeMap::new(),
        outputs: BTreeMap::new(),
        ..result.clone()
    }
}

/// The outcome of a build with at most [`MAX_NAMED`] names in it: lists hold many.
fn in_short(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    let (Outcome::Failure {
        reason: Failure::Tasks { failed: names },
    }
    | Outcome::Fault {
        reason: Fault::Tasks { faulted: names },
    }) = &mut outcome
    else {
        return outcome;
    };
    if names.len() > MAX_NAMED {
        let more = format!("{} more", names.len() - MAX_NAMED);
        names.truncate(MAX_NAMED);
        names.push(more);
    }
    outcome
}

/// A finished build in a list.
pub(crate) fn summary(build: &Build, outcome: &Outcome) -> BuildSummary {
    BuildSummary {
        number: build.id.number,
        phase: BuildPhase::Finished,
        outcome: Some(in_short(outcome)),
        cause: build.cause.clone(),
        created: build.created,
        finished: Some(build.checkpoint.latest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_few_of_many_failed_tasks() {
        let named = |count: usize| Outcome::Failure {
            reason: Failure::Tasks {
                failed: (0..count).map(|task| format!("t{task}")).collect(),
            },
        };
        assert_eq!(in_short(&named(16)), named(16));
        let Outcome::Failure {
            reason: Failure::Tasks { failed },
        } = in_short(&named(256))
        else {
            panic!("another outcome");
        };
        assert_eq!((failed.len(), failed[16].as_str()), (17, "240 more"));
    }
}
