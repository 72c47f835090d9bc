//! How many tests ran, and how they ended.
//!
//! Counts come from the runners' machine-readable reports: nextest's JUnit file and test list, and
//! the result lines of the documentation tests. The closing line is what other programs read.

use std::fmt;
use std::ops::AddAssign;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Tests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Reads the totals of a JUnit report; it does not know of skipped tests.
    pub(crate) fn of_junit(report: &str) -> Result<Self> {
        let root = report
            .split_once("<testsuites ")
            .and_then(|(_, rest)| rest.split_once('>'))
            .map(|(attributes, _)| attributes)
            .context("the report has no element `testsuites`")?;
        let ran = attribute(root, "tests")?;
        let failed = attribute(root, "failures")? + attribute(root, "errors")?;
        let passed = ran
            .checked_sub(failed)
            .context("the report has more failures than tests")?;
        Ok(Self {
            passed,
            failed,
            skipped: 0,
        })
    }

    /// Reads which tests of a nextest list would not run.
    pub(crate) fn skipped_in(list: &str) -> Result<Self> {
        let list: TestList = serde_json::from_str(list).context("the list of tests")?;
        let cases = list.suites.values().flat_map(|suite| suite.cases.values());
        let skipped = cases.filter(|case| case.filter.status != "matches").count();
        Ok(Self {
            skipped: u64::try_from(skipped)?,
            ..Self::default()
        })
    }

    /// Adds up the result lines that documentation tests print, one for each crate.
    pub(crate) fn of_doc_tests(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output
            .lines()
            .filter_map(|line| line.strip_prefix("test result: "))
        {
            sum += Self {
                passed: before(line, " passed"),
                failed: before(line, " failed"),
                skipped: before(line, " ignored"),
            };
        }
        sum
    }

    /// Whether any test ran.
    pub(crate) fn is_empty(self) -> bool {
        self.passed + self.failed == 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

fn attribute(element: &str, name: &str) -> Result<u64> {
    element
        .split_once(&format!("{name}=\""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .and_then(|(value, _)| value.parse().ok())
        .with_context(|| format!("the report does not count its {name}"))
}

/// The number that ends where `word` begins.
fn before(line: &str, word: &str) -> u64 {
    let counted = line.split_once(word).map_or("", |(head, _)| head);
    counted
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[derive(Deserialize)]
struct TestList {
    #[serde(rename = "rust-suites")]
    suites: std::collections::BTreeMap<String, Suite>,
}

#[derive(Deserialize)]
struct Suite {
    #[serde(rename = "testcases")]
    cases: std::collections::BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(rename = "filter-match")]
    filter: Filter,
}

#[derive(Deserialize)]
struct Filter {
    status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_errors_of_a_report_are_failed_tests() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="12" failures="2" errors="1" uuid="x" time="0.1">
    <testsuite name="a" tests="99" disabled="0" errors="0" failures="0"/>"#;
        let tally = Tally::of_junit(report).unwrap();
        assert_eq!(
            tally,
            Tally {
                passed: 9,
                failed: 3,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_report_without_totals_is_refused() {
        assert!(Tally::of_junit("").is_err());
        assert!(Tally::of_junit(r#"<testsuites name="x">"#).is_err());
    }

    #[test]
    fn tests_that_do_not_match_are_skipped() {
        let list = r#"{"rust-suites": {"a": {"testcases": {
            "one": {"ignored": false, "filter-match": {"status": "matches"}},
            "two": {"ignored": true, "filter-match": {"status": "mismatch", "reason": "ignored"}}
        }}, "b": {"testcases": {}}}}"#;
        assert_eq!(
            Tally::skipped_in(list).unwrap(),
            Tally {
                skipped: 1,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn doc_tests_of_all_crates_add_up() {
        let output = "running 2 tests\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
            test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let tally = Tally::of_doc_tests(output);
        assert_eq!(
            tally,
            Tally {
                passed: 12,
                failed: 3,
                skipped: 1
            }
        );
    }

    #[test]
    fn the_closing_line_names_skipped_tests_only_if_there_are_any() {
        let mut tally = Tally {
            passed: 7,
            failed: 0,
            skipped: 0,
        };
        assert_eq!(tally.to_string(), "7 passed, 0 failed");
        tally += Tally {
            passed: 0,
            failed: 1,
            skipped: 2,
        };
        assert_eq!(tally.to_string(), "7 passed, 1 failed, 2 skipped");
    }
}
