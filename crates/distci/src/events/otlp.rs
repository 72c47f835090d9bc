//! A build as a trace of OpenTelemetry: what a collector takes at `/v1/traces` as JSON.
//!
//! Owns the form, with the names of the semantic conventions for CI/CD. The ids are hashes of what a
//! span is of, so that a build sent twice is one trace.

use data_encoding::HEXLOWER;
use distci_model::Timestamp;
use distci_model::id::BuildRef;
use distci_model::journal::{Entry, Stretch, What, stretches};
use distci_model::outcome::Verdict;
use serde_json::{Value, json};

/// A span of the server's own doing.
const INTERNAL: u8 = 1;
const OK: u8 = 1;
const ERROR: u8 = 2;

/// The trace: a span for the build, and below it one for each stretch of waiting and working. What
/// goes on now ends `now`.
pub(super) fn trace(build: &BuildRef, journal: &[Entry], now: Timestamp) -> Value {
    let begun = journal.first().map_or(now, |entry| entry.at);
    let name = format!("{build} {}", begun.as_nanosecond());
    let (trace, root) = (id(&name, "trace", 32), id(&name, "build", 16));
    let outcome = journal.iter().find_map(|entry| match &entry.what {
        What::Over { outcome } => Some((entry.at, outcome)),
        _ => None,
    });
    let whole = json!({
        "traceId": trace, "spanId": root, "name": build.to_string(), "kind": INTERNAL,
        "startTimeUnixNano": nanos(begun),
        "endTimeUnixNano": nanos(outcome.map_or(now, |(at, _)| at)),
        "attributes": [
            text("cicd.pipeline.name", build.job.as_str()),
            text("cicd.pipeline.run.id", &build.number.to_string()),
            text("cicd.pipeline.result", outcome.map_or("", |(_, outcome)| result(outcome.verdict()))),
        ],
        "status": { "code": outcome.map_or(0, |(_, outcome)| status(outcome.is_success())) },
    });
    let parts = stretches(journal);
    let parts = parts.iter().enumerate().map(|(place, stretch)| {
        let mut span = part(stretch, now);
        span["traceId"] = json!(trace);
        span["parentSpanId"] = json!(root);
        span["spanId"] = json!(id(&name, &place.to_string(), 16));
        span
    });
    let spans: Vec<Value> = std::iter::once(whole).chain(parts).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", "distci")] },
        "scopeSpans": [{ "scope": { "name": "distci" }, "spans": spans }],
    }] })
}

fn part(stretch: &Stretch, now: Timestamp) -> Value {
    let task = stretch
        .task
        .as_ref()
        .map_or("build control", |task| task.as_str());
    let until = stretch.until.unwrap_or(now).max(stretch.from);
    let mut attributes = vec![text("cicd.pipeline.task.name", task)];
    let name = match &stretch.worker {
        Some(worker) => {
            attributes.push(text("cicd.worker.name", worker.as_str()));
            attributes.push(text(
                "cicd.pipeline.task.run.id",
                &stretch.attempt.to_string(),
            ));
            task.to_owned()
        }
        None => format!("{task} waits"),
    };
    let failed = match &stretch.end {
        Some(What::Lost { .. }) => true,
        Some(What::Ended { outcome, .. }) => outcome != "success",
        _ => false,
    };
    if let Some(end) = &stretch.end {
        attributes.push(text("distci.end", &end.to_string()));
    }
    json!({
        "name": name, "kind": INTERNAL, "attributes": attributes,
        "startTimeUnixNano": nanos(stretch.from), "endTimeUnixNano": nanos(until),
        "status": { "code": if failed { ERROR } else { 0 } },
    })
}

fn status(success: bool) -> u8 {
    if success { OK } else { ERROR }
}

fn result(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Success => "success",
        Verdict::Failure => "failure",
        Verdict::Fault => "error",
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Numbers of 64 bits are strings in the JSON of protocol buffers.
fn nanos(at: Timestamp) -> String {
    at.as_nanosecond().to_string()
}

/// An id of so many hex digits.
fn id(of: &str, part: &str, digits: usize) -> String {
    let hash = blake3::derive_key("distci trace id v1", format!("{of} {part}").as_bytes());
    HEXLOWER.encode(&hash[..digits / 2])
}

#[cfg(test)]
mod tests {
    use super::super::tests::journal;
    use super::*;

    #[test]
    fn a_build_is_one_trace_however_often_it_is_told() {
        let (build, now) = ("web#7".parse().unwrap(), Timestamp::UNIX_EPOCH);
        let told = trace(&build, &journal(), now);
        assert_eq!(told, trace(&build, &journal(), now));
        let spans = told["resourceSpans"][0]["scopeSpans"][0]["spans"]
            .as_array()
            .unwrap();
        let names: Vec<_> = spans
            .iter()
            .map(|span| span["name"].as_str().unwrap())
            .collect();
        let expected = [
            "web#7",
            "compile waits",
            "compile",
            "compile waits",
            "compile",
        ];
        assert_eq!(names, expected);
        let codes: Vec<_> = spans
            .iter()
            .map(|span| span["status"]["code"].as_u64().unwrap())
            .collect();
        assert_eq!(codes, [1, 0, 2, 0, 0]);
        assert_eq!(spans[0]["startTimeUnixNano"], "1700000000000000000");
        for span in &spans[1..] {
            assert_eq!(span["parentSpanId"], spans[0]["spanId"]);
            assert_eq!(span["traceId"].as_str().unwrap().len(), 32);
        }
    }
}
