//! What a build does with retries, approvals, conditions, cells and post tasks.

use super::*;
use crate::config::Retry;

fn parsed(text: &str) -> JobConfig {
    JobConfig::parse(text).unwrap().flat()
}

fn shell(name: &str, more: &str) -> String {
    format!(
        r#"{{"type": "execute-shell", "params": {{"script": "true"}}, "name": "{name}"{more}}}"#
    )
}

fn of_tasks(tasks: &[String]) -> JobConfig {
    parsed(&format!(
        r#"{{"job_id": "j", "tasks": [{}]}}"#,
        tasks.join(",")
    ))
}

/// The end of the run that a checkpoint waits for.
fn ended(checkpoint: &Checkpoint, task: usize, outcome: Outcome, second: i64) -> Event {
    let Progress::Posted { ticket, .. } = &checkpoint.tasks[task] else {
        panic!("task {task} is not posted: {:?}", checkpoint.tasks[task]);
    };
    Event::Finished(Box::new(Finished {
        queued: None,
        past: Vec::new(),
        ticket: ticket.clone(),
        run: 1,
        build: None,
        attempt: Attempt::new(1),
        result: TaskResult::of(outcome),
        worker: None,
        started: Some(at(second - 1)),
        finished: at(second),
    }))
}

fn cancelled(second: i64) -> Event {
    Event::Cancelled {
        at: at(second),
        by: None,
    }
}

fn start(config: &JobConfig) -> Decision {
    decide(config, &Checkpoint::start(config.tasks.len(), at(0)), &[])
}

#[test]
fn a_failed_task_is_run_again_after_its_backoff_until_its_runs_are_spent() {
    let retry = r#", "retry": {"max": 2, "backoff": "10s"}"#;
    let config = of_tasks(&[shell("a", retry), shell("b", "")]);
    let first = start(&config);
    let failed = decide(
        &config,
        &first.checkpoint,
        &[ended(&first.checkpoint, 0, failure(), 5)],
    );
    assert_eq!(states(&failed.checkpoint), ["backoff", "waiting"]);
    assert_eq!(
        failed.next,
        Next::Park {
            until: Some(at(15))
        }
    );
    assert_eq!(failed.consume.len(), 1);
    let early = decide(&config, &failed.checkpoint, &[Event::Clock { at: at(14) }]);
    assert!(early.post.is_empty());
    let second = decide(&config, &failed.checkpoint, &[Event::Clock { at: at(15) }]);
    assert_eq!(second.post.len(), 1);
    assert_ne!(second.post[0].ticket, first.post[0].ticket);
    let again = ended(&second.checkpoint, 0, failure(), 20);
    let third = decide(&config, &second.checkpoint, &[again]);
    assert_eq!(
        third.next,
        Next::Park {
            until: Some(at(40))
        },
        "twice as long"
    );
    let third = decide(&config, &third.checkpoint, &[Event::Clock { at: at(50) }]);
    let spent = ended(&third.checkpoint, 0, failure(), 60);
    let end = decide(&config, &third.checkpoint, &[spent]);
    assert_eq!(states(&end.checkpoint), ["failed", "skipped"]);
    let Progress::Finished(run) = &end.checkpoint.tasks[0] else {
        panic!()
    };
    assert_eq!(run.run, 3);
}

