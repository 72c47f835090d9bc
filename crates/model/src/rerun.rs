//! The law of running a build again: what is kept of it, and what is run anew.
//!
//! A pure function of the earlier build's checkpoint. What is kept refers to the earlier build for its
//! console, its layer and its artifacts; nothing is copied.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::build::{Checkpoint, Finished, Progress};
use crate::config::JobConfig;
use crate::id::{BuildNumber, TaskName};

/// What of a build is run again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "again", rename_all = "kebab-case")]
pub enum Again {
    /// Everything, with the job's present configuration.
    #[default]
    All,
    /// What did not succeed, and what comes after it, with the build's own configuration.
    Failed,
    /// A task, what comes after it, and what did not succeed, with the build's own configuration.
    From {
        /// The task.
        task: TaskName,
    },
}

/// Why a build cannot be run again so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotRerun {
    /// There is no such task.
    #[error("the build has no task {0:?}")]
    NoSuchTask(String),
    /// Every task succeeded.
    #[error("no task failed; leave out --failed to run everything again")]
    NothingFailed,
}

/// The checkpoint with which a build begins that runs `earlier` (build `number`) again from its
/// middle; `config` is that build's, flat. `at` is when it begins.
///
/// # Errors
/// [`CannotRerun`].
pub fn resume(
    config: &JobConfig,
    (number, earlier): (BuildNumber, &Checkpoint),
    again: &Again,
    at: Timestamp,
) -> Result<Checkpoint, CannotRerun> {
    let mut anew = unsuccessful(config, earlier);
    match again {
        Again::All => anew = (0..config.tasks.len()).collect(),
        Again::Failed if anew.is_empty() => return Err(CannotRerun::NothingFailed),
        Again::Failed => {}
        Again::From { task } => {
            let found = config.tasks.iter().position(|known| known.name == *task);
            let missing = || CannotRerun::NoSuchTask(task.to_string());
            anew.insert(found.ok_or_else(missing)?);
        }
    }
    let graph = config.graph();
    let mut checkpoint = Checkpoint::start(config.tasks.len(), at);
    for (index, progress) in earlier.tasks.iter().enumerate() {
        let after_anew = graph
            .ancestors(index)
            .iter()
            .any(|task| anew.contains(task));
        if anew.contains(&index) || after_anew {
            continue;
        }
        if let (Progress::Finished(run), Some(slot)) = (progress, checkpoint.tasks.get_mut(index)) {
            *slot = Progress::Finished(Box::new(of_build(number, run)));
        }
    }
    Ok(checkpoint)
}

/// The tasks that did not run to success. What was skipped is judged anew.
fn unsuccessful(config: &JobConfig, earlier: &Checkpoint) -> BTreeSet<usize> {
    let failed = |progress: Option<&Progress>| match progress {
        Some(Progress::Finished(run)) => !run.result.outcome.is_success(),
        Some(Progress::Skipped { why }) => why.is_for_want_of_success(),
        Some(
            Progress::Waiting
            | Progress::Posted { .. }
            | Progress::Backoff { .. }
            | Progress::Asking { .. },
        )
        | None => true,
    };
    (0..config.tasks.len())
        .filter(|&task| failed(earlier.tasks.get(task)))
        .collect()
}

/// A run as a later build refers to it.
fn of_build(number: BuildNumber, run: &Finished) -> Finished {
    let mut run = run.clone();
    let of = run.build.unwrap_or(number);
    run.build = Some(of);
    if let Some(layer) = &mut run.result.layer {
        layer.build = layer.build.or(Some(of));
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Skip;
    use crate::id::{Attempt, TicketId};
    use crate::outcome::{Failure, LayerRef, Outcome, TaskResult};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn config() -> JobConfig {
        let task = |name: &str, needs: &str| {
            let params = r#""params": {"script": "true"}"#;
            format!(
                r#"{{"type": "execute-shell", {params}, "name": "{name}", "needs": [{needs}]}}"#
            )
        };
        let tasks = [
            task("a", ""),
            task("b", r#""a""#),
            task("c", r#""a""#),
            task("d", r#""b", "c""#),
        ];
        let text = format!(r#"{{"job_id": "j", "tasks": [{}]}}"#, tasks.join(","));
        JobConfig::parse(&text).unwrap().flat()
    }

    fn ended(success: bool) -> Progress {
        let ticket: TicketId = TicketId::control();
        let outcome = if success {
            Outcome::Success
        } else {
            let reason = Failure::Exit { exit: 1 };
            Outcome::Failure { reason }
        };
        let mut result = TaskResult::of(outcome);
        result.layer = Some(LayerRef {
            ticket: ticket.clone(),
            attempt: Attempt::new(1),
            build: None,
            bytes: 1,
        });
        Progress::Finished(Box::new(Finished {
            queued: None,
            past: Vec::new(),
            ticket,
            run: 1,
            build: None,
            attempt: Attempt::new(1),
            result,
            worker: None,
            started: None,
            finished: at(5),
        }))
    }

    fn earlier(failed: bool) -> Checkpoint {
        let skipped = Progress::Skipped {
            why: Skip::Failed { task: "b".into() },
        };
        let mut checkpoint = Checkpoint::start(4, at(0));
        let last = if failed { skipped } else { ended(true) };
        checkpoint.tasks = vec![ended(true), ended(!failed), ended(true), last];
        checkpoint
    }

    fn kept(again: &Again, failed: bool) -> Result<Vec<bool>, CannotRerun> {
        let number = BuildNumber::FIRST;
        let resumed = resume(&config(), (number, &earlier(failed)), again, at(9))?;
        let is_kept = |progress: &Progress| {
            let Progress::Finished(run) = progress else {
                return false;
            };
            assert_eq!(run.build, Some(number));
            assert_eq!(run.result.layer.as_ref().unwrap().build, Some(number));
            true
        };
        Ok(resumed.tasks.iter().map(is_kept).collect())
    }

    #[test]
    fn what_succeeded_is_kept_unless_something_before_it_runs_anew() {
        let from = |task: &str| Again::From {
            task: task.parse().unwrap(),
        };
        assert_eq!(kept(&Again::All, true).unwrap(), [false; 4]);
        assert_eq!(
            kept(&Again::Failed, true).unwrap(),
            [true, false, true, false]
        );
        assert_eq!(kept(&from("c"), true).unwrap(), [true, false, false, false]);
        assert_eq!(kept(&from("c"), false).unwrap(), [true, true, false, false]);
        assert_eq!(kept(&from("a"), false).unwrap(), [false; 4]);
        assert_eq!(kept(&Again::Failed, false), Err(CannotRerun::NothingFailed));
        assert!(matches!(
            kept(&from("x"), true),
            Err(CannotRerun::NoSuchTask(_))
        ));
    }

    #[test]
    fn what_is_kept_twice_is_still_of_the_build_that_ran_it() {
        let (one, two) = (BuildNumber::FIRST, BuildNumber::FIRST.next());
        let second = resume(&config(), (one, &earlier(true)), &Again::Failed, at(9)).unwrap();
        let third = resume(&config(), (two, &second), &Again::Failed, at(19)).unwrap();
        let Progress::Finished(run) = &third.tasks[0] else {
            panic!()
        };
        assert_eq!(run.build, Some(one));
    }
}
