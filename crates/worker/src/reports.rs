//! Test reports as tools write them, brought into the one form that DistCI has.
//!
//! Owns the reading of each form, one file a form, from bytes that a build made and that may be
//! anything: nothing here reads a file, follows a reference, or grows beyond its input. What was read
//! before a report turned out to be broken counts.

mod gathering;
mod junit;
mod libtest;
mod tap;

use distci_model::config::ReportFormat;

pub(crate) use gathering::Gathering;

/// Most bytes of one report.
pub(crate) const MOST_BYTES: u64 = 32 * 1024 * 1024;

/// Why a report cannot be read, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {why}")]
pub(crate) struct Broken {
    /// In which line, from 1.
    pub(crate) line: usize,
    pub(crate) why: String,
}

impl Broken {
    /// At a byte of `report`.
    fn at(report: &[u8], byte: usize, why: impl Into<String>) -> Self {
        let before = &report[..byte.min(report.len())];
        Self {
            line: before.split(|&b| b == b'\n').count(),
            why: why.into(),
        }
    }
}

/// Adds the tests of a report to those that were gathered.
///
/// # Errors
/// Where the report is broken.
pub(crate) fn read(
    format: ReportFormat,
    report: &[u8],
    into: &mut Gathering,
) -> Result<(), Broken> {
    if report.trim_ascii().is_empty() {
        return Err(Broken::at(report, 0, "the report is empty"));
    }
    match format {
        ReportFormat::Junit => junit::read(report, into),
        ReportFormat::Tap => tap::read(report, into),
        ReportFormat::Libtest => libtest::read(report, into),
    }
}

/// A time in seconds as reports have it, in milliseconds: `0.25`, `1,234.5`, `3s`.
fn milliseconds(seconds: &str) -> Option<u64> {
    let plain: String = seconds.trim().chars().filter(|&c| c != ',').collect();
    let seconds: f64 = plain.trim_end_matches('s').parse().ok()?;
    let time = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    u64::try_from(time.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use distci_model::test_report::{TestOutcome, TestReport};

    use super::*;

    /// The tests of a report in a line each, and how it is broken.
    pub(super) fn told(format: ReportFormat, report: &[u8]) -> (Vec<String>, Option<String>) {
        let (report, broken) = reported(format, report);
        let line = |test: &distci_model::test_report::Test| {
            let mut words = vec![test.outcome.to_string(), test.full_name()];
            words.extend(test.duration_ms.map(|ms| format!("{ms} ms")));
            if test.repeated {
                words.push("repeated".to_owned());
            }
            for text in [&test.message, &test.details] {
                if !text.is_empty() {
                    words.push(format!("[{text}]"));
                }
            }
            words.join(" ")
        };
        (report.tests.iter().map(line).collect(), broken)
    }

    pub(super) fn reported(format: ReportFormat, report: &[u8]) -> (TestReport, Option<String>) {
        let mut gathering = Gathering::default();
        let broken = read(format, report, &mut gathering).err();
        let report = gathering.finish();
        assert_eq!(report.check(), Ok(()));
        (report, broken.map(|broken| broken.to_string()))
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0.25", Some(250)),
            (" 1,234.5 ", Some(1_234_500)),
            ("0.003s", Some(3)),
            ("-1", None),
            ("NaN", None),
            ("1e300", None),
            ("", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn no_bytes_whatever_stop_a_reader() {
        let mut bytes =
            b"<testsuite name='a'><testcase name='b'/>\nok 1\n{\"type\":\"test\"".to_vec();
        for seed in 0..2000_usize {
            let place = (seed * 31) % bytes.len();
            bytes[place] = bytes[place].wrapping_add(u8::try_from(seed % 251).unwrap_or(1));
            for format in [
                ReportFormat::Junit,
                ReportFormat::Tap,
                ReportFormat::Libtest,
            ] {
                let (report, _) = reported(format, &bytes);
                let bad = report.tests.iter().filter(|test| test.outcome.is_bad());
                assert_eq!(bad.count() as u64, u64::from(report.counts.bad()));
            }
        }
        for format in [
            ReportFormat::Junit,
            ReportFormat::Tap,
            ReportFormat::Libtest,
        ] {
            let empty = reported(format, b" \n");
            assert_eq!(empty.1.as_deref(), Some("1: the report is empty"));
            assert_eq!(empty.0.counts.total(), 0);
        }
        assert!(TestOutcome::Failed < TestOutcome::Passed);
    }
}
