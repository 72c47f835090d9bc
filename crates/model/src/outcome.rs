//! How a task or a build ended, and whose doing it was.
//!
//! Owns the verdicts and the closed lists of their reasons. Failure is the user's code, fault is
//! ours; only faults retry by themselves.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Attempt, BuildNumber, TicketId};
use crate::isolation::{Size, Usage};
use crate::test_report::TestCounts;

/// The end of a task or a build in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything did what it should.
    Success,
    /// The user's code, repository or configuration said no.
    Failure,
    /// DistCI or the machines below it could not do their part.
    Fault,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Fault => "fault",
        })
    }
}

/// A verdict with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything did what it should.
    Success,
    /// The user's side said no.
    Failure {
        /// What exactly.
        reason: Failure,
    },
    /// Our side could not.
    Fault {
        /// What exactly.
        reason: Fault,
    },
}

impl Outcome {
    /// The verdict without its reason.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Success => Verdict::Success,
            Self::Failure { .. } => Verdict::Failure,
            Self::Fault { .. } => Verdict::Fault,
        }
    }

    /// Whether this is success.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// Whether somebody asked for this end.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Failure {
                reason: Failure::Cancelled
            }
        )
    }

    /// Whether another attempt may end differently without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Success | Self::Failure { .. } => false,
            Self::Fault { reason } => reason.is_retryable(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::Failure {
                reason: Failure::Cancelled,
            } => f.write_str("cancelled"),
            Self::Failure { reason } => write!(f, "failure: {reason}"),
            Self::Fault { reason } => write!(f, "fault: {reason}"),
        }
    }
}

/// Why a task failed: the closed list of what the user can mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Failure {
    /// The script ended with another exit code than 0.
    Exit {
        /// The exit code, 1–255.
        exit: u8,
    },
    /// The script was ended by a signal that DistCI did not send.
    Signal {
        /// The signal's number.
        signal: u8,
    },
    /// The task took longer than its timeout.
    TimedOut {
        /// The timeout.
        seconds: u64,
    },
    /// The script could not be started: no such shell or working directory.
    NotStarted {
        /// What was missing.
        detail: String,
    },
    /// The repository could not be read, or has no such ref.
    Checkout {
        /// What git said.
        detail: String,
    },
    /// A pattern of artifacts matched no file.
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// The build to copy artifacts from does not exist.
    NoSuchBuild {
        /// What was looked for.
        detail: String,
    },
    /// A path leaves the workspace.
    EscapesWorkspace {
        /// The path.
        path: String,
    },
    /// Two parallel tasks changed the same file, and a later task needs both.
    WorkspaceConflict {
        /// The file.
        path: String,
    },
    /// Something exceeds a documented limit.
    LimitExceeded {
        /// Which limit.
        detail: String,
    },
    /// The task wanted more memory than it may have, and something of it was killed for that.
    OutOfMemory {
        /// What it may have, in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// The task wanted more processes than it may have, and failed.
    TooManyProcesses {
        /// How many it may have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// The task filled its disk, and failed.
    DiskFull {
        /// The size of the disk, in bytes.
        limit: u64,
    },
    /// A parameter or expression of the configuration has no value at run time.
    Configuration {
        /// What was wrong.
        detail: String,
    },
    /// Somebody cancelled the build, or the task.
    Cancelled,
    /// Somebody was asked to agree and did not.
    Rejected {
        /// What was said.
        detail: String,
    },
    /// Tests failed, as their reports say.
    Tests {
        /// How many failed, or could not be run to their end.
        failed: u32,
        /// How many there are.
        of: u32,
        /// The first of those that failed, by their names.
        first: Vec<String>,
    },
    /// A report of tests cannot be read.
    BrokenReport {
        /// Which, where, and why not.
        detail: String,
    },
    /// At least one task of the build failed.
    Tasks {
        /// Their names.
        failed: Vec<String>,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit { exit } => write!(f, "exit code {exit}"),
            Self::Signal { signal } => write!(f, "ended by signal {signal}"),
            Self::TimedOut { seconds } => write!(f, "timed out after {seconds} s"),
            Self::NotStarted { detail } => write!(f, "could not start: {detail}"),
            Self::Checkout { detail } => write!(f, "checkout: {detail}"),
            Self::NoMatch { pattern } => write!(f, "no file matches {pattern:?}"),
            Self::NoSuchBuild { detail } | Self::LimitExceeded { detail } => f.write_str(detail),
            Self::EscapesWorkspace { path } => write!(f, "{path:?} leaves the workspace"),
            Self::WorkspaceConflict { path } => {
                write!(f, "parallel tasks both changed {path:?}")
            }
            Self::OutOfMemory { limit } => match limit.and_then(Size::from_bytes) {
                Some(limit) => write!(f, "out of memory: more than {limit} was wanted"),
                None => f.write_str("out of memory"),
            },
            Self::TooManyProcesses { limit: Some(limit) } => {
                write!(f, "too many processes: more than {limit} were wanted")
            }
            Self::TooManyProcesses { limit: None } => f.write_str("too many processes"),
            Self::DiskFull { limit } => match Size::from_bytes(*limit) {
                Some(limit) => write!(f, "disk full: all of {limit} is used"),
                None => f.write_str("disk full"),
            },
            Self::Configuration { detail } => write!(f, "configuration: {detail}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Rejected { detail } if detail.is_empty() => f.write_str("rejected"),
            Self::Rejected { detail } => write!(f, "rejected: {detail}"),
            Self::Tests { failed, of, first } => {
                write!(f, "{failed} of {of} tests failed: {}", first.join(", "))?;
                let more = usize::try_from(*failed).is_ok_and(|failed| failed > first.len());
                f.write_str(if more { ", …" } else { "" })
            }
            Self::BrokenReport { detail } => write!(f, "broken test report: {detail}"),
            Self::Tasks { failed } => write!(f, "failed: {}", failed.join(", ")),
        }
    }
}

/// Why we could not do our part: the closed list of what an operator can mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Fault {
    /// The workers that ran it vanished, each time.
    Lost {
        /// How many attempts were lost.
        attempts: u32,
    },
    /// A disk was full.
    DiskFull {
        /// Where.
        detail: String,
    },
    /// The store could not be reached for too long.
    StoreDown {
        /// What was tried.
        detail: String,
    },
    /// The worker was told to stop.
    WorkerStopped,
    /// The worker could not set up or read what it needs.
    Worker {
        /// What it said.
        detail: String,
    },
    /// The worker could not make the world that the task asks for.
    Isolation {
        /// Why not.
        detail: String,
    },
    /// At least one task of the build ended in a fault.
    Tasks {
        /// Their names.
        faulted: Vec<String>,
    },
}

