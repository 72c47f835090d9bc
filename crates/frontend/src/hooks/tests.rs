//! What each forge tells, as tables of payloads with the events that they are, written after the
//! vendors' documentation; and who is believed.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName};
use data_encoding::{BASE64, HEXLOWER};
use distci_model::Timestamp;
use distci_model::event::{EventKind, Source};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Label, Told, delivery_name, generic, payload, proofs, told};

/// A payload, and what is read of it. What is expected of facts is all that there are.
#[derive(Deserialize)]
struct Case {
    name: String,
    event: String,
    payload: Value,
    #[serde(default)]
    expect: Vec<Value>,
    #[serde(default)]
    ping: bool,
}

fn check(source: Source, cases: &str) {
    let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
    for case in cases {
        let label = Label {
            event: case.event,
            delivery: "d".to_owned(),
        };
        let told = told(source, &label, case.payload.to_string().as_bytes()).unwrap();
        let events = match told {
            Told::Events(events) => events,
            Told::Ping => {
                assert!(case.ping, "{}", case.name);
                continue;
            }
            Told::Nothing(_) => Vec::new(),
        };
        assert!(!case.ping, "{}", case.name);
        let read: Vec<Value> = events
            .iter()
            .map(|event| {
                assert_eq!(event.source, source);
                let mut seen = json!({ "kind": event.kind, "facts": event.facts });
                if let Some(paths) = &event.paths {
                    seen["paths"] = json!(paths);
                }
                if !event.labels.is_empty() {
                    seen["labels"] = json!(event.labels);
                }
                seen
            })
            .collect();
        assert_eq!(json!(read), json!(case.expect), "{}", case.name);
    }
}

#[test]
fn github_is_understood() {
    check(Source::Github, include_str!("tests/github.json"));
}

#[test]
fn of_a_push_that_is_longer_than_is_told_the_files_are_not_known() {
    let commit = json!({ "added": [], "removed": [], "modified": ["a"] });
    let label = Label {
        event: "push".to_owned(),
        delivery: "d".to_owned(),
    };
    for (count, is_known) in [(2047, true), (2048, false)] {
        let body = json!({ "ref": "refs/heads/main", "commits": vec![commit.clone(); count] });
        let read = told(Source::Github, &label, body.to_string().as_bytes());
        let Ok(Told::Events(events)) = read else {
            panic!("no events");
        };
        assert_eq!(events[0].paths.is_some(), is_known, "{count}");
    }
}

#[test]
fn gitlab_is_understood() {
    check(Source::Gitlab, include_str!("tests/gitlab.json"));
}

#[test]
fn gitea_is_understood() {
    check(Source::Gitea, include_str!("tests/gitea.json"));
}

#[test]
fn bitbucket_is_understood() {
    check(Source::Bitbucket, include_str!("tests/bitbucket.json"));
}

#[test]
fn of_several_events_each_has_a_delivery_of_its_own() {
    let change = |name: &str| json!({ "new": { "type": "branch", "name": name } });
    let body = json!({ "push": { "changes": [change("a"), change("b")] } });
    let (event, delivery) = ("repo:push".to_owned(), "d".to_owned());
    let label = Label { event, delivery };
    let read = told(Source::Bitbucket, &label, body.to_string().as_bytes());
    let Ok(Told::Events(events)) = read else {
        panic!("no events");
    };
    let names: Vec<_> = events
        .iter()
        .map(|event| event.delivery.as_deref())
        .collect();
    assert_eq!(names, [Some("d"), Some("d#1")]);
}

