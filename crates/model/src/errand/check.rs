//! What a forge that has checks is told of a build, beyond the state of a commit.
//!
//! Owns the name by which a check is found again, and the finer words for how it ended. Never knows
//! which of them a forge has.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::id::{BuildRef, JobId};
use crate::outcome::{Failure, Outcome};
use crate::why::{QueueFacts, Reason, why};
use crate::wire::{BuildView, TaskState, TaskView};

/// Most bytes of a check's sentences.
pub const MAX_SUMMARY: usize = 4 * 1024;

/// A check: what a build says of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What it is called at a commit, once and for all: the build, `JOB#N`; or `JOB skipped`, if
    /// there is none on purpose.
    pub id: String,
    /// When it began.
    pub began: Timestamp,
    /// How it ended; none as long as it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<CheckEnd>,
    /// Why it is where it is: a sentence a line, at most [`MAX_SUMMARY`] bytes.
    pub summary: String,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckEnd {
    /// When.
    pub at: Timestamp,
    /// How.
    pub conclusion: Conclusion,
}

/// What is to be concluded from a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// All is well.
    Success,
    /// The code, or its configuration, said no.
    Failure,
    /// It took longer than it may.
    TimedOut,
    /// Somebody asked for this end.
    Cancelled,
    /// We could not do our part: nobody can say.
    Fault,
    /// There was nothing to check.
    Skipped,
}

impl Check {
    /// That of a build that begins.
    pub fn begun(build: &BuildRef, at: Timestamp, summary: String) -> Self {
        Self {
            id: build.to_string(),
            began: at,
            end: None,
            summary,
        }
    }

    /// That of a build as it is seen when it is over.
    pub fn of(view: &BuildView) -> Self {
        let at = view.finished.unwrap_or(view.created);
        let reasons = why(view, &QueueFacts::default(), at);
        let begun = Self::begun(&view.build, view.created, summarize(&reasons));
        let end = view.outcome.as_ref().map(|outcome| CheckEnd {
            at,
            conclusion: Conclusion::of(outcome, &view.tasks),
        });
        Self { end, ..begun }
    }

    /// That of a commit for which a job has no build on purpose.
    pub fn skipped(job: &JobId, at: Timestamp, summary: String) -> Self {
        let conclusion = Conclusion::Skipped;
        Self {
            id: format!("{job} skipped"),
            began: at,
            end: Some(CheckEnd { at, conclusion }),
            summary,
        }
    }
}

impl Conclusion {
    /// What is concluded from a build that ended like this.
    fn of(outcome: &Outcome, tasks: &[TaskView]) -> Self {
        match outcome {
            Outcome::Success => Self::Success,
            cancelled if cancelled.is_cancelled() => Self::Cancelled,
            Outcome::Failure {
                reason: Failure::Tasks { failed },
            } if all_timed_out(failed, tasks) => Self::TimedOut,
            Outcome::Failure { .. } => Self::Failure,
            Outcome::Fault { .. } => Self::Fault,
        }
    }
}

/// Whether nothing but time is what these tasks have failed of.
fn all_timed_out(failed: &[String], tasks: &[TaskView]) -> bool {
    let of_time = |state: &TaskState| match state {
        TaskState::Finished { run } => matches!(
            run.result.outcome,
            Outcome::Failure {
                reason: Failure::TimedOut { .. }
            }
        ),
        TaskState::Waiting
        | TaskState::Queued { .. }
        | TaskState::Running { .. }
        | TaskState::Backoff { .. }
        | TaskState::Asking { .. }
        | TaskState::Skipped { .. } => false,
    };
    let mut failed = tasks
        .iter()
        .filter(|task| failed.iter().any(|name| name == task.name.as_str()))
        .peekable();
    failed.peek().is_some() && failed.all(|task| of_time(&task.state))
}

/// As many of the sentences as a check may have, a line each.
pub fn summarize(reasons: &[Reason]) -> String {
    // So much is left for the line that says how many are missing.
    const ROOM: usize = MAX_SUMMARY - 32;
    let mut summary = String::new();
    for (count, reason) in reasons.iter().enumerate() {
        let line = super::shorten(&reason.text, super::MAX_DETAIL);
        if summary.len() + line.len() >= ROOM {
            let left = (reasons.len() - count).to_string();
            summary.extend(["and ", &left, " more"]);
            break;
        }
        summary.push_str(&line);
        summary.push('\n');
    }
    summary.truncate(summary.trim_end().len());
    summary
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Finished;
    use crate::capability::Kind;
    use crate::id::{Attempt, TicketId};
    use crate::outcome::{Fault, TaskResult};

    fn task(name: &str, reason: Failure) -> TaskView {
        TaskView {
            name: name.parse().unwrap(),
            kind: Kind::ExecuteShell,
            needs: Vec::new(),
            state: TaskState::Finished {
                run: Box::new(Finished {
                    queued: None,
                    past: Vec::new(),
                    ticket: TicketId::control(),
                    run: 1,
                    build: None,
                    attempt: Attempt::new(1),
                    result: TaskResult::of(Outcome::Failure { reason }),
                    worker: None,
                    started: None,
                    finished: Timestamp::UNIX_EPOCH,
                }),
            },
        }
    }

    #[test]
    fn an_end_that_is_not_the_codes_fault_is_no_failure() {
        let failure = |reason| Outcome::Failure { reason };
        let failed = |names: &[&str]| Failure::Tasks {
            failed: names.iter().map(ToString::to_string).collect(),
        };
        let tasks = [
            task("slow", Failure::TimedOut { seconds: 9 }),
            task("bad", Failure::Exit { exit: 1 }),
        ];
        let faulted = vec!["slow".to_owned()];
        for (outcome, expected) in [
            (Outcome::Success, Conclusion::Success),
            (failure(failed(&["bad"])), Conclusion::Failure),
            (failure(failed(&["slow", "bad"])), Conclusion::Failure),
            (failure(failed(&["slow"])), Conclusion::TimedOut),
            (failure(failed(&["gone"])), Conclusion::Failure),
            (failure(Failure::Cancelled), Conclusion::Cancelled),
            (
                Outcome::Fault {
                    reason: Fault::Tasks { faulted },
                },
                Conclusion::Fault,
            ),
        ] {
            assert_eq!(Conclusion::of(&outcome, &tasks), expected, "{outcome}");
        }
    }

    #[test]
    fn sentences_beyond_the_limit_are_counted() {
        let reason = |text: String| Reason { task: None, text };
        let few = [reason("j#1 ended".to_owned()), reason("a\nb".to_owned())];
        assert_eq!(summarize(&few), "j#1 ended\na b");
        assert_eq!(summarize(&[]), "");
        let many: Vec<_> = (0..500).map(|_| reason("ä".repeat(400))).collect();
        let summary = summarize(&many);
        assert!(summary.len() <= MAX_SUMMARY, "{}", summary.len());
        assert!(summary.ends_with(" more"), "{summary}");
    }
}
