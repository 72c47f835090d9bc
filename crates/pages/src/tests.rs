//! Each page made of texts that want to be something else: nothing of them may become part of it.

use std::collections::BTreeMap;

use crate::{
    Artifacts, Badge, Build, Cluster, Compared, Console, Edit, Found, Frame, Home, Job, Journal,
    Page, Place, Preview, Queue, Reports, Revisions, Row, Running, Search, SearchWish, Sight,
    SignIn, State, Trouble, Wanted, Wish, Workers,
};
use distci_model::Timestamp;
use distci_model::config::JobConfig;
use distci_model::id::BuildNumber;
use distci_model::journal::stretches;
use distci_model::wire::{ArtifactView, Problem, QueueView, WorkerView};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A text that leaves an element, an attribute, a comment and a script, and turns what follows around.
const HOSTILE: &str = "</script></textarea></title>--><img src=x onerror=alert(1)>\" onload=\"alert(2)\" ' \
     onfocus='alert(3)' <b>{{ 7*7 }}</b> javascript:alert(4) &lt; \u{202e}\u{0}\u{1b}[31m";

fn made<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn frame() -> Frame {
    Frame {
        place: Place::Jobs,
        csrf: Some(HOSTILE.to_owned()),
        version: HOSTILE.to_owned(),
        frontend: Some(HOSTILE.to_owned()),
    }
}

/// That a page is whole, and made of our own elements alone.
fn check(page: &impl Page) -> String {
    let html = page.html().unwrap();
    for foreign in [
        "<img src=x",
        "</textarea></title",
        "<b>{{",
        "\" onload",
        "' onfocus",
        "href=\"javascript",
    ] {
        assert!(!html.contains(foreign), "{foreign} in {html}");
    }
    for tag in html.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap_or_default();
        let attributes = tag.split_whitespace().skip(1);
        for attribute in attributes.filter(|attribute| !attribute.contains("&#")) {
            assert!(
                !attribute.starts_with("on") && !attribute.starts_with("style="),
                "<{tag}>"
            );
        }
    }
    assert!(!html.contains("<script>"), "a script stands in the page");
    html
}

fn build_summary() -> Value {
    json!({ "number": 3, "phase": "finished", "created": now(), "finished": now(),
        "outcome": { "verdict": "failure", "reason": { "code": "not-started", "detail": HOSTILE } },
        "cause": { "event": "event", "told": event() } })
}

fn event() -> Value {
    json!({ "source": "generic", "kind": "push", "facts": {
        "branch": HOSTILE, "repository": HOSTILE, "ref": HOSTILE, "sha": HOSTILE, "title": HOSTILE,
        "sender": HOSTILE, "url": "javascript:alert(5)" } })
}

fn job_config() -> JobConfig {
    let text = json!({
        "job_id": "job", "description": HOSTILE,
        "parameters": { "p": { "default": HOSTILE, "description": HOSTILE }, "q": { "choices": [HOSTILE, "b"] },
            "r": { "type": "integer" }, "s": { "type": "boolean" } },
        "tasks": [{ "type": "execute-shell", "params": { "script": HOSTILE.replace('\0', "") } }],
        "downstream_jobs": ["other"],
    });
    JobConfig::parse(&text.to_string().replace("\\u0000", "")).unwrap()
}

#[test]
fn home_and_the_form_to_sign_in() {
    let home = Home {
        frame: frame(),
        now: now(),
        query: HOSTILE.to_owned(),
        jobs: 2,
        fitting: 1,
        rows: vec![Row {
            job: "job".parse().unwrap(),
            description: Some(HOSTILE.to_owned()),
            builds: vec![made(build_summary())],
        }],
        next: Some("job".parse().unwrap()),
        is_later: true,
        running: vec![Running {
            build: "job#1".parse().unwrap(),
            task: Some(HOSTILE.to_owned()),
            since: now(),
        }],
        claimed: 1,
        queued: 1,
    };
    let html = check(&home);
    assert!(html.contains("aria-label=\"failure\"") && html.contains("/jobs/job/builds/3"));
    check(&SignIn {
        frame: frame(),
        to: HOSTILE.to_owned(),
        was_wrong: true,
    });
    check(&Trouble {
        frame: frame(),
        problem: Problem {
            kind: HOSTILE.to_owned(),
            title: HOSTILE.to_owned(),
            status: 404,
            detail: HOSTILE.to_owned(),
            request: Some(HOSTILE.to_owned()),
            problems: Vec::new(),
        },
    });
}

