//! The rules of triggers.
//!
//! Owns what a trigger may say: patterns that can be read, a repository or a token, parameters that
//! the job has and facts that an event may have.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::parse::{Reader, meant};
use super::super::patterns::{MAX_PATTERNS, complaint};
use super::super::scope::references;
use super::super::{EventTrigger, Parameter, PollTrigger, Trigger};
use super::{at_most, check_repository};
use crate::event::{EventKind, is_fact};

/// Most triggers of a job: the names of what they watch change in one commit with it.
pub(crate) const MAX_TRIGGERS: usize = 32;
/// Most labels or actions of a trigger, and most bytes of one.
const MAX_WORDS: usize = 32;
const MAX_WORD: usize = 256;
/// Bounds of the time between two looks at a repository, in seconds.
const SHORTEST_POLL: u64 = 10;
const LONGEST_POLL: u64 = 24 * 60 * 60;

/// Kinds that a trigger names by other keys.
const OWN_KEY: [(EventKind, &str); 2] = [(EventKind::Schedule, "cron"), (EventKind::Poll, "poll")];

/// Notes what is wrong with the triggers of a job that has these parameters.
pub(super) fn check(
    reader: &mut Reader<'_>,
    triggers: &[Trigger],
    parameters: &BTreeMap<String, Parameter>,
) {
    at_most(reader, "triggers", triggers.len(), MAX_TRIGGERS);
    for (index, trigger) in triggers.iter().enumerate() {
        let path = format!("triggers[{index}]");
        check_parameters(reader, &path, trigger.parameters(), parameters);
        match trigger {
            Trigger::Event(event) => check_event(reader, &path, event),
            Trigger::Poll(poll) => check_poll(reader, &path, poll),
            Trigger::Schedule(_) => {}
        }
    }
}

/// Notes names after `on` that are no kinds of events. The types would only say that nothing fits.
pub(in super::super) fn check_kinds(reader: &mut Reader<'_>, path: &str, trigger: &Value) {
    let on = &trigger["on"];
    let named = match on.as_array() {
        Some(list) => {
            let list = list.iter().enumerate();
            list.map(|(index, one)| (format!("{path}.on[{index}]"), one))
                .collect()
        }
        None => vec![(format!("{path}.on"), on)],
    };
    let kinds = EventKind::ALL.map(EventKind::as_str);
    for (path, name) in named {
        let written = name.as_str().unwrap_or_default();
        if !kinds.contains(&written) {
            let message = format!("{name} is not a kind of event");
            let help = meant(written, kinds.into_iter());
            let help = help.unwrap_or_else(|| format!("one of {}", kinds.join(", ")));
            reader.problem(&path, &message, Some(help));
        }
    }
}

fn check_event(reader: &mut Reader<'_>, path: &str, trigger: &EventTrigger) {
    let on = trigger.on.as_slice();
    if on.is_empty() {
        reader.problem(&format!("{path}.on"), "names no event", None);
    }
    at_most(
        reader,
        &format!("{path}.on"),
        on.len(),
        EventKind::ALL.len(),
    );
    for (kind, key) in OWN_KEY {
        if on.contains(&kind) {
            let help = format!("a trigger with the key `{key}` makes them");
            let message = format!("nobody outside tells of a {kind}");
            reader.problem(&format!("{path}.on"), &message, Some(help));
        }
    }
    if on.contains(&EventKind::Webhook) {
        check_webhook(reader, path, trigger);
    } else {
        check_forge(reader, path, trigger);
    }
}

fn check_poll(reader: &mut Reader<'_>, path: &str, trigger: &PollTrigger) {
    let seconds = trigger.poll.seconds();
    if !(SHORTEST_POLL..=LONGEST_POLL).contains(&seconds) {
        let message = "a repository is looked at between every 10 seconds and once a day";
        reader.problem(&format!("{path}.poll"), message, None);
    }
    check_repository(reader, &format!("{path}.repository"), &trigger.repository);
    check_refs(reader, &format!("{path}.refs"), &trigger.refs);
}