#[test]
fn what_is_not_as_expected_is_refused_or_passed_over_and_never_a_panic() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies = [
        "",
        "null",
        "[]",
        "{",
        "{\"ref\":1}",
        "\u{fffd}",
        "{}",
        deep.as_str(),
    ];
    let deep_field = format!("{{\"x\":{deep}}}");
    for source in [
        Source::Github,
        Source::Gitlab,
        Source::Gitea,
        Source::Bitbucket,
    ] {
        for event in [
            "push",
            "pull_request",
            "repo:push",
            "pullrequest:created",
            "release",
        ] {
            let label = Label {
                event: event.to_owned(),
                delivery: String::new(),
            };
            for body in bodies.iter().chain([&deep_field.as_str()]) {
                if let Ok(told) = told(source, &label, body.as_bytes()) {
                    assert!(
                        matches!(told, Told::Nothing(_)),
                        "{source} {event} {body:.20}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_generic_body_becomes_facts_by_path() {
    let label = Label {
        event: "webhook".to_owned(),
        delivery: "d".to_owned(),
    };
    let read = |body: &str| told(Source::Generic, &label, body.as_bytes());
    let facts = |body: &str| match read(body) {
        Ok(Told::Events(events)) => {
            assert_eq!(events[0].kind, EventKind::Webhook);
            json!(events[0].facts)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(facts(" "), json!({}));
    let body = json!({ "a": { "b": [1, true, null, "x"] }, "c": "" });
    let expected = json!({ "body.a.b.0": "1", "body.a.b.1": "true", "body.a.b.3": "x" });
    assert_eq!(facts(&body.to_string()), expected);
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    assert!(read(&deep).is_err(), "deep JSON is refused");
    // What is near the top comes first.
    let many: Vec<String> = (0..1000).map(|number| "x".repeat(number)).collect();
    let kept = facts(&json!({ "many": many, "z": "near" }).to_string());
    assert_eq!(kept["body.z"], "near");
    assert!(kept.as_object().unwrap().len() <= 64);
    let large = facts(&json!({ "a": "ä".repeat(9000) }).to_string());
    assert_eq!(large["body.a"].as_str().map(str::len), Some(4096));
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = list.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    hmac.update(text);
    hmac.finalize().into_bytes().to_vec()
}

fn believed(source: Source, list: &[(&'static str, &str)]) -> bool {
    let secrets = [
        "old".to_owned(),
        "s3cret".to_owned(),
        "whsec_a2V5".to_owned(),
    ];
    let now = Timestamp::from_second(1_000_000).unwrap();
    let proofs = proofs(source, &headers(list));
    proofs
        .iter()
        .any(|proof| proof.holds(&secrets, b"body", now))
}

#[test]
fn who_signs_the_body_with_any_of_the_secrets_is_believed() {
    let good = HEXLOWER.encode(&mac(b"s3cret", b"body"));
    let (prefixed, upper) = (format!("sha256={good}"), good.to_uppercase());
    let old = HEXLOWER.encode(&mac(b"old", b"body"));
    let wrong = HEXLOWER.encode(&mac(b"other", b"body"));
    for (source, name) in [
        (Source::Github, "x-hub-signature-256"),
        (Source::Bitbucket, "x-hub-signature"),
        (Source::Gitea, "x-gitea-signature"),
        (Source::Gitea, "x-forgejo-signature"),
        (Source::Gitea, "x-hub-signature-256"),
    ] {
        for value in [&good, &prefixed, &upper, &old] {
            assert!(
                believed(source, &[(name, value)]),
                "{source} {name} {value}"
            );
        }
        for value in [
            &wrong,
            &good[..62],
            "",
            "sha256=",
            "sha1=00",
            "s3cret",
            "zz",
        ] {
            assert!(
                !believed(source, &[(name, value)]),
                "{source} {name} {value}"
            );
        }
        assert!(!believed(source, &[]));
        assert!(!believed(source, &[("x-gitlab-token", "s3cret")]));
    }
}

#[test]
fn gitlab_shows_its_token_or_signs_by_the_standard() {
    assert!(believed(Source::Gitlab, &[("x-gitlab-token", "s3cret")]));
    assert!(believed(Source::Gitlab, &[("x-gitlab-token", "old")]));
    for wrong in ["s3cre", "s3cret2", "", "whsec_a2V5"] {
        assert!(
            !believed(Source::Gitlab, &[("x-gitlab-token", wrong)]),
            "{wrong}"
        );
    }
    let signed = |id: &str, at: i64, key: &[u8], over: &str| {
        let signature = format!("v1,{}", BASE64.encode(&mac(key, over.as_bytes())));
        let at = at.to_string();
        let several = format!("v1,AAAA v2,x {signature}");
        believed(
            Source::Gitlab,
            &[
                ("webhook-id", id),
                ("webhook-timestamp", &at),
                ("webhook-signature", &several),
            ],
        )
    };
    assert!(signed("i", 1_000_000, b"key", "i.1000000.body"));
    assert!(signed("i", 1_000_000, b"s3cret", "i.1000000.body"));
    assert!(signed("i", 1_000_300, b"key", "i.1000300.body"));
    assert!(!signed("i", 1_000_301, b"key", "i.1000301.body"), "too far");
    assert!(!signed("i", 999_699, b"key", "i.999699.body"), "too old");
    assert!(
        !signed("j", 1_000_000, b"key", "i.1000000.body"),
        "another id"
    );
    assert!(
        !signed("i", 1_000_001, b"key", "i.1000000.body"),
        "another time"
    );
    assert!(
        !signed("i", 1_000_000, b"key", "i.1000000.other"),
        "another body"
    );
    assert!(
        !signed("i", 1_000_000, b"yek", "i.1000000.body"),
        "another key"
    );
}

#[test]
fn a_payload_may_come_as_a_form() {
    let form = headers(&[(
        "content-type",
        "application/x-www-form-urlencoded; charset=utf-8",
    )]);
    let body = Bytes::from_static(b"a=1&payload=%7B%22ref%22%3A+%22x%22%7D");
    assert_eq!(
        payload(&form, &body).as_deref(),
        Some(&br#"{"ref": "x"}"#[..])
    );
    assert_eq!(payload(&form, &Bytes::from_static(b"a=1")), None);
    assert_eq!(payload(&headers(&[]), &body), Some(body));
}

#[test]
fn a_delivery_always_has_a_name() {
    let named = headers(&[("x-github-delivery", "abc")]);
    assert_eq!(delivery_name(Source::Github, &named, b""), "abc");
    let long = headers(&[("x-github-delivery", &"x".repeat(500))]);
    assert_eq!(delivery_name(Source::Github, &long, b"").len(), 64);
    let (one, two) = (b"one", b"two");
    let name = |body: &[u8]| delivery_name(Source::Gitea, &headers(&[]), body);
    assert_eq!(name(one), name(one));
    assert_ne!(name(one), name(two));
}

#[test]
fn a_token_is_known_by_its_hash() {
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for list in [
        [("authorization", "Bearer abc")],
        [("authorization", "bearer  abc ")],
        [("x-distci-token", "abc")],
    ] {
        assert_eq!(generic::token_hash(&headers(&list)).as_deref(), Some(hash));
    }
    for list in [[("authorization", "abc")], [("x-distci-token", " ")]] {
        assert_eq!(generic::token_hash(&headers(&list)), None);
    }
}
