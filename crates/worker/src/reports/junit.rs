//! Reports in the XML of JUnit: that of Ant's task, and what a hundred tools made of it.
//!
//! Owns what its elements mean. There is no schema that all keep to, so what is not known is passed
//! over; references to entities that XML does not define stay as they are written, so that no
//! document grows.

use std::borrow::Cow;

use distci_model::test_report::{Test, TestOutcome};
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::{Broken, Gathering, milliseconds};

/// Elements within each other; real reports have half a dozen.
const DEEPEST: usize = 64;

/// Reads a report.
pub(super) fn read(report: &[u8], into: &mut Gathering) -> Result<(), Broken> {
    let mut reader = Reader::from_reader(report);
    reader.config_mut().allow_dangling_amp = true;
    let mut junit = Junit::of(into);
    loop {
        let before = place(reader.buffer_position());
        let event = reader.read_event().map_err(|error| {
            Broken::at(report, place(reader.error_position()), error.to_string())
        })?;
        let misplaced = |why: String| Broken::at(report, before, why);
        match event {
            Event::Start(element) => junit.begin(&element).map_err(misplaced)?,
            Event::Empty(element) => {
                junit.begin(&element).map_err(misplaced)?;
                junit.end();
            }
            Event::End(_) => junit.end(),
            Event::Text(text) => junit.say(&String::from_utf8_lossy(&text)),
            Event::CData(text) => junit.say(&String::from_utf8_lossy(&text)),
            Event::GeneralRef(reference) => junit.say(&referred(&reference)),
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    match junit.open.as_slice() {
        [] if junit.begun => Ok(()),
        [] => Err(Broken::at(report, 0, "there is no <testsuite>")),
        open => {
            let why = format!("the report breaks off within {} elements", open.len());
            Err(Broken::at(report, report.len(), why))
        }
    }
}

fn place(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// What an element that is open is to us.
#[derive(Debug)]
enum Element {
    /// A suite of this name.
    Suite(String),
    /// A test.
    Case,
    /// What is said of the test that is open, or of the suite.
    Verdict,
    /// What the test has printed.
    Printed,
    /// Anything else.
    Other,
}

/// A report that is being read.
struct Junit<'g> {
    into: &'g mut Gathering,
    open: Vec<Element>,
    begun: bool,
    /// The test that is open; a suite that could not be run at all becomes one.
    case: Option<Test>,
    printed: String,
}

impl<'g> Junit<'g> {
    fn of(into: &'g mut Gathering) -> Self {
        Self {
            into,
            open: Vec::new(),
            begun: false,
            case: None,
            printed: String::new(),
        }
    }

    fn begin(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        if self.open.len() >= DEEPEST {
            return Err(format!("over {DEEPEST} elements within each other"));
        }
        let local = element.local_name();
        let name: &[u8] = local.as_ref();
        if self.open.is_empty() && !matches!(name, b"testsuites" | b"testsuite") {
            let name = String::from_utf8_lossy(name);
            return Err(format!(
                "<{name}> is no report of tests: <testsuite> is expected"
            ));
        }
        self.begun = true;
        let meaning = match name {
            b"testsuite" => Element::Suite(attribute(element, "name").unwrap_or_default()),
            b"testcase" if self.case.is_none() => {
                self.case = Some(self.case_of(element));
                Element::Case
            }
            b"failure" => self.judge(element, Some(TestOutcome::Failed)),
            b"error" => self.judge(element, Some(TestOutcome::Errored)),
            b"skipped" => self.judge(element, Some(TestOutcome::Skipped)),
            b"flakyFailure" | b"flakyError" => {
                if let Some(case) = &mut self.case {
                    case.repeated = true;
                }
                self.judge(element, None)
            }
            b"rerunFailure" | b"rerunError" => self.judge(element, None),
            b"system-out" | b"system-err" if self.case.is_some() => Element::Printed,
            _ => Element::Other,
        };
        self.open.push(meaning);
        Ok(())
    }

    fn suite(&self) -> String {
        let name = |element: &Element| match element {
            Element::Suite(name) => Some(name.clone()),
            Element::Case | Element::Verdict | Element::Printed | Element::Other => None,
        };
        self.open.iter().rev().find_map(name).unwrap_or_default()
    }

    fn case_of(&self, element: &BytesStart<'_>) -> Test {
        let class = attribute(element, "classname").filter(|class| !class.is_empty());
        let suite = class.unwrap_or_else(|| self.suite());
        let name = attribute(element, "name").unwrap_or_default();
        // As googletest has those that are disabled.
        let status = attribute(element, "status");
        let outcome = match status.as_deref() {
            Some("notrun" | "disabled" | "skipped") => TestOutcome::Skipped,
            _ => TestOutcome::Passed,
        };
        let time = attribute(element, "time");
        Test {
            duration_ms: time.as_deref().and_then(milliseconds),
            ..Test::of(suite, name, outcome)
        }
    }

    /// Notes what an element says of the test that is open. Without one, it is said of the suite, which
    /// could not even begin.
    fn judge(&mut self, element: &BytesStart<'_>, outcome: Option<TestOutcome>) -> Element {
        let is_case = |element: &Element| matches!(element, Element::Case);
        if !self.open.iter().any(is_case) {
            if self.case.is_some() || outcome == Some(TestOutcome::Skipped) {
                return Element::Other;
            }
            let suite = self.suite();
            let name = if suite.is_empty() { "suite" } else { &suite };
            self.case = Some(Test::of("", name, TestOutcome::Passed));
        }
        let Some(case) = &mut self.case else {
            return Element::Other;
        };
        if let Some(outcome) = outcome {
            let bad = case.outcome.is_bad();
            case.outcome = if bad {
                case.outcome.min(outcome)
            } else {
                outcome
            };
        }
        if case.message.is_empty() {
            let message = attribute(element, "message").filter(|message| !message.is_empty());
            let message = message.or_else(|| attribute(element, "type"));
            case.message = message.unwrap_or_default();
        }
        if !case.details.is_empty() {
            case.details.push('\n');
        }
        Element::Verdict
    }

    fn say(&mut self, text: &str) {
        match (self.open.last(), &mut self.case) {
            (Some(Element::Verdict), Some(case)) => case.details.push_str(text),
            (Some(Element::Printed), Some(_)) => self.printed.push_str(text),
            _ => {}
        }
    }

    fn end(&mut self) {
        let closed = self.open.pop();
        let whole = match closed {
            Some(Element::Case) => true,
            // What was said of a suite is a test of its own.
            Some(Element::Verdict) => !self.open.iter().any(|it| matches!(it, Element::Case)),
            _ => false,
        };
        if whole && let Some(mut case) = self.case.take() {
            let printed = std::mem::take(&mut self.printed);
            if case.details.trim().is_empty() {
                case.details = printed;
            }
            trim(&mut case);
            self.into.add(case);
        }
    }
}

/// Without what a pretty printer put around the text, and a message where there is none but text.
fn trim(case: &mut Test) {
    let details = case.details.trim_matches(['\n', '\r']).trim_end();
    case.details = details.to_owned();
    if case.message.is_empty() && case.outcome != TestOutcome::Passed {
        let first = case.details.lines().find(|line| !line.trim().is_empty());
        case.message = first.unwrap_or_default().trim().to_owned();
    }
}

/// The value of an attribute, with its references replaced.
fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = element.attributes();
    let attributes = attributes.with_checks(false).flatten();
    let mut attributes = attributes.filter(|attribute| attribute.key.as_ref() == name.as_bytes());
    let value = attributes.next()?.value;
    Some(unescaped(&String::from_utf8_lossy(&value)))
}

/// A text with its references replaced, as far as XML defines them.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let reference = after.split_once(';').filter(|(name, _)| name.len() <= 32);
        if let Some((name, behind)) = reference {
            plain.push_str(&referred(&BytesRef::new(name)));
            rest = behind;
        } else {
            plain.push('&');
            rest = after;
        }
    }
    plain.push_str(rest);
    plain
}

