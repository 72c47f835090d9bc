//! The build: one numbered execution of a job, and how far it is.
//!
//! Owns the record of a build (its control ticket's anchor) and the checkpoint that build control
//! writes. Everything that a build knows is here or in its tickets; no process remembers more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::event;
use crate::id::{Attempt, BuildRef, JobId, RequestId, TicketId, WorkerName};
use crate::outcome::{Outcome, TaskResult};
use crate::ticket::Ticket;

/// Which configuration a build runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ConfigRef {
    /// Counts the changes of the job's configuration, from 1.
    pub revision: u32,
    /// Hash of its canonical text, hex.
    pub hash: String,
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
    /// When it was posted.
    pub created: Timestamp,
    /// How far it is.
    pub checkpoint: Checkpoint,
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
            downstream: Vec::new(),
            latest: at,
        }
    }
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
    },
    /// It will not run.
    Skipped {
        /// Why not.
        why: Skip,
    },
    /// It ran.
    Finished(Box<Finished>),
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
    /// The build was cancelled.
    Cancelled,
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { task } => write!(f, "{task} did not succeed"),
            Self::NothingFailed => f.write_str("nothing failed"),
            Self::Cancelled => f.write_str("the build was cancelled"),
        }
    }
}

/// The run of a task that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finished {
    /// Its ticket.
    pub ticket: TicketId,
    /// The last attempt; 0 if none began.
    pub attempt: Attempt,
    /// What came of it.
    pub result: TaskResult,
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
    },
    /// What time it is: a wait may be over.
    Clock {
        /// Now, by the clock that timers go by.
        at: Timestamp,
    },
}

/// What remains of a build for ever: written once, when it is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// The build as its control ticket's anchor last held it.
    pub build: Build,
    /// How it ended.
    pub outcome: Outcome,
}
