//! A history in which all is well, and every law broken in it once: a law that finds nothing is none.

use std::collections::BTreeMap;

use distci_model::Timestamp;
use distci_model::id::{Attempt, RequestId, TaskName};
use distci_model::outcome::Verdict as Ended;
use serde_json::json;

use crate::history::{Bytes, Claims, Copied, Fault, History, Post, Seen, Work};
use crate::{Law, check};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn bytes(of: &str) -> Bytes {
    Bytes {
        length: of.len() as u64,
        digest: of.to_owned(),
    }
}

fn work(task: &str, attempt: u32, (began, ended): (i64, Option<i64>)) -> Work {
    let whole = ended.is_some();
    Work {
        build: "web#1".parse().unwrap(),
        task: task.parse().unwrap(),
        attempt: Attempt::new(attempt),
        began: at(began),
        ended: ended.map(at),
        verdict: whole.then_some(Ended::Success),
        acknowledged: whole,
        console: whole.then(|| bytes(task)),
        made: whole.then(|| format!("{task}{attempt}")),
        found: BTreeMap::new(),
        copied: Vec::new(),
        locks: BTreeMap::from([("db".to_owned(), 1)]),
    }
}

/// A build of two tasks in a row, whose second was lost with its worker and begun anew.
fn history() -> History {
    let finished = |task: &str, attempt: u32, worker: &str, (began, ended): (i64, i64)| {
        json!({ "name": task, "kind": "execute-shell", "needs": [], "state": "finished", "run": {
            "ticket": "b".repeat(16), "attempt": attempt, "result": { "verdict": "success" },
            "worker": worker, "started": at(began), "finished": at(ended) } })
    };
    let claim = |second: i64, task: &str, attempt: u32, worker: &str| json!({ "at": at(second), "task": task, "what": "claimed", "attempt": attempt, "worker": worker });
    let end = |second: i64, task: &str, attempt: u32| json!({ "at": at(second), "task": task, "what": "ended", "attempt": attempt, "outcome": "success", "again": false });
    let view = json!({ "build": { "job": "web", "number": 1 }, "phase": "finished",
        "outcome": { "verdict": "success" }, "cause": { "event": "manual" }, "parameters": {}, "revision": 1,
        "created": at(0), "finished": at(60), "cancelled": false, "downstream": [],
        "tasks": [finished("a", 1, "w1", (1, 5)), finished("b", 2, "w2", (40, 60))] });
    let journal = json!([
        { "at": at(0), "what": "posted", "cause": "manual" },
        claim(1, "a", 1, "w1"), end(5, "a", 1),
        claim(6, "b", 1, "w1"),
        { "at": at(40), "task": "b", "what": "lost", "attempt": 1, "worker": "w1" },
        claim(40, "b", 2, "w2"), end(60, "b", 2),
        { "at": at(60), "what": "over", "outcome": { "verdict": "success" } },
    ]);
    let mut last = work("b", 2, (40, Some(60)));
    last.found = BTreeMap::from([("a".parse().unwrap(), "a1".to_owned())]);
    let consoles = ["a", "b"].map(|task| (task.parse::<TaskName>().unwrap(), bytes(task)));
    History {
        posts: vec![Post {
            request: RequestId::derive("1"),
            job: "web".parse().unwrap(),
            answers: vec!["web#1".parse().unwrap(); 2],
            must: Some(Ended::Success),
        }],
        works: vec![work("a", 1, (1, Some(5))), work("b", 1, (6, None)), last],
        builds: vec![Seen {
            view: serde_json::from_value(view).unwrap(),
            journal: serde_json::from_value(journal).unwrap(),
            consoles: BTreeMap::from(consoles),
        }],
        downstream: Vec::new(),
        flaws: Vec::new(),
        faults: vec![Fault {
            what: "w1 is killed".to_owned(),
            ends: Some("w1".parse().unwrap()),
            from: at(10),
            until: at(10),
        }],
        calm: Claims {
            tried: 100,
            lost: 2,
        },
    }
}

#[test]
fn a_history_in_which_all_is_well_puts_every_law_to_the_test() {
    let verdict = check(&history());
    assert!(verdict.is_clean(), "{verdict}");
    for law in Law::ALL {
        assert!(verdict.cases.contains_key(&law), "{law:?} had no case");
    }
    let text = verdict.to_string();
    assert!(
        text.starts_with("holds           2  every acknowledged build"),
        "{text}"
    );
}

