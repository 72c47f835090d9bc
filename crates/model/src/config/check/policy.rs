//! Whether a file of a repository asks for no more than its job lets it.
//!
//! Owns the refusals: each says what the stored job would have to allow.

use std::collections::BTreeSet;

use super::super::flat::flatten;
use super::super::job_file::{JobFile, allows};
use super::super::parse::JobHead;
use super::super::patterns::{MAX_PATTERN, MAX_PATTERNS};
use super::super::{Action, JobConfig};
use super::{Reader, at_most, check_repository};
use crate::isolation::Isolation;
use crate::ticket::Priority;

/// Checks what a stored job says of its file.
pub(super) fn check_job_file(reader: &mut Reader<'_>, file: &JobFile) {
    check_repository(reader, "job_file.repository", &file.repository);
    let reference = file.reference.as_deref();
    if reference.is_some_and(|text| text.is_empty() || text.starts_with('-')) {
        reader.problem("job_file.ref", "not a ref or commit id", None);
    }
    if file.path.as_str().is_empty() {
        reader.problem("job_file.path", "names no file", None);
    }
    for (key, patterns) in [
        ("labels", &file.labels),
        ("locks", &file.locks),
        ("downstream", &file.downstream),
    ] {
        let path = format!("job_file.{key}");
        at_most(reader, &path, patterns.len(), MAX_PATTERNS);
        for (index, pattern) in patterns.iter().enumerate() {
            let fits = (1..=MAX_PATTERN).contains(&pattern.len());
            if !fits || pattern.chars().any(char::is_control) {
                let message = format!("must have between 1 and {MAX_PATTERN} bytes, all printable");
                reader.problem(&format!("{path}[{index}]"), &message, None);
            }
        }
    }
}

/// Checks what a file asks for; `job` is the stored one with the file's tasks.
pub(super) fn check(reader: &mut Reader<'_>, job: &JobConfig, stored: &JobConfig) {
    let Some(file) = &stored.job_file else {
        reader.problem("", "the job reads no file", None);
        return;
    };
    let mut asked = Asked {
        reader,
        told: BTreeSet::new(),
    };
    let most = stored.priority.unwrap_or(Priority::NORMAL);
    asked.priority("priority", job.priority, most);
    for (index, downstream) in job.downstream_jobs.iter().enumerate() {
        // The stored job's own are its own affair.
        if !stored.downstream_jobs.contains(downstream) {
            let path = format!("downstream_jobs[{index}]");
            asked.of(
                &path,
                "downstream",
                &file.downstream,
                downstream.job.as_str(),
            );
        }
    }
    let (tasks, _) = flatten(job);
    for flat in &tasks {
        let path = &flat.path;
        asked.priority(&format!("{path}.priority"), flat.task.priority, most);
        for (index, lock) in flat.task.locks.iter().enumerate() {
            asked.of(
                &format!("{path}.locks[{index}]"),
                "locks",
                &file.locks,
                &lock.name,
            );
        }
        let fixed = stored.isolation.as_ref().zip(flat.task.isolation.as_ref());
        if let Some((fixed, own)) = fixed {
            asked.isolation(&format!("{path}.isolation"), own, fixed);
        }
        if let Action::ExecuteShell(shell) = &flat.task.action {
            for (index, label) in shell.nodelabels.iter().enumerate() {
                let path = format!("{path}.params.nodelabels[{index}]");
                asked.of(&path, "labels", &file.labels, label);
            }
        }
    }
}

/// Checks what a file asks for all its tasks: what the stored job says of isolation is fixed.
pub(in crate::config) fn check_isolation(
    reader: &mut Reader<'_>,
    own: &JobHead,
    stored: &JobConfig,
) {
    if let Some((fixed, own)) = stored.isolation.as_ref().zip(own.isolation.as_ref()) {
        let mut asked = Asked {
            reader,
            told: BTreeSet::new(),
        };
        asked.isolation("isolation", own, fixed);
    }
}

struct Asked<'r, 'a> {
    reader: &'r mut Reader<'a>,
    /// Of many cells with one wish, one is told of.
    told: BTreeSet<(String, String)>,
}

impl Asked<'_, '_> {
    fn of(&mut self, path: &str, list: &str, allowed: &[String], wish: &str) {
        if allows(allowed, wish) || !self.told.insert((path.to_owned(), wish.to_owned())) {
            return;
        }
        let message = format!("the job does not allow {wish:?}");
        let help = format!("it would have to be among `{list}` of its `job_file`");
        self.reader.problem(path, &message, Some(help));
    }

    /// What is left out there is free.
    fn isolation(&mut self, path: &str, own: &Isolation, fixed: &Isolation) {
        if fixed.clone().or(own) == own.clone().or(fixed) {
            return;
        }
        if self.told.insert((path.to_owned(), String::new())) {
            let message = "the job says otherwise, and what it says is fixed";
            let help = "leave out what its `isolation` says, or change it there".to_owned();
            self.reader.problem(path, message, Some(help));
        }
    }

    fn priority(&mut self, path: &str, wish: Option<Priority>, most: Priority) {
        let Some(wish) = wish.filter(|wish| *wish < most) else {
            return;
        };
        if self.told.insert((path.to_owned(), String::new())) {
            let message = format!("{} is more urgent than the job", wish.get());
            let help = format!("at most {}, its `priority`", most.get());
            self.reader.problem(path, &message, Some(help));
        }
    }
}
