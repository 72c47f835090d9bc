//! The law of one build: configuration + checkpoint + events -> what to do next.
//!
//! Owns everything that build control knows. A pure function of stored facts, so two control
//! workers that see the same decide the same, and the order in which events are seen or repeated
//! does not change the verdict: whether a task runs depends on how its ancestors ended, on nothing
//! else.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::build::{Answer, Build, Cause, Checkpoint, Event, Finished, Progress, Skip};
use crate::config::{Action, After, Graph, JobConfig, Start, later};
use crate::id::{Attempt, BuildKey, TicketId};
use crate::outcome::{Failure, Fault, Outcome, TaskResult, Verdict};

/// Most children that one commit posts or consumes, so that it stays far below the store's limit.
pub const MAX_POSTS: usize = 32;

/// What build control wants to happen, all at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// The new checkpoint.
    pub checkpoint: Checkpoint,
    /// Tickets to post.
    pub post: Vec<Posting>,
    /// Tickets to cancel, before the commit.
    pub cancel: Vec<TicketId>,
    /// Finished tickets that the checkpoint now remembers.
    pub consume: Vec<TicketId>,
    /// Jobs to trigger, by their place among the configuration's downstream jobs.
    pub trigger: Vec<usize>,
    /// What follows.
    pub next: Next,
}

/// A ticket to post for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Posting {
    /// The ticket.
    pub ticket: TicketId,
    /// The task, by its place in the flat configuration.
    pub task: usize,
    /// The last attempt of the run before: attempts of a task are counted over all its runs.
    #[serde(default)]
    pub after: Attempt,
}

/// What follows a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "next", rename_all = "kebab-case")]
pub enum Next {
    /// Nothing to do until there is news, or until this time.
    Park {
        /// When there is something to do without news.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// Decide again at once.
    Again,
    /// The build is over.
    Archive {
        /// How it ended.
        outcome: Outcome,
    },
}

/// What to do next in a build; `config` is its configuration, flat.
pub fn decide(config: &JobConfig, build: &Build, events: &[Event]) -> Decision {
    let checkpoint = &build.checkpoint;
    let mut state = State {
        config,
        key: BuildKey::derive(&build.ticket.job, build.id.number),
        build,
        graph: config.graph(),
        now: now(checkpoint, events),
        checkpoint: checkpoint.clone(),
    };
    state.lay_tasks();
    let (consume, late) = state.take_events(events);
    let mut cancel = state.take_cancel(events);
    cancel.extend(state.take_stops(events));
    state.take_answers(events);
    let mut post = Vec::new();
    let more = state.advance(&mut post);
    let settled = state.checkpoint.tasks.iter().all(is_settled);
    let outcome = state.outcome();
    let trigger = if settled {
        state.triggers(&outcome)
    } else {
        Vec::new()
    };
    let next = if late || more || !trigger.is_empty() {
        Next::Again
    } else if settled {
        Next::Archive { outcome }
    } else {
        let until = state.checkpoint.tasks.iter().filter_map(due).min();
        Next::Park { until }
    };
    state.checkpoint.revision = checkpoint.revision.saturating_add(1);
    Decision {
        checkpoint: state.checkpoint,
        post,
        cancel,
        consume,
        trigger,
        next,
    }
}

/// The latest time that is known to have come.
fn now(checkpoint: &Checkpoint, events: &[Event]) -> Timestamp {
    let time = |event: &Event| match event {
        Event::Finished(run) => run.finished,
        Event::Cancelled { at, .. } | Event::Stopped { at, .. } | Event::Clock { at } => *at,
        Event::Answered { answer, .. } => answer.at,
    };
    let told = events.iter().map(time).max();
    told.unwrap_or(checkpoint.latest).max(checkpoint.latest)
}

/// When something is to be done about a task without any news.
fn due(progress: &Progress) -> Option<Timestamp> {
    match progress {
        Progress::Backoff { until, .. } | Progress::Asking { until, .. } => Some(*until),
        Progress::Waiting
        | Progress::Posted { .. }
        | Progress::Skipped { .. }
        | Progress::Finished(_) => None,
    }
}

fn is_settled(progress: &Progress) -> bool {
    match progress {
        Progress::Skipped { .. } | Progress::Finished(_) => true,
        Progress::Waiting
        | Progress::Posted { .. }
        | Progress::Backoff { .. }
        | Progress::Asking { .. } => false,
    }
}

/// A build in the middle of a decision.
struct State<'a> {
    config: &'a JobConfig,
    key: BuildKey,
    build: &'a Build,
    graph: Graph,
    now: Timestamp,
    checkpoint: Checkpoint,
}

