//! The configuration of a job, as its owner writes it.
//!
//! Owns the shape of the file and the meaning of what may be left out. Text becomes a [`JobConfig`]
//! only through [`JobConfig::parse`], which checks everything and names every fault by path and
//! line; a `JobConfig` in hand is therefore valid.

mod check;
mod graph;
mod parse;
mod path;
mod patterns;
mod span;
mod trigger;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::{
    InvalidParameters, MAX_DOWNSTREAM, MAX_TASKS, is_free_variable, resolve_parameters,
};
pub use graph::Graph;
pub use parse::{ConfigProblem, MAX_BYTES};
pub use path::WorkspacePath;
pub use patterns::ref_fits;
pub use span::Span;
pub use trigger::{CatchUp, EventTrigger, OneOrMany, PollTrigger, ScheduleTrigger, Trigger};

use crate::capability::{Capabilities, Kind, Label};
use crate::id::{JobId, TaskName};
use crate::outcome::Failure;
use crate::ticket::Priority;

/// The version of the job file that this program reads and writes.
pub const VERSION: &str = "2013-02-26";

/// Seconds after which a task without a timeout of its own is given up: nothing runs for ever.
pub const DEFAULT_TIMEOUT: u64 = 6 * 60 * 60;

/// A job: what to do, of what, after what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JobConfig {
    /// Address of this schema, for editors; ignored.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Version of the file's form.
    #[serde(rename = "configuration-version", default = "version")]
    pub version: String,
    /// The job's name.
    pub job_id: JobId,
    /// What the job is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Values that a trigger may give; each is an environment variable of every task, and
    /// `${name}` in the settings of a task stands for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Parameter>,
    /// Environment of every task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What to do. Without `needs`, in this order.
    pub tasks: Vec<TaskConfig>,
    /// Jobs to trigger when a build succeeds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstream_jobs: Vec<JobId>,
    /// What starts builds without anybody asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
    /// How many builds may run at once, and what becomes of more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How urgent the tasks are: 1 first, 9 last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Whether the forge that told of a commit is told how its build stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

fn version() -> String {
    VERSION.to_owned()
}

/// A value that a trigger may give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Parameter {
    /// Its value when the trigger gives none; without a default it must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What it is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The only values allowed; empty allows any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// When a task runs, given how the tasks that it needs (directly or not) ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// If none of them failed.
    #[default]
    OnSuccess,
    /// However they ended, unless the build was cancelled.
    Always,
    /// If one of them failed.
    OnFailure,
}

/// One entry of a job's `tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskConfig {
    /// Unique in the job. Left out, it is the task's type, numbered from the second on.
    pub name: TaskName,
    /// The tasks that must have ended before. Left out: the task before this one.
    pub needs: Vec<TaskName>,
    /// When to run.
    #[serde(default)]
    pub when: When,
    /// Whether the build may succeed though this task does not.
    #[serde(default)]
    pub allow_failure: bool,
    /// Environment of this task alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Seconds after which the task is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Locks to hold while it runs, all or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<Lock>,
    /// How urgent it is: 1 first, 9 last. Left out: the job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
}

/// How many builds of a job may run at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub struct Concurrency {
    /// How many.
    #[serde(default = "one")]
    pub limit: u16,
    /// What becomes of a build beyond that.
    #[serde(default)]
    pub when_full: WhenFull,
    /// Builds of different groups do not count together: `${event.ref}`. Left out: one for the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

fn one() -> u16 {
    1
}

/// What becomes of a build for which there is no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It waits for its turn.
    #[default]
    Queue,
    /// It is not made.
    Skip,
    /// The oldest are cancelled to make room.
    CancelOlder,
}

/// A lock that a task holds while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenLock", into = "WrittenLock")]
#[schemars(with = "WrittenLock")]
pub struct Lock {
    /// Its name, the same in all jobs.
    pub name: String,
    /// How many tasks may hold it at once.
    pub slots: u16,
}

/// A lock as it is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum WrittenLock {
    /// The name of a lock that one task holds at a time.
    Name(String),
    /// A lock that several may hold.
    Slots(LockSlots),
}

/// A lock that several may hold.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
struct LockSlots {
    /// Its name.
    name: String,
    /// How many.
    slots: u16,
}

impl From<WrittenLock> for Lock {
    fn from(written: WrittenLock) -> Self {
        match written {
            WrittenLock::Name(name) => Self { name, slots: 1 },
            WrittenLock::Slots(LockSlots { name, slots }) => Self { name, slots },
        }
    }
}

impl From<Lock> for WrittenLock {
    fn from(lock: Lock) -> Self {
        match lock {
            Lock { name, slots: 1 } => Self::Name(name),
            Lock { name, slots } => Self::Slots(LockSlots { name, slots }),
        }
    }
}

/// How a forge is told of builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub struct Status {
    /// What the forge lists it as. Left out: `distci/` and the job's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// What a task does, by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "params", rename_all = "kebab-case")]
