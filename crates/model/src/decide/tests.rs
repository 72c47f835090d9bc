//! The law of one build as examples and as properties over random graphs and histories.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::build::{ConfigRef, Downstream};
use crate::capability::Capabilities;
use crate::event::EventKind;
use crate::id::{BuildNumber, BuildRef, JobKey, RequestId};
use crate::ticket::{Duty, Priority, Stamp, Ticket, TicketState};

mod job_files;
mod pipelines;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn key() -> BuildKey {
    BuildKey::derive(
        &JobKey::derive(&"j".parse().unwrap(), 0),
        BuildNumber::FIRST,
    )
}

/// A job from one line a task: `name [needs…] [when=…] [may-fail]`; no needs means none.
fn job(lines: &[&str], downstream: &[&str]) -> JobConfig {
    let task = |line: &&str| {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let (settings, needs): (Vec<_>, Vec<_>) =
            words.partition(|word| word.contains('=') || *word == "may-fail");
        let when = settings.iter().find_map(|word| word.strip_prefix("when="));
        serde_json::json!({
            "type": "execute-shell", "params": {"script": "true"}, "name": name, "needs": needs,
            "when": when.unwrap_or("on_success"), "allow_failure": settings.contains(&"may-fail"),
        })
    };
    let tasks: Vec<_> = lines.iter().map(task).collect();
    let text = serde_json::json!({"job_id": "j", "tasks": tasks, "downstream_jobs": downstream});
    JobConfig::parse(&text.to_string()).unwrap()
}

fn build(checkpoint: &Checkpoint) -> Build {
    let job = JobKey::derive(&"j".parse().unwrap(), 0);
    Build {
        ticket: Ticket {
            queued: None,
            past: Vec::new(),
            duty: Duty::Control,
            job,
            number: BuildNumber::FIRST,
            class: Capabilities::control().class(),
            priority: Priority::CONTROL,
            stamp: Stamp::at(at(0)),
            attempt: Attempt::default(),
            losses: 0,
            locks: Vec::new(),
            slots: Vec::new(),
            state: TicketState::Queued,
        },
        id: "j#1".parse().unwrap(),
        config: ConfigRef {
            revision: 1,
            hash: String::new(),
            file: None,
        },
        parameters: BTreeMap::new(),
        cause: Cause::Manual,
        request: RequestId::derive("test"),
        depth: 0,
        created: at(0),
        checkpoint: checkpoint.clone(),
    }
}

fn decide(config: &JobConfig, checkpoint: &Checkpoint, events: &[Event]) -> Decision {
    super::decide(config, &build(checkpoint), events)
}

fn finished(config: &JobConfig, task: usize, outcome: Outcome) -> Event {
    Event::Finished(Box::new(Finished {
        queued: None,
        past: Vec::new(),
        ticket: TicketId::derive(&key(), &config.tasks[task].name, 1),
        run: 1,
        build: None,
        attempt: Attempt::new(1),
        result: TaskResult::of(outcome),
        worker: None,
        started: Some(at(1)),
        finished: at(10 + i64::try_from(task).unwrap()),
    }))
}

fn failure() -> Outcome {
    Outcome::Failure {
        reason: Failure::Exit { exit: 1 },
    }
}

/// Runs a build to its end; `ends` says how each task ends, `pick` which posted task is next.
fn run(
    config: &JobConfig,
    ends: &BTreeMap<String, Outcome>,
    mut pick: impl FnMut(usize) -> usize,
) -> (Checkpoint, Outcome) {
    let mut checkpoint = Checkpoint::start(config.tasks.len(), at(0));
    let mut posted: Vec<usize> = Vec::new();
    let mut past: Vec<Event> = Vec::new();
    for _ in 0..10_000 {
        let decision = decide(config, &checkpoint, &past);
        checkpoint = decision.checkpoint;
        posted.extend(decision.post.iter().map(|posting| posting.task));
        for place in decision.trigger {
            let build = BuildRef {
                job: config.downstream_jobs[place].job.clone(),
                number: BuildNumber::FIRST,
            };
            checkpoint.downstream.push(Downstream::Triggered { build });
        }
        match decision.next {
            Next::Again => {}
            Next::Archive { outcome } => return (checkpoint, outcome),
            Next::Park { .. } => {
                let task = posted.swap_remove(pick(posted.len()));
                let outcome = ends.get(config.tasks[task].name.as_str()).cloned();
                past.push(finished(config, task, outcome.unwrap_or(Outcome::Success)));
            }
        }
    }
    panic!("the build never ended");
}

