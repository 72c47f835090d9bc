//! From text to a checked configuration.
//!
//! Owns the reading of job files: JSON with comments, positions of everything, and the collection
//! of all problems instead of the first. What the values mean together is `check`'s.

mod document;

use std::collections::BTreeMap;
use std::fmt;

use jsonc_parser::ast::{ObjectProp, Value as Ast};
use jsonc_parser::common::Ranged;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

pub(super) use document::parse_text;

use super::check;
use super::files::{Files, MAX_FRAGMENTS, Source};
use super::merge::Origins;
use super::{
    Action, Approve, Cache, Concurrency, CopyArtifacts, DownstreamJob, EventTrigger, ExecuteShell,
    GitCheckout, JobConfig, JobFile, Lock, Matrix, Need, Parameter, PollTrigger, PublishArtifacts,
    Retry, ScheduleTrigger, Status, Trigger, When,
};
use crate::capability::Kind;
use crate::id::{JobId, TaskName};
use crate::isolation::Isolation;
use crate::ticket::Priority;

/// Most bytes of a job file.
pub const MAX_BYTES: usize = 512 * 1024;

const JOB_KEYS: &[&str] = &[
    "$schema",
    "configuration-version",
    "job_id",
    "description",
    "parameters",
    "env",
    "tasks",
    "post",
    "downstream_jobs",
    "triggers",
    "concurrency",
    "priority",
    "status",
    "isolation",
    "job_file",
    "include",
];
/// Keys that only the job file itself may have, not what it includes.
const ROOT_KEYS: &[&str] = &["configuration-version", "job_id"];
/// Keys that a file in a repository may have; all others are its job's.
const IN_REPOSITORY_KEYS: &[&str] = &[
    "$schema",
    "configuration-version",
    "job_id",
    "description",
    "env",
    "tasks",
    "post",
    "downstream_jobs",
    "priority",
    "isolation",
    "include",
];
const JOB_FILE_KEYS: &[&str] = &["repository", "ref", "path", "labels", "locks", "downstream"];
const PARAMETER_KEYS: &[&str] = &["type", "default", "description", "choices"];
const TASK_KEYS: &[&str] = &[
    "type",
    "params",
    "name",
    "needs",
    "when",
    "matrix",
    "retry",
    "allow_failure",
    "env",
    "timeout",
    "locks",
    "priority",
    "isolation",
    "cache",
];
/// Keys of an isolation, the job's or a task's.
const ISOLATION_KEYS: &[&str] = &[
    "image",
    "driver",
    "memory",
    "cpus",
    "processes",
    "disk",
    "network",
];
/// Keys of a task whose values may be objects, and the keys of these.
const TASK_OBJECTS: &[(&str, &[&str])] = &[
    (
        "when",
        &["outcome", "events", "refs", "paths", "parameters"],
    ),
    ("retry", &["max", "on", "backoff"]),
    ("isolation", ISOLATION_KEYS),
];
/// A trigger is of the kind whose key comes first here.
const EVENT_KEYS: &[&str] = &[
    "on",
    "repository",
    "refs",
    "paths",
    "labels",
    "actions",
    "forks",
    "token_sha256",
    "parameters",
];
const SCHEDULE_KEYS: &[&str] = &["cron", "timezone", "catch_up", "parameters"];
const POLL_KEYS: &[&str] = &["poll", "repository", "refs", "parameters"];

fn param_keys(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::GitCheckout => &["repository", "ref", "checkout-dir", "depth", "submodules"],
        Kind::ExecuteShell => &[
            "script",
            "working_directory",
            "shell",
            "nodelabels",
            "timeout",
        ],
        Kind::PublishArtifacts => &[
            "artifacts",
            "optional",
            "junit",
            "tap",
            "libtest",
            "failed_tests",
            "broken_reports",
        ],
        Kind::CopyArtifacts => &["job", "artifacts", "target_directory", "build"],
        Kind::Approve => &["message"],
        Kind::BuildControl | Kind::CommitStatus | Kind::JobFile => &[],
    }
}

