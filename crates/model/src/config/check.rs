//! What the values of a job file mean together.
//!
//! Owns the rules that no single value can break: names, needs, cycles, limits, parameters. Adds
//! every problem that it finds; gives a configuration only if there is none.

mod limits;
pub(super) mod policy;
mod schedules;
pub(super) mod triggers;
mod worlds;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::graph::Graph;
use super::parse::{Reader, WrittenJob, WrittenTask, meant};
use super::patterns::{MAX_PATTERNS, complaint};
use super::{
    Action, After, JobConfig, LONGEST_TIMEOUT, MAX_TASKS, Matrix, Need, ParameterKind,
    PublishArtifacts, Retry, TaskConfig, VERSION, When,
};
use crate::id::TaskName;

mod references;

/// Most jobs that one job triggers: their posts go into one commit.
pub const MAX_DOWNSTREAM: usize = 8;
const MAX_PARAMETERS: usize = 64;
const MAX_VALUE: usize = 4 * 1024;
const MAX_AXES: usize = 16;
const MAX_RETRIES: u8 = 10;

/// Makes a configuration of what was written, if nothing is wrong with it.
pub(super) fn assemble(reader: &mut Reader<'_>, written: WrittenJob) -> Option<JobConfig> {
    check_head(reader, &written);
    limits::check(reader, &written);
    worlds::check(reader, &written);
    triggers::check(reader, &written.triggers, &written.head.parameters);
    schedules::check(reader, &written);
    let mut count = HashMap::new();
    let names = ["tasks", "post"].map(|list| match list {
        "tasks" => names(&written.tasks, &mut count),
        _ => names(&written.post, &mut count),
    });
    let [task_names, post_names] = &names;
    let tasks = List::of("tasks", written.tasks, task_names);
    let post = List::of("post", written.post, post_names);
    for list in [&tasks, &post] {
        list.check_needs(reader);
        list.check_tasks(reader);
    }
    let head = written.head;
    let (tasks, post) = (
        tasks.into_tasks(After::OnSuccess),
        post.into_tasks(After::Always),
    );
    let job = JobConfig {
        schema: head.schema,
        version: head.version,
        job_id: head.job_id,
        description: head.description,
        parameters: head.parameters,
        env: head.env,
        tasks: tasks?,
        post: post?,
        downstream_jobs: head.downstream_jobs,
        triggers: written.triggers,
        concurrency: head.concurrency,
        priority: head.priority,
        status: head.status,
        isolation: head.isolation,
        job_file: head.job_file,
    };
    references::check(reader, &job);
    if let Some(stored) = reader.stored() {
        policy::check(reader, &job, stored);
    }
    Some(job)
}

/// One list of tasks as it is written.
struct List<'a> {
    path: &'static str,
    tasks: Vec<Option<WrittenTask>>,
    names: &'a [Option<TaskName>],
}

impl<'a> List<'a> {
    fn of(
        path: &'static str,
        tasks: Vec<Option<WrittenTask>>,
        names: &'a [Option<TaskName>],
    ) -> Self {
        Self { path, tasks, names }
    }

    fn written_needs(&self, index: usize) -> Option<&Vec<Need>> {
        self.tasks[index].as_ref()?.head.needs.as_ref()
    }

    fn position(&self, task: &TaskName) -> Option<usize> {
        let named = |name: &Option<TaskName>| name.as_ref() == Some(task);
        self.names.iter().position(named)
    }

    fn check_needs(&self, reader: &mut Reader<'_>) {
        let mut all = Vec::with_capacity(self.tasks.len());
        for index in 0..self.tasks.len() {
            let Some(written) = self.written_needs(index) else {
                // The classic form: one after the other.
                all.push(index.checked_sub(1).into_iter().collect());
                continue;
            };
            let mut needs = Vec::new();
            for (position, need) in written.iter().enumerate() {
                if let Some(found) = self.position(&need.task) {
                    needs.push(found);
                    continue;
                }
                let path = format!("{}[{index}].needs[{position}]", self.path);
                let known = self.names.iter().flatten().map(TaskName::as_str);
                let message = format!("there is no task {:?}", need.task.as_str());
                reader.problem(&path, &message, meant(need.task.as_str(), known));
            }
            all.push(needs);
        }
        check_cycles(reader, self.path, self.names, &all);
    }