impl Fault {
    /// Whether another attempt may succeed where this one could not.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::DiskFull { .. }
            | Self::StoreDown { .. }
            | Self::WorkerStopped
            | Self::Worker { .. }
            | Self::Isolation { .. } => true,
            // The budget of attempts is already spent.
            Self::Lost { .. } | Self::Tasks { .. } => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { attempts } => write!(f, "worker lost {attempts} times"),
            Self::DiskFull { detail } => write!(f, "disk full: {detail}"),
            Self::StoreDown { detail } => write!(f, "store unreachable: {detail}"),
            Self::WorkerStopped => f.write_str("the worker was stopped"),
            Self::Worker { detail } => write!(f, "worker: {detail}"),
            Self::Isolation { detail } => write!(f, "isolation: {detail}"),
            Self::Tasks { faulted } => write!(f, "faulted: {}", faulted.join(", ")),
        }
    }
}

/// Where a task's change of the workspace is kept: one layer for each attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LayerRef {
    /// The ticket whose attempt stored the layer.
    pub ticket: TicketId,
    /// The attempt.
    pub attempt: Attempt,
    /// The earlier build that it is of; none for the build itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildNumber>,
    /// Stored size in bytes.
    pub bytes: u64,
}

/// What a worker reports of one finished attempt; small, for it lives in the coordination store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskResult {
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The change of the workspace, if there was any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerRef>,
    /// Environment for the tasks that need this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exports: BTreeMap<String, String>,
    /// Named values shown with the task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// How many artifacts were published.
    #[serde(default)]
    pub artifacts: u32,
    /// Their size in bytes.
    #[serde(default)]
    pub artifact_bytes: u64,
    /// Length of the console in bytes.
    #[serde(default)]
    pub console_bytes: u64,
    /// What it took of its machine, if a script ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// How many tests ended how, if it has stored a report of tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestCounts>,
}

impl TaskResult {
    /// Most bytes that exports and outputs may have together.
    pub const MAX_VALUES: usize = 8 * 1024;

    /// A result without anything to show but its outcome.
    pub fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            layer: None,
            exports: BTreeMap::new(),
            outputs: BTreeMap::new(),
            artifacts: 0,
            artifact_bytes: 0,
            console_bytes: 0,
            usage: None,
            tests: None,
        }
    }

    /// Bytes of all exports and outputs, names included.
    pub fn value_bytes(&self) -> usize {
        let both = self.exports.iter().chain(&self.outputs);
        both.map(|(name, value)| name.len() + value.len()).sum()
    }
}
