//! How a job's tasks hang together: what a task needs, when it runs, in how many cells, how often.
//!
//! Owns the forms in which these are written. What they mean for a build is `decide`'s; how a matrix
//! becomes tasks is [`super::flat`]'s.

use std::collections::BTreeMap;
use std::fmt;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;
use super::patterns::{any_path_fits, ref_fits, value_fits};
use super::trigger::OneOrMany;
use crate::Timestamp;
use crate::build::Finished;
use crate::event::{Event, EventKind};
use crate::id::{JobId, TaskName};
use crate::outcome::{Failure, Outcome, Verdict};

/// A text, which may also be written as an integer or as `true` and `false`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(from = "WrittenScalar", into = "String")]
#[schemars(with = "WrittenScalar")]
pub struct Scalar(pub String);

#[derive(Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a text, an integer, or true or false (write 1.10 as \"1.10\")"
)]
enum WrittenScalar {
    Text(String),
    Integer(i64),
    Truth(bool),
}

impl From<WrittenScalar> for Scalar {
    fn from(written: WrittenScalar) -> Self {
        Self(match written {
            WrittenScalar::Text(text) => text,
            WrittenScalar::Integer(number) => number.to_string(),
            WrittenScalar::Truth(truth) => truth.to_string(),
        })
    }
}

impl From<Scalar> for String {
    fn from(scalar: Scalar) -> Self {
        scalar.0
    }
}

/// A task that must have ended before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenNeed", into = "WrittenNeed")]
#[schemars(with = "WrittenNeed")]
pub struct Need {
    /// The task. Of a task with a matrix, every cell, or those that `cell` names.
    pub task: TaskName,
    /// Values that the cells have on some axes; `${axis}` is the value of one's own cell.
    pub cell: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected the name of a task, or {\"task\": …, \"cell\": {…}}"
)]
enum WrittenNeed {
    /// All cells of a task.
    Task(TaskName),
    /// Some cells of a task.
    Cells(NeededCells),
}

/// Some cells of a task.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
struct NeededCells {
    /// The task.
    task: TaskName,
    /// Values that the cells have on some axes; `${axis}` is the value of one's own cell.
    cell: BTreeMap<String, Scalar>,
}

impl Need {
    /// All of a task.
    pub fn all(task: TaskName) -> Self {
        let cell = BTreeMap::new();
        Self { task, cell }
    }
}

impl From<WrittenNeed> for Need {
    fn from(written: WrittenNeed) -> Self {
        match written {
            WrittenNeed::Task(task) => Self::all(task),
            WrittenNeed::Cells(NeededCells { task, cell }) => {
                let cell = cell.into_iter().map(|(axis, value)| (axis, value.0));
                let cell = cell.collect();
                Self { task, cell }
            }
        }
    }
}

impl From<Need> for WrittenNeed {
    fn from(need: Need) -> Self {
        let Need { task, cell } = need;
        if cell.is_empty() {
            return Self::Task(task);
        }
        let cell = cell.into_iter().map(|(axis, value)| (axis, Scalar(value)));
        let cell = cell.collect();
        Self::Cells(NeededCells { task, cell })
    }
}

/// How the tasks before have to have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// None of them failed.
    #[default]
    OnSuccess,
    /// However they ended, unless the build was cancelled.
    Always,
    /// One of them failed.
    OnFailure,
}

/// When a task runs: everything that is written must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenWhen", into = "WrittenWhen")]
#[schemars(with = "WrittenWhen")]
pub struct When {
    /// How the tasks that it needs, directly or not, have to have ended.
    pub outcome: After,
    /// What of the build has to hold.
    pub conditions: Conditions,
}

