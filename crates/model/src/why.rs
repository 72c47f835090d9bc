//! Why a build waits, or why it ended as it did, in words.
//!
//! Owns the sentences; whoever shows them adds nothing. A pure function of what is seen of the build and
//! of the queue.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::build::{Cause, Downstream, Finished};
use crate::capability::{Capabilities, Capability};
use crate::config::Span;
use crate::id::{Attempt, TaskName};
use crate::outcome::Outcome;
use crate::wire::{BuildPhase, BuildView, TaskState, TaskView};

/// What is known of a ticket that waits in the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queued {
    /// How many waiting workers offer what it requires.
    pub waiting: usize,
    /// How many workers that hold claims now have offered it.
    pub busy: usize,
    /// How many workers have offered it to the frontend that is asked, in the last hour.
    pub seen: usize,
    /// The images and drivers that workers have offered there, if it requires one.
    pub worlds: Vec<Capability>,
    /// Who holds what it has to wait for: `lock deploy is held by x#811`.
    pub blocked: Option<String>,
}

/// What waits in the queue of a build's tickets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// The build's own ticket, if it is queued.
    pub control: Option<Queued>,
    /// Those of its tasks.
    pub tasks: BTreeMap<TaskName, Queued>,
}

/// A sentence about a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// The task that it is about; none for the build itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// The sentence.
    pub text: String,
}

/// Why a build is where it is. Says nothing of tasks that ended well.
pub fn why(view: &BuildView, queue: &QueueFacts, now: Timestamp) -> Vec<Reason> {
    let mut reasons = vec![about_build(view, queue)];
    for task in &view.tasks {
        if let Some(text) = about_task(view, task, queue, now) {
            let task = Some(task.name.clone());
            reasons.push(Reason { task, text });
        }
    }
    for downstream in &view.downstream {
        if let Downstream::Refused { job, why } = downstream {
            let text = format!("{job} was not triggered: {why}");
            reasons.push(Reason { task: None, text });
        }
    }
    reasons
}

fn about_build(view: &BuildView, queue: &QueueFacts) -> Reason {
    let build = &view.build;
    let text = match (&view.outcome, view.phase) {
        (Some(Outcome::Success), _) => format!("{build} succeeded"),
        (Some(outcome), _) if outcome.is_cancelled() => match &view.cancelled_by {
            Some(by) => format!("{build} was cancelled: {by}"),
            None => format!("{build} was cancelled"),
        },
        (Some(outcome), _) => format!("{build} ended with {outcome}"),
        (None, _) if view.cancelled => format!("{build} is being cancelled"),
        (None, BuildPhase::Queued) => match &queue.control {
            Some(control) => format!("{build} waits: {}", of_queued(control, &control_needs())),
            None => format!("{build} has begun"),
        },
        (None, BuildPhase::Running | BuildPhase::Finished) => format!("{build} runs"),
    };
    let text = match &view.cause {
        Cause::Rerun { of, .. } => format!("{text}; it runs {of} again"),
        Cause::Manual | Cause::Upstream { .. } | Cause::Event { .. } => text,
    };
    Reason { task: None, text }
}

fn control_needs() -> Capabilities {
    Capabilities::control()
}

fn about_task(
    view: &BuildView,
    task: &TaskView,
    queue: &QueueFacts,
    now: Timestamp,
) -> Option<String> {
    let name = &task.name;
    match &task.state {
        TaskState::Waiting => Some(format!("{name} waits for {}", unsettled(view, task))),
        TaskState::Queued { attempt, requires } => {
            let known = queue.tasks.get(name).cloned().unwrap_or_default();
            let waits = of_queued(&known, requires);
            Some(format!("{name} waits: {waits}{}", after(*attempt)))
        }
        TaskState::Running {
            attempt,
            worker,
            started,
        } => {
            let (since, before) = (since(*started, now), after(before(*attempt)));
            Some(format!("{name} runs on {worker} for {since}{before}"))
        }
        TaskState::Backoff { run, until, last } => {
            let (outcome, pause) = (&last.result.outcome, since(now, *until));
            Some(format!(
                "{name} ended with {outcome}; run {run} begins in {pause}"
            ))
        }
        TaskState::Asking {
            message,
            since: asked,
            until,
        } => {
            let (since, left) = (since(*asked, now), since(now, *until));
            let message = if message.is_empty() {
                "it has no question"
            } else {
                message
            };
            Some(format!(
                "{name} waits for approval since {since} ({message}); it gives up in {left}"
            ))
        }
        TaskState::Skipped { why } => Some(format!("{name} was skipped: {why}")),
        TaskState::Finished { run } => of_finished(name, run),
    }
}

fn of_finished(name: &TaskName, run: &Finished) -> Option<String> {
    let outcome = &run.result.outcome;
    if outcome.is_success() {
        return None;
    }
    let worker = run.worker.as_ref();
    let on = worker.map(|worker| format!(" on {worker}"));
    let runs = if run.run > 1 {
        format!(", in run {}", run.run)
    } else {
        String::new()
    };
    let on = on.unwrap_or_default();
    Some(format!("{name} ended with {outcome}{on}{runs}"))
}

fn of_queued(queued: &Queued, requires: &Capabilities) -> String {
    if let Some(blocked) = &queued.blocked {
        return blocked.clone();
    }
    match (queued.waiting, queued.busy) {
        (0, 0) => {
            let seen = match queued.seen {
                0 => String::new(),
                seen => format!(" ({seen} seen in the last hour)"),
            };
            let worlds: Vec<_> = queued.worlds.iter().map(ToString::to_string).collect();
            let worlds = match worlds.as_slice() {
                [] => String::new(),
                worlds => format!("; there are {}", worlds.join(", ")),
            };
            format!("no worker here offers {requires}{seen}{worlds}")
        }
        (0, 1) => format!("the one worker that offers {requires} is busy"),
        (0, busy) => format!("all {busy} workers that offer {requires} are busy"),
        (_, _) => format!("a worker that offers {requires} is about to take it"),
    }
}

