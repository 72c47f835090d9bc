//! Test reports: what the tests of a task came to.
//!
//! Owns the one form that every tool's report is brought into, its limits, and how it is shown. Who
//! reads the tools' own forms is the worker; when a test counts as flaky is [`flaky`]'s.

pub mod flaky;

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::id::{Attempt, BuildNumber, TaskName};
use flaky::Flaky;

/// Most tests that a report names; of more, it has the counts.
pub const MAX_TESTS: usize = 20_000;
/// Most bytes of a report as it is sent.
pub const MAX_TEST_REPORT: usize = 8 * 1024 * 1024;
/// Most bytes of the name of a test, and of that of its suite.
pub const MAX_TEST_NAME: usize = 512;
/// Most bytes of the message of a test.
pub const MAX_TEST_MESSAGE: usize = 1024;
/// Most bytes of what else a test said.
pub const MAX_TEST_DETAILS: usize = 16 * 1024;
/// Most builds that one look at the history of tests reads.
pub const MAX_TEST_HISTORY: usize = 100;

/// How a test ended, the worst first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TestOutcome {
    /// It found what it is there to find.
    Failed,
    /// It could not be run to its end.
    Errored,
    /// All is well.
    Passed,
    /// It was not run, or it was known that it fails.
    Skipped,
}

impl TestOutcome {
    /// Whether somebody has to look at it.
    pub fn is_bad(self) -> bool {
        match self {
            Self::Failed | Self::Errored => true,
            Self::Passed | Self::Skipped => false,
        }
    }
}

impl fmt::Display for TestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::Passed => "passed",
            Self::Skipped => "skipped",
        })
    }
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestCounts {
    /// All is well.
    pub passed: u32,
    /// Found what they are there to find.
    pub failed: u32,
    /// Could not be run to their end.
    pub errored: u32,
    /// Were not run.
    pub skipped: u32,
}

impl TestCounts {
    /// Counts one test more.
    pub fn add(&mut self, outcome: TestOutcome) {
        let count = match outcome {
            TestOutcome::Failed => &mut self.failed,
            TestOutcome::Errored => &mut self.errored,
            TestOutcome::Passed => &mut self.passed,
            TestOutcome::Skipped => &mut self.skipped,
        };
        *count = count.saturating_add(1);
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed.saturating_add(other.passed),
            failed: self.failed.saturating_add(other.failed),
            errored: self.errored.saturating_add(other.errored),
            skipped: self.skipped.saturating_add(other.skipped),
        }
    }

    /// How many somebody has to look at.
    pub fn bad(self) -> u32 {
        self.failed.saturating_add(self.errored)
    }

    /// How many there are.
    pub fn total(self) -> u32 {
        self.bad()
            .saturating_add(self.passed)
            .saturating_add(self.skipped)
    }
}

/// `123 passed, 2 failed`: what there is none of is not named.
impl fmt::Display for TestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.passed, "passed"),
            (self.failed, "failed"),
            (self.errored, "errored"),
            (self.skipped, "skipped"),
        ];
        let told = counts.iter().filter(|(count, _)| *count > 0);
        let told: Vec<_> = told
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if told.is_empty() {
            return f.pad("no tests");
        }
        f.pad(&told.join(", "))
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Test {
    /// What it belongs to: a class, a file, a binary; empty if the report does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suite: String,
    /// Its name there.
    pub name: String,
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Whether it failed first, and passed when the tool ran it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// What was wrong, or why it was skipped, in a line or a few.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What else it said: where it happened, what it printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Test {
    /// A test of which no more is known.
    pub fn of(suite: impl Into<String>, name: impl Into<String>, outcome: TestOutcome) -> Self {
        Self {
            suite: suite.into(),
            name: name.into(),
            outcome,
            duration_ms: None,
            repeated: false,
            message: String::new(),
            details: String::new(),
        }
    }

    /// Suite and name in one: `suite::name`.
    pub fn full_name(&self) -> String {
        match self.suite.as_str() {
            "" => self.name.clone(),
            suite => format!("{suite}::{}", self.name),
        }
    }

    /// Whether that is what people call it: by its name, or by suite and name.
    pub fn is_called(&self, name: &str) -> bool {
        let whole = || {
            let rest = name.strip_prefix(self.suite.as_str());
            rest.and_then(|rest| rest.strip_prefix("::")) == Some(self.name.as_str())
        };
        self.name == name || whole()
    }
}