fn check_webhook(reader: &mut Reader<'_>, path: &str, trigger: &EventTrigger) {
    if trigger
        .on
        .as_slice()
        .iter()
        .any(|kind| *kind != EventKind::Webhook)
    {
        let message = "`webhook` stands alone: it knows a token instead of a repository";
        let help = "write a second trigger".to_owned();
        reader.problem(&format!("{path}.on"), message, Some(help));
    }
    for (key, is_there) in [
        ("repository", trigger.repository.is_some()),
        ("refs", !trigger.refs.is_empty()),
        ("paths", !trigger.paths.is_empty()),
        ("labels", !trigger.labels.is_empty()),
        ("actions", !trigger.actions.is_empty()),
        ("forks", trigger.forks),
    ] {
        if is_there {
            let message = "has no meaning for a generic webhook";
            reader.problem(&format!("{path}.{key}"), message, None);
        }
    }
    let hash = trigger.token_sha256.as_deref();
    let is_hash = |hash: &str| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    if !hash.is_some_and(is_hash) {
        let message = "a webhook needs the SHA-256 of its token, 64 hex digits";
        let help = "`distci webhook token` makes both".to_owned();
        reader.problem(&format!("{path}.token_sha256"), message, Some(help));
    }
}

fn check_forge(reader: &mut Reader<'_>, path: &str, trigger: &EventTrigger) {
    if trigger.token_sha256.is_some() {
        let message = "only `webhook` knows tokens; a forge signs with the frontends' secret";
        reader.problem(&format!("{path}.token_sha256"), message, None);
    }
    if let Some(repository) = &trigger.repository {
        check_repository(reader, &format!("{path}.repository"), repository);
    } else {
        let help = "the address of the repository, or `host/path`".to_owned();
        reader.problem(path, "`repository` is missing", Some(help));
    }
    check_refs(reader, &format!("{path}.refs"), &trigger.refs);
    check_refs(reader, &format!("{path}.paths"), &trigger.paths);
    for (key, words) in [("labels", &trigger.labels), ("actions", &trigger.actions)] {
        let path = format!("{path}.{key}");
        at_most(reader, &path, words.len(), MAX_WORDS);
        for (index, word) in words.iter().enumerate() {
            if word.is_empty() || word.len() > MAX_WORD {
                let message = format!("must have between 1 and {MAX_WORD} bytes");
                reader.problem(&format!("{path}[{index}]"), &message, None);
            }
        }
    }
}

/// Notes patterns of refs, or of files, that cannot be read.
fn check_refs(reader: &mut Reader<'_>, path: &str, patterns: &[String]) {
    at_most(reader, path, patterns.len(), MAX_PATTERNS);
    for (index, pattern) in patterns.iter().enumerate() {
        if let Some(complaint) = complaint(pattern) {
            reader.problem(&format!("{path}[{index}]"), &complaint, None);
        }
    }
}

fn check_parameters(
    reader: &mut Reader<'_>,
    path: &str,
    given: &BTreeMap<String, String>,
    declared: &BTreeMap<String, Parameter>,
) {
    for (name, text) in given {
        let path = format!("{path}.parameters.{name}");
        if !declared.contains_key(name) {
            let message = format!("the job has no parameter {name:?}");
            let help = meant(name, declared.keys().map(String::as_str));
            reader.problem(&path, &message, help);
        }
        for reference in references(text) {
            let reference = reference.name;
            let fact = reference.strip_prefix("event.");
            if !fact.is_some_and(is_fact) {
                let message = format!("`${{{reference}}}` is no fact of an event");
                let help = meant_fact(reference);
                reader.problem(&path, &message, Some(help));
            }
        }
    }
}