fn after(lost: Attempt) -> String {
    match lost.get() {
        0 => String::new(),
        1 => "; attempt 1 was lost or ended in a fault".to_owned(),
        many => format!("; attempt {many} was lost or ended in a fault"),
    }
}

fn before(attempt: Attempt) -> Attempt {
    Attempt::new(attempt.get().saturating_sub(1))
}

/// The tasks that a task needs and that have not ended.
fn unsettled(view: &BuildView, task: &TaskView) -> String {
    let ended = |name: &TaskName| {
        let needed = view.tasks.iter().find(|other| other.name == *name);
        needed.is_some_and(|needed| {
            matches!(
                needed.state,
                TaskState::Finished { .. } | TaskState::Skipped { .. }
            )
        })
    };
    let open = task.needs.iter().filter(|name| !ended(name));
    let names: Vec<&str> = open.map(TaskName::as_str).collect();
    match names.len() {
        0 => "build control to go on".to_owned(),
        1..=5 => names.join(", "),
        many => format!("{} and {} more", names[..4].join(", "), many - 4),
    }
}

fn since(from: Timestamp, to: Timestamp) -> Span {
    let seconds = to.duration_since(from).as_secs();
    Span::from_seconds(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Skip;
    use crate::capability::Kind;
    use crate::id::TicketId;
    use crate::outcome::{Failure, TaskResult};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn view(states: Vec<(&str, &[&str], TaskState)>) -> BuildView {
        let task = |(name, needs, state): (&str, &[&str], TaskState)| TaskView {
            name: name.parse().unwrap(),
            kind: Kind::ExecuteShell,
            needs: needs.iter().map(|need| need.parse().unwrap()).collect(),
            state,
        };
        BuildView {
            build: "j#7".parse().unwrap(),
            phase: BuildPhase::Running,
            outcome: None,
            cause: Cause::Manual,
            parameters: BTreeMap::new(),
            revision: 1,
            created: at(0),
            finished: None,
            cancelled: false,
            cancelled_by: None,
            tasks: states.into_iter().map(task).collect(),
            downstream: Vec::new(),
        }
    }

    fn queued(attempt: u32) -> TaskState {
        let labels = ["arm64".parse().unwrap()];
        TaskState::Queued {
            attempt: Attempt::new(attempt),
            requires: Capabilities::task(Kind::ExecuteShell, &labels),
        }
    }

    fn finished(outcome: Outcome) -> TaskState {
        TaskState::Finished {
            run: Box::new(Finished {
                queued: None,
                past: Vec::new(),
                ticket: TicketId::control(),
                run: 2,
                build: None,
                attempt: Attempt::new(3),
                result: TaskResult::of(outcome),
                worker: Some("w7".parse().unwrap()),
                started: None,
                finished: at(9),
            }),
        }
    }

    fn texts(view: &BuildView, queue: &QueueFacts) -> Vec<String> {
        let reasons = why(view, queue, at(100));
        reasons.into_iter().map(|reason| reason.text).collect()
    }

    #[test]
    fn each_state_has_its_sentence() {
        let exit = Outcome::Failure {
            reason: Failure::Exit { exit: 3 },
        };
        let asking = TaskState::Asking {
            message: "deploy?".to_owned(),
            since: at(40),
            until: at(160),
        };
        let skipped = TaskState::Skipped {
            why: Skip::Failed { task: "b".into() },
        };
        let running = TaskState::Running {
            attempt: Attempt::new(2),
            worker: "w1".parse().unwrap(),
            started: at(10),
        };
        let view = view(vec![
            ("a", &[], finished(Outcome::Success)),
            ("b", &[], finished(exit)),
            ("c", &["b"], skipped),
            ("d", &[], queued(1)),
            ("e", &["a", "d"], TaskState::Waiting),
            ("f", &[], asking),
            ("g", &[], running),
        ]);
        assert_eq!(
            texts(&view, &QueueFacts::default()),
            [
                "j#7 runs",
                "b ended with failure: exit code 3 on w7, in run 2",
                "c was skipped: b did not succeed",
                "d waits: no worker here offers execute-shell label:arm64; \
                 attempt 1 was lost or ended in a fault",
                "e waits for d",
                "f waits for approval since 1m (deploy?); it gives up in 1m",
                "g runs on w1 for 1m30s; attempt 1 was lost or ended in a fault",
            ]
        );
    }

    #[test]
    fn what_waits_says_for_whom() {
        let view = view(vec![("d", &[], queued(0))]);
        let said = |known: Queued| {
            let tasks = [("d".parse().unwrap(), known)].into();
            let queue = QueueFacts {
                control: None,
                tasks,
            };
            texts(&view, &queue).remove(1)
        };
        let busy = |busy| Queued {
            busy,
            ..Queued::default()
        };
        assert!(said(busy(1)).contains("the one worker that offers"));
        assert!(said(busy(3)).contains("all 3 workers that offer"));
        let held = Queued {
            blocked: Some("lock deploy is held by x#811".to_owned()),
            waiting: 2,
            ..Queued::default()
        };
        assert_eq!(said(held), "d waits: lock deploy is held by x#811");
        let gone = Queued {
            seen: 3,
            worlds: vec!["image:debian-12".parse().unwrap()],
            ..Queued::default()
        };
        assert_eq!(
            said(gone),
            "d waits: no worker here offers execute-shell label:arm64 (3 seen in the last hour); \
             there are image:debian-12"
        );
    }
}