    fn check_tasks(&self, reader: &mut Reader<'_>) {
        for (index, task) in self.tasks.iter().enumerate() {
            if let Some(task) = task {
                check_task(reader, &format!("{}[{index}]", self.path), task);
            }
        }
    }

    /// `None` if one of the tasks could not be read.
    fn into_tasks(self, after: After) -> Option<Vec<TaskConfig>> {
        let names = self.names;
        let task = |(index, task): (usize, Option<WrittenTask>)| {
            let task = task?;
            let before = || names.get(index.checked_sub(1)?)?.clone().map(Need::all);
            let needs = task.head.needs;
            Some(TaskConfig {
                name: names[index].clone()?,
                needs: needs.unwrap_or_else(|| before().into_iter().collect()),
                when: task.head.when.unwrap_or_else(|| after.into()),
                matrix: task.head.matrix,
                retry: task.head.retry,
                allow_failure: task.head.allow_failure,
                env: task.head.env,
                timeout: task.head.timeout,
                locks: task.head.locks,
                priority: task.head.priority,
                isolation: task.head.isolation,
                cache: task.head.cache,
                action: task.action,
            })
        };
        self.tasks.into_iter().enumerate().map(task).collect()
    }
}

fn check_head(reader: &mut Reader<'_>, written: &WrittenJob) {
    let head = &written.head;
    if head.version != VERSION {
        let message = format!("version {:?} is not known", head.version);
        reader.problem(
            "configuration-version",
            &message,
            Some(format!("use {VERSION:?}")),
        );
    }
    check_has_tasks(reader, written);
    at_most(reader, "tasks", written.tasks.len(), MAX_TASKS);
    at_most(reader, "post", written.post.len(), MAX_TASKS);
    at_most(
        reader,
        "downstream_jobs",
        head.downstream_jobs.len(),
        MAX_DOWNSTREAM,
    );
    at_most(reader, "parameters", head.parameters.len(), MAX_PARAMETERS);
    let mut seen = BTreeSet::new();
    for (index, downstream) in head.downstream_jobs.iter().enumerate() {
        let path = format!("downstream_jobs[{index}]");
        if downstream.job == head.job_id {
            reader.problem(&path, "a job cannot trigger itself", None);
        }
        if !seen.insert(&downstream.job) {
            reader.problem(&path, "the job is named twice", None);
        }
        if downstream.on.is_empty() {
            reader.problem(&path, "`on` names no end of the build", None);
        }
        at_most(reader, &path, downstream.parameters.len(), MAX_PARAMETERS);
    }
    check_env(reader, "env", &head.env);
    for (name, parameter) in &head.parameters {
        let path = format!("parameters.{name}");
        check_variable(reader, &path, name);
        let values = parameter.default.iter().chain(&parameter.choices);
        for value in values {
            if let Err(why) = check_value(parameter.kind, &value.0) {
                reader.problem(&path, &format!("{:?} {why}", value.0), None);
            }
        }
        let allowed = |value| parameter.choices.is_empty() || parameter.choices.contains(value);
        if parameter
            .default
            .as_ref()
            .is_some_and(|value| !allowed(value))
        {
            let path = format!("{path}.default");
            reader.problem(&path, "the default is not a choice", None);
        }
    }
}

/// A job says what to do, or where that is said.
fn check_has_tasks(reader: &mut Reader<'_>, written: &WrittenJob) {
    let file = written.head.job_file.as_ref();
    if let Some(file) = file.filter(|_| reader.stored().is_none()) {
        policy::check_job_file(reader, file);
        if !written.tasks.is_empty() || !written.post.is_empty() {
            let message = "the tasks are in the file that the job reads";
            reader.problem("job_file", message, None);
        }
    } else if written.tasks.is_empty() {
        reader.problem("tasks", "a job needs at least one task", None);
    }
}

/// Whether a parameter may have this value, or why not.
fn check_value(kind: ParameterKind, value: &str) -> Result<(), String> {
    if value.len() > MAX_VALUE || value.contains('\0') {
        return Err(format!("is over {MAX_VALUE} bytes or holds a NUL"));
    }
    match kind {
        ParameterKind::String => Ok(()),
        ParameterKind::Boolean if matches!(value, "true" | "false") => Ok(()),
        ParameterKind::Boolean => Err("is neither true nor false".to_owned()),
        ParameterKind::Integer if value.parse::<i64>().is_ok() => Ok(()),
        ParameterKind::Integer => Err("is no whole number".to_owned()),
    }
}

