//! The configuration of a job, as its owner writes it.
//!
//! Owns the shape of the file and the meaning of what may be left out. Text becomes a [`JobConfig`]
//! only through [`JobConfig::parse`], which checks everything and names every fault by path and
//! line; a `JobConfig` in hand is therefore valid.

mod check;
mod files;
mod flat;
mod graph;
mod job_file;
mod merge;
mod parse;
mod path;
mod patterns;
mod pipeline;
mod publish;
mod scope;
mod span;
mod trigger;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use check::{InvalidParameters, MAX_DOWNSTREAM, is_free_variable, resolve_parameters};
pub use files::{Files, MAX_FRAGMENTS};
pub use flat::MAX_TASKS;
pub use graph::Graph;
pub use job_file::{JOB_FILE_ARTIFACT, JOB_FILE_TASK, JobFile};
pub(crate) use parse::document;
pub use parse::{ConfigProblem, MAX_BYTES};
pub use path::WorkspacePath;
pub use patterns::ref_fits;
pub(crate) use pipeline::later;
pub use pipeline::{
    After, Conditions, DownstreamJob, Matrix, Need, Retry, RetryOn, Scalar, Start, When,
};
pub use publish::{Consequence, PublishArtifacts, ReportFormat};
pub use scope::Scope;
pub use span::Span;
pub use trigger::{
    CatchUp, EventTrigger, OneOrMany, PollTrigger, ScheduleTrigger, Trigger, Unwanted,
};

use crate::capability::{Capabilities, Kind, Label};
use crate::event::repository_name;
use crate::id::{JobId, TaskName};
use crate::isolation::Isolation;
use crate::outcome::Failure;
use crate::ticket::Priority;

/// The version of the job file that this program reads and writes.
pub const VERSION: &str = "2013-02-26";

/// Seconds after which a task without a timeout of its own is given up: nothing runs for ever.
pub const DEFAULT_TIMEOUT: u64 = 6 * 60 * 60;
/// Most seconds that a task may ask for, and what an `approve` task has without asking.
pub const LONGEST_TIMEOUT: u64 = 7 * 24 * 60 * 60;

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
    /// What to do. Without `needs`, in this order. Of a job that reads a file in a repository, what
    /// that says; none until it is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskConfig>,
    /// What to do when all of `tasks` have ended, however they did. Without `needs`, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post: Vec<TaskConfig>,
    /// Jobs to trigger when a build has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstream_jobs: Vec<DownstreamJob>,
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
    /// In what world scripts run, where their tasks do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// The file of a repository that says what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_file: Option<JobFile>,
}

fn version() -> String {
    VERSION.to_owned()
}

/// A value that a trigger may give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Parameter {
    /// What it may be.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub kind: ParameterKind,
    /// Its value when the trigger gives none; without a default it must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Scalar>,
    /// What it is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The only values allowed; empty allows any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Scalar>,
}

/// What the value of a parameter may be. To a task it is a text in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterKind {
    /// Anything.
    #[default]
    String,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One entry of a job's `tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskConfig {
    /// Unique in the job. Left out, it is the task's type, numbered from the second on.
    pub name: TaskName,
    /// The tasks that must have ended before. Left out: the task before this one.
    pub needs: Vec<Need>,
    /// When to run.
    #[serde(default)]
    pub when: When,
    /// The cells in which it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Matrix>,
    /// How often to run it again if it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
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
    /// In what world a script runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Folders that later builds of the job find again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cache: Vec<Cache>,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
}

/// A folder that later builds of the job find again, though perhaps not as they left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub struct Cache {
    /// Unique in the task; tasks of a job that name the same share it.
    pub name: String,
    /// The folder: in the workspace, below `~/`, or absolute; the last two only in an image.
    pub path: String,
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
    /// Wait until somebody agrees.
    Approve(Approve),
    /// Read the file of a repository that says what to do. No file has such a task: the job has it.
    #[schemars(skip)]
    JobFile(JobFile),
}

/// Settings of `git-checkout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GitCheckout {
    /// Address or path of the repository, without credentials.
    pub repository: String,
    /// Branch, tag, full ref or commit id. Left out: the commit of the event that started the build,
    /// if it is of this repository, or else the default branch.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
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
    pub nodelabels: Vec<String>,
    /// Seconds after which the script is stopped; the same as the task's `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

fn sh() -> String {
    "sh".to_owned()
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

/// Settings of `approve`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Approve {
    /// What is asked, for people.
    #[serde(default)]
    pub message: String,
}

