//! Which events a trigger wants, as a table.

use serde_json::{Value, json};

use super::{EventTrigger, Unwanted};
use crate::event::{Event, EventKind, Source};

fn event(kind: EventKind, facts: &[(&str, &str)]) -> Event {
    let common = [
        ("repository", "github.com/acme/app"),
        ("ref", "refs/heads/main"),
    ];
    let facts = common.iter().chain(facts);
    Event {
        source: Source::Github,
        kind,
        delivery: None,
        facts: facts
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        paths: None,
        labels: Vec::new(),
    }
}

fn push(facts: &[(&str, &str)]) -> Event {
    event(EventKind::Push, facts)
}

fn changing(paths: &[&str]) -> Event {
    Event {
        paths: Some(paths.iter().map(|&path| path.to_owned()).collect()),
        ..push(&[])
    }
}

fn pull(facts: &[(&str, &str)]) -> Event {
    let common = [
        ("branch", "main"),
        ("ref", "refs/pull/7/head"),
        ("action", "opened"),
    ];
    let facts: Vec<_> = common.iter().chain(facts).copied().collect();
    event(EventKind::PullRequest, &facts)
}

fn verdict(trigger: &Value, event: &Event) -> Result<(), Unwanted> {
    let mut whole = json!({ "on": "push", "repository": "git@github.com:Acme/App.git" });
    for (key, value) in trigger.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let trigger: EventTrigger = serde_json::from_value(whole).unwrap();
    trigger.wants(event)
}

/// What is expected, the trigger, and what the event has beside a push to `main`.
const PUSHES: &str = r#"
wanted     | {}                                          | {}
wanted     | { "refs": ["main"] }                        | {}
Ref        | { "refs": ["v*"] }                          | {}
Ref        | { "refs": ["!main"] }                       | {}
Repository | {}                                          | { "repository": "github.com/acme/other" }
Skip       | {}                                          | { "message": "x [skip ci]" }
wanted     | { "paths": ["src/**"] }                     | {}
wanted     | { "labels": ["ci"], "actions": ["closed"] } | {}
"#;

/// The same beside a pull request into `main` that was opened. `labels` are those that it carries.
const PULLS: &str = r#"
wanted | {}                              | {}
wanted | { "refs": ["main"] }            | {}
wanted | { "refs": ["refs/heads/main"] } | {}
Ref    | { "refs": ["next"] }            | {}
Fork   | {}                              | { "fork": "true" }
wanted | { "forks": true }               | { "fork": "true" }
Action | {}                              | { "action": "closed" }
wanted | { "actions": ["closed"] }       | { "action": "closed" }
Action | { "actions": ["closed"] }       | {}
Action | {}                              | { "action": "labeled", "label": "ci", "labels": "ci" }
wanted | { "labels": ["ci"] }            | { "action": "labeled", "label": "ci", "labels": "ci" }
Label  | { "labels": ["ci"] }            | { "action": "labeled", "label": "b", "labels": "b ci" }
wanted | { "labels": ["ci"] }            | { "action": "labeled", "labels": "b ci" }
wanted | { "labels": ["ci"] }            | { "labels": "ci" }
Label  | { "labels": ["ci"] }            | {}
Skip   | {}                              | { "title": "[ci skip] x" }
"#;

fn check(table: &str, on: &str, plain: impl Fn(&[(&str, &str)]) -> Event) {
    for line in table.trim().lines() {
        let [expected, trigger, more] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let mut trigger: Value = serde_json::from_str(trigger).unwrap();
        trigger["on"] = on.into();
        let facts: std::collections::BTreeMap<String, String> = serde_json::from_str(more).unwrap();
        let named: Vec<_> = facts
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let mut event = plain(&named);
        let labels = facts.get("labels").map(String::as_str).unwrap_or_default();
        event.labels = labels.split_whitespace().map(str::to_owned).collect();
        let verdict = match verdict(&trigger, &event) {
            Ok(()) => "wanted".to_owned(),
            Err(why) => format!("{why:?}"),
        };
        assert_eq!(verdict, expected.trim(), "{line}");
    }
}

#[test]
fn pushes_are_wanted_by_repository_ref_and_message() {
    check(PUSHES, "push", push);
    let tag = event(EventKind::Tag, &[]);
    assert_eq!(verdict(&json!({}), &tag), Err(Unwanted::Kind));
    assert_eq!(verdict(&json!({ "on": ["tag", "push"] }), &tag), Ok(()));
}

#[test]
fn pull_requests_are_wanted_by_target_action_label_and_origin() {
    check(PULLS, "pull_request", pull);
}

#[test]
fn pushes_are_wanted_by_what_they_change() {
    for (patterns, changed, expected) in [
        (json!(["src/**"]), &["src/a"][..], Ok(())),
        (json!(["src/**"]), &["b"], Err(Unwanted::Path)),
        (json!(["!b"]), &["b"], Err(Unwanted::Path)),
        (json!(["src/**"]), &[], Err(Unwanted::Path)),
        (json!([]), &[], Ok(())),
    ] {
        let trigger = json!({ "paths": patterns });
        assert_eq!(verdict(&trigger, &changing(changed)), expected, "{trigger}");
    }
}

#[test]
fn who_asks_by_name_is_not_skipped() {
    let skip = [("message", "[skip ci]")];
    let again = event(EventKind::Rerequest, &skip);
    assert_eq!(verdict(&json!({ "on": "rerequest" }), &again), Ok(()));
    let call = event(EventKind::Webhook, &skip);
    assert_eq!(verdict(&json!({ "on": "webhook" }), &call), Ok(()));
    let queue = event(
        EventKind::MergeGroup,
        &[("branch", "main"), ("ref", "refs/heads/q/1")],
    );
    let trigger = json!({ "on": "merge_group", "refs": ["main"] });
    assert_eq!(verdict(&trigger, &queue), Ok(()));
}