fn at_most(reader: &mut Reader<'_>, path: &str, count: usize, most: usize) {
    if count > most {
        reader.problem(path, &format!("{count} entries; the limit is {most}"), None);
    }
}

fn check_env(reader: &mut Reader<'_>, path: &str, env: &BTreeMap<String, String>) {
    at_most(reader, path, env.len(), MAX_PARAMETERS);
    for (name, value) in env {
        let path = format!("{path}.{name}");
        check_variable(reader, &path, name);
        if value.len() > MAX_VALUE || value.contains('\0') {
            let message = format!("the value is over {MAX_VALUE} bytes or holds a NUL");
            reader.problem(&path, &message, None);
        }
    }
}

/// Whether tasks may be given a variable of this name by a job, a parameter or another task.
pub fn is_free_variable(name: &str) -> bool {
    let own = [
        "JOB_NAME",
        "BUILD_NUMBER",
        "BUILD_ID",
        "BUILD_URL",
        "WORKSPACE",
        "DISTCI",
    ];
    is_variable(name) && !name.starts_with("DISTCI_") && !own.contains(&name)
}

fn is_variable(name: &str) -> bool {
    let first = name.bytes().next().unwrap_or(b'0');
    !first.is_ascii_digit()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn check_variable(reader: &mut Reader<'_>, path: &str, name: &str) {
    if !is_variable(name) {
        let help = "letters, digits and '_', not beginning with a digit".to_owned();
        reader.problem(path, "not a name of an environment variable", Some(help));
    } else if !is_free_variable(name) {
        reader.problem(path, "DistCI itself sets this variable", None);
    }
}

/// The names of the tasks of a list; `None` for a task that could not be read.
fn names(
    tasks: &[Option<WrittenTask>],
    count: &mut HashMap<&'static str, usize>,
) -> Vec<Option<TaskName>> {
    let name = |task: &Option<WrittenTask>| {
        let task = task.as_ref()?;
        let kind = task.action.kind().as_str();
        let number = count
            .entry(kind)
            .and_modify(|count| *count += 1)
            .or_insert(1);
        match (&task.head.name, *number) {
            (Some(name), _) => Some(name.clone()),
            (None, 1) => kind.parse().ok(),
            (None, number) => format!("{kind}-{number}").parse().ok(),
        }
    };
    tasks.iter().map(name).collect()
}

fn check_cycles(
    reader: &mut Reader<'_>,
    list: &str,
    names: &[Option<TaskName>],
    needs: &[Vec<usize>],
) {
    let graph = Graph::of_needs(needs);
    if graph.order().len() == needs.len() {
        return;
    }
    let stuck: Vec<usize> = (0..needs.len())
        .filter(|task| !graph.order().contains(task))
        .collect();
    let Some(cycle) = find_cycle(needs, &stuck) else {
        return;
    };
    let name = |task: &usize| {
        let name = names.get(*task).and_then(Option::as_ref);
        name.map_or_else(|| format!("{list}[{task}]"), ToString::to_string)
    };
    let round: Vec<String> = cycle.iter().chain(cycle.first()).map(name).collect();
    let path = format!(
        "{list}[{}].needs",
        cycle.first().copied().unwrap_or_default()
    );
    reader.problem(
        &path,
        &format!("tasks need each other: {}", round.join(" needs ")),
        None,
    );
}

/// Follows the first stuck need of each stuck task until a task comes again.
fn find_cycle(needs: &[Vec<usize>], stuck: &[usize]) -> Option<Vec<usize>> {
    let mut walk = vec![*stuck.first()?];
    loop {
        let next = *needs[*walk.last()?]
            .iter()
            .find(|need| stuck.contains(need))?;
        if let Some(start) = walk.iter().position(|&task| task == next) {
            return Some(walk.split_off(start));
        }
        walk.push(next);
    }
}

fn check_task(reader: &mut Reader<'_>, path: &str, task: &WrittenTask) {
    check_env(reader, &format!("{path}.env"), &task.head.env);
    check_timeout(reader, &format!("{path}.timeout"), task.head.timeout);
    if let Some(matrix) = &task.head.matrix {
        check_matrix(reader, &format!("{path}.matrix"), matrix);
    }
    if let Some(when) = &task.head.when {
        check_when(reader, &format!("{path}.when"), when);
    }
    if let Some(retry) = &task.head.retry {
        check_retry(reader, &format!("{path}.retry"), retry);
    }
    check_action(reader, &format!("{path}.params"), task);
}

fn check_action(reader: &mut Reader<'_>, params: &str, task: &WrittenTask) {
    match &task.action {
        Action::GitCheckout(git) => {
            check_repository(reader, &format!("{params}.repository"), &git.repository);
            let reference = git.reference.as_deref();
            if reference.is_some_and(|text| text.is_empty() || text.starts_with('-')) {
                reader.problem(&format!("{params}.ref"), "not a ref or commit id", None);
            }
            if git.depth == Some(0) {
                reader.problem(&format!("{params}.depth"), "must be at least 1", None);
            }
        }
        Action::ExecuteShell(shell) => {
            check_timeout(reader, &format!("{params}.timeout"), shell.timeout);
            if task.head.timeout.is_some() && shell.timeout.is_some() {
                let message = "the timeout is there twice: here and at the task";
                reader.problem(&format!("{params}.timeout"), message, None);
            }
            if shell.script.contains('\0') {
                reader.problem(&format!("{params}.script"), "holds a NUL", None);
            }
            if shell.shell.trim().is_empty() || shell.shell.contains('\0') {
                let path = format!("{params}.shell");
                reader.problem(&path, "not the name of a program", None);
            }
        }
        Action::PublishArtifacts(publish) => check_publish(reader, params, publish),
        Action::CopyArtifacts(copy) => {
            check_some(reader, &format!("{params}.artifacts"), &copy.artifacts);
            check_patterns(reader, &format!("{params}.artifacts"), &copy.artifacts);
            if let Some(build) = &copy.build
                && !build.contains("${")
                && build.parse::<u64>().map_or(true, |number| number == 0)
            {
                let path = format!("{params}.build");
                reader.problem(&path, "not the number of a build", None);
            }
        }
        Action::Approve(approve) => {
            if approve.message.len() > MAX_VALUE {
                let message = format!("the message is over {MAX_VALUE} bytes");
                reader.problem(&format!("{params}.message"), &message, None);
            }
        }
        // That is the job's own, and checked with it.
        Action::JobFile(_) => {}
    }
}

fn check_matrix(reader: &mut Reader<'_>, path: &str, matrix: &Matrix) {
    let rows = matrix.include.iter().chain(&matrix.exclude);
    let axes: BTreeSet<&String> = matrix
        .axes
        .keys()
        .chain(rows.flat_map(BTreeMap::keys))
        .collect();
    at_most(reader, path, axes.len(), MAX_AXES);
    at_most(
        reader,
        &format!("{path}.include"),
        matrix.include.len(),
        MAX_TASKS,
    );
    at_most(
        reader,
        &format!("{path}.exclude"),
        matrix.exclude.len(),
        MAX_TASKS,
    );
    for axis in axes {
        check_variable(reader, &format!("{path}.{axis}"), axis);
    }
    for (axis, values) in &matrix.axes {
        let path = format!("{path}.{axis}");
        if values.is_empty() {
            reader.problem(&path, "the axis has no value", None);
        }
        let distinct: BTreeSet<_> = values.iter().collect();
        if distinct.len() < values.len() {
            reader.problem(&path, "a value is there twice", None);
        }
    }
    for (index, row) in matrix.exclude.iter().enumerate() {
        for axis in row.keys().filter(|axis| !matrix.axes.contains_key(*axis)) {
            let path = format!("{path}.exclude[{index}].{axis}");
            let known = matrix.axes.keys().map(String::as_str);
            reader.problem(&path, "the matrix has no such axis", meant(axis, known));
        }
    }
}

fn check_when(reader: &mut Reader<'_>, path: &str, when: &When) {
    let conditions = &when.conditions;
    for (key, patterns) in [("refs", &conditions.refs), ("paths", &conditions.paths)] {
        check_conditions(reader, &format!("{path}.{key}"), patterns);
    }
    for (name, patterns) in &conditions.parameters {
        let path = format!("{path}.parameters.{name}");
        check_conditions(reader, &path, patterns.as_slice());
    }
}

fn check_conditions(reader: &mut Reader<'_>, path: &str, patterns: &[String]) {
    at_most(reader, path, patterns.len(), MAX_PATTERNS);
    for (index, text) in patterns.iter().enumerate() {
        if let Some(message) = complaint(text) {
            reader.problem(&format!("{path}[{index}]"), &message, None);
        }
    }
}

fn check_retry(reader: &mut Reader<'_>, path: &str, retry: &Retry) {
    if retry.max > MAX_RETRIES {
        let message = format!("{} further runs; the limit is {MAX_RETRIES}", retry.max);
        reader.problem(path, &message, None);
    }
    if retry.on.is_empty() {
        reader.problem(path, "`on` names no end of a run", None);
    }
}

fn check_timeout(reader: &mut Reader<'_>, path: &str, timeout: Option<u64>) {
    if timeout.is_some_and(|seconds| seconds == 0 || seconds > LONGEST_TIMEOUT) {
        let message = format!("must be between 1 and {LONGEST_TIMEOUT} seconds");
        reader.problem(path, &message, None);
    }
}

fn check_repository(reader: &mut Reader<'_>, path: &str, repository: &str) {
    if repository.is_empty() || repository.starts_with('-') {
        reader.problem(path, "not the address of a repository", None);
    }
    let authority = repository
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.split('/').next()?)));
    let secret = |(scheme, authority): (&str, &str)| {
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        user.is_some_and(|user| user.contains(':') || scheme.starts_with("http"))
    };
    if authority.is_some_and(secret) {
        let help = "give them to the worker: --git-credentials FILE".to_owned();
        reader.problem(path, "the address holds credentials", Some(help));
    }
}

