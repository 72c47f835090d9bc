//! Reports in the JSON lines of Rust's libtest, as `cargo test` and nextest print them.
//!
//! Owns what its events mean. Other lines between them are passed over: whoever prints the events
//! prints them where others print too.

use std::borrow::Cow;
use std::collections::BTreeSet;

use distci_model::test_report::{MAX_TESTS, Test, TestOutcome};
use serde::Deserialize;

use super::{Broken, Gathering, milliseconds};

/// One event, as far as it matters.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    event: Cow<'a, str>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    exec_time: serde_json::Value,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
}

/// Reads a report.
pub(super) fn read(report: &[u8], into: &mut Gathering) -> Result<(), Broken> {
    let mut run = Run {
        into,
        open: false,
        known: false,
        running: BTreeSet::new(),
    };
    let mut broken = None;
    let mut last = 0;
    for (line, number) in report.split(|&b| b == b'\n').zip(1..) {
        let line = line.trim_ascii();
        if !line.starts_with(b"{") {
            continue;
        }
        last = number;
        match serde_json::from_slice::<Line<'_>>(line) {
            Ok(line) => run.note(line),
            Err(error) => {
                let why = error.to_string();
                broken.get_or_insert(Broken { line: number, why });
            }
        }
    }
    run.give_up();
    let open = run.open.then_some("the report breaks off within a suite");
    let strange = (!run.known).then_some("there are no events of tests");
    if let (None, Some(why)) = (&broken, open.or(strange)) {
        let why = why.to_owned();
        let line = last.max(1);
        broken = Some(Broken { line, why });
    }
    broken.map_or(Ok(()), Err)
}

/// A run of tests that is being read.
struct Run<'g> {
    into: &'g mut Gathering,
    /// Whether a suite has begun that has not ended.
    open: bool,
    /// Whether there was any event of tests.
    known: bool,
    /// Tests that have begun.
    running: BTreeSet<String>,
}

impl Run<'_> {
    fn note(&mut self, line: Line<'_>) {
        match (&*line.kind, &*line.event) {
            ("suite", "started") => {
                self.give_up();
                (self.open, self.known) = (true, true);
            }
            ("suite", "ok" | "failed") => {
                self.give_up();
                (self.open, self.known) = (false, true);
            }
            ("test", "started") => {
                self.known = true;
                if self.running.len() < MAX_TESTS {
                    self.running.insert(line.name);
                }
            }
            ("test", "ok") | ("bench", _) => self.end(line, TestOutcome::Passed),
            ("test", "failed") => self.end(line, TestOutcome::Failed),
            ("test", "ignored") => self.end(line, TestOutcome::Skipped),
            // That a test takes long, and events that later versions bring.
            _ => {}
        }
    }

    fn end(&mut self, line: Line<'_>, outcome: TestOutcome) {
        self.known = true;
        self.running.remove(&line.name);
        let time = match &line.exec_time {
            serde_json::Value::Number(seconds) => milliseconds(&seconds.to_string()),
            serde_json::Value::String(seconds) => milliseconds(seconds),
            _ => None,
        };
        let said = [line.message, line.reason];
        let message = said.into_iter().find(|text| !text.is_empty());
        let message = message.or_else(|| outcome.is_bad().then(|| panicked(&line.stdout))?);
        self.into.add(Test {
            duration_ms: time,
            message: message.unwrap_or_default(),
            details: line.stdout,
            ..named(&line.name, outcome)
        });
    }

    /// Tests that have begun will not end any more: their process is gone.
    fn give_up(&mut self) {
        for name in std::mem::take(&mut self.running) {
            self.into.add(Test {
                message: "it began and did not end".to_owned(),
                ..named(&name, TestOutcome::Errored)
            });
        }
    }
}

/// A test by its name; nextest writes the binary before it, and a `$` between.
fn named(name: &str, outcome: TestOutcome) -> Test {
    let (suite, name) = name.split_once('$').unwrap_or(("", name));
    Test::of(suite, name, outcome)
}

/// What a panic said: the line after that which tells where it was, or the rest of that.
fn panicked(stdout: &str) -> Option<String> {
    let mut lines = stdout.lines();
    let place = lines.find(|line| line.contains(" panicked at "))?;
    let said = lines.next().filter(|line| !line.trim().is_empty());
    Some(said.unwrap_or(place).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use distci_model::config::ReportFormat::Libtest;

    #[test]
    fn what_libtest_prints_is_understood() {
        let report = br#"
   Compiling x
{ "type": "suite", "event": "started", "test_count": 4 }
{ "type": "test", "event": "started", "name": "a::ok" }
{ "type": "test", "name": "a::ok", "event": "ok", "exec_time": 0.25 }
{ "type": "test", "event": "timeout", "name": "a::bad" }
{ "type": "test", "name": "a::bad", "event": "failed", "exec_time": "1.000s", "stdout": "\nthread 'a::bad' panicked at src/x.rs:1:2:\nno good\nnote: run" }
{ "type": "test", "name": "c::bin$d", "event": "ignored", "message": "later" }
{ "type": "bench", "name": "b", "median": 10, "deviation": 1 }
{ "type": "suite", "event": "failed", "passed": 1, "failed": 1 }
"#;
        let (tests, broken) = told(Libtest, report);
        assert_eq!(broken, None);
        assert_eq!(
            tests,
            [
                "failed a::bad 1000 ms [no good] [\nthread 'a::bad' panicked at src/x.rs:1:2:\n\
                    no good\nnote: run]",
                "passed a::ok 250 ms",
                "skipped c::bin::d [later]",
                "passed b",
            ]
        );
    }

    #[test]
    fn a_run_that_was_killed_is_broken_and_its_tests_are_errors() {
        let report = br#"{ "type": "suite", "event": "started", "test_count": 2 }
{ "type": "test", "event": "started", "name": "a" }
{ "type": "test", "event": "sta"#;
        let (tests, broken) = told(Libtest, report);
        assert_eq!(tests, ["errored a [it began and did not end]"]);
        let broken = broken.unwrap_or_default();
        assert!(broken.starts_with("3: EOF"), "{broken}");
        let cut = report.iter().rposition(|&b| b == b'\n').unwrap();
        let broken = told(Libtest, &report[..cut]).1.unwrap_or_default();
        assert_eq!(broken, "2: the report breaks off within a suite");
        for strange in ["text", "{}", r#"{"reason": "compiler-artifact"}"#] {
            let (tests, broken) = told(Libtest, strange.as_bytes());
            assert_eq!(tests, [""; 0]);
            assert_eq!(broken.as_deref(), Some("1: there are no events of tests"));
        }
        let deep = format!("{{\"exec_time\": {}", "[".repeat(1_000_000));
        assert!(told(Libtest, deep.as_bytes()).1.is_some());
    }
}
