//! The build: one numbered execution of a job, and how far it is.
//!
//! Owns the record of a build (its control ticket's anchor) and the checkpoint that build control
//! writes. Everything that a build knows is here or in its tickets; no process remembers more.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::event;
use crate::id::{Attempt, BuildNumber, BuildRef, JobId, RequestId, TicketId, WorkerName};
use crate::outcome::{Outcome, TaskResult};
use crate::past::{End, Past, remember, remember_all};
use crate::ticket::Ticket;

/// Which configuration a build runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ConfigRef {
    /// Counts the changes of the job's configuration, from 1.
    pub revision: u32,
    /// Hash of its canonical text, hex.
    pub hash: String,
    /// The same of the configuration with what the job's file in a repository says, once a build
    /// has read that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl ConfigRef {
    /// The hash of the text that it refers to.
    pub fn text(&self) -> &str {
        self.file.as_deref().unwrap_or(&self.hash)
    }
}

/// Why a build exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody asked for it.
    Manual,
    /// A build upstream ended.
    Upstream {
        /// That build.
        build: BuildRef,
    },
    /// Something happened that the job waits for.
    Event {
        /// What.
        told: Box<event::Event>,
    },
    /// Somebody asked to run an earlier build again.
    Rerun {
        /// That build.
        of: BuildRef,
        /// Why that one exists.
        #[schema(no_recursion)]
        cause: Box<Cause>,
    },
}

impl Cause {
    /// One word, as tasks see it in `DISTCI_EVENT`.
    pub fn event(&self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Upstream { .. } => "upstream",
            Self::Event { told } => told.kind.as_str(),
            Self::Rerun { cause, .. } => cause.event(),
        }
    }

    /// The event that started it, or the build that it runs again.
    pub fn told(&self) -> Option<&event::Event> {
        match self {
            Self::Manual | Self::Upstream { .. } => None,
            Self::Event { told } => Some(told),
            Self::Rerun { cause, .. } => cause.told(),
        }
    }

    /// The build that triggered it, or the build that it runs again.
    pub fn upstream(&self) -> Option<&BuildRef> {
        match self {
            Self::Upstream { build } => Some(build),
            Self::Manual | Self::Event { .. } => None,
            Self::Rerun { cause, .. } => cause.upstream(),
        }
    }
}

/// The anchor of a control ticket: the build itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The control ticket.
    pub ticket: Ticket,
    /// Job and number.
    pub id: BuildRef,
    /// What it runs.
    pub config: ConfigRef,
    /// With which values.
    pub parameters: BTreeMap<String, String>,
    /// Why it exists.
    pub cause: Cause,
    /// The request that posted it.
    pub request: RequestId,
    /// How many builds have triggered each other until it came to be.
    #[serde(default, skip_serializing_if = "is_none_before")]
    pub depth: u32,
    /// When it was posted.
    pub created: Timestamp,
    /// How far it is.
    pub checkpoint: Checkpoint,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_none_before(depth: &u32) -> bool {
    *depth == 0
}

/// How far a build is. Written only by build control, with the control ticket's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// Counts the decisions, from 0.
    pub revision: u32,
    /// One entry for each task of the configuration, in its order.
    pub tasks: Vec<Progress>,
    /// When it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Timestamp>,
    /// The earlier runs of each task that ran more than once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<EarlierRuns>,
    /// The claims of its control ticket until the last decision: whoever commits notes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Past>,
    /// The tasks that were asked to stop, by their place in the configuration.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub stopped: BTreeSet<usize>,
    /// What cancelled it, if that was no person: `superseded by job#8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// Downstream builds, in the order of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstream: Vec<Downstream>,
    /// The latest moment that any event told of; the build's end, once it has one.
    pub latest: Timestamp,
}

impl Checkpoint {
    /// Nothing done yet of `tasks` tasks.
    pub fn start(tasks: usize, at: Timestamp) -> Self {
        Self {
            revision: 0,
            tasks: vec![Progress::Waiting; tasks],
            cancelled: None,
            runs: Vec::new(),
            decisions: Vec::new(),
            stopped: BTreeSet::new(),
            cancelled_by: None,
            downstream: Vec::new(),
            latest: at,
        }
    }
}

impl Checkpoint {
    /// The last attempts of a task's earlier runs; each run counts on from there.
    pub fn runs_of(&self, task: usize) -> &[Attempt] {
        let runs = self.runs.iter().find(|runs| runs.task == task);
        runs.map_or(&[], |runs| &runs.ends)
    }

    /// The claims of a task's earlier runs, as far as they are remembered.
    pub fn past_of(&self, task: usize) -> &[Past] {
        let runs = self.runs.iter().find(|runs| runs.task == task);
        runs.map_or(&[], |runs| &runs.past)
    }