fn check_publish(reader: &mut Reader<'_>, params: &str, publish: &PublishArtifacts) {
    if !publish.has_reports() {
        check_some(reader, &format!("{params}.artifacts"), &publish.artifacts);
    }
    check_patterns(reader, &format!("{params}.artifacts"), &publish.artifacts);
    for (format, patterns) in publish.reports() {
        check_patterns(reader, &format!("{params}.{format}"), patterns);
    }
}

fn check_some(reader: &mut Reader<'_>, path: &str, patterns: &[String]) {
    if patterns.is_empty() {
        reader.problem(path, "needs at least one pattern", None);
    }
}

fn check_patterns(reader: &mut Reader<'_>, path: &str, patterns: &[String]) {
    at_most(reader, path, patterns.len(), 256);
    for (index, pattern) in patterns.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if pattern.is_empty() || pattern.len() > 1024 {
            reader.problem(&path, "must have between 1 and 1024 bytes", None);
        }
        if let Err(error) = globset::Glob::new(pattern) {
            let message = format!("not a pattern: {}", error.kind());
            reader.problem(&path, &message, None);
        }
        if pattern.starts_with('/') || pattern.split('/').any(|segment| segment == "..") {
            reader.problem(&path, "leaves the workspace", None);
        }
    }
}

/// Why values do not fit a job's parameters; one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct InvalidParameters(pub Vec<String>);