impl From<After> for When {
    fn from(outcome: After) -> Self {
        let conditions = Conditions::default();
        Self {
            outcome,
            conditions,
        }
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected `on_success`, `always`, `on_failure`, or conditions: {\"refs\": […], …}"
)]
enum WrittenWhen {
    /// How the tasks before have to have ended.
    Outcome(After),
    /// The same, and more.
    Conditions(WrittenConditions),
}

/// Conditions of a task; everything that is written must hold.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
struct WrittenConditions {
    /// How the tasks before have to have ended.
    #[serde(default)]
    outcome: After,
    /// What started the build: one of these events, or `manual` or `upstream`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<Start>,
    /// Patterns of the event's ref, as in triggers. Without an event none fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refs: Vec<String>,
    /// Patterns of changed files, as in triggers. Where it is not known what changed, any fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    /// Patterns of the values of parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, OneOrMany<String>>,
}

impl From<WrittenWhen> for When {
    fn from(written: WrittenWhen) -> Self {
        match written {
            WrittenWhen::Outcome(outcome) => outcome.into(),
            WrittenWhen::Conditions(WrittenConditions {
                outcome,
                events,
                refs,
                paths,
                parameters,
            }) => Self {
                outcome,
                conditions: Conditions {
                    events,
                    refs,
                    paths,
                    parameters,
                },
            },
        }
    }
}

impl From<When> for WrittenWhen {
    fn from(when: When) -> Self {
        let When {
            outcome,
            conditions,
        } = when;
        if conditions == Conditions::default() {
            return Self::Outcome(outcome);
        }
        let Conditions {
            events,
            refs,
            paths,
            parameters,
        } = conditions;
        Self::Conditions(WrittenConditions {
            outcome,
            events,
            refs,
            paths,
            parameters,
        })
    }
}

/// What of the build has to hold for a task to run; what is empty always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// What started the build: one of these.
    pub events: Vec<Start>,
    /// Patterns of the event's ref.
    pub refs: Vec<String>,
    /// Patterns of changed files.
    pub paths: Vec<String>,
    /// Patterns of the values of parameters.
    pub parameters: BTreeMap<String, OneOrMany<String>>,
}

impl Conditions {
    /// The first condition that does not hold, in words.
    pub fn broken_by(
        &self,
        start: Start,
        event: Option<&Event>,
        parameters: &BTreeMap<String, String>,
    ) -> Option<String> {
        if !self.events.is_empty() && !self.events.contains(&start) {
            return Some(format!("the build was started by {start}"));
        }
        let full = event.and_then(|event| event.fact("ref"));
        if !self.refs.is_empty() && !full.is_some_and(|full| ref_fits(&self.refs, full)) {
            return Some(match full {
                Some(full) => format!("{full} is not a ref that it is for"),
                None => "the build has no ref".to_owned(),
            });
        }
        let files = event.and_then(|event| event.paths.as_deref());
        let none_fits = |files: &[String]| !any_path_fits(&self.paths, files);
        if !self.paths.is_empty() && files.is_some_and(none_fits) {
            return Some("no file that it is for has changed".to_owned());
        }
        self.parameters.iter().find_map(|(name, patterns)| {
            let value = parameters.get(name).map_or("", String::as_str);
            (!value_fits(patterns.as_slice(), value)).then(|| format!("{name} is {value:?}"))
        })
    }
}

/// What starts a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Somebody asked for it.
    Manual,
    /// Another build.
    Upstream,
    /// An event.
    #[serde(untagged)]
    Event(EventKind),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => f.write_str("manual"),
            Self::Upstream => f.write_str("upstream"),
            Self::Event(kind) => kind.fmt(f),
        }
    }
}

/// How often a task that did not succeed is run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenRetry", into = "WrittenRetry")]
#[schemars(with = "WrittenRetry")]
pub struct Retry {
    /// Most runs after the first.
    pub max: u8,
    /// After which ends.
    pub on: Vec<RetryOn>,
    /// How long to wait before the second run; twice as long before each further one.
    pub backoff: Span,
}

/// After which end a task is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The user's side said no, other than by taking too long.
    Failure,
    /// It took too long.
    Timeout,
    /// Our side could not, even after the attempts that a ticket has by itself.
    Fault,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a number of runs, or {\"max\": …, \"on\": […], \"backoff\": …}"
)]
enum WrittenRetry {
    /// So many runs after the first, at once, after failures and timeouts.
    Max(u8),
    /// The same in detail.
    Policy(RetryPolicy),
}

/// How often a task that did not succeed is run again.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
struct RetryPolicy {
    /// Most runs after the first.
    max: u8,
    /// After which ends.
    #[serde(default = "failures")]
    on: Vec<RetryOn>,
    /// How long to wait before the second run; twice as long before each further one.
    #[serde(default)]
    backoff: Span,
}

fn failures() -> Vec<RetryOn> {
    vec![RetryOn::Failure, RetryOn::Timeout]
}

