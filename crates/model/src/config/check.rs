//! What the values of a job file mean together.
//!
//! Owns the rules that no single value can break: names, needs, cycles, limits, parameters. Adds
//! every problem that it finds; gives a configuration only if there is none.

mod schedules;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::graph::Graph;
use super::parse::{Reader, WrittenJob, WrittenTask, meant};
use super::{Action, JobConfig, TaskConfig, VERSION};
use crate::id::TaskName;
use crate::outcome::Failure;

/// Most tasks of a job.
pub const MAX_TASKS: usize = 256;
/// Most jobs that one job triggers: their posts go into one commit.
pub const MAX_DOWNSTREAM: usize = 8;
const MAX_PARAMETERS: usize = 64;
const MAX_VALUE: usize = 4 * 1024;
const MAX_TIMEOUT: u64 = 7 * 24 * 60 * 60;

/// Makes a configuration of what was written, if nothing is wrong with it.
pub(super) fn assemble(reader: &mut Reader<'_>, written: WrittenJob) -> Option<JobConfig> {
    check_head(reader, &written);
    schedules::check(reader, &written);
    let names = names(&written.tasks);
    check_names(reader, &names);
    let needs = needs(reader, &written.tasks, &names);
    check_cycles(reader, &names, &needs);
    let head = written.head;
    let declared: BTreeSet<&str> = head.parameters.keys().map(String::as_str).collect();
    let mut tasks = Vec::with_capacity(written.tasks.len());
    for (index, task) in written.tasks.into_iter().enumerate() {
        let Some(task) = task else { continue };
        check_task(reader, index, &task, &declared);
        tasks.push(TaskConfig {
            name: names[index].clone()?,
            needs: needs[index]
                .iter()
                .filter_map(|&need| names[need].clone())
                .collect(),
            when: task.head.when,
            allow_failure: task.head.allow_failure,
            env: task.head.env,
            timeout: task.head.timeout,
            locks: task.head.locks,
            priority: task.head.priority,
            action: task.action,
        });
    }
    Some(JobConfig {
        schema: head.schema,
        version: head.version,
        job_id: head.job_id,
        description: head.description,
        parameters: head.parameters,
        env: head.env,
        tasks,
        downstream_jobs: head.downstream_jobs,
        triggers: written.triggers,
        concurrency: head.concurrency,
        priority: head.priority,
        status: head.status,
    })
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
    if written.tasks.is_empty() {
        reader.problem("tasks", "a job needs at least one task", None);
    }
    at_most(reader, "tasks", written.tasks.len(), MAX_TASKS);
    at_most(
        reader,
        "downstream_jobs",
        head.downstream_jobs.len(),
        MAX_DOWNSTREAM,
    );
    at_most(reader, "parameters", head.parameters.len(), MAX_PARAMETERS);
    let mut seen = BTreeSet::new();
    for (index, job) in head.downstream_jobs.iter().enumerate() {
        let path = format!("downstream_jobs[{index}]");
        if *job == head.job_id {
            reader.problem(&path, "a job cannot trigger itself", None);
        }
        if !seen.insert(job) {
            reader.problem(&path, "the job is named twice", None);
        }
    }
    check_env(reader, "env", &head.env);
    for (name, parameter) in &head.parameters {
        let path = format!("parameters.{name}");
        check_variable(reader, &path, name);
        let default = parameter.default.as_ref();
        if default.is_some_and(|value| value.len() > MAX_VALUE) {
            reader.problem(
                &path,
                &format!("the default is over {MAX_VALUE} bytes"),
                None,
            );
        }
        let allowed = |value| parameter.choices.is_empty() || parameter.choices.contains(value);
        if default.is_some_and(|value| !allowed(value)) {
            reader.problem(
                &format!("{path}.default"),
                "the default is not a choice",
                None,
            );
        }
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

/// The names of the tasks; `None` for a task that could not be read.
fn names(tasks: &[Option<WrittenTask>]) -> Vec<Option<TaskName>> {
    let mut count: HashMap<&'static str, usize> = HashMap::new();
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

fn check_names(reader: &mut Reader<'_>, names: &[Option<TaskName>]) {
    let mut first: HashMap<&TaskName, usize> = HashMap::new();
    for (index, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        match first.get(name) {
            Some(earlier) => {
                let message = format!("tasks[{earlier}] is named {:?} already", name.as_str());
                reader.problem(&format!("tasks[{index}].name"), &message, None);
            }
            None => {
                first.insert(name, index);
            }
        }
    }
}

fn needs(
    reader: &mut Reader<'_>,
    tasks: &[Option<WrittenTask>],
    names: &[Option<TaskName>],
) -> Vec<Vec<usize>> {
    let mut all = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        let written = task.as_ref().and_then(|task| task.head.needs.as_ref());
        let Some(written) = written else {
            // The classic form: one after the other.
            all.push(index.checked_sub(1).into_iter().collect());
            continue;
        };
        let mut needs = Vec::new();
        for (position, need) in written.iter().enumerate() {
            if let Some(found) = names.iter().position(|name| name.as_ref() == Some(need)) {
                needs.push(found);
                continue;
            }
            let path = format!("tasks[{index}].needs[{position}]");
            let known = names.iter().flatten().map(TaskName::as_str);
            let message = format!("there is no task {:?}", need.as_str());
            reader.problem(&path, &message, meant(need.as_str(), known));
        }
        all.push(needs);
    }
    all
}

fn check_cycles(reader: &mut Reader<'_>, names: &[Option<TaskName>], needs: &[Vec<usize>]) {
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
        name.map_or_else(|| format!("tasks[{task}]"), ToString::to_string)
    };
    let round: Vec<String> = cycle.iter().chain(cycle.first()).map(name).collect();
    let path = format!(
        "tasks[{}].needs",
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

fn check_task(
    reader: &mut Reader<'_>,
    index: usize,
    task: &WrittenTask,
    parameters: &BTreeSet<&str>,
) {
    let path = format!("tasks[{index}]");
    check_env(reader, &format!("{path}.env"), &task.head.env);
    check_timeout(reader, &format!("{path}.timeout"), task.head.timeout);
    let params = format!("{path}.params");
    match &task.action {
        Action::GitCheckout(git) => {
            check_references(
                reader,
                &format!("{params}.repository"),
                &git.repository,
                parameters,
            );
            check_references(reader, &format!("{params}.ref"), &git.reference, parameters);
            check_repository(reader, &format!("{params}.repository"), &git.repository);
            if git.reference.is_empty() || git.reference.starts_with('-') {
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
                reader.problem(
                    &format!("{params}.shell"),
                    "not the name of a program",
                    None,
                );
            }
        }
        Action::PublishArtifacts(publish) => {
            check_patterns(reader, &params, &publish.artifacts, parameters);
        }
        Action::CopyArtifacts(copy) => {
            check_patterns(reader, &params, &copy.artifacts, parameters);
            if let Some(build) = &copy.build {
                let path = format!("{params}.build");
                check_references(reader, &path, build, parameters);
                if !build.contains("${") && build.parse::<u64>().map_or(true, |number| number == 0)
                {
                    reader.problem(&path, "not the number of a build", None);
                }
            }
        }
    }
}

fn check_timeout(reader: &mut Reader<'_>, path: &str, timeout: Option<u64>) {
    if timeout.is_some_and(|seconds| seconds == 0 || seconds > MAX_TIMEOUT) {
        let message = format!("must be between 1 and {MAX_TIMEOUT} seconds");
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

fn check_patterns(
    reader: &mut Reader<'_>,
    params: &str,
    patterns: &[String],
    parameters: &BTreeSet<&str>,
) {
    let path = format!("{params}.artifacts");
    if patterns.is_empty() {
        reader.problem(&path, "needs at least one pattern", None);
    }
    at_most(reader, &path, patterns.len(), 256);
    for (index, pattern) in patterns.iter().enumerate() {
        let path = format!("{path}[{index}]");
        check_references(reader, &path, pattern, parameters);
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

/// The names in `${…}` of a text, or the byte where one is not closed.
fn references(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let after = &rest[start + 2..];
        let end = after.find('}').unwrap_or(after.len());
        names.push(&after[..end]);
        rest = &after[end..];
    }
    names
}

fn check_references(reader: &mut Reader<'_>, path: &str, text: &str, parameters: &BTreeSet<&str>) {
    for name in references(text) {
        if !parameters.contains(name) {
            let message = format!("the job has no parameter {name:?}");
            reader.problem(path, &message, meant(name, parameters.iter().copied()));
        }
    }
}

/// `text` with every `${name}` replaced by its value.
pub(super) fn substitute(text: &str, values: &BTreeMap<String, String>) -> Result<String, Failure> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        let (name, following) = after.split_once('}').unwrap_or((after, ""));
        let value = values.get(name).ok_or_else(|| Failure::Configuration {
            detail: format!("parameter {name:?} has no value"),
        })?;
        filled.push_str(before);
        filled.push_str(value);
        rest = following;
    }
    filled.push_str(rest);
    Ok(filled)
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
        let Some(value) = given.get(name).or(parameter.default.as_ref()) else {
            wrong.push(format!("parameter {name:?} needs a value"));
            continue;
        };
        if !parameter.choices.is_empty() && !parameter.choices.contains(value) {
            wrong.push(format!(
                "parameter {name:?} is one of {}",
                parameter.choices.join(", ")
            ));
        }
        if value.len() > MAX_VALUE || value.contains('\0') {
            wrong.push(format!(
                "parameter {name:?} is over {MAX_VALUE} bytes or holds a NUL"
            ));
        }
        values.insert(name.clone(), value.clone());
    }
    if wrong.is_empty() {
        Ok(values)
    } else {
        Err(InvalidParameters(wrong))
    }
}