/// The value of each parameter of a job: the given one, or its default.
///
/// # Errors
/// Every value that is unknown, missing, too long or not among the choices.
pub fn resolve_parameters(
    declared: &BTreeMap<String, super::Parameter>,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, InvalidParameters> {
    let mut wrong = Vec::new();
    for name in given.keys().filter(|name| !declared.contains_key(*name)) {
        let name: String = name.chars().take(80).collect();
        let hint = meant(&name, declared.keys().map(String::as_str));
        let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        wrong.push(format!("the job has no parameter {name:?}{hint}"));
    }
    let mut values = BTreeMap::new();
    for (name, parameter) in declared {
        let default = parameter.default.as_ref().map(|value| &value.0);
        let Some(value) = given.get(name).or(default) else {
            wrong.push(format!("parameter {name:?} needs a value"));
            continue;
        };
        let choices: Vec<&str> = parameter.choices.iter().map(|choice| &*choice.0).collect();
        if !choices.is_empty() && !choices.contains(&value.as_str()) {
            wrong.push(format!(
                "parameter {name:?} is one of {}",
                choices.join(", ")
            ));
        }
        if let Err(why) = check_value(parameter.kind, value) {
            wrong.push(format!("the value of parameter {name:?} {why}"));
        }
        values.insert(name.clone(), value.clone());
    }
    if wrong.is_empty() {
        Ok(values)
    } else {
        Err(InvalidParameters(wrong))
    }
}
