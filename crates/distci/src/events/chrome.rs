//! A build as a trace of Chrome's format, which Perfetto and `chrome://tracing` show.
//!
//! Owns the form: complete events (`ph: X`) in microseconds, a row for each task. See the document
//! "Trace Event Format".

use distci_model::Timestamp;
use distci_model::id::BuildRef;
use distci_model::journal::Stretch;
use serde_json::{Value, json};

/// The trace; what goes on now ends `now`.
pub(super) fn trace(build: &BuildRef, stretches: &[Stretch], now: Timestamp) -> Value {
    let mut rows = vec![None];
    let mut events = Vec::new();
    for stretch in stretches {
        let row = rows.iter().position(|task| *task == stretch.task.as_ref());
        let row = row.unwrap_or_else(|| {
            rows.push(stretch.task.as_ref());
            rows.len() - 1
        });
        let until = stretch.until.unwrap_or(now).max(stretch.from);
        let (name, kind) = match stretch.worker {
            Some(_) => (format!("attempt {}", stretch.attempt), "work"),
            None => ("waits".to_owned(), "wait"),
        };
        let (from, worker) = (stretch.from.as_microsecond(), &stretch.worker);
        let took = until.as_microsecond() - from;
        let end = stretch.end.as_ref().map(ToString::to_string);
        events.push(json!({
            "ph": "X", "pid": 1, "tid": row, "name": name, "cat": kind,
            "ts": from,
            "dur": took,
            "args": { "worker": worker, "end": end },
        }));
    }
    let names = rows.iter().enumerate().map(|(row, task)| {
        let name = task.map_or("build control", |task| task.as_str());
        json!({ "ph": "M", "pid": 1, "tid": row, "name": "thread_name", "args": { "name": name } })
    });
    let process = json!({ "ph": "M", "pid": 1, "name": "process_name", "args": { "name": build.to_string() } });
    let head: Vec<Value> = std::iter::once(process).chain(names).collect();
    let all = [head, events].concat();
    json!({ "displayTimeUnit": "ms", "traceEvents": all })
}

#[cfg(test)]
mod tests {
    use distci_model::journal::stretches;

    use super::super::tests::journal;
    use super::*;

    #[test]
    fn a_row_for_each_task_with_what_it_waited_and_worked() {
        let build = "web#7".parse().unwrap();
        let trace = trace(&build, &stretches(&journal()), Timestamp::UNIX_EPOCH);
        let events = trace["traceEvents"].as_array().unwrap();
        let spans: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
        let told: Vec<_> = spans
            .iter()
            .map(|span| {
                (
                    span["name"].as_str().unwrap(),
                    span["dur"].as_i64().unwrap(),
                    span["tid"].as_i64().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("waits", 5_000, 1),
            ("attempt 1", 20_000, 1),
            ("waits", 5_000, 1),
            ("attempt 2", 55_000, 1),
        ];
        assert_eq!(told, expected);
        assert_eq!(
            spans[1]["args"]["end"],
            "attempt 1 lost: w was not heard of"
        );
        assert_eq!(spans[0]["ts"], 1_700_000_000_005_000_i64);
        let names: Vec<_> = events
            .iter()
            .filter_map(|event| event["args"]["name"].as_str())
            .collect();
        assert_eq!(names, ["web#7", "build control", "compile"]);
    }
}