/// How the tasks before a task ended.
enum Before {
    /// At least one has not ended.
    Unsettled,
    /// None failed.
    Clean,
    /// The first, in order, that did not succeed.
    Failed(usize),
}

impl State<'_> {
    /// Lays the tasks of the file that the build has read: they follow the one that read it.
    fn lay_tasks(&mut self) {
        let (laid, tasks) = (self.checkpoint.tasks.len(), self.config.tasks.len());
        if laid < tasks {
            self.checkpoint.tasks.resize(tasks, Progress::Waiting);
        }
    }

    /// Marks finished tasks. Gives the tickets to consume, and whether there were more than one
    /// commit may hold.
    fn take_events(&mut self, events: &[Event]) -> (Vec<TicketId>, bool) {
        let mut consumed = Vec::new();
        for event in events {
            let Event::Finished(finished) = event else {
                continue;
            };
            let Some((task, run)) = self.posted_as(&finished.ticket) else {
                continue;
            };
            if consumed.len() == MAX_POSTS {
                return (consumed, true);
            }
            self.note_time(finished.finished);
            let ticket = finished.ticket.clone();
            let finished = Box::new(Finished {
                run,
                ..(**finished).clone()
            });
            self.checkpoint.tasks[task] = self.after_run(task, finished);
            consumed.push(ticket);
        }
        (consumed, false)
    }

    fn posted_as(&self, ticket: &TicketId) -> Option<(usize, u32)> {
        let mut tasks = self.checkpoint.tasks.iter().enumerate();
        tasks.find_map(|(task, progress)| match progress {
            Progress::Posted {
                ticket: posted,
                run,
            } => (posted == ticket).then_some((task, *run)),
            Progress::Waiting
            | Progress::Backoff { .. }
            | Progress::Asking { .. }
            | Progress::Skipped { .. }
            | Progress::Finished(_) => None,
        })
    }

    /// Where a task stands after a run: over, or about to be run again.
    fn after_run(&mut self, task: usize, last: Box<Finished>) -> Progress {
        let retry = self.config.tasks[task].retry.as_ref();
        let Some(until) = retry.and_then(|retry| retry.next_after(&last)) else {
            return Progress::Finished(last);
        };
        self.checkpoint.note_run(task, &last);
        Progress::Backoff {
            run: last.run.saturating_add(1),
            until,
            last,
        }
    }

    fn note_time(&mut self, at: Timestamp) {
        self.checkpoint.latest = self.checkpoint.latest.max(at);
    }

    /// Notes a first cancellation: nothing waiting will run, everything posted is to be cancelled.
    fn take_cancel(&mut self, events: &[Event]) -> Vec<TicketId> {
        let asked = events.iter().find_map(|event| match event {
            Event::Cancelled { at, by } => Some((*at, by.clone())),
            Event::Finished(_)
            | Event::Stopped { .. }
            | Event::Answered { .. }
            | Event::Clock { .. } => None,
        });
        // Of what is over nothing can be cancelled: whoever ends the build later writes the same
        // record, whatever was asked for meanwhile.
        if self.checkpoint.tasks.iter().all(is_settled) {
            return Vec::new();
        }
        let (Some((at, by)), None) = (asked, self.checkpoint.cancelled) else {
            return Vec::new();
        };
        self.checkpoint.cancelled = Some(at);
        self.checkpoint.cancelled_by = by;
        self.note_time(at);
        let posted = self.checkpoint.tasks.iter().filter_map(posted_ticket);
        posted.cloned().collect()
    }

    /// Notes the tasks that were asked to stop; gives those of their tickets that are posted.
    fn take_stops(&mut self, events: &[Event]) -> Vec<TicketId> {
        let mut posted = Vec::new();
        for event in events {
            let Event::Stopped { task, at } = event else {
                continue;
            };
            let Some(progress) = self.checkpoint.tasks.get(*task) else {
                continue;
            };
            // Its ticket may have been cancelled by one who died before this was noted.
            let ended_so = match progress {
                Progress::Finished(run) => run.result.outcome.is_cancelled() && *at <= run.finished,
                Progress::Skipped { .. } => false,
                Progress::Waiting
                | Progress::Posted { .. }
                | Progress::Backoff { .. }
                | Progress::Asking { .. } => true,
            };
            if !ended_so || !self.checkpoint.stopped.insert(*task) || is_settled(progress) {
                continue;
            }
            match posted_ticket(progress) {
                // It ends as its worker sees to it.
                Some(ticket) => posted.push(ticket.clone()),
                None => self.end_unposted(*task, Failure::Cancelled, *at),
            }
        }
        posted
    }

    /// Takes the answers of those who were asked to agree, and ends what was asked for too long.
    fn take_answers(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Answered { task, answer } = event {
                self.take_answer(*task, answer);
            }
        }
        for task in 0..self.checkpoint.tasks.len() {
            if let Some(Progress::Asking { until, .. }) = self.checkpoint.tasks.get(task)
                && *until <= self.now
            {
                let (until, seconds) = (*until, self.config.tasks[task].timeout_seconds());
                self.end_unposted(task, Failure::TimedOut { seconds }, until);
            }
        }
    }

    fn take_answer(&mut self, task: usize, answer: &Answer) {
        let Some(Progress::Asking { since, .. }) = self.checkpoint.tasks.get(task) else {
            return;
        };
        let since = *since;
        let outcome = if answer.approved {
            Outcome::Success
        } else {
            let detail = answer.comment.clone();
            let reason = Failure::Rejected { detail };
            Outcome::Failure { reason }
        };
        self.end_without_worker(task, outcome, (Some(since), answer.at));
    }

    fn end_unposted(&mut self, task: usize, reason: Failure, at: Timestamp) {
        let since = match self.checkpoint.tasks.get(task) {
            Some(Progress::Asking { since, .. }) => Some(*since),
            _ => None,
        };
        self.end_without_worker(task, Outcome::Failure { reason }, (since, at));
    }

    fn end_without_worker(
        &mut self,
        task: usize,
        outcome: Outcome,
        (started, finished): (Option<Timestamp>, Timestamp),
    ) {
        self.note_time(finished);
        self.checkpoint.tasks[task] = Progress::Finished(Box::new(Finished {
            queued: None,
            past: Vec::new(),
            ticket: TicketId::derive(&self.key, &self.config.tasks[task].name, 1),
            run: 1,
            build: None,
            attempt: Attempt::default(),
            result: TaskResult::of(outcome),
            worker: None,
            started,
            finished,
        }));
    }

    /// Posts or skips every task whose ancestors have settled, and those whose time has come again.
    /// Gives whether there is more to post than one commit may hold.
    fn advance(&mut self, post: &mut Vec<Posting>) -> bool {
        for task in self.graph.order().to_vec() {
            let run = match self.checkpoint.tasks.get(task) {
                Some(Progress::Waiting) => 1,
                Some(Progress::Backoff { run, until, .. }) => match self.checkpoint.cancelled {
                    None if *until > self.now => continue,
                    None | Some(_) => *run,
                },
                Some(Progress::Asking { .. }) if self.checkpoint.cancelled.is_some() => 1,
                _ => continue,
            };
            match self.judge(task) {
                None => {}
                Some(Err(why)) => self.checkpoint.tasks[task] = Progress::Skipped { why },
                Some(Ok(())) if post.len() == MAX_POSTS => return true,
                Some(Ok(())) => self.begin(task, run, post),
            }
        }
        false
    }

    fn begin(&mut self, task: usize, run: u32, post: &mut Vec<Posting>) {
        let config = &self.config.tasks[task];
        if let Action::Approve(_) = config.action {
            let since = self.ready_since(task);
            let until = later(since, config.timeout_seconds());
            self.checkpoint.tasks[task] = Progress::Asking { since, until };
            return;
        }
        let ticket = TicketId::derive(&self.key, &config.name, run);
        self.checkpoint.tasks[task] = Progress::Posted {
            ticket: ticket.clone(),
            run,
        };
        let after = self.checkpoint.runs_of(task).last().copied();
        post.push(Posting {
            ticket,
            task,
            after: after.unwrap_or_default(),
        });
    }

    /// When the last of what a task needs had ended; in a build that kept it, when that began.
    fn ready_since(&self, task: usize) -> Timestamp {
        let ancestors = self.graph.ancestors(task).iter();
        let ended = ancestors.filter_map(|&index| match self.checkpoint.tasks.get(index) {
            Some(Progress::Finished(run)) => Some(run.finished),
            _ => None,
        });
        ended.fold(self.build.created, Timestamp::max)
    }

    /// Whether a waiting task runs now (`Ok`), never (`Err`), or has to wait (`None`).
    fn judge(&self, task: usize) -> Option<Result<(), Skip>> {
        if self.checkpoint.cancelled.is_some() {
            return Some(Err(Skip::Cancelled));
        }
        let before = self.before(task);
        let when = &self.config.tasks[task].when;
        match (when.outcome, before) {
            (_, Before::Unsettled) => None,
            (After::Always, Before::Clean | Before::Failed(_))
            | (After::OnSuccess, Before::Clean)
            | (After::OnFailure, Before::Failed(_)) => Some(self.judge_conditions(task)),
            (After::OnFailure, Before::Clean) => Some(Err(Skip::NothingFailed)),
            (After::OnSuccess, Before::Failed(failed)) => {
                let task = self.config.tasks[failed].name.to_string();
                Some(Err(Skip::Failed { task }))
            }
        }
    }

    fn judge_conditions(&self, task: usize) -> Result<(), Skip> {
        let cause = &self.build.cause;
        let event = cause.told();
        let conditions = &self.config.tasks[task].when.conditions;
        let broken = conditions.broken_by(start(cause), event, &self.build.parameters);
        broken.map_or(Ok(()), |what| Err(Skip::Condition { what }))
    }

    fn before(&self, task: usize) -> Before {
        let ancestors = self.graph.ancestors(task);
        let progress = |&index: &usize| self.checkpoint.tasks.get(index);
        if !ancestors.iter().filter_map(progress).all(is_settled) {
            return Before::Unsettled;
        }
        let failed = ancestors
            .iter()
            .copied()
            .find(|&index| self.verdict(index).is_some());
        failed.map_or(Before::Clean, Before::Failed)
    }

    /// The verdict of a task if it is not success and counts.
    fn verdict(&self, task: usize) -> Option<Verdict> {
        let Some(Progress::Finished(run)) = self.checkpoint.tasks.get(task) else {
            return None;
        };
        let verdict = run.result.outcome.verdict();
        (verdict != Verdict::Success && !self.config.tasks[task].allow_failure).then_some(verdict)
    }

    /// How the build ends, if no task changes any more. The user's failures come before our faults:
    /// they would be there without us.
    fn outcome(&self) -> Outcome {
        // A task that was cancelled alone is a task that failed.
        let stopped = |(task, progress): (usize, &Progress)| match progress {
            Progress::Skipped { why } => *why == Skip::Cancelled,
            Progress::Finished(run) => {
                run.result.outcome.is_cancelled() && !self.checkpoint.stopped.contains(&task)
            }
            Progress::Waiting
            | Progress::Posted { .. }
            | Progress::Backoff { .. }
            | Progress::Asking { .. } => false,
        };
        if self.checkpoint.tasks.iter().enumerate().any(stopped) {
            return Outcome::Failure {
                reason: Failure::Cancelled,
            };
        }
        let named = |wanted: Verdict| -> Vec<String> {
            let tasks = 0..self.checkpoint.tasks.len();
            tasks
                .filter(|&task| self.verdict(task) == Some(wanted))
                .map(|task| self.config.tasks[task].name.to_string())
                .collect()
        };
        let (failed, faulted) = (named(Verdict::Failure), named(Verdict::Fault));
        if !failed.is_empty() {
            Outcome::Failure {
                reason: Failure::Tasks { failed },
            }
        } else if !faulted.is_empty() {
            Outcome::Fault {
                reason: Fault::Tasks { faulted },
            }
        } else {
            Outcome::Success
        }
    }

    /// The downstream jobs that are still to be triggered.
    fn triggers(&self, outcome: &Outcome) -> Vec<usize> {
        if outcome.is_cancelled() {
            return Vec::new();
        }
        let downstream = self.config.downstream_jobs.iter().enumerate();
        downstream
            .filter(|(_, downstream)| downstream.on.contains(&outcome.verdict()))
            .map(|(place, _)| place)
            .skip(self.checkpoint.downstream.len())
            .collect()
    }
}

fn posted_ticket(progress: &Progress) -> Option<&TicketId> {
    match progress {
        Progress::Posted { ticket, .. } => Some(ticket),
        Progress::Waiting
        | Progress::Backoff { .. }
        | Progress::Asking { .. }
        | Progress::Skipped { .. }
        | Progress::Finished(_) => None,
    }
}

fn start(cause: &Cause) -> Start {
    match cause {
        Cause::Manual => Start::Manual,
        Cause::Upstream { .. } => Start::Upstream,
        Cause::Event { told } => Start::Event(told.kind),
        Cause::Rerun { cause, .. } => start(cause),
    }
}

#[cfg(test)]
mod tests;