#[test]
fn a_job_and_its_badge() {
    let job = Job {
        frame: frame(),
        now: now(),
        view: made(json!({ "job": "job", "revision": 1, "configuration": job_config() })),
        builds: vec![
            made(build_summary()),
            made(build_summary()),
            made(build_summary()),
        ],
        next: Some(HOSTILE.to_owned()),
        is_later: true,
        schedules: vec![made(
            json!({ "cron": HOSTILE, "timezone": HOSTILE, "catch_up": "last", "next": [now()] }),
        )],
        polls: vec![made(
            json!({ "repository": HOSTILE, "refs": [HOSTILE], "every": HOSTILE, "heads": {},
            "setback": { "detail": HOSTILE, "at": now() } }),
        )],
        wish: Wish {
            request: HOSTILE.to_owned(),
            given: BTreeMap::from([("p".to_owned(), HOSTILE.to_owned())]),
            refused: Some(HOSTILE.to_owned()),
        },
    };
    let html = check(&job);
    assert!(html.contains("type=\"number\"") && html.contains("<option>true</option>"));
    assert!(html.contains("/jobs/other"));
    check(&Badge {
        label: HOSTILE.to_owned(),
        state: State::Failure,
    });
}

fn tasks() -> Value {
    let outcome = json!({ "code": "not-started", "detail": HOSTILE });
    let finished = json!({ "ticket": "b".repeat(16), "attempt": 2, "worker": "w", "started": now(),
        "finished": now(), "result": { "verdict": "failure", "reason": outcome, "outputs": { HOSTILE: HOSTILE } } });
    json!([
        { "name": "a", "kind": "execute-shell", "needs": [], "state": "finished", "run": finished },
        { "name": "b", "kind": "approve", "needs": ["a"], "state": "asking", "message": HOSTILE,
            "since": now(), "until": now() },
        { "name": "c.x", "kind": "execute-shell", "needs": ["a"], "state": "skipped",
            "why": { "code": "condition", "what": HOSTILE } },
        { "name": "c.y", "kind": "execute-shell", "needs": ["a"], "state": "queued", "attempt": 0,
            "requires": ["execute-shell", "label:gpu"] },
        { "name": "d", "kind": "execute-shell", "needs": ["c.x", "c.y"], "state": "backoff", "run": 2,
            "until": now(), "last": finished },
    ])
}

