//! Reports in TAP, the Test Anything Protocol, up to version 14 with its subtests.
//!
//! Owns what its lines mean. A test that has subtests stands for them and is none itself, unless it
//! failed though none of them did.

use std::borrow::Cow;

use distci_model::test_report::{MAX_TESTS, Test, TestOutcome};

use super::{Broken, Gathering};

/// Spaces before the lines of a subtest, for each level.
const INDENT: usize = 4;
/// Subtests within each other; what is deeper counts as of this level.
const DEEPEST: usize = 16;

/// Reads a report.
pub(super) fn read(report: &[u8], into: &mut Gathering) -> Result<(), Broken> {
    let mut tap = Tap {
        into,
        levels: vec![Level::default()],
        last: None,
        block: None,
        known: false,
    };
    let mut lines = 0;
    let mut end = None;
    for line in report.split(|&b| b == b'\n') {
        lines += 1;
        let line = String::from_utf8_lossy(line);
        if let Some(why) = tap.take(line.trim_end()) {
            end = Some(why);
            break;
        }
    }
    let why = end.or_else(|| tap.complaint());
    tap.finish();
    match why {
        Some(why) => Err(Broken { line: lines, why }),
        None => Ok(()),
    }
}

/// The tests of one level whose parent did not come yet.
#[derive(Debug, Default)]
struct Level {
    tests: Vec<Test>,
    planned: Option<u64>,
    seen: u64,
}

/// A report that is being read.
struct Tap<'g> {
    into: &'g mut Gathering,
    levels: Vec<Level>,
    /// The level whose last test is the one that lines below it speak of.
    last: Option<usize>,
    /// The spaces before the block of YAML that is open.
    block: Option<usize>,
    /// Whether there was any line of a report.
    known: bool,
}

impl Tap<'_> {
    /// Takes a line; says why the report ends here, if it does.
    fn take(&mut self, line: &str) -> Option<String> {
        let body = line.trim_start_matches(' ');
        let indent = line.len() - body.len();
        if self.block.is_some() {
            self.in_block(line, body);
            return None;
        }
        if body == "---" && indent % INDENT == 2 {
            self.block = Some(indent);
            return None;
        }
        let level = (indent / INDENT).min(DEEPEST);
        if let Some(reason) = body.strip_prefix("Bail out!") {
            self.known = true;
            return Some(format!("bailed out: {}", reason.trim()));
        }
        if let Some(comment) = body.strip_prefix('#') {
            self.say(comment.strip_prefix(' ').unwrap_or(comment));
        } else if let Some(test) = test(body) {
            self.known = true;
            self.add(level, test);
        } else if let Some(planned) = plan(body) {
            self.known = true;
            self.open(level);
            self.levels[level].planned = Some(planned);
        }
        None
    }

    fn in_block(&mut self, line: &str, body: &str) {
        if body == "..." {
            self.block = None;
            return;
        }
        let indent = self.block.unwrap_or_default();
        let text = line.get(indent..).unwrap_or(body).to_owned();
        if let (Some(test), Some(message)) = (self.subject(), text.strip_prefix("message:"))
            && test.message.is_empty()
        {
            let message = message.trim().trim_matches(['\'', '"']);
            message.clone_into(&mut test.message);
        }
        self.say(&text);
    }

    /// Adds to what the last test has said, if it is one of those that have something to say.
    fn say(&mut self, text: &str) {
        if let Some(test) = self.subject()
            && test.outcome != TestOutcome::Passed
        {
            if !test.details.is_empty() {
                test.details.push('\n');
            }
            test.details.push_str(text);
        }
    }

    fn subject(&mut self) -> Option<&mut Test> {
        let level = self.last?;
        self.levels.get_mut(level)?.tests.last_mut()
    }

    fn open(&mut self, level: usize) {
        while self.levels.len() <= level {
            self.levels.push(Level::default());
        }
    }

    fn add(&mut self, level: usize, test: Test) {
        let below = self.below(level);
        self.open(level);
        if level == 0 {
            self.hand_over();
        }
        self.levels[level].seen += 1;
        let is_told = below.iter().any(|child| child.outcome.is_bad());
        let stands_for = !below.is_empty() && (is_told || !test.outcome.is_bad());
        let within = |mut child: Test| {
            child.suite = match child.suite.as_str() {
                "" => test.name.clone(),
                deeper => format!("{}::{deeper}", test.name),
            };
            child
        };
        let into = &mut self.levels[level].tests;
        into.extend(below.into_iter().map(within));
        self.last = None;
        if !stands_for {
            into.push(test);
            self.last = Some(level);
        }
        // Nobody waits for a parent for ever.
        if into.len() > MAX_TESTS {
            self.last = None;
            let early = std::mem::take(&mut self.levels[level].tests);
            self.into.extend(early);
        }
    }

    /// Takes the tests of all levels below.
    fn below(&mut self, level: usize) -> Vec<Test> {
        if self.levels.len() <= level + 1 {
            return Vec::new();
        }
        let below = self.levels.split_off(level + 1);
        below.into_iter().flat_map(|level| level.tests).collect()
    }

    /// Gives the tests that nothing will be said of any more.
    fn hand_over(&mut self) {
        let whole = std::mem::take(&mut self.levels[0].tests);
        self.into.extend(whole);
    }

    /// What is wrong with the report as a whole.
    fn complaint(&self) -> Option<String> {
        let Level { planned, seen, .. } = &self.levels[0];
        match planned {
            _ if !self.known => Some("there is no line of TAP".to_owned()),
            None => Some("there is no plan: the report may have broken off".to_owned()),
            Some(planned) if planned != seen => {
                Some(format!("{planned} tests planned, {seen} seen"))
            }
            Some(_) => None,
        }
    }

    fn finish(mut self) {
        let below = self.below(0);
        self.hand_over();
        self.into.extend(below);
    }
}