impl From<WrittenRetry> for Retry {
    fn from(written: WrittenRetry) -> Self {
        match written {
            WrittenRetry::Max(max) => Self {
                max,
                on: failures(),
                backoff: Span::default(),
            },
            WrittenRetry::Policy(RetryPolicy { max, on, backoff }) => Self { max, on, backoff },
        }
    }
}

impl From<Retry> for WrittenRetry {
    fn from(retry: Retry) -> Self {
        let Retry { max, on, backoff } = retry;
        if on == failures() && backoff == Span::default() {
            return Self::Max(max);
        }
        Self::Policy(RetryPolicy { max, on, backoff })
    }
}

impl Retry {
    /// Longest wait between two runs, in seconds.
    const LONGEST: u64 = 60 * 60;

    /// Whether run number `run` (from 1), ended like this, is followed by another.
    pub fn asks_for_more(&self, run: u32, outcome: &Outcome) -> bool {
        let timeout = matches!(
            outcome,
            Outcome::Failure {
                reason: Failure::TimedOut { .. },
            }
        );
        let end = match outcome.verdict() {
            Verdict::Success => return false,
            Verdict::Failure if timeout => RetryOn::Timeout,
            Verdict::Failure => RetryOn::Failure,
            Verdict::Fault => RetryOn::Fault,
        };
        run <= u32::from(self.max) && !outcome.is_cancelled() && self.on.contains(&end)
    }

    /// Seconds to wait after run number `run`.
    pub fn pause_after(&self, run: u32) -> u64 {
        let doublings = run.saturating_sub(1).min(32);
        let pause = self.backoff.seconds().saturating_mul(1 << doublings);
        pause.min(Self::LONGEST)
    }

    /// When the run after this one may begin, if there is to be one.
    pub fn next_after(&self, last: &Finished) -> Option<Timestamp> {
        let again = self.asks_for_more(last.run, &last.result.outcome);
        again.then(|| later(last.finished, self.pause_after(last.run)))
    }
}

/// So many seconds later, or the end of time.
pub(crate) fn later(at: Timestamp, seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    at.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

/// A task in several cells: one for each combination of the axes' values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Matrix {
    /// Values that all axes they name have already are given more; others are cells of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<BTreeMap<String, Scalar>>,
    /// Combinations that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<BTreeMap<String, Scalar>>,
    /// The values of each axis.
    #[serde(flatten)]
    pub axes: BTreeMap<String, Vec<Scalar>>,
}

/// A job to trigger when a build has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenDownstream", into = "WrittenDownstream")]
#[schemars(with = "WrittenDownstream")]
pub struct DownstreamJob {
    /// Which.
    pub job: JobId,
    /// After which ends of the build.
    pub on: Vec<Verdict>,
    /// Values for its parameters. Parameters of the same name are handed on without being named.
    pub parameters: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected the name of a job, or {\"job\": …, \"on\": […], \"parameters\": {…}}"
)]
enum WrittenDownstream {
    /// A job to trigger after success.
    Job(JobId),
    /// The same in detail.
    Detailed(DetailedDownstream),
}

/// A job to trigger when a build has ended.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
struct DetailedDownstream {
    /// Which.
    job: JobId,
    /// After which ends of the build. Left out: success.
    #[serde(default = "success")]
    on: Vec<Verdict>,
    /// Values for its parameters; `${…}` may be this build's parameters and the facts of its event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, String>,
}

fn success() -> Vec<Verdict> {
    vec![Verdict::Success]
}

impl From<WrittenDownstream> for DownstreamJob {
    fn from(written: WrittenDownstream) -> Self {
        match written {
            WrittenDownstream::Job(job) => Self {
                job,
                on: success(),
                parameters: BTreeMap::new(),
            },
            WrittenDownstream::Detailed(DetailedDownstream {
                job,
                on,
                parameters,
            }) => Self {
                job,
                on,
                parameters,
            },
        }
    }
}

impl From<DownstreamJob> for WrittenDownstream {
    fn from(downstream: DownstreamJob) -> Self {
        let DownstreamJob {
            job,
            on,
            parameters,
        } = downstream;
        if on == success() && parameters.is_empty() {
            return Self::Job(job);
        }
        Self::Detailed(DetailedDownstream {
            job,
            on,
            parameters,
        })
    }
}
