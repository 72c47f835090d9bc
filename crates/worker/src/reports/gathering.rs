//! Tests from many reports, as many as one report may name.
//!
//! Owns the limits: what is too long is clipped, and of too many tests those that passed are left out
//! first.

use distci_model::test_report::{
    MAX_TEST_DETAILS, MAX_TEST_MESSAGE, MAX_TEST_NAME, MAX_TEST_REPORT, MAX_TESTS, Test,
    TestCounts, TestOutcome, TestReport,
};

/// What a test costs in a report beside its texts: names of fields, numbers, quotes.
const FRAME: usize = 160;
/// Bytes of a report that are kept for the tests themselves.
const ROOM: usize = MAX_TEST_REPORT - 64 * 1024;
/// Of these, bytes that details may take, so that there is room for names.
const ROOM_FOR_DETAILS: usize = ROOM / 2;

/// Tests that are gathered.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    counts: TestCounts,
    bad: Vec<Test>,
    good: Vec<Test>,
}

impl Gathering {
    /// Adds a test.
    pub(crate) fn add(&mut self, test: Test) {
        self.counts.add(test.outcome);
        let list = if test.outcome.is_bad() {
            &mut self.bad
        } else {
            &mut self.good
        };
        if list.len() < MAX_TESTS {
            list.push(clipped(test));
        }
    }

    /// Adds several.
    pub(crate) fn extend(&mut self, tests: Vec<Test>) {
        for test in tests {
            self.add(test);
        }
    }

    /// The report of all that was gathered.
    pub(crate) fn finish(self) -> TestReport {
        let (mut tests, mut room, mut details) = (Vec::new(), ROOM, ROOM_FOR_DETAILS);
        for mut test in self.bad.into_iter().chain(self.good) {
            match details.checked_sub(weight(&test.details)) {
                Some(left) => details = left,
                None => test.details.clear(),
            }
            let Some(left) = room.checked_sub(cost(&test)) else {
                break;
            };
            if tests.len() == MAX_TESTS {
                break;
            }
            room = left;
            tests.push(test);
        }
        let named = u32::try_from(tests.len()).unwrap_or(u32::MAX);
        TestReport {
            counts: self.counts,
            left_out: self.counts.total().saturating_sub(named),
            tests,
        }
    }
}

/// How many bytes a test takes in JSON.
fn cost(test: &Test) -> usize {
    let texts = [&test.suite, &test.name, &test.message, &test.details];
    let texts = texts.into_iter().map(|text| weight(text));
    texts.sum::<usize>() + FRAME
}

/// How many bytes a text takes in JSON.
fn weight(text: &str) -> usize {
    let escaped = |b: u8| match b {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

fn clipped(test: Test) -> Test {
    // Nobody looks at what a test that passed has printed, unless it failed first.
    let is_dull = test.outcome == TestOutcome::Passed && !test.repeated;
    let details = if is_dull { String::new() } else { test.details };
    Test {
        suite: clip(test.suite, MAX_TEST_NAME),
        name: clip(test.name, MAX_TEST_NAME),
        message: clip(test.message, MAX_TEST_MESSAGE),
        details: clip(details, MAX_TEST_DETAILS),
        ..test
    }
}

/// Beginning and end of a text that is too long: what went wrong is told at either.
fn clip(text: String, most: usize) -> String {
    const GAP: &str = " … ";
    if text.len() <= most {
        return text;
    }
    let half = (most - GAP.len()) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_both_ends() {
        assert_eq!(clip("short".to_owned(), 5), "short");
        let clipped = clip("aé".repeat(100), 50);
        assert!(clipped.len() <= 50 && clipped.contains(" … "), "{clipped}");
        assert!(clipped.starts_with("aé") && clipped.ends_with('é'));
    }

    #[test]
    fn those_that_passed_are_left_out_first() {
        let mut gathering = Gathering::default();
        for number in 0..MAX_TESTS + 10 {
            gathering.add(Test::of("", format!("p{number}"), TestOutcome::Passed));
        }
        for number in 0..10 {
            gathering.add(Test::of("", format!("f{number}"), TestOutcome::Failed));
        }
        let report = gathering.finish();
        assert_eq!(report.check(), Ok(()));
        assert_eq!((report.tests.len(), report.left_out), (MAX_TESTS, 20));
        assert_eq!(report.tests[9].name, "f9");
        assert_eq!(report.tests[10].name, "p0");
    }

    #[test]
    fn the_longest_report_can_be_sent() {
        let mut gathering = Gathering::default();
        for _ in 0..MAX_TESTS {
            let mut test = Test::of("\u{1}".repeat(600), "n".repeat(600), TestOutcome::Failed);
            test.message = "\u{1b}[31m\n".repeat(400);
            test.details = "\u{1b}é".repeat(9000);
            gathering.add(test);
        }
        let report = gathering.finish();
        assert_eq!(report.check(), Ok(()));
        let sent = serde_json::to_vec(&report).unwrap();
        assert!(sent.len() <= MAX_TEST_REPORT, "{} bytes", sent.len());
        assert!(report.tests.len() > 100 && report.left_out > 0);
    }
}