/// What the tests of one attempt came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestReport {
    /// Of all tests, those that are left out too.
    pub counts: TestCounts,
    /// The tests; who has to be looked at is not left out while there is room for it.
    pub tests: Vec<Test>,
    /// How many tests are not named, for there are too many.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_none(count: &u32) -> bool {
    *count == 0
}

impl TestReport {
    /// Why this is no report: it is sent by a worker, and shown to people for ever.
    ///
    /// # Errors
    /// What is beyond the limits.
    pub fn check(&self) -> Result<(), String> {
        if self.tests.len() > MAX_TESTS {
            return Err(format!("{} tests, over {MAX_TESTS}", self.tests.len()));
        }
        let total = self.tests.len() as u64 + u64::from(self.left_out);
        if total != u64::from(self.counts.total()) {
            return Err(format!("{total} tests, but the counts say otherwise"));
        }
        for test in &self.tests {
            for (text, most) in [
                (&test.suite, MAX_TEST_NAME),
                (&test.name, MAX_TEST_NAME),
                (&test.message, MAX_TEST_MESSAGE),
                (&test.details, MAX_TEST_DETAILS),
            ] {
                if text.len() > most {
                    return Err(format!("a text of {} bytes, over {most}", text.len()));
                }
            }
        }
        Ok(())
    }
}

/// The tests of a build: who has to be looked at first, then the slowest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestsView {
    /// Of all tests of the build, those that are left out too.
    pub counts: TestCounts,
    /// How many tests are not named, for there are too many.
    pub left_out: u32,
    /// A page of the tests.
    pub items: Vec<TestView>,
    /// Where the next page begins; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A test of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestView {
    /// The task that reported it.
    pub task: TaskName,
    /// Which attempt of it.
    pub attempt: Attempt,
    /// The test.
    #[serde(flatten)]
    pub test: Test,
    /// Why it is flaky, if it is and somebody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaky: Option<Flaky>,
}

/// How the tests of one name have gone in the latest builds of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestHistoryView {
    /// One for each task and suite that has a test of that name.
    pub tests: Vec<TestHistory>,
    /// How many builds were looked at.
    pub builds: u32,
    /// Before which build to go on; none after the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How one test has gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestHistory {
    /// The task that reports it.
    pub task: TaskName,
    /// What it belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suite: String,
    /// Its name there.
    pub name: String,
    /// Why it is flaky, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaky: Option<Flaky>,
    /// What became of it, the latest build first.
    pub runs: Vec<TestRunView>,
}

/// What became of a test in a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestRunView {
    /// Which build.
    pub build: BuildNumber,
    /// When that was posted.
    pub created: Timestamp,
    /// The commit that was built, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How the test ended.
    pub outcome: TestOutcome,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What was wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_name_what_there_is() {
        let mut counts = TestCounts::default();
        assert_eq!(counts.to_string(), "no tests");
        counts.add(TestOutcome::Passed);
        counts.add(TestOutcome::Errored);
        assert_eq!(counts.to_string(), "1 passed, 1 errored");
        let twice = counts.and(counts);
        assert_eq!((twice.total(), twice.bad()), (4, 2));
    }

    #[test]
    fn a_test_has_a_short_and_a_whole_name() {
        let test = Test::of("a::b", "c", TestOutcome::Passed);
        assert_eq!(test.full_name(), "a::b::c");
        assert!(test.is_called("c") && test.is_called("a::b::c"));
        assert!(!test.is_called("b::c") && !test.is_called("a::bc"));
        let bare = Test::of("", "c", TestOutcome::Passed);
        assert_eq!(bare.full_name(), "c");
        assert!(bare.is_called("c"));
    }

    #[test]
    fn a_report_beyond_its_limits_is_refused() {
        let mut report = TestReport::default();
        assert_eq!(report.check(), Ok(()));
        report.tests.push(Test::of("", "x", TestOutcome::Passed));
        assert!(report.check().is_err(), "the counts know of no test");
        report.counts.passed = 3;
        report.left_out = 2;
        assert_eq!(report.check(), Ok(()));
        report.tests[0].details = "x".repeat(MAX_TEST_DETAILS + 1);
        assert!(report.check().is_err(), "details without an end");
    }
}