fn states(checkpoint: &Checkpoint) -> Vec<&'static str> {
    let state = |progress: &Progress| match progress {
        Progress::Waiting => "waiting",
        Progress::Posted { .. } => "posted",
        Progress::Backoff { .. } => "backoff",
        Progress::Asking { .. } => "asking",
        Progress::Skipped { .. } => "skipped",
        Progress::Finished(run) if run.result.outcome.is_success() => "success",
        Progress::Finished(_) => "failed",
    };
    checkpoint.tasks.iter().map(state).collect()
}

fn failing(names: &[&str]) -> BTreeMap<String, Outcome> {
    names
        .iter()
        .map(|&name| (name.to_owned(), failure()))
        .collect()
}

#[test]
fn how_tasks_run_after_a_failure() {
    for (lines, expected) in [
        (
            ["a", "b a", "c b", "d c"],
            ["failed", "skipped", "skipped", "skipped"],
        ),
        (
            ["a", "b a when=always", "c b", "d c"],
            ["failed", "success", "skipped", "skipped"],
        ),
        (
            ["a", "b a when=on_failure", "c", "d c"],
            ["failed", "success", "success", "success"],
        ),
        (
            ["a may-fail", "b a", "c b", "d c"],
            ["failed", "success", "success", "success"],
        ),
        (
            ["a may-fail", "b a when=on_failure", "c b", "d"],
            ["failed", "skipped", "success", "success"],
        ),
        (
            ["a", "b", "c a b", "d b"],
            ["failed", "success", "skipped", "success"],
        ),
    ] {
        let (checkpoint, _) = run(&job(&lines, &[]), &failing(&["a"]), |_| 0);
        assert_eq!(states(&checkpoint), expected, "{lines:?}");
    }
}

#[test]
fn on_failure_is_skipped_when_nothing_failed() {
    let (checkpoint, outcome) = run(
        &job(&["a", "b a when=on_failure", "c b"], &[]),
        &failing(&[]),
        |_| 0,
    );
    assert_eq!(states(&checkpoint), ["success", "skipped", "success"]);
    assert_eq!(outcome, Outcome::Success);
}

#[test]
fn failures_come_before_faults_and_both_name_their_tasks() {
    let config = job(&["a", "b", "c"], &[]);
    let mut ends = failing(&["b"]);
    ends.insert(
        "a".into(),
        Outcome::Fault {
            reason: Fault::Lost { attempts: 3 },
        },
    );
    let (_, outcome) = run(&config, &ends, |_| 0);
    assert_eq!(
        outcome,
        Outcome::Failure {
            reason: Failure::Tasks {
                failed: vec!["b".into()]
            }
        }
    );
    ends.remove("b");
    let (_, outcome) = run(&config, &ends, |_| 0);
    assert_eq!(
        outcome,
        Outcome::Fault {
            reason: Fault::Tasks {
                faulted: vec!["a".into()]
            }
        }
    );
}

#[test]
fn downstream_jobs_are_triggered_once_and_only_after_success() {
    let config = job(&["a"], &["x", "y"]);
    let (checkpoint, _) = run(&config, &failing(&[]), |_| 0);
    assert_eq!(checkpoint.downstream.len(), 2);
    let (checkpoint, _) = run(&config, &failing(&["a"]), |_| 0);
    assert_eq!(checkpoint.downstream.len(), 0);
}

#[test]
fn a_cancelled_build_posts_nothing_more_and_cancels_what_is_posted() {
    let config = job(&["a", "b a when=always", "c"], &["x"]);
    let start = decide(&config, &Checkpoint::start(3, at(0)), &[]);
    let cancel = decide(
        &config,
        &start.checkpoint,
        &[Event::Cancelled {
            at: at(5),
            by: Some("superseded by j#2".to_owned()),
        }],
    );
    assert_eq!(cancel.cancel.len(), 2);
    let by = cancel.checkpoint.cancelled_by.as_deref();
    assert_eq!(by, Some("superseded by j#2"));
    assert!(cancel.post.is_empty());
    assert_eq!(cancel.next, Next::Park { until: None });
    let stopped = Outcome::Failure {
        reason: Failure::Cancelled,
    };
    let events = [
        Event::Cancelled {
            at: at(5),
            by: None,
        },
        finished(&config, 0, stopped.clone()),
        finished(&config, 2, Outcome::Success),
    ];
    let end = decide(&config, &cancel.checkpoint, &events);
    assert!(end.cancel.is_empty());
    assert_eq!(end.next, Next::Archive { outcome: stopped });
}