/// One thing that is wrong with a job file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigProblem {
    /// The file that was included and has it; none for the document itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in the document: `tasks[1].needs[0]`; empty for the document itself.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// A task as it is written, before defaults that depend on its neighbours.
#[derive(Debug)]
pub(super) struct WrittenTask {
    pub(super) head: TaskHead,
    pub(super) action: Action,
}

#[derive(Debug, Deserialize)]
pub(super) struct TaskHead {
    pub(super) name: Option<TaskName>,
    pub(super) needs: Option<Vec<Need>>,
    pub(super) when: Option<When>,
    pub(super) matrix: Option<Matrix>,
    pub(super) retry: Option<Retry>,
    #[serde(default)]
    pub(super) allow_failure: bool,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    pub(super) timeout: Option<u64>,
    #[serde(default)]
    pub(super) locks: Vec<Lock>,
    pub(super) priority: Option<Priority>,
    pub(super) isolation: Option<Isolation>,
    #[serde(default)]
    pub(super) cache: Vec<Cache>,
}

/// A job as it is written. Parts that could not be read are missing, and a problem says why.
#[derive(Debug)]
pub(super) struct WrittenJob {
    pub(super) head: JobHead,
    pub(super) tasks: Vec<Option<WrittenTask>>,
    pub(super) post: Vec<Option<WrittenTask>>,
    pub(super) triggers: Vec<Trigger>,
}

#[derive(Debug, Deserialize)]
pub(super) struct JobHead {
    #[serde(rename = "$schema")]
    pub(super) schema: Option<String>,
    #[serde(rename = "configuration-version", default = "super::version")]
    pub(super) version: String,
    pub(super) job_id: JobId,
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Parameter>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) downstream_jobs: Vec<DownstreamJob>,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) priority: Option<Priority>,
    pub(super) status: Option<Status>,
    pub(super) isolation: Option<Isolation>,
    pub(super) job_file: Option<JobFile>,
}

impl JobHead {
    /// The stored job's head with what its file in a repository says.
    fn over(self, stored: &JobConfig) -> Self {
        let mut env = stored.env.clone();
        env.extend(self.env);
        let mut downstream_jobs = self.downstream_jobs;
        downstream_jobs.extend(stored.downstream_jobs.clone());
        Self {
            schema: None,
            version: self.version,
            job_id: stored.job_id.clone(),
            description: self.description.or_else(|| stored.description.clone()),
            parameters: stored.parameters.clone(),
            env,
            downstream_jobs,
            concurrency: stored.concurrency.clone(),
            priority: self.priority.or(stored.priority),
            status: stored.status.clone(),
            isolation: match (self.isolation, &stored.isolation) {
                (Some(own), Some(stored)) => Some(stored.clone().or(&own)),
                (own, stored) => stored.clone().or(own),
            },
            job_file: stored.job_file.clone(),
        }
    }
}

/// Reads another document in the style of a job file. `keys` are the objects in it, by path, and the
/// keys that these may have; what the values mean together is `check`'s, which tells of each problem
/// by path.
pub(crate) fn document<T: DeserializeOwned>(
    text: &str,
    keys: &[(&str, &[&str])],
    check: impl FnOnce(&T) -> Vec<(String, String)>,
) -> Result<T, Vec<ConfigProblem>> {
    let files = Files::of("", text);
    let mut reader = Reader::of(&files, None);
    let document = reader.plain(keys);
    for (path, message) in document.as_ref().map(check).unwrap_or_default() {
        reader.problem(&path, &message, None);
    }
    match document {
        Some(document) if reader.problems.is_empty() => Ok(document),
        _ => Err(reader.into_problems()),
    }
}

