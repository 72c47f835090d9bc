//! What must hold of this crate's parsers for any bytes. Tests and `cargo xtask fuzz` call it.

use std::fmt::Debug;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue};
use distci_model::event::{Event, Source};
use distci_model::pool::DemandRequest;
use distci_model::wire::{
    AnswerRequest, BeatRequest, ClaimRequest, CommitRequest, RerunRequest, TriggerRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::hooks::{Label, Told, payload, told};

/// What forges call events.
const EVENTS: [&str; 12] = [
    "push",
    "pull_request",
    "release",
    "merge_group",
    "check_run",
    "check_suite",
    "delete",
    "create",
    "repo:push",
    "pullrequest:created",
    "Push Hook",
    "ping",
];

/// Of a webhook, whose first byte says of which forge and event: it is refused, or tells of events that
/// can be kept and read again as the same.
///
/// # Panics
/// If it does not.
pub fn webhook(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let kind = usize::from(*kind);
    let sources = Source::FORGES.len();
    let source = match Source::FORGES.get(kind % (sources + 1)) {
        Some(source) => *source,
        None => Source::Generic,
    };
    let label = Label {
        event: EVENTS[kind / (sources + 1) % EVENTS.len()].to_owned(),
        delivery: "delivery".to_owned(),
    };
    let mut form = HeaderMap::new();
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    form.insert("content-type", kind);
    let inner = payload(&form, &Bytes::copy_from_slice(body));
    for body in [Some(Bytes::copy_from_slice(body)), inner]
        .into_iter()
        .flatten()
    {
        if let Ok(Told::Events(events)) = told(source, &label, &body) {
            for event in events {
                let written = serde_json::to_vec(&event).unwrap_or_default();
                let again: Option<Event> = serde_json::from_slice(&written).ok();
                assert_eq!(again, Some(event));
            }
        }
    }
}

/// Of the body of a request: it is refused, or what it says can be written and read again as the same.
///
/// # Panics
/// If it does not.
pub fn api_body(data: &[u8]) {
    is_itself::<AnswerRequest>(data);
    is_itself::<BeatRequest>(data);
    is_itself::<ClaimRequest>(data);
    is_itself::<CommitRequest>(data);
    is_itself::<DemandRequest>(data);
    is_itself::<RerunRequest>(data);
    is_itself::<TriggerRequest>(data);
}

fn is_itself<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) {
    let Ok(body) = serde_json::from_slice::<T>(data) else {
        return;
    };
    let written = serde_json::to_vec(&body).unwrap_or_default();
    let again = serde_json::from_slice::<T>(&written);
    let again = again.map_err(|error| error.to_string());
    assert_eq!(format!("{again:?}"), format!("Ok({body:?})"));
}

#[cfg(test)]
mod tests {
    use distci_hostile::rounds;
    use serde_json::Value;

    /// Each case of the forges' tables, behind every byte that says forge and event.
    fn payloads() -> Vec<Vec<u8>> {
        let tables = [
            include_str!("hooks/tests/github.json"),
            include_str!("hooks/tests/gitlab.json"),
            include_str!("hooks/tests/gitea.json"),
            include_str!("hooks/tests/bitbucket.json"),
        ];
        let mut all = Vec::new();
        for (place, table) in (0_u8..).zip(tables) {
            let cases: Vec<Value> = serde_json::from_str(table).unwrap();
            for (number, case) in (0_u8..).zip(&cases) {
                let kind = number.wrapping_mul(5).wrapping_add(place);
                let body = case["payload"].to_string();
                all.push([&[kind], body.as_bytes()].concat());
            }
        }
        all
    }

    #[test]
    fn webhooks_hold_for_any_bytes() {
        let payloads = payloads();
        let examples: Vec<&[u8]> = payloads.iter().map(|payload| &**payload).collect();
        let words = [
            "null",
            "[]",
            "{}",
            "payload=",
            "refs/heads/",
            "\"ref\":",
            "\"deleted\":true,",
        ];
        rounds(&examples, &words, 10_000, super::webhook);
    }

    #[test]
    fn bodies_of_requests_hold_for_any_bytes() {
        let claim = br#"{ "worker": "w", "capabilities": ["execute-shell", "label:linux"],
            "request": "00112233445566778899aabbccddeeff", "wait": 30 }"#;
        let beat =
            br#"{ "worker": "w", "session": "00112233", "held": [], "pending": [], "wait": 1 }"#;
        let trigger = br#"{ "parameters": { "branch": "main" } }"#;
        let answer = br#"{ "approved": true }"#;
        let rerun = br#"{ "failed": true, "from": "a" }"#;
        let examples: [&[u8]; 5] = [claim, beat, trigger, answer, rerun];
        rounds(
            &examples,
            &["null", "[]", "{}", ",", "\"x\":1,"],
            20_000,
            super::api_body,
        );
    }
}