#[test]
fn a_build() {
    let build = Build {
        frame: frame(),
        now: now(),
        view: made(
            json!({ "build": { "job": "job", "number": 3 }, "phase": "running",
            "cause": { "event": "event", "told": event() }, "parameters": { "p": HOSTILE },
            "revision": 1, "created": now(), "cancelled": false, "tasks": tasks(),
            "downstream": [{ "state": "refused", "job": "other", "why": HOSTILE }] }),
        ),
        why: vec![
            made(json!({ "text": HOSTILE })),
            made(json!({ "task": "a", "text": HOSTILE })),
        ],
        previous: BuildNumber::new(2).map(|number| (number, 7)),
        artifacts: vec![made(
            json!({ "task": "a", "path": HOSTILE, "bytes": 1, "digest": "0", "content_type": "text/html" }),
        )],
        stretches: stretches(&[
            made(json!({ "at": now(), "task": "b", "what": "queued", "after": 0 })),
            made(
                json!({ "at": now(), "task": "b", "what": "claimed", "attempt": 1, "worker": "w" }),
            ),
            made(json!({ "at": now(), "task": "b", "what": "lost", "attempt": 1, "worker": "w" })),
        ]),
        request: HOSTILE.to_owned(),
    };
    let html = check(&build);
    assert!(html.contains(r#"<rect class="wait""#) && html.contains(r#"<rect class="fault""#));
    assert!(
        !html.contains("javascript:alert(5)"),
        "an address that is no page is linked to"
    );
    assert!(html.contains("/jobs/job/builds/3/tasks/b/answer") && html.contains("2 cells"));
    assert!(html.contains("revisions?of=1&#38;against=7") && html.contains("changed since #2"));
}

fn artifact(path: &str) -> ArtifactView {
    made(
        json!({ "task": "a", "path": path, "bytes": 1_500, "digest": "0", "content_type": HOSTILE }),
    )
}

#[test]
fn artifacts_as_a_tree_and_by_folders() {
    let paths = ["b.txt", "out/x", "out/deep/y", "out/deep/z", HOSTILE];
    let artifacts: Vec<_> = paths.into_iter().map(artifact).collect();
    let page = |below: &str, skip| Artifacts {
        frame: frame(),
        build: "job#3".parse().unwrap(),
        artifacts: artifacts.clone(),
        below: below.to_owned(),
        skip,
    };
    let top = check(&page("", 0));
    assert!(
        top.contains("/jobs/job/builds/3/artifacts?below=out%2F") && top.contains("3 files"),
        "{top}"
    );
    assert!(!top.contains("out/deep"), "{top}");
    let out = check(&page("out/", 0));
    assert!(
        out.contains("/jobs/job/builds/3/artifacts/out/x") && out.contains("2 files"),
        "{out}"
    );
    assert!(check(&page(&format!("{HOSTILE}/"), 0)).contains("There is nothing here."));
    assert!(check(&page("", usize::MAX)).contains("There is nothing here."));
}

#[test]
fn one_artifact_looked_at() {
    let sights = [
        Sight::Text(HOSTILE.as_bytes().to_vec(), 1),
        Sight::Text(b"\xff<script>\n\x1b[31mred".to_vec(), 0),
        Sight::Picture("/made/1.2/job/3/a.png".to_owned()),
        Sight::Report("/made/1.2/job/3/a.html".to_owned()),
        Sight::Nothing,
    ];
    for sight in sights {
        let framed = matches!(sight, Sight::Report(_));
        let html = check(&Preview {
            frame: frame(),
            build: "job#3".parse().unwrap(),
            task: "a".parse().unwrap(),
            artifact: artifact(HOSTILE).artifact,
            sight,
        });
        assert_eq!(html.contains("sandbox=\"allow-scripts\""), framed);
        assert!(!html.contains("allow-same-origin"));
    }
}

#[test]
fn what_happened_in_a_build() {
    let ended = json!({ "at": now(), "task": "a", "what": "ended", "attempt": 2, "outcome": HOSTILE, "again": true });
    let journal = Journal {
        frame: frame(),
        build: "job#3".parse().unwrap(),
        entries: vec![
            made(json!({ "at": now(), "what": "posted", "cause": HOSTILE })),
            made(json!({ "at": now(), "task": "a", "what": "lost", "attempt": 1, "worker": "w" })),
            made(ended),
            made(json!({ "at": now(), "what": "refused", "job": "other", "why": HOSTILE })),
        ],
    };
    let html = check(&journal);
    assert!(
        html.contains("attempt 1 lost: w was not heard of"),
        "{html}"
    );
    assert_eq!(html.matches("state fault").count(), 3);
}

#[test]
fn queue_workers_and_cluster() {
    let about = json!({ "build": { "job": "job", "number": 3 }, "task": "a" });
    let ticket = format!("{}.{}", "a".repeat(16), "b".repeat(16));
    let queued: QueueView = made(
        json!({ "ticket": ticket, "build": about["build"], "task": "a",
        "requires": ["execute-shell"], "since": now(), "workers": 0,
        "blocked": { "lock": HOSTILE, "held_by": [{ "job": "job", "number": 1 }] } }),
    );
    let requires = queued.requires.clone();
    check(&Queue {
        frame: frame(),
        now: now(),
        tickets: vec![queued],
        next: Some(HOSTILE.to_owned()),
        demand: vec![Wanted {
            requires,
            queued: 1,
            workers: 0,
        }],
        locks: vec![made(
            json!({ "lock": "a".repeat(16), "name": HOSTILE, "taken": 1, "held": [], "waiting": [] }),
        )],
    });
    let worker: WorkerView = made(json!({ "worker": "w", "waiting": 1, "claims": [
        { "ticket": ticket, "attempt": 1, "build": about["build"], "task": "a", "since": now() }] }));
    check(&Workers {
        frame: frame(),
        now: now(),
        workers: vec![worker],
        drains: vec![made(json!({ "pattern": "web-*", "at": now() }))],
    });
    let server = json!({ "address": HOSTILE, "trouble": HOSTILE });
    let up = json!({ "address": HOSTILE, "state": { "role": HOSTILE, "version": HOSTILE, "latency": HOSTILE, "connections": 3 } });
    let html = check(&Cluster {
        frame: frame(),
        now: now(),
        view: made(
            json!({ "since": now(), "blobs": HOSTILE, "counts": { "claims": 3 },
            "frontends": [{ "frontend": "0123456789ab", "address": HOSTILE, "version": HOSTILE, "here": true }],
            "coordination": { "place": HOSTILE, "health": "connected", "current": false, "trouble": HOSTILE,
                "session": { "id": HOSTILE, "timeout_ms": 1, "losses": 1, "ended": 1 }, "servers": [server, up] },
            "paces": [{ "what": "read", "count": 2, "median_us": 250, "p99_us": 1_250_000 },
            { "what": HOSTILE, "count": 2, "median_us": 1, "p99_us": 1 }],
            "faults": [{ "at": now(), "what": HOSTILE, "place": HOSTILE, "times": 2 }] }),
        ),
    });
    assert!(html.contains("0.25 ms") && html.contains("1.2 s"), "{html}");
}

#[test]
fn the_tests_of_a_build() {
    let test = json!({ "task": "a", "attempt": 1, "suite": HOSTILE, "name": HOSTILE, "outcome": "failed",
        "duration_ms": 1234, "message": HOSTILE, "details": HOSTILE,
        "flaky": { "why": "flips", "flips": 3, "builds": 9 } });
    let counts = json!({ "passed": 1, "failed": 1, "errored": 0, "skipped": 0 });
    let view = json!({ "counts": counts, "left_out": 7, "items": [test], "next": HOSTILE });
    let mut reports = Reports {
        frame: frame(),
        build: "job#3".parse().unwrap(),
        view: made(view),
        failed: false,
    };
    let html = check(&reports);
    for there in [
        "1 passed, 1 failed",
        "7 more are not named",
        "1.2 s",
        "changed 3 times in 9 builds",
    ] {
        assert!(html.contains(there), "{there} in {html}");
    }
    reports.view.items.clear();
    assert!(check(&reports).contains("No task has told of tests"));
}

#[test]
fn the_revisions_of_a_job() {
    let view = |revision: u32, config: &JobConfig| {
        made(json!({ "job": "job", "revision": revision, "configuration": config }))
    };
    let (before, mut after) = (job_config(), job_config());
    after.description = Some(format!("another {HOSTILE}"));
    let listed = |revision: u32| {
        made(json!({ "revision": revision, "hash": HOSTILE, "since": (revision > 2).then(now) }))
    };
    let mut page = Revisions {
        frame: frame(),
        now: now(),
        job: "job".parse().unwrap(),
        present: 3,
        revisions: vec![listed(3), listed(2)],
        next: None,
        is_later: true,
        compared: Some(Compared {
            of: 2,
            after: Some(view(2, &after)),
            against: 1,
            before: Some(view(1, &before)),
        }),
    };
    let html = check(&page);
    for there in [
        "<td>+</td>",
        "<td>-</td>",
        ">+1<",
        ">−1<",
        "@@ -1,",
        "Restore 2",
        "/jobs/job/edit?revision=2",
        "before 2 it was not noted",
        "not noted</small>",
    ] {
        assert!(html.contains(there), "{there} in {html}");
    }
    page.compared = Some(Compared {
        of: 9,
        after: None,
        against: 8,
        before: None,
    });
    assert!(check(&page).contains("What revision 9 said is not known"));
}

#[test]
fn a_search() {
    let line = |number: u64| {
        made(
            json!({ "build": { "job": "job", "number": 3 }, "task": "a", "attempt": 2,
            "line": number, "offset": 0, "before": HOSTILE.repeat(9),
            "found": format!("{HOSTILE}\u{1b}[1mfound"), "after": HOSTILE.repeat(9) }),
        )
    };
    let wish = SearchWish {
        text: HOSTILE.to_owned(),
        job: HOSTILE.to_owned(),
        task: HOSTILE.to_owned(),
        since: HOSTILE.to_owned(),
        regex: true,
        ignore_case: false,
        failed: true,
    };
    let mut page = Search {
        frame: frame(),
        now: now(),
        wish,
        refused: None,
        found: vec![Found {
            build: "job#3".parse().unwrap(),
            summary: made(build_summary()),
            lines: vec![line(7), line(70_000)],
        }],
        next: Some((HOSTILE.to_owned(), "job#3".parse().unwrap())),
        is_later: true,
    };
    let html = check(&page);
    for there in [
        "task=a&#38;attempt=2&#38;line=2#L7\"",
        "a:70,000",
        "&#38;failed=true&#38;cursor=%3C%2Fscript",
        "searched as far as <b>job#3</b>",
    ] {
        assert!(html.contains(there), "{there} in {html}");
    }
    let marked = html.split("<mark>").nth(1);
    let marked = marked.and_then(|rest| rest.split("</mark>").next());
    assert!(marked.is_some_and(|marked| marked.ends_with("found") && !marked.contains('\u{202e}')));
    (page.found, page.next) = (Vec::new(), None);
    assert!(check(&page).contains("Nothing more."));
    page.refused = Some(HOSTILE.to_owned());
    assert!(check(&page).contains("aria-invalid"));
}

#[test]
fn the_editor() {
    let problem =
        json!({ "path": HOSTILE, "line": 2, "column": 1, "message": HOSTILE, "help": HOSTILE });
    let mut edit = Edit {
        frame: frame(),
        job: None,
        revision: 0,
        restored: Some(3),
        text: format!("first\n{HOSTILE}\n"),
        problems: vec![made(problem)],
        refused: Some(HOSTILE.to_owned()),
    };
    let html = check(&edit);
    assert!(html.contains("2:1") && html.contains("aria-invalid"));
    assert!(html.contains("action=\"/new\""));
    edit.job = Some("j".parse().unwrap());
    assert!(check(&edit).contains("action=\"/jobs/j/edit\""));
}

#[test]
fn a_console() {
    let lines: [&[u8]; 3] = [
        HOSTILE.as_bytes(),
        b"\xff\xfe\x1b]0;title\x07<script>alert(6)</script>",
        b"<i>",
    ];
    let mut console = Console {
        frame: frame(),
        build: "job#3".parse().unwrap(),
        task: "a".parse().unwrap(),
        state: State::Running,
        attempt: 2,
        attempts: u32::MAX,
        is_complete: false,
        is_head: false,
        first: 1001,
        shown: lines.iter().map(|line| (line.to_vec(), 70_000)).collect(),
        total: 2_000_000,
        length: 1 << 30,
        beside: None,
    };
    let html = check(&console);
    for there in [
        "id=\"L1001\"",
        "id=\"L1003\"",
        "Lines 1,001 to 1,003 of 2,000,000.",
        "70,000 more bytes",
        "line=998",
        "line=1004",
        "\u{fffd}",
    ] {
        assert!(html.contains(there), "{there} in {html}");
    }
    let list = html.split("<ol").last();
    let list = list.and_then(|rest| rest.split("</ol>").next());
    assert!(
        list.is_some_and(|list| !list.contains('\u{202e}')),
        "text is turned around"
    );
    (console.shown, console.total, console.first) = (Vec::new(), 0, 1);
    assert!(check(&console).contains("nothing yet"));
}