#[test]
fn a_cancel_that_comes_after_the_end_changes_nothing() {
    let config = job(&["a"], &[]);
    let start = decide(&config, &Checkpoint::start(1, at(0)), &[]);
    let events = [
        finished(&config, 0, Outcome::Success),
        Event::Cancelled {
            at: at(50),
            by: None,
        },
    ];
    let end = decide(&config, &start.checkpoint, &events);
    assert_eq!(
        end.next,
        Next::Archive {
            outcome: Outcome::Success
        }
    );
    assert_eq!(end.checkpoint.latest, at(10));
    let uncancelled = decide(&config, &start.checkpoint, &events[..1]);
    assert_eq!(end, uncancelled, "two who end the build would differ");
}

#[test]
fn wide_builds_are_posted_in_slices() {
    let names: Vec<String> = (0..100).map(|index| format!("t{index}")).collect();
    let lines: Vec<&str> = names.iter().map(String::as_str).collect();
    let config = job(&lines, &[]);
    let first = decide(&config, &Checkpoint::start(100, at(0)), &[]);
    assert_eq!((first.post.len(), first.next), (MAX_POSTS, Next::Again));
    assert_eq!(run(&config, &failing(&[]), |_| 0).1, Outcome::Success);
}

fn any_end() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Success),
        1 => Just(failure()),
        1 => Just(Outcome::Fault { reason: Fault::Lost { attempts: 3 } }),
    ]
}

prop_compose! {
    /// A graph where each task needs some earlier ones, and how each task ends.
    fn any_job()(size in 1usize..9)(
        needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), size),
        when in prop::collection::vec(0usize..5, size),
        may_fail in prop::collection::vec(prop::bool::weighted(0.2), size),
        ends in prop::collection::vec(any_end(), size),
    ) -> (JobConfig, BTreeMap<String, Outcome>) {
        let lines: Vec<String> = (0..needs.len()).map(|task| {
            let mut needed: Vec<usize> = match task {
                0 => Vec::new(),
                task => needs[task].iter().map(|index| index.index(task)).collect(),
            };
            needed.sort_unstable();
            needed.dedup();
            let needed: Vec<String> = needed.iter().map(|need| format!(" t{need}")).collect();
            let needed = needed.concat();
            let when = ["always", "on_failure", "on_success", "on_success", "on_success"][when[task]];
            let may_fail = if may_fail[task] { " may-fail" } else { "" };
            format!("t{task}{needed} when={when}{may_fail}")
        }).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let ends = ends.into_iter().enumerate().map(|(task, end)| (format!("t{task}"), end));
        (job(&lines, &[]), ends.collect())
    }
}

proptest! {
    /// Events may come in any order and again and again: the end is the same.
    #[test]
    fn any_order_and_repetition_of_events_ends_in_the_same_verdict(
        (config, ends) in any_job(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 16),
    ) {
        let (expected, verdict) = run(&config, &ends, |_| 0);
        let mut picks = picks.iter().cycle();
        let (other, again) =
            run(&config, &ends, |count| picks.next().map_or(0, |pick| pick.index(count)));
        prop_assert_eq!(&verdict, &again);
        prop_assert_eq!(states(&expected), states(&other));
        prop_assert_eq!(expected.latest, other.latest);
    }

    /// A decision that was lost before its commit is taken again with the same content.
    #[test]
    fn deciding_twice_decides_the_same((config, ends) in any_job()) {
        let checkpoint = Checkpoint::start(config.tasks.len(), at(0));
        let first = decide(&config, &checkpoint, &[]);
        prop_assert_eq!(&first, &decide(&config, &checkpoint, &[]));
        let stored = serde_json::to_string(&first).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Decision>(&stored).unwrap(), &first);
        prop_assert!(ends.len() == config.tasks.len());
    }
}
