//! Whether every `${…}` of a job file can have a value.

use std::collections::{BTreeMap, BTreeSet};

use super::super::flat::flatten;
use super::super::graph::Graph;
use super::super::scope::references;
use super::super::{Action, JobConfig, TaskConfig};
use super::{Reader, meant};
use crate::event::{FACTS, is_fact};
use crate::id::TaskName;

/// Checks the cells of a job and every reference in it.
pub(super) fn check(reader: &mut Reader<'_>, job: &JobConfig) {
    let (tasks, misfits) = flatten(job);
    for misfit in misfits {
        reader.problem(&misfit.path, &misfit.message, None);
    }
    let parameters: BTreeSet<&str> = job.parameters.keys().map(String::as_str).collect();
    let mut check = Check {
        reader,
        parameters,
        told: BTreeSet::new(),
    };
    let configs: Vec<TaskConfig> = tasks.iter().map(|flat| flat.task.clone()).collect();
    let graph = Graph::of(&configs);
    for (index, flat) in tasks.iter().enumerate() {
        let ancestors = graph.ancestors(index).iter();
        let before: BTreeSet<&TaskName> = ancestors.map(|&task| &configs[task].name).collect();
        check.task(&flat.path, &flat.task, &before);
    }
    check.head(job);
}

struct Check<'r, 'a> {
    reader: &'r mut Reader<'a>,
    parameters: BTreeSet<&'r str>,
    /// Of many cells with one fault, one is told of.
    told: BTreeSet<(String, String)>,
}

impl Check<'_, '_> {
    fn head(&mut self, job: &JobConfig) {
        let none = BTreeSet::new();
        self.values("env", &job.env, &none);
        for (index, downstream) in job.downstream_jobs.iter().enumerate() {
            let path = format!("downstream_jobs[{index}].parameters");
            self.values(&path, &downstream.parameters, &none);
        }
        let group = job
            .concurrency
            .as_ref()
            .and_then(|most| most.group.as_ref());
        if let Some(group) = group {
            self.text("concurrency.group", group, &none);
        }
    }

    fn task(&mut self, path: &str, task: &TaskConfig, before: &BTreeSet<&TaskName>) {
        self.values(&format!("{path}.env"), &task.env, before);
        for (index, lock) in task.locks.iter().enumerate() {
            self.text(
                &format!("{path}.locks[{index}]"),
                &lock.name,
                &BTreeSet::new(),
            );
        }
        for name in task.when.conditions.parameters.keys() {
            if !self.parameters.contains(name.as_str()) {
                let path = format!("{path}.when.parameters.{name}");
                let help = meant(name, self.parameters.iter().copied());
                self.tell(&path, &format!("the job has no parameter {name:?}"), help);
            }
        }
        for (path, why) in super::worlds::misfits(path, task) {
            self.tell(&path, &why, None);
        }
        let params = format!("{path}.params");
        match &task.action {
            Action::GitCheckout(git) => {
                self.text(&format!("{params}.repository"), &git.repository, before);
                if let Some(reference) = &git.reference {
                    self.text(&format!("{params}.ref"), reference, before);
                }
            }
            Action::ExecuteShell(shell) => {
                for (index, label) in shell.nodelabels.iter().enumerate() {
                    if let Err(error) = label.parse::<crate::capability::Label>() {
                        let path = format!("{params}.nodelabels[{index}]");
                        self.tell(&path, &error.to_string(), None);
                    }
                }
            }
            Action::PublishArtifacts(publish) => {
                self.texts(&format!("{params}.artifacts"), &publish.artifacts, before);
                for (format, patterns) in publish.reports() {
                    self.texts(&format!("{params}.{format}"), patterns, before);
                }
            }
            Action::CopyArtifacts(copy) => {
                self.texts(&format!("{params}.artifacts"), &copy.artifacts, before);
                if let Some(build) = &copy.build {
                    self.text(&format!("{params}.build"), build, before);
                }
            }
            Action::Approve(approve) => {
                self.text(&format!("{params}.message"), &approve.message, before);
            }
            Action::JobFile(file) => {
                self.text("job_file.repository", &file.repository, before);
                if let Some(reference) = &file.reference {
                    self.text("job_file.ref", reference, before);
                }
            }
        }
    }

    fn values(
        &mut self,
        path: &str,
        values: &BTreeMap<String, String>,
        before: &BTreeSet<&TaskName>,
    ) {
        for (name, value) in values {
            self.text(&format!("{path}.{name}"), value, before);
        }
    }

    fn texts(&mut self, path: &str, texts: &[String], before: &BTreeSet<&TaskName>) {
        for (index, text) in texts.iter().enumerate() {
            self.text(&format!("{path}[{index}]"), text, before);
        }
    }

    fn text(&mut self, path: &str, text: &str, before: &BTreeSet<&TaskName>) {
        for reference in references(text) {
            let name = reference.name;
            if let Some(fact) = name.strip_prefix("event.") {
                self.fact(path, fact);
            } else if let Some(output) = name.strip_prefix("tasks.") {
                self.output(path, output, before);
            } else if !self.parameters.contains(name) {
                let help = meant(name, self.parameters.iter().copied());
                self.tell(path, &format!("the job has no parameter {name:?}"), help);
            }
        }
    }

    fn fact(&mut self, path: &str, fact: &str) {
        if !is_fact(fact) {
            let message = format!("there is no fact {fact:?} of an event");
            let known = FACTS.iter().map(|(name, _)| *name);
            self.tell(path, &message, meant(fact, known));
        }
    }

    fn output(&mut self, path: &str, output: &str, before: &BTreeSet<&TaskName>) {
        let Some((task, _)) = output.rsplit_once('.') else {
            let help = "as in ${tasks.build.version}".to_owned();
            self.tell(
                path,
                &format!("${{tasks.{output}}} names no output"),
                Some(help),
            );
            return;
        };
        if !before.iter().any(|name| name.as_str() == task) {
            let message = format!("no task {task:?} comes before this one");
            let known = before.iter().map(|name| name.as_str());
            self.tell(path, &message, meant(task, known));
        }
    }

    fn tell(&mut self, path: &str, message: &str, help: Option<String>) {
        if self.told.insert((path.to_owned(), message.to_owned())) {
            self.reader.problem(path, message, help);
        }
    }
}