/// A job with all that it includes; one that is `stored`, with what its file in a repository says.
pub(super) fn parse(
    files: &Files,
    stored: Option<&JobConfig>,
) -> Result<(JobConfig, Value), Vec<ConfigProblem>> {
    let mut reader = Reader::of(files, stored);
    let whole = reader.document();
    let config = whole.as_ref().and_then(|whole| reader.job(whole));
    match (config, whole) {
        (Some(config), Some(whole)) if reader.problems.is_empty() => {
            Ok((config, Value::from(whole)))
        }
        _ => Err(reader.into_problems()),
    }
}

/// Reads one document, of one file or several, and gathers what is wrong with it.
pub(super) struct Reader<'a> {
    files: &'a Files,
    stored: Option<&'a JobConfig>,
    root: Option<Ast<'a>>,
    origins: Origins,
    /// Each with the file that it is in.
    problems: Vec<(usize, ConfigProblem)>,
}

impl<'a> Reader<'a> {
    fn of(files: &'a Files, stored: Option<&'a JobConfig>) -> Self {
        Self {
            files,
            stored,
            root: None,
            origins: Origins::new(),
            problems: Vec::new(),
        }
    }

    /// The job whose file in a repository this is.
    pub(super) fn stored(&self) -> Option<&'a JobConfig> {
        self.stored
    }

    fn job(&mut self, root: &Ast<'a>) -> Option<JobConfig> {
        let parameters = root.as_object()?.get_object("parameters");
        for parameter in parameters.iter().flat_map(|object| &object.properties) {
            let path = join("parameters", parameter.name.as_str());
            self.known_keys(&path, properties(&parameter.value), PARAMETER_KEYS);
        }
        if let Some(file) = root.as_object()?.get("job_file") {
            self.known_keys("job_file", properties(&file.value), JOB_FILE_KEYS);
        }
        if let Some(isolation) = root.as_object()?.get("isolation") {
            self.known_keys("isolation", properties(&isolation.value), ISOLATION_KEYS);
        }
        let mut value = Value::from(root.clone());
        let written = value.as_object_mut()?;
        self.take_name(written);
        let tasks = written.remove("tasks");
        let post = written.remove("post");
        let triggers = written.remove("triggers");
        let reads_file = written.contains_key("job_file");
        let head = self.typed::<JobHead>("", value);
        let tasks = match tasks {
            None if reads_file => Some(Vec::new()),
            tasks => self.tasks("tasks", tasks),
        };
        let post = post.map_or_else(|| Some(Vec::new()), |post| self.tasks("post", Some(post)));
        let triggers = self.triggers(triggers);
        let written = WrittenJob {
            head: head?,
            tasks: tasks?,
            post: post?,
            triggers: triggers?,
        };
        let written = match self.stored {
            None => written,
            Some(stored) => WrittenJob {
                head: {
                    check::policy::check_isolation(self, &written.head, stored);
                    written.head.over(stored)
                },
                triggers: stored.triggers.clone(),
                ..written
            },
        };
        check::assemble(self, written)
    }

    /// The one file, as something else than a job.
    fn plain<T: DeserializeOwned>(&mut self, keys: &[(&str, &[&str])]) -> Option<T> {
        let root = self.syntax(0)?;
        self.duplicate_keys(&root);
        self.root = Some(root.clone());
        for (path, known) in keys {
            let object = self.at(path).map(|ast| properties(&ast).to_vec());
            self.known_keys(path, &object.unwrap_or_default(), known);
        }
        // A key that nobody knows would be told of a second time, and less well.
        if !self.problems.is_empty() {
            return None;
        }
        self.typed("", Value::from(root))
    }

    /// A file in a repository need not say of which job it is.
    fn take_name(&mut self, written: &mut serde_json::Map<String, Value>) {
        let Some(stored) = self.stored else { return };
        let own = Value::from(stored.job_id.as_str());
        let said = written.insert("job_id".to_owned(), own.clone());
        if said.is_some_and(|said| said != own) {
            let message = format!("the file is read for the job {:?}", stored.job_id.as_str());
            self.problem("job_id", &message, None);
        }
    }

    fn tasks(&mut self, list: &str, tasks: Option<Value>) -> Option<Vec<Option<WrittenTask>>> {
        match tasks {
            Some(Value::Array(tasks)) => {
                let tasks = tasks.into_iter().enumerate();
                let read = tasks.map(|(index, task)| self.task(&format!("{list}[{index}]"), task));
                Some(read.collect())
            }
            Some(_) => {
                self.problem(list, "expected a list of tasks", None);
                None
            }
            None => {
                self.problem("", "`tasks` is missing", None);
                None
            }
        }
    }

    fn triggers(&mut self, triggers: Option<Value>) -> Option<Vec<Trigger>> {
        match triggers {
            None => Some(Vec::new()),
            Some(Value::Array(triggers)) => {
                let triggers = triggers.into_iter().enumerate();
                let read: Vec<_> = triggers
                    .map(|(index, trigger)| self.trigger(index, trigger))
                    .collect();
                read.into_iter().collect()
            }
            Some(_) => {
                self.problem("triggers", "expected a list of triggers", None);
                None
            }
        }
    }

    fn trigger(&mut self, index: usize, value: Value) -> Option<Trigger> {
        let path = format!("triggers[{index}]");
        let written = self
            .find(&path)
            .map(|ast| properties(&ast).to_vec())
            .unwrap_or_default();
        let kinds = [EVENT_KEYS, SCHEDULE_KEYS, POLL_KEYS];
        let kind = kinds
            .into_iter()
            .find(|keys| written.iter().any(|key| key.name.as_str() == keys[0]));
        let Some(keys) = kind else {
            let help = "it has the key `on`, `cron` or `poll`".to_owned();
            self.problem(&path, "not a trigger", Some(help));
            return None;
        };
        self.known_keys(&path, &written, keys);
        Some(match keys[0] {
            "on" => {
                let before = self.problems.len();
                check::triggers::check_kinds(self, &path, &value);
                if self.problems.len() > before {
                    return None;
                }
                Trigger::Event(self.typed::<EventTrigger>(&path, value)?)
            }
            "cron" => Trigger::Schedule(self.typed::<ScheduleTrigger>(&path, value)?),
            _ => Trigger::Poll(self.typed::<PollTrigger>(&path, value)?),
        })
    }

    fn task(&mut self, path: &str, mut value: Value) -> Option<WrittenTask> {
        let Some(task) = value.as_object_mut() else {
            self.problem(path, "expected a task: an object", None);
            return None;
        };
        let written = self
            .find(path)
            .map(|ast| properties(&ast).to_vec())
            .unwrap_or_default();
        self.known_keys(path, &written, TASK_KEYS);
        for (key, known) in TASK_OBJECTS {
            let value = written
                .iter()
                .find(|property| property.name.as_str() == *key);
            let object = value.map(|value| properties(&value.value).to_vec());
            self.known_keys(&join(path, key), &object.unwrap_or_default(), known);
        }
        let kind = self.kind(path, task.remove("type"));
        let params = task.remove("params");
        let head = self.typed::<TaskHead>(path, value);
        let kind = kind?;
        let params_path = join(path, "params");
        let written = written
            .iter()
            .find(|property| property.name.as_str() == "params");
        let written = written.map(|params| properties(&params.value).to_vec());
        self.known_keys(&params_path, &written.unwrap_or_default(), param_keys(kind));
        let params = params.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let action = match kind {
            Kind::GitCheckout => {
                Action::GitCheckout(self.typed::<GitCheckout>(&params_path, params)?)
            }
            Kind::ExecuteShell => {
                Action::ExecuteShell(self.typed::<ExecuteShell>(&params_path, params)?)
            }
            Kind::PublishArtifacts => {
                Action::PublishArtifacts(self.typed::<PublishArtifacts>(&params_path, params)?)
            }
            Kind::CopyArtifacts => {
                Action::CopyArtifacts(self.typed::<CopyArtifacts>(&params_path, params)?)
            }
            Kind::Approve => Action::Approve(self.typed::<Approve>(&params_path, params)?),
            Kind::BuildControl | Kind::CommitStatus | Kind::JobFile => return None,
        };
        Some(WrittenTask {
            head: head?,
            action,
        })
    }

    fn kind(&mut self, path: &str, value: Option<Value>) -> Option<Kind> {
        let kinds: Vec<&str> = Kind::of_tasks().map(Kind::as_str).collect();
        let Some(value) = value else {
            let help = format!("one of {}", kinds.join(", "));
            self.problem(path, "`type` is missing", Some(help));
            return None;
        };
        let written = value.as_str().unwrap_or_default();
        let known = Kind::of_tasks().find(|kind| kind.as_str() == written);
        if known.is_none() {
            let message = format!("{value} is not a type of task");
            let help = meant(written, kinds.iter().copied())
                .unwrap_or_else(|| format!("one of {}", kinds.join(", ")));
            self.problem(&join(path, "type"), &message, Some(help));
        }
        known
    }

    fn typed<T: DeserializeOwned>(&mut self, path: &str, value: Value) -> Option<T> {
        match serde_path_to_error::deserialize(value) {
            Ok(typed) => Some(typed),
            Err(error) => {
                let inner = error.path().to_string();
                let inner = if inner == "." { "" } else { &inner };
                self.problem(&join(path, inner), &error.inner().to_string(), None);
                None
            }
        }
    }

    fn known_keys(&mut self, path: &str, written: &[ObjectProp<'_>], known: &[&str]) {
        for property in written {
            let key = property.name.as_str();
            if known.contains(&key) {
                continue;
            }
            let help = meant(key, known.iter().copied())
                .unwrap_or_else(|| format!("known keys: {}", known.join(", ")));
            let path = self.own_path(&join(path, key));
            self.note(
                property.range.start,
                &path,
                "unknown key".to_owned(),
                Some(help),
            );
        }
    }

    /// Notes a problem with the value at `path`.
    pub(super) fn problem(&mut self, path: &str, message: &str, help: Option<String>) {
        let start = self.find(path).map_or(0, |value| value.start());
        let path = self.own_path(path);
        self.note(start, &path, message.to_owned(), help);
    }

    /// Notes a problem at a byte of all texts.
    fn note(&mut self, at: usize, path: &str, message: String, help: Option<String>) {
        let source = self.files.source_of(at);
        let Some(Source { text, base, .. }) = self.files.sources().get(source) else {
            return;
        };
        let (line, column) = position(text, at - base);
        let problem = ConfigProblem {
            file: self.name(source),
            path: path.to_owned(),
            line,
            column,
            message,
            help,
        };
        self.problems.push((source, problem));
    }

    /// What a file is called in problems; the job file itself is known to whoever reads them.
    fn name(&self, source: usize) -> Option<String> {
        let named = self.files.sources().get(source).filter(|_| source > 0);
        named.map(|source| source.path.clone())
    }

    /// A path as it is in the file that has it.
    fn own_path(&self, path: &str) -> String {
        let own = || {
            let (list, rest) = path.split_once('[')?;
            let (index, rest) = rest.split_once(']')?;
            let places = self.origins.get(list)?;
            let (_, own) = places.get(index.parse::<usize>().ok()?)?;
            Some(format!("{list}[{own}]{rest}"))
        };
        own().unwrap_or_else(|| path.to_owned())
    }

    fn into_problems(self) -> Vec<ConfigProblem> {
        let mut problems = self.problems;
        problems.sort_by_key(|(source, problem)| (*source, problem.line, problem.column));
        problems.into_iter().map(|(_, problem)| problem).collect()
    }

    /// The object at `path`, if there is one.
    fn at(&self, path: &str) -> Option<Ast<'a>> {
        let mut value = self.root.as_ref()?;
        for step in path.split('.').filter(|step| !step.is_empty()) {
            value = &value.as_object()?.get(step)?.value;
        }
        Some(value.clone())
    }

    /// The value at `path`, or the nearest one around it.
    fn find(&self, path: &str) -> Option<Ast<'a>> {
        let mut value = self.root.as_ref()?;
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let inner = match value {
                Ast::Object(object) => object.get(step).map(|property| &property.value),
                Ast::Array(array) => step
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| array.elements.get(index)),
                Ast::StringLit(_)
                | Ast::NumberLit(_)
                | Ast::BooleanLit(_)
                | Ast::NullKeyword(_) => None,
            };
            match inner {
                Some(inner) => value = inner,
                None => break,
            }
        }
        Some(value.clone())
    }
}