/// The test of a line, if it is one of a test.
fn test(line: &str) -> Option<Test> {
    let (ok, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = rest.split_at(number);
    let (description, directive) = split_directive(rest);
    let description = description.trim();
    let description = description.strip_prefix("- ").unwrap_or(description);
    let name = match description.trim().trim_end_matches('{').trim() {
        "" | "-" => Cow::from(format!("test {number}")),
        name => name.replace("\\#", "#").into(),
    };
    let word = directive.split_whitespace().next().unwrap_or_default();
    let outcome = match word.to_ascii_lowercase().as_str() {
        skip if skip.starts_with("skip") => TestOutcome::Skipped,
        // It is known that it fails.
        "todo" if !ok => TestOutcome::Skipped,
        _ if ok => TestOutcome::Passed,
        _ => TestOutcome::Failed,
    };
    let reason = directive.get(word.len()..).unwrap_or_default().trim();
    let mut test = Test::of("", name, outcome);
    if outcome == TestOutcome::Skipped {
        reason.clone_into(&mut test.message);
    }
    Some(test)
}

/// A description, and the directive behind it: `SKIP` or `TODO` with a reason.
fn split_directive(text: &str) -> (&str, &str) {
    for (at, _) in text.match_indices('#') {
        let directive = text[at + 1..].trim_start();
        let is_escaped = text[..at].ends_with('\\');
        let begins = directive.get(..4).map(str::to_ascii_lowercase);
        if !is_escaped && matches!(begins.as_deref(), Some("skip" | "todo")) {
            return (&text[..at], directive);
        }
    }
    (text, "")
}

/// How many tests a line plans, if it is a plan.
fn plan(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("1..")?;
    let number = rest.split([' ', '#']).next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use distci_model::config::ReportFormat::Tap;

    #[test]
    fn what_producers_write_is_understood() {
        let report = "TAP version 14
1..7
ok 1 - first
not ok 2 - second
  ---
  message: 'it is 2'
  at: x.t:7
  ...
ok 3 - third # SKIP no network
not ok 4 fourth # todo later
ok 5
    # Subtest: group
    1..2
    ok 1 - inner
    not ok 2 - bad \\# 9
    # got 3
    # want 4
not ok 6 - group
strange
not ok 7 - last
# Failed test 'last'
";
        let (tests, broken) = told(Tap, report.as_bytes());
        assert_eq!(broken, None);
        assert_eq!(
            tests,
            [
                "failed second [it is 2] [message: 'it is 2'\nat: x.t:7]",
                "failed group::bad # 9 [got 3\nwant 4]",
                "failed last [Failed test 'last']",
                "passed first",
                "skipped third [no network]",
                "skipped fourth [later]",
                "passed test 5",
                "passed group::inner",
            ]
        );
    }

    #[test]
    fn subtests_lie_in_subtests_and_a_parent_may_fail_alone() {
        let report = "        ok 1 - c\n    ok 1 - b\nnot ok 1 - a\n1..1\n";
        let (tests, broken) = told(Tap, report.as_bytes());
        assert_eq!(broken, None);
        assert_eq!(tests, ["failed a", "passed a::b::c"]);
    }

    #[test]
    fn a_report_that_breaks_off_is_told() {
        for (report, why) in [
            ("1..3\nok 1\nok 2\n", "4: 3 tests planned, 2 seen"),
            ("ok 1\nok 2", "2: there is no plan"),
            (
                "1..2\nok 1\nBail out! no disk\nok 2",
                "3: bailed out: no disk",
            ),
            ("okay\n1.2\n", "3: there is no line of TAP"),
        ] {
            let broken = told(Tap, report.as_bytes()).1.unwrap_or_default();
            assert!(broken.starts_with(why), "{report:?}: {broken}");
        }
        let none = told(Tap, b"1..0 # SKIP nothing to test\n");
        assert_eq!(none, (Vec::new(), None));
    }

    #[test]
    fn no_report_digs_or_hoards() {
        let deep = format!("{}ok 1 - x\n1..0", " ".repeat(1_000_000));
        let (tests, _) = told(Tap, deep.as_bytes());
        assert_eq!(tests, ["passed x"]);
        let many = format!("{}1..0\n", "    ok\n".repeat(100_000));
        assert!(told(Tap, many.as_bytes()).0.len() <= 20_000);
    }
}