    /// Notes that a run of a task has ended so, and that another will follow.
    pub fn note_run(&mut self, task: usize, run: &Finished) {
        let place = self.runs.iter().position(|runs| runs.task == task);
        let place = place.unwrap_or_else(|| {
            self.runs.push(EarlierRuns {
                task,
                ends: Vec::new(),
                past: Vec::new(),
            });
            self.runs.len() - 1
        });
        let runs = &mut self.runs[place];
        runs.ends.push(run.attempt);
        remember_all(&mut runs.past, run.past.clone());
        if let (Some(worker), Some(since)) = (&run.worker, run.started) {
            let last = Past {
                attempt: run.attempt,
                queued: run.queued,
                worker: worker.clone(),
                since,
                until: run.finished,
                end: End::ended(&run.result.outcome),
            };
            remember(&mut runs.past, last);
        }
    }
}

/// The runs of a task but the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EarlierRuns {
    /// The task, by its place in the configuration.
    pub task: usize,
    /// The last attempt of each run.
    pub ends: Vec<Attempt>,
    /// Their claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
}

/// How far a task is, as build control knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Progress {
    /// Not every task that it needs has ended.
    Waiting,
    /// Its ticket is posted.
    Posted {
        /// The ticket.
        ticket: TicketId,
        /// Which run of the task it is, from 1.
        #[serde(default = "first", skip_serializing_if = "is_first")]
        run: u32,
    },
    /// It did not succeed and will be run again.
    Backoff {
        /// Which run will be next.
        run: u32,
        /// When.
        until: Timestamp,
        /// How the last run was.
        last: Box<Finished>,
    },
    /// It waits until somebody agrees.
    Asking {
        /// Since when.
        since: Timestamp,
        /// How long at most.
        until: Timestamp,
    },
    /// It will not run.
    Skipped {
        /// Why not.
        why: Skip,
    },
    /// It ran.
    Finished(Box<Finished>),
}

fn first() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_first(run: &u32) -> bool {
    *run == 1
}

/// Why a task did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Skip {
    /// A task that it needs, directly or not, did not succeed.
    Failed {
        /// The name of that task.
        task: String,
    },
    /// It runs only after a failure, and there was none.
    NothingFailed,
    /// One of its conditions does not hold.
    Condition {
        /// Which, in words.
        what: String,
    },
    /// The build was cancelled.
    Cancelled,
}

impl Skip {
    /// Whether it would have run if all had gone well.
    pub fn is_for_want_of_success(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Cancelled => true,
            Self::NothingFailed | Self::Condition { .. } => false,
        }
    }
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { task } => write!(f, "{task} did not succeed"),
            Self::NothingFailed => f.write_str("nothing failed"),
            Self::Condition { what } => f.write_str(what),
            Self::Cancelled => f.write_str("the build was cancelled"),
        }
    }
}

/// The run of a task that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finished {
    /// Its ticket.
    pub ticket: TicketId,
    /// Which run of the task it was, from 1.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub run: u32,
    /// The earlier build that it is of, if it was not run again in this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildNumber>,
    /// The last attempt; 0 if none began.
    pub attempt: Attempt,
    /// What came of it.
    pub result: TaskResult,
    /// The attempts of this run before the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
    /// When its ticket was queued for the last attempt, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Timestamp>,
    /// Who did the last attempt.
    pub worker: Option<WorkerName>,
    /// When the last attempt began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
}

/// What became of a downstream trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Downstream {
    /// The build that was posted in the same commit.
    Triggered {
        /// Which.
        build: BuildRef,
    },
    /// No build could be posted.
    Refused {
        /// Of which job.
        job: JobId,
        /// Why not.
        why: String,
    },
}

/// What is news to build control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A task's run is over.
    Finished(Box<Finished>),
    /// Somebody asked to cancel the build.
    Cancelled {
        /// When.
        at: Timestamp,
        /// What did, if that was no person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Somebody asked to cancel a task.
    Stopped {
        /// Which, by its place in the configuration.
        task: usize,
        /// When.
        at: Timestamp,
    },
    /// Somebody was asked to agree, and answered.
    Answered {
        /// By which task, by its place in the configuration.
        task: usize,
        /// What.
        answer: Answer,
    },
    /// What time it is.
    Clock {
        /// The time.
        at: Timestamp,
    },
}

/// What people want of the tasks of a build; each by its place in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// The tasks to cancel, and since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stops: BTreeMap<usize, Timestamp>,
    /// What was answered to those that ask; the first answer counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<usize, Answer>,
}

impl Wishes {
    /// The same as news to build control.
    pub fn events(self) -> impl Iterator<Item = Event> {
        let stops = self.stops.into_iter();
        let stops = stops.map(|(task, at)| Event::Stopped { task, at });
        let answers = self.answers.into_iter();
        stops.chain(answers.map(|(task, answer)| Event::Answered { task, answer }))
    }
}

/// What somebody who was asked to agree has said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Whether the build goes on.
    pub approved: bool,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// When.
    pub at: Timestamp,
}

/// What remains of a build for ever: written once, when it is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// The build as its control ticket's anchor last held it.
    pub build: Build,
    /// How it ended.
    pub outcome: Outcome,
}