/// What a reference stands for; one that XML does not define, for itself.
fn referred(reference: &BytesRef<'_>) -> Cow<'static, str> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return character.to_string().into();
    }
    let name = String::from_utf8_lossy(reference);
    match resolve_xml_entity(&name) {
        Some(text) => text.into(),
        None => format!("&{name};").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use distci_model::config::ReportFormat::Junit as Form;

    #[test]
    fn what_tools_write_is_understood() {
        let report = br#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="5">
  <testsuite name="my-crate" tests="2">
    <testcase name="mod::ok" classname="my-crate" time="0.004"/>
    <testcase name="mod::bad" classname="my-crate" time="1.5">
      <failure message="assertion `left == right` failed" type="test failure">thread panicked
  left: 1 &lt; 2 &#x41; &unknown;</failure>
      <system-out>printed</system-out>
    </testcase>
    <testcase name="flaky" classname="my-crate">
      <flakyFailure message="first try"><![CDATA[<b>&amp;]]></flakyFailure>
    </testcase>
    <testsuite name="inner">
      <testcase name="skip &amp; hop"><skipped/></testcase>
      <testcase name="off" status="notrun"/>
      <testcase name="quiet"><error/><system-err>what it said</system-err></testcase>
    </testsuite>
    <error message="cannot import"/>
  </testsuite>
</testsuites>"#;
        let (tests, broken) = told(Form, report);
        assert_eq!(broken, None);
        assert_eq!(
            tests,
            [
                "failed my-crate::mod::bad 1500 ms [assertion `left == right` failed] \
                    [thread panicked\n  left: 1 < 2 A &unknown;]",
                "errored inner::quiet [what it said] [what it said]",
                "errored my-crate [cannot import]",
                "passed my-crate::mod::ok 4 ms",
                "passed my-crate::flaky repeated [first try] [<b>&amp;]",
                "skipped inner::skip & hop",
                "skipped inner::off",
            ]
        );
    }

    #[test]
    fn a_broken_report_is_told_where_and_counts_as_far_as_it_goes() {
        let good = "<testsuite name='s'>\n<testcase name='a'/>\n";
        for (rest, why) in [
            ("<testcase name='b'", "3: "),
            ("<testcase name='b'>", "3: the report breaks off"),
            ("", "3: the report breaks off within 1 elements"),
            ("</testsuites>", "3: "),
        ] {
            let (tests, broken) = told(Form, format!("{good}{rest}").as_bytes());
            assert_eq!(tests, ["passed s::a"], "{rest}");
            let broken = broken.unwrap_or_default();
            assert!(broken.starts_with(why), "{rest}: {broken}");
        }
        for (report, why) in [
            ("<html><body/></html>", "1: <html> is no report"),
            ("just text", "1: there is no <testsuite>"),
            ("<?xml version='1.0'?>\n<!-- nothing -->\n", "there is no"),
        ] {
            let broken = told(Form, report.as_bytes()).1.unwrap_or_default();
            assert!(broken.contains(why), "{report}: {broken}");
        }
    }

    #[test]
    fn no_document_grows_or_digs() {
        let bomb = "<!DOCTYPE t [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">\
            <!ENTITY f SYSTEM \"file:///etc/passwd\">]>\
            <testsuite><testcase name='&b;'><failure message='&f;'>&b;&f;</failure></testcase>\
            </testsuite>";
        let (tests, broken) = told(Form, bomb.as_bytes());
        assert_eq!(
            (tests, broken),
            (vec!["failed &b; [&f;] [&b;&f;]".to_owned()], None)
        );
        let deep = "<testsuite>".repeat(100_000);
        let broken = told(Form, deep.as_bytes()).1.unwrap_or_default();
        assert!(broken.contains("over 64 elements"), "{broken}");
        let many = (0..100_000).map(|number| format!(" a{number}='x'"));
        let wide = format!("<testsuite{}/>", many.collect::<String>());
        assert_eq!(told(Form, wide.as_bytes()), (Vec::new(), None));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        let report =
            b"<testsuite><testcase name='\xff'><failure>\xfe</failure></testcase></testsuite>";
        let (tests, broken) = told(Form, report);
        assert_eq!(broken, None);
        assert_eq!(tests, ["failed \u{fffd} [\u{fffd}] [\u{fffd}]"]);
    }
}