fn meant_fact(reference: &str) -> String {
    let facts = crate::event::FACTS.iter().map(|(fact, _)| *fact);
    let written = reference.strip_prefix("event.").unwrap_or(reference);
    meant(written, facts.clone()).unwrap_or_else(|| {
        let facts: Vec<_> = facts.collect();
        format!("`${{event.FACT}}`, of {}", facts.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::JobConfig;

    fn problems(trigger: &Value) -> Vec<String> {
        let job = json!({
            "job_id": "j",
            "parameters": { "COMMIT": { "default": "" } },
            "tasks": [{ "type": "execute-shell", "params": { "script": "true" } }],
            "triggers": [trigger],
        });
        let refused = JobConfig::parse(&job.to_string()).err().unwrap_or_default();
        let lines = refused.iter().map(|problem| {
            let help = problem.help.as_deref().unwrap_or_default();
            format!("{}: {} {help}", problem.path, problem.message)
        });
        lines.collect()
    }

    #[test]
    fn good_triggers_are_taken() {
        let repository = "https://github.com/acme/app";
        for good in [
            json!({ "on": "push", "repository": repository }),
            json!({ "on": ["push", "tag"], "repository": "git@github.com:acme/app",
                "refs": ["main", "!wip/**"], "paths": ["src/**"] }),
            json!({ "on": "pull_request", "repository": "github.com/acme/app",
                "labels": ["ci"], "actions": ["labeled"], "forks": true,
                "parameters": { "COMMIT": "${event.sha} by ${event.sender}" } }),
            json!({ "on": "webhook", "token_sha256": "0a".repeat(32),
                "parameters": { "COMMIT": "${event.body.commit.id}" } }),
        ] {
            assert_eq!(problems(&good), Vec::<String>::new(), "{good}");
        }
    }

    /// Where, what is said there, and the trigger.
    const FAULTS: &str = r#"
triggers[0].on            | no event           | { "on": [], "repository": "h/p" }
triggers[0].on            | did you mean `push`| { "on": "pusch", "repository": "h/p" }
triggers[0].on[1]         | one of push        | { "on": ["tag", 3], "repository": "h/p" }
triggers[0]               | is missing         | { "on": "push" }
triggers[0].repository    | credentials        | { "on": "push", "repository": "https://u:p@x/y" }
triggers[0].on            | `cron`             | { "on": "schedule", "repository": "h/p" }
triggers[0].on            | `poll`             | { "on": "poll", "repository": "h/p" }
triggers[0].poll          | once a day         | { "poll": "1s", "repository": "h/p" }
triggers[0].repository    | credentials        | { "poll": "5m", "repository": "https://u:p@x/y" }
triggers[0].refs[0]       | not a pattern      | { "on": "push", "repository": "h/p", "refs": ["["] }
triggers[0].paths[1]      | between 1          | { "on": "push", "repository": "h/p", "paths": ["a", "!"] }
triggers[0].labels[0]     | between 1          | { "on": "push", "repository": "h/p", "labels": [""] }
triggers[0].token_sha256  | only `webhook`     | { "on": "push", "repository": "h/p", "token_sha256": "0" }
triggers[0].token_sha256  | webhook token      | { "on": "webhook" }
triggers[0].token_sha256  | 64 hex digits      | { "on": "webhook", "token_sha256": "xyz" }
triggers[0].refs          | no meaning         | { "on": "webhook", "refs": ["a"] }
triggers[0].on            | stands alone       | { "on": ["webhook", "push"], "repository": "h/p" }
triggers[0].parameters.CO | no parameter       | { "on": "push", "repository": "h/p", "parameters": { "CO": "" } }
triggers[0].parameters.COMMIT | mean `sha`     | { "on": "push", "repository": "h/p", "parameters": { "COMMIT": "${event.shas}" } }
triggers[0].parameters.COMMIT | no fact        | { "on": "push", "repository": "h/p", "parameters": { "COMMIT": "${COMMIT}" } }
"#;

    #[test]
    fn each_fault_is_told_where_it_is() {
        for line in FAULTS.trim().lines() {
            let (path, rest) = line.split_once('|').unwrap();
            let (words, bad) = rest.split_once('|').unwrap();
            let (path, words) = (format!("{}: ", path.trim()), words.trim());
            let found = problems(&serde_json::from_str(bad).unwrap());
            let fits = |line: &String| line.starts_with(&path) && line.contains(words);
            assert!(found.iter().any(fits), "{bad}: {found:?}");
        }
        for bad in [
            json!({ "on": "push", "repository": "h/p", "refs": vec!["a"; 65] }),
            json!({ "on": "push", "repository": "h/p", "refs": ["a".repeat(300)] }),
        ] {
            assert_eq!(problems(&bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_job_has_so_many_triggers_and_no_more() {
        let one = json!({ "on": "push", "repository": "github.com/acme/app" });
        let job = json!({
            "job_id": "j",
            "tasks": [{ "type": "execute-shell", "params": { "script": "true" } }],
            "triggers": vec![one; super::MAX_TRIGGERS + 1],
        });
        let refused = JobConfig::parse(&job.to_string()).unwrap_err();
        assert_eq!(refused[0].path, "triggers");
    }
}