impl JobConfig {
    /// Reads a job file: JSON, with comments allowed.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file; never empty.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigProblem>> {
        Files::of("", text).job().map(|(job, _)| job)
    }

    /// The JSON Schema of the file, for editors.
    pub fn json_schema() -> serde_json::Value {
        parse::json_schema()
    }

    /// The same job with each cell a task of its own, with `post` tasks behind all others, and with the
    /// one that reads the job's file before them: the tasks of a build, in the order in which its
    /// checkpoint has them.
    #[must_use]
    pub fn flat(&self) -> Self {
        let (tasks, _) = flat::flatten(self);
        Self {
            tasks: tasks.into_iter().map(|flat| flat.task).collect(),
            post: Vec::new(),
            ..self.clone()
        }
    }

    /// What needs what, in a flat job.
    pub fn graph(&self) -> Graph {
        Graph::of(&self.tasks)
    }
}

impl TaskConfig {
    /// What a worker must offer to run this task of a flat job.
    pub fn requires(&self) -> Capabilities {
        let labels = match &self.action {
            Action::ExecuteShell(shell) => shell.nodelabels.as_slice(),
            Action::GitCheckout(_)
            | Action::PublishArtifacts(_)
            | Action::CopyArtifacts(_)
            | Action::Approve(_)
            | Action::JobFile(_) => &[],
        };
        // That they are labels is checked when the file is read.
        let labels: Vec<Label> = labels.iter().filter_map(|text| text.parse().ok()).collect();
        let isolation = self.isolation.iter().flat_map(Isolation::requires);
        let task = Capabilities::task(self.action.kind(), &labels);
        task.iter().cloned().chain(isolation).collect()
    }

    /// Seconds after which it is given up.
    pub fn timeout_seconds(&self) -> u64 {
        let (classic, default) = match &self.action {
            Action::ExecuteShell(shell) => (shell.timeout, DEFAULT_TIMEOUT),
            Action::GitCheckout(_) | Action::PublishArtifacts(_) | Action::CopyArtifacts(_) => {
                (None, DEFAULT_TIMEOUT)
            }
            Action::Approve(_) => (None, LONGEST_TIMEOUT),
            Action::JobFile(_) => (None, DEFAULT_TIMEOUT),
        };
        self.timeout.or(classic).unwrap_or(default)
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
            Self::Approve(_) => Kind::Approve,
            Self::JobFile(_) => Kind::JobFile,
        }
    }

    /// The same with every `${…}` replaced by its value. Scripts are left alone: their shell has the
    /// parameters as variables, and quotes them.
    ///
    /// # Errors
    /// [`Failure::Configuration`] if one has no value.
    pub fn resolve(&self, scope: &Scope<'_>) -> Result<Self, Failure> {
        let fill_all = |texts: &[String]| {
            texts
                .iter()
                .map(|text| scope.fill(text))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(match self {
            Self::GitCheckout(git) => Self::GitCheckout(git.resolve(scope)?),
            Self::ExecuteShell(shell) => Self::ExecuteShell(shell.clone()),
            Self::PublishArtifacts(publish) => {
                Self::PublishArtifacts(publish.clone().with_patterns(&fill_all)?)
            }
            Self::CopyArtifacts(copy) => Self::CopyArtifacts(CopyArtifacts {
                artifacts: fill_all(&copy.artifacts)?,
                build: copy
                    .build
                    .as_deref()
                    .map(|build| scope.fill(build))
                    .transpose()?,
                ..copy.clone()
            }),
            Self::Approve(approve) => Self::Approve(Approve {
                message: scope.fill(&approve.message)?,
            }),
            Self::JobFile(file) => Self::JobFile(file.resolve(scope)?),
        })
    }
}

impl GitCheckout {
    /// What is checked out when neither file nor event says it.
    pub const DEFAULT_REF: &str = "HEAD";

    fn resolve(&self, scope: &Scope<'_>) -> Result<Self, Failure> {
        let repository = scope.fill(&self.repository)?;
        let reference = reference_of(&repository, self.reference.as_deref(), &["sha"], scope)?;
        Ok(Self {
            repository,
            reference: Some(reference),
            ..self.clone()
        })
    }
}

/// The ref that is written, or the first of these facts of the event that started the build, if that
/// is of this repository, or the default branch.
fn reference_of(
    repository: &str,
    written: Option<&str>,
    facts: &[&str],
    scope: &Scope<'_>,
) -> Result<String, Failure> {
    if let Some(reference) = written {
        return scope.fill(reference);
    }
    let name = repository_name(repository);
    let event = scope.event;
    let event = event.filter(|event| event.fact("repository") == Some(name.as_str()));
    let told = event.and_then(|event| facts.iter().find_map(|fact| event.fact(fact)));
    Ok(told.unwrap_or(GitCheckout::DEFAULT_REF).to_owned())
}

#[cfg(test)]
mod tests;