fn properties<'v, 'a>(value: &'v Ast<'a>) -> &'v [ObjectProp<'a>] {
    value
        .as_object()
        .map_or(&[], |object| object.properties.as_slice())
}

fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.to_owned(),
        (path, "") => path.to_owned(),
        (path, key) if key.starts_with('[') => format!("{path}{key}"),
        (path, key) => format!("{path}.{key}"),
    }
}

/// Line and column, from 1, of a byte of `text`.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// "did you mean", if one of `known` is near enough to what was written.
pub(super) fn meant<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let written: String = written.chars().take(64).collect();
    known
        .map(|candidate| {
            (
                strsim::jaro_winkler(&written.to_lowercase(), candidate),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

pub(super) fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(JobConfig).to_value();
    // What `check` fills in is required in a `JobConfig` but not in a file.
    if let Some(required) = schema.pointer_mut("/$defs/TaskConfig/required")
        && let Some(required) = required.as_array_mut()
    {
        required.retain(|key| key != "name" && key != "needs");
    }
    // Whoever reads the file puts in its place what it names; no `JobConfig` has it.
    if let Some(properties) = schema.pointer_mut("/properties") {
        properties["include"] = json!({
            "description": "Files of the same form whose parts are parts of this one, by their \
                paths from this file.",
            "type": "array",
            "items": { "type": "string" },
            "maxItems": MAX_FRAGMENTS,
        });
    }
    if let Some(required) = schema
        .pointer_mut("/required")
        .and_then(Value::as_array_mut)
    {
        required.retain(|key| key != "tasks");
    }
    let one_of = ["tasks", "include", "job_file"].map(|key| json!({ "required": [key] }));
    schema["anyOf"] = json!(one_of);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of known keys and the types must not drift apart.
    #[test]
    fn the_known_keys_are_the_keys_of_the_schema() {
        let schema = json_schema();
        let keys = |pointer: &str| -> Vec<String> {
            let object = schema.pointer(pointer).and_then(Value::as_object);
            let mut keys: Vec<_> = object.unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        let sorted = |keys: &[&str]| {
            let mut keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys("/properties"), sorted(JOB_KEYS));
        assert_eq!(keys("/$defs/Parameter/properties"), sorted(PARAMETER_KEYS));
        for (known, name) in [
            (JOB_FILE_KEYS, "JobFile"),
            (EVENT_KEYS, "EventTrigger"),
            (SCHEDULE_KEYS, "ScheduleTrigger"),
            (POLL_KEYS, "PollTrigger"),
            (TASK_OBJECTS[0].1, "WrittenConditions"),
            (TASK_OBJECTS[1].1, "RetryPolicy"),
        ] {
            assert_eq!(keys(&format!("/$defs/{name}/properties")), sorted(known));
        }
        for (kind, name) in [
            (Kind::GitCheckout, "GitCheckout"),
            (Kind::ExecuteShell, "ExecuteShell"),
            (Kind::PublishArtifacts, "PublishArtifacts"),
            (Kind::CopyArtifacts, "CopyArtifacts"),
            (Kind::Approve, "Approve"),
        ] {
            assert_eq!(
                keys(&format!("/$defs/{name}/properties")),
                sorted(param_keys(kind))
            );
        }
    }
}