pub enum Action {
    /// Bring a revision of a git repository into the workspace.
    GitCheckout(GitCheckout),
    /// Run a script.
    ExecuteShell(ExecuteShell),
    /// Keep files of the workspace.
    PublishArtifacts(PublishArtifacts),
    /// Bring artifacts of another build into the workspace.
    CopyArtifacts(CopyArtifacts),
}

/// Settings of `git-checkout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GitCheckout {
    /// Address or path of the repository, without credentials.
    pub repository: String,
    /// Branch, tag, full ref or commit id. Left out: the repository's default branch.
    #[serde(rename = "ref", default = "head")]
    pub reference: String,
    /// Directory of the workspace to check out into. Left out: the workspace itself.
    #[serde(rename = "checkout-dir", default)]
    pub checkout_dir: WorkspacePath,
    /// How many commits of history to bring. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Whether to bring submodules, recursively.
    #[serde(default)]
    pub submodules: bool,
}

fn head() -> String {
    "HEAD".to_owned()
}

/// Settings of `execute-shell`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ExecuteShell {
    /// The script.
    pub script: String,
    /// Directory of the workspace to run in. Left out: the workspace itself.
    #[serde(default)]
    pub working_directory: WorkspacePath,
    /// The program that runs the script. `sh` and `bash` stop at the first error.
    #[serde(default = "sh")]
    pub shell: String,
    /// Labels that the worker must carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodelabels: Vec<Label>,
    /// Seconds after which the script is stopped; the same as the task's `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

fn sh() -> String {
    "sh".to_owned()
}

/// Settings of `publish-artifacts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PublishArtifacts {
    /// Patterns of files: `*`, `?`, `[…]`, `{a,b}`, and `**` for any directories.
    pub artifacts: Vec<String>,
    /// Whether a pattern may match nothing.
    #[serde(default)]
    pub optional: bool,
}

/// Settings of `copy-artifacts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CopyArtifacts {
    /// The job whose artifacts to copy.
    pub job: JobId,
    /// Patterns of artifacts, as in `publish-artifacts`. Left out: all.
    #[serde(default = "everything")]
    pub artifacts: Vec<String>,
    /// Directory of the workspace to copy into. Left out: the workspace itself.
    #[serde(default)]
    pub target_directory: WorkspacePath,
    /// Number of the build. Left out: the build of that job that triggered this one, or else the
    /// last successful one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
}

fn everything() -> Vec<String> {
    vec!["**".to_owned()]
}

impl JobConfig {
    /// Reads a job file: JSON, with comments allowed.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file; never empty.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigProblem>> {
        parse::parse(text)
    }

    /// The JSON Schema of the file, for editors.
    pub fn json_schema() -> serde_json::Value {
        parse::json_schema()
    }

    /// What needs what.
    pub fn graph(&self) -> Graph {
        Graph::of(&self.tasks)
    }
}

impl TaskConfig {
    /// What a worker must offer to run this task.
    pub fn requires(&self) -> Capabilities {
        let labels = match &self.action {
            Action::ExecuteShell(shell) => shell.nodelabels.as_slice(),
            Action::GitCheckout(_) | Action::PublishArtifacts(_) | Action::CopyArtifacts(_) => &[],
        };
        Capabilities::task(self.action.kind(), labels)
    }

    /// Seconds after which it is given up.
    pub fn timeout_seconds(&self) -> u64 {
        let classic = match &self.action {
            Action::ExecuteShell(shell) => shell.timeout,
            Action::GitCheckout(_) | Action::PublishArtifacts(_) | Action::CopyArtifacts(_) => None,
        };
        self.timeout.or(classic).unwrap_or(DEFAULT_TIMEOUT)
    }
}

impl Action {
    /// The kind of worker that does it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::GitCheckout(_) => Kind::GitCheckout,
            Self::ExecuteShell(_) => Kind::ExecuteShell,
            Self::PublishArtifacts(_) => Kind::PublishArtifacts,
            Self::CopyArtifacts(_) => Kind::CopyArtifacts,
        }
    }

    /// The same with every `${name}` replaced by the parameter's value. Scripts are left alone:
    /// their shell has the parameters as variables, and quotes them.
    ///
    /// # Errors
    /// [`Failure::Configuration`] if a name has no value.
    pub fn resolve(&self, parameters: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let fill = |text: &str| check::substitute(text, parameters);
        let fill_all = |texts: &[String]| {
            texts
                .iter()
                .map(|text| fill(text))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(match self {
            Self::GitCheckout(git) => Self::GitCheckout(GitCheckout {
                repository: fill(&git.repository)?,
                reference: fill(&git.reference)?,
                ..git.clone()
            }),
            Self::ExecuteShell(shell) => Self::ExecuteShell(shell.clone()),
            Self::PublishArtifacts(publish) => Self::PublishArtifacts(PublishArtifacts {
                artifacts: fill_all(&publish.artifacts)?,
                ..publish.clone()
            }),
            Self::CopyArtifacts(copy) => Self::CopyArtifacts(CopyArtifacts {
                artifacts: fill_all(&copy.artifacts)?,
                build: copy.build.as_deref().map(fill).transpose()?,
                ..copy.clone()
            }),
        })
    }
}

#[cfg(test)]
mod tests;