#[test]
fn a_retry_without_backoff_is_posted_by_the_same_decision() {
    let config = of_tasks(&[shell("a", r#", "retry": 1"#)]);
    let first = start(&config);
    let second = decide(
        &config,
        &first.checkpoint,
        &[ended(&first.checkpoint, 0, failure(), 5)],
    );
    assert_eq!((second.post.len(), second.consume.len()), (1, 1));
    let end = decide(
        &config,
        &second.checkpoint,
        &[ended(&second.checkpoint, 0, Outcome::Success, 9)],
    );
    assert_eq!(
        end.next,
        Next::Archive {
            outcome: Outcome::Success
        }
    );
}

#[test]
fn what_is_retried_is_what_was_asked_for() {
    let retry = |text: &str| -> Retry { serde_json::from_str(text).unwrap() };
    let timeout = Outcome::Failure {
        reason: Failure::TimedOut { seconds: 1 },
    };
    let fault = Outcome::Fault {
        reason: Fault::WorkerStopped,
    };
    let cancelled = Outcome::Failure {
        reason: Failure::Cancelled,
    };
    for (text, expected) in [
        ("1", [true, true, false]),
        (r#"{"max": 1, "on": ["fault"]}"#, [false, false, true]),
        (r#"{"max": 1, "on": ["timeout"]}"#, [false, true, false]),
        ("0", [false, false, false]),
    ] {
        let ends = [&failure(), &timeout, &fault];
        let asks = ends.map(|end| retry(text).asks_for_more(1, end));
        assert_eq!(asks, expected, "{text}");
        assert!(!retry(text).asks_for_more(2, &failure()));
        assert!(!retry(text).asks_for_more(1, &cancelled));
        assert!(!retry(text).asks_for_more(1, &Outcome::Success));
    }
    assert_eq!(
        retry(r#"{"max": 9, "backoff": "30m"}"#).pause_after(4),
        3600
    );
}

fn approving() -> JobConfig {
    let approve = r#"{"type": "approve", "name": "ask", "timeout": 100}"#;
    of_tasks(&[shell("a", ""), approve.to_owned(), shell("b", "")])
}

fn answered(task: usize, approved: bool) -> Event {
    let answer = Answer {
        approved,
        comment: "because".to_owned(),
        at: at(30),
    };
    Event::Answered { task, answer }
}

fn asking(config: &JobConfig) -> Decision {
    let first = start(config);
    decide(
        config,
        &first.checkpoint,
        &[ended(&first.checkpoint, 0, Outcome::Success, 5)],
    )
}

#[test]
fn an_approval_waits_for_an_answer_and_for_no_longer_than_it_may() {
    let config = approving();
    let ask = asking(&config);
    assert_eq!(states(&ask.checkpoint), ["success", "asking", "waiting"]);
    assert_eq!(
        ask.next,
        Next::Park {
            until: Some(at(105))
        }
    );
    let yes = decide(&config, &ask.checkpoint, &[answered(1, true)]);
    assert_eq!((states(&yes.checkpoint)[1], yes.post.len()), ("success", 1));
    let repeated = decide(
        &config,
        &yes.checkpoint,
        &[answered(1, false), answered(2, true)],
    );
    assert_eq!(
        repeated.checkpoint.tasks, yes.checkpoint.tasks,
        "the first answer counts"
    );
    let no = decide(&config, &ask.checkpoint, &[answered(1, false)]);
    assert_eq!(states(&no.checkpoint), ["success", "failed", "skipped"]);
    let late = decide(&config, &ask.checkpoint, &[Event::Clock { at: at(105) }]);
    assert_eq!(states(&late.checkpoint), ["success", "failed", "skipped"]);
    let early = decide(&config, &ask.checkpoint, &[Event::Clock { at: at(104) }]);
    assert_eq!(early.next, ask.next);
    let cancelled = decide(&config, &ask.checkpoint, &[cancelled(9)]);
    assert!(matches!(cancelled.next, Next::Archive { .. }));
}

#[test]
fn one_task_is_cancelled_alone() {
    let config = of_tasks(&[
        shell("a", r#", "needs": []"#),
        shell("b", r#", "needs": []"#),
        shell("c", r#", "needs": ["a"]"#),
        shell("d", r#", "needs": ["b"]"#),
    ]);
    let first = start(&config);
    let stops = [
        Event::Stopped { task: 0, at: at(3) },
        Event::Stopped { task: 3, at: at(3) },
    ];
    let stop = decide(&config, &first.checkpoint, &stops);
    assert_eq!(stop.cancel, [first.post[0].ticket.clone()]);
    assert_eq!(states(&stop.checkpoint)[3], "failed", "it will not run");
    let again = decide(&config, &stop.checkpoint, &stops);
    assert!(again.cancel.is_empty(), "once is enough");
    let cancelled = Outcome::Failure {
        reason: Failure::Cancelled,
    };
    let events = [
        ended(&stop.checkpoint, 0, cancelled, 4),
        ended(&stop.checkpoint, 1, Outcome::Success, 5),
    ];
    let end = decide(&config, &stop.checkpoint, &events);
    assert_eq!(
        states(&end.checkpoint),
        ["failed", "success", "skipped", "failed"]
    );
    let failed = vec!["a".to_owned(), "d".to_owned()];
    let reason = Failure::Tasks { failed };
    assert_eq!(
        end.next,
        Next::Archive {
            outcome: Outcome::Failure { reason }
        }
    );
}

#[test]
fn conditions_look_at_the_event_and_the_parameters() {
    let when = |conditions: &str| format!(r#", "needs": [], "when": {conditions}"#);
    let tasks = [
        shell("main", &when(r#"{"refs": ["main"]}"#)),
        shell("tags", &when(r#"{"refs": ["v*"], "outcome": "always"}"#)),
        shell("docs", &when(r#"{"paths": ["docs/**"]}"#)),
        shell("source", &when(r#"{"paths": ["src/**"]}"#)),
        shell("pushed", &when(r#"{"events": ["push"]}"#)),
        shell("asked", &when(r#"{"events": ["manual"]}"#)),
        shell(
            "deploy",
            &when(r#"{"parameters": {"target": ["prod*", "!prod-old"]}}"#),
        ),
    ];
    let text = format!(
        r#"{{"job_id": "j", "parameters": {{"target": {{}}}}, "tasks": [{}]}}"#,
        tasks.join(",")
    );
    let config = parsed(&text);
    let mut build = build(&Checkpoint::start(config.tasks.len(), at(0)));
    let posted = |build: &Build| -> Vec<String> {
        let decision = super::super::decide(&config, build, &[]);
        let tasks = decision.post.iter().map(|posting| posting.task);
        tasks
            .map(|task| config.tasks[task].name.to_string())
            .collect()
    };
    build.parameters = [("target".to_owned(), "prod-1".to_owned())].into();
    // Without an event it is not known what changed, and there is no ref.
    assert_eq!(posted(&build), ["docs", "source", "asked", "deploy"]);
    build.parameters = [("target".to_owned(), "prod-old".to_owned())].into();
    build.cause = Cause::Event {
        told: Box::new(crate::event::Event {
            source: crate::event::Source::Github,
            kind: EventKind::Push,
            delivery: None,
            facts: [("ref".to_owned(), "refs/heads/main".to_owned())].into(),
            paths: Some(vec!["src/lib.rs".to_owned()]),
            labels: Vec::new(),
        }),
    };
    assert_eq!(posted(&build), ["main", "source", "pushed"]);
}

#[test]
fn cells_are_tasks_and_post_tasks_come_last() {
    let config = parsed(
        r#"{"job_id": "j", "tasks": [
            {"type": "execute-shell", "params": {"script": "true"}, "name": "t",
             "matrix": {"n": [1, 2]}}],
            "post": [
            {"type": "execute-shell", "params": {"script": "true"}, "name": "mail"},
            {"type": "execute-shell", "params": {"script": "true"}, "name": "undo", "needs": [],
             "when": "on_failure"},
            {"type": "execute-shell", "params": {"script": "true"}, "name": "praise",
             "when": "on_success"}],
            "downstream_jobs": ["x", {"job": "y", "on": ["failure", "fault"]}]}"#,
    );
    let names: Vec<_> = config.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["t.1", "t.2", "mail", "undo", "praise"]);
    let (checkpoint, _) = run(&config, &failing(&["t.2"]), |_| 0);
    assert_eq!(
        states(&checkpoint),
        ["success", "failed", "success", "success", "skipped"]
    );
    let of = |checkpoint: &Checkpoint| -> Vec<String> {
        let one = |one: &Downstream| match one {
            Downstream::Triggered { build } => build.job.to_string(),
            Downstream::Refused { job, .. } => job.to_string(),
        };
        checkpoint.downstream.iter().map(one).collect()
    };
    assert_eq!(of(&checkpoint), ["y"]);
    let (checkpoint, _) = run(&config, &failing(&[]), |_| 0);
    assert_eq!(
        states(&checkpoint),
        ["success", "success", "success", "skipped", "success"]
    );
    assert_eq!(of(&checkpoint), ["x"]);
}
