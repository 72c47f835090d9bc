//! The law of one build: configuration + checkpoint + events -> what to do next.
//!
//! Owns everything that build control knows. A pure function of stored facts, so two control
//! workers that see the same decide the same, and the order in which events are seen or repeated
//! does not change the verdict: whether a task runs depends on how its ancestors ended, on nothing
//! else.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::build::{Checkpoint, Event, Finished, Progress, Skip};
use crate::config::{Graph, JobConfig, When};
use crate::id::{BuildKey, JobId, TicketId};
use crate::outcome::{Failure, Fault, Outcome, Verdict};

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
    /// Jobs to trigger.
    pub trigger: Vec<JobId>,
    /// What follows.
    pub next: Next,
}

/// A ticket to post for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Posting {
    /// The ticket.
    pub ticket: TicketId,
    /// The task, by its place in the configuration.
    pub task: usize,
}

/// What follows a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "next", rename_all = "kebab-case")]
pub enum Next {
    /// Nothing to do until there is news.
    Park {
        /// When to decide again even without.
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

/// What to do next in a build.
pub fn decide(
    config: &JobConfig,
    build: &BuildKey,
    checkpoint: &Checkpoint,
    events: &[Event],
) -> Decision {
    let mut state = State {
        config,
        graph: config.graph(),
        checkpoint: checkpoint.clone(),
    };
    let (consume, late) = state.take_events(events);
    let cancel = state.take_cancel(events);
    let mut post = Vec::new();
    let more = state.advance(build, &mut post);
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
        Next::Park { until: None }
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

fn is_settled(progress: &Progress) -> bool {
    match progress {
        Progress::Skipped { .. } | Progress::Finished(_) => true,
        Progress::Waiting | Progress::Posted { .. } => false,
    }
}

/// A build in the middle of a decision.
struct State<'a> {
    config: &'a JobConfig,
    graph: Graph,
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
    /// Marks finished tasks. Gives the tickets to consume, and whether there were more than one
    /// commit may hold.
    fn take_events(&mut self, events: &[Event]) -> (Vec<TicketId>, bool) {
        let mut consumed = Vec::new();
        for event in events {
            let Event::Finished(finished) = event else {
                continue;
            };
            let Some(task) = self.posted_as(&finished.ticket) else {
                continue;
            };
            if consumed.len() == MAX_POSTS {
                return (consumed, true);
            }
            self.note_time(finished);
            self.checkpoint.tasks[task] = Progress::Finished(finished.clone());
            consumed.push(finished.ticket.clone());
        }
        (consumed, false)
    }

    fn posted_as(&self, ticket: &TicketId) -> Option<usize> {
        let is_it = |progress: &Progress| match progress {
            Progress::Posted { ticket: posted } => posted == ticket,
            Progress::Waiting | Progress::Skipped { .. } | Progress::Finished(_) => false,
        };
        self.checkpoint.tasks.iter().position(is_it)
    }

    fn note_time(&mut self, finished: &Finished) {
        self.checkpoint.latest = self.checkpoint.latest.max(finished.finished);
    }

    /// Notes a first cancellation: nothing waiting will run, everything posted is to be cancelled.
    fn take_cancel(&mut self, events: &[Event]) -> Vec<TicketId> {
        let asked = events.iter().find_map(|event| match event {
            Event::Cancelled { at } => Some(*at),
            Event::Finished(_) | Event::Clock { .. } => None,
        });
        // Of what is over nothing can be cancelled: whoever ends the build later writes the same
        // record, whatever was asked for meanwhile.
        if self.checkpoint.tasks.iter().all(is_settled) {
            return Vec::new();
        }
        let (Some(at), None) = (asked, self.checkpoint.cancelled) else {
            return Vec::new();
        };
        self.checkpoint.cancelled = Some(at);
        self.checkpoint.latest = self.checkpoint.latest.max(at);
        let posted = self
            .checkpoint
            .tasks
            .iter()
            .filter_map(|progress| match progress {
                Progress::Posted { ticket } => Some(ticket.clone()),
                Progress::Waiting | Progress::Skipped { .. } | Progress::Finished(_) => None,
            });
        posted.collect()
    }

    /// Posts or skips every task whose ancestors have settled. Gives whether there is more to post
    /// than one commit may hold.
    fn advance(&mut self, build: &BuildKey, post: &mut Vec<Posting>) -> bool {
        for task in self.graph.order().to_vec() {
            if self.checkpoint.tasks.get(task) != Some(&Progress::Waiting) {
                continue;
            }
            match self.judge(task) {
                None => {}
                Some(Err(why)) => self.checkpoint.tasks[task] = Progress::Skipped { why },
                Some(Ok(())) if post.len() == MAX_POSTS => return true,
                Some(Ok(())) => {
                    let ticket = TicketId::derive(build, &self.config.tasks[task].name, 1);
                    self.checkpoint.tasks[task] = Progress::Posted {
                        ticket: ticket.clone(),
                    };
                    post.push(Posting { ticket, task });
                }
            }
        }
        false
    }

    /// Whether a waiting task runs now (`Ok`), never (`Err`), or has to wait (`None`).
    fn judge(&self, task: usize) -> Option<Result<(), Skip>> {
        if self.checkpoint.cancelled.is_some() {
            return Some(Err(Skip::Cancelled));
        }
        let before = self.before(task);
        match (self.config.tasks[task].when, before) {
            (_, Before::Unsettled) => None,
            (When::Always, Before::Clean | Before::Failed(_))
            | (When::OnSuccess, Before::Clean)
            | (When::OnFailure, Before::Failed(_)) => Some(Ok(())),
            (When::OnFailure, Before::Clean) => Some(Err(Skip::NothingFailed)),
            (When::OnSuccess, Before::Failed(failed)) => {
                let task = self.config.tasks[failed].name.to_string();
                Some(Err(Skip::Failed { task }))
            }
        }
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
        let stopped = |progress: &Progress| match progress {
            Progress::Skipped { why } => *why == Skip::Cancelled,
            Progress::Finished(run) => run.result.outcome.is_cancelled(),
            Progress::Waiting | Progress::Posted { .. } => false,
        };
        if self.checkpoint.tasks.iter().any(stopped) {
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
    fn triggers(&self, outcome: &Outcome) -> Vec<JobId> {
        if outcome.is_success() {
            self.config
                .downstream_jobs
                .iter()
                .skip(self.checkpoint.downstream.len())
                .cloned()
                .collect()
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
