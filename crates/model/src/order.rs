//! The order: everything that a worker needs to run one task.
//!
//! Owns the assembly of a task's environment and inputs from the configuration and the checkpoint.
//! A pure function, so tickets stay small: the order is made when the ticket is claimed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::build::{Build, Finished, Progress};
use crate::config::{Action, Cache, Graph, JobConfig, Scope, TaskConfig};
use crate::event::Event;
use crate::id::{BuildRef, TaskName};
use crate::isolation::Isolation;
use crate::outcome::{Failure, LayerRef};

/// What a worker is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskOrder {
    /// The build.
    pub build: BuildRef,
    /// The task's name.
    pub task: TaskName,
    /// What to do.
    #[schema(value_type = Object)]
    pub action: Action,
    /// Environment that DistCI, the job and earlier tasks give; the worker adds what only it knows.
    pub env: BTreeMap<String, String>,
    /// After how many seconds to give up.
    pub timeout: u64,
    /// The build whose success caused this one, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<BuildRef>,
    /// The workspace to begin with, in the order of laying.
    pub layers: Vec<LayerInput>,
    /// In what world to do it.
    #[serde(default)]
    pub isolation: Isolation,
    /// Folders that earlier builds may have left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cache: Vec<Cache>,
    /// The stored job, for the task that reads its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub job: Option<Box<JobConfig>>,
}

/// One layer of the workspace that a task begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerInput {
    /// The task that made it.
    pub task: TaskName,
    /// Where it is.
    pub layer: LayerRef,
    /// The tasks that it was made on top of. A layer may change what these wrote; what any other
    /// task wrote it may not.
    pub on: Vec<TaskName>,
}

/// The order for task number `index` of `build`; `config` is flat.
///
/// # Errors
/// [`Failure::Configuration`] if an expression has no value.
pub fn order(config: &JobConfig, build: &Build, index: usize) -> Result<TaskOrder, Failure> {
    let missing = || Failure::Configuration {
        detail: format!("there is no task {index}"),
    };
    let task = config.tasks.get(index).ok_or_else(missing)?;
    let graph = config.graph();
    let scope = scope(config, build, &graph, index);
    let mut exports = BTreeMap::new();
    let mut layers = Vec::new();
    for (ancestor, made_by, run) in finished_before(config, build, &graph, index) {
        exports.extend(run.result.exports.clone());
        if let Some(layer) = &run.result.layer {
            let on = graph.ancestors_in_order(ancestor);
            let names = on.filter_map(|index| Some(config.tasks.get(index)?.name.clone()));
            layers.push(LayerInput {
                task: made_by.name.clone(),
                layer: layer.clone(),
                on: names.collect(),
            });
        }
    }
    let mut env = base_env(build, task.name.as_str());
    env.extend(event_env(build));
    env.extend(filled(&config.env, &scope)?);
    env.extend(build.parameters.clone());
    env.extend(exports);
    env.extend(filled(&task.env, &scope)?);
    Ok(TaskOrder {
        build: build.id.clone(),
        task: task.name.clone(),
        action: task.action.resolve(&scope)?,
        env,
        timeout: task.timeout_seconds(),
        upstream: build.cause.upstream().cloned(),
        layers,
        isolation: task.isolation.clone().unwrap_or_default(),
        cache: task.cache.clone(),
        job: matches!(task.action, Action::JobFile(_)).then(|| Box::new(stored(config))),
    })
}

/// The job as it is stored, of which only the task that reads its file is flat.
fn stored(config: &JobConfig) -> JobConfig {
    JobConfig {
        tasks: Vec::new(),
        ..config.clone()
    }
}

/// What the task number `index` of `build` asks people, if it is one that asks.
pub fn question(config: &JobConfig, build: &Build, index: usize) -> Option<String> {
    let Action::Approve(approve) = &config.tasks.get(index)?.action else {
        return None;
    };
    let graph = config.graph();
    let filled = scope(config, build, &graph, index).fill(&approve.message);
    // One that has no value is shown as it is written.
    Some(filled.unwrap_or_else(|_| approve.message.clone()))
}

/// What a task may refer to.
fn scope<'a>(config: &'a JobConfig, build: &'a Build, graph: &'a Graph, index: usize) -> Scope<'a> {
    let mut scope = Scope::of(&build.parameters, build.cause.told());
    for (_, task, run) in finished_before(config, build, graph, index) {
        scope
            .outputs
            .insert(task.name.as_str(), &run.result.outputs);
    }
    scope
}

/// The tasks before a task that have run, each after all that it needs itself.
fn finished_before<'a>(
    config: &'a JobConfig,
    build: &'a Build,
    graph: &'a Graph,
    index: usize,
) -> impl Iterator<Item = (usize, &'a TaskConfig, &'a Finished)> {
    let ancestors = graph.ancestors_in_order(index);
    ancestors.filter_map(|ancestor| match build.checkpoint.tasks.get(ancestor)? {
        Progress::Finished(run) => Some((ancestor, config.tasks.get(ancestor)?, &**run)),
        Progress::Waiting
        | Progress::Posted { .. }
        | Progress::Backoff { .. }
        | Progress::Asking { .. }
        | Progress::Skipped { .. } => None,
    })
}

fn filled(
    env: &BTreeMap<String, String>,
    scope: &Scope<'_>,
) -> Result<BTreeMap<String, String>, Failure> {
    let value = |(name, text): (&String, &String)| Ok((name.clone(), scope.fill(text)?));
    env.iter().map(value).collect()
}

fn base_env(build: &Build, task: &str) -> BTreeMap<String, String> {
    let id = &build.id;
    [
        ("CI", "true".to_owned()),
        ("TZ", "UTC".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("JOB_NAME", id.job.to_string()),
        ("BUILD_NUMBER", id.number.to_string()),
        ("BUILD_ID", id.number.to_string()),
        ("DISTCI", "true".to_owned()),
        ("DISTCI_BUILD_ID", id.to_string()),
        ("DISTCI_STEP", task.to_owned()),
        ("DISTCI_TASK", task.to_owned()),
        ("DISTCI_EVENT", build.cause.event().to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// What tasks are told of the event that started the build.
fn event_env(build: &Build) -> BTreeMap<String, String> {
    build
        .cause
        .told()
        .map(Event::environment)
        .unwrap_or_default()
}