#[test]
fn a_history_reads_as_it_is_written() {
    let text = serde_json::to_string(&history()).unwrap();
    let read: History = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
}

/// A way to break a history.
type Break = fn(&mut History);

/// The laws, each with what breaks it.
const BREAKS: &[(Law, Break)] = &[
    (Law::BuildsFinish, |history| history.builds.clear()),
    (Law::BuildsFinish, |history| {
        history.builds[0].view.outcome = None;
    }),
    (Law::BuildsFinish, |history| {
        let over = history.builds[0].journal.last().unwrap().clone();
        history.builds[0].journal.push(over);
    }),
    (Law::NumbersAreDense, |history| {
        history.posts[0].answers[1] = "web#2".parse().unwrap();
    }),
    (Law::NumbersAreDense, |history| {
        let mut again = history.posts[0].clone();
        again.request = RequestId::derive("2");
        history.posts.push(again);
    }),
    (Law::NumbersAreDense, |history| history.posts.clear()),
    (Law::NumbersAreDense, |history| {
        history.builds[0].view.build = "web#3".parse().unwrap();
    }),
    (Law::AnswersAreRight, |history| {
        history.posts[0].must = Some(Ended::Failure);
    }),
    (Law::ResultsStay, |history| {
        history.works[1].acknowledged = true;
    }),
    (Law::ResultsAreTrue, |history| {
        history.works[2].verdict = Some(Ended::Failure);
    }),
    (Law::ResultsAreTrue, |history| {
        history.works[2].verdict = None;
    }),
    (Law::ResultsAreTrue, |history| history.works.truncate(2)),
    (Law::ConsolesAreWhole, |history| {
        history.works[0].console = Some(bytes("more"));
    }),
    (Law::ConsolesAreWhole, |history| {
        history.builds[0].consoles.clear();
    }),
    (Law::WorkspacesAreTrue, |history| {
        history.works[2]
            .found
            .insert("a".parse().unwrap(), "a0".to_owned());
    }),
    (Law::WorkspacesAreTrue, |history| {
        let build = history.works[2].build.clone();
        let task = "a".parse().unwrap();
        let what = "of somebody else".to_owned();
        history.works[2].copied.push(Copied { build, task, what });
    }),
    (Law::LocksHold, |history| {
        history.works[0].ended = Some(at(45));
    }),
    (Law::RestartsAreSoon, |history| {
        history.builds[0].journal[5].at = at(61);
        history.builds[0].journal[6].at = at(61);
        history.builds[0].journal[7].at = at(61);
    }),
    (Law::NothingIsLeft, |history| {
        history.flaws.push("a slot of db".to_owned());
    }),
    (Law::ClaimsSucceed, |history| history.calm.lost = 3),
    (Law::JournalsAreLawful, |history| {
        history.builds[0].journal.remove(4);
    }),
    (Law::JournalsAreLawful, |history| {
        history.builds[0].journal.swap(1, 2);
    }),
];

#[test]
fn every_law_finds_what_breaks_it() {
    for (place, (law, break_it)) in BREAKS.iter().enumerate() {
        let mut history = history();
        break_it(&mut history);
        let verdict = check(&history);
        let found = verdict.breaches.iter().any(|breach| breach.law == *law);
        assert!(found, "break {place} of {law:?} was not found: {verdict}");
    }
}

#[test]
fn time_in_which_nothing_could_go_on_does_not_count() {
    let mut history = history();
    for entry in &mut history.builds[0].journal[5..] {
        entry.at = at(80);
    }
    assert!(!check(&history).is_clean());
    history.faults.push(Fault {
        what: "the store is cut off".to_owned(),
        ends: None,
        from: at(20),
        until: at(45),
    });
    let verdict = check(&history);
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn who_was_away_while_its_build_was_cancelled_holds_no_lock() {
    let mut history = history();
    history.works[0].ended = Some(at(45));
    assert!(!check(&history).is_clean());
    let mut view = serde_json::to_value(&history.builds[0].view).unwrap();
    view["tasks"][0]["run"]["result"] =
        json!({ "verdict": "failure", "reason": { "code": "cancelled" } });
    history.builds[0].view = serde_json::from_value(view).unwrap();
    let holds = |history: &History| {
        let verdict = check(history);
        let mut breaches = verdict.breaches.iter();
        !breaches.any(|breach| breach.law == Law::LocksHold)
    };
    // What it was told to be accepted counts, whatever else is said.
    assert!(!holds(&history));
    history.works[0].acknowledged = false;
    assert!(holds(&history));
}
