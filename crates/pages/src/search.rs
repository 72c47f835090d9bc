//! What was found in the consoles of many builds.

use std::fmt::Write;

use askama::Template;
use distci_model::Timestamp;
use distci_model::console::{GrepView, HitView};
use distci_model::id::BuildRef;
use distci_model::wire::BuildSummary;

use crate::ansi;
use crate::assets::Asset;
use crate::frame::Frame;
use crate::state::State;
use crate::time::Ago;
use crate::words::{self, Count, Segment, shorten};

/// Longest part of a line that is shown before what was found, of that itself, and after it.
const BEFORE: usize = 80;
const FOUND: usize = 200;
const AFTER: usize = 160;
/// Lines that are shown before the one that a link leads to, where there are no scripts.
const AROUND: u64 = 5;

/// A search, and what it has found so far.
#[derive(Debug, Template)]
#[template(path = "search.html")]
pub struct Search {
    /// What surrounds it.
    pub frame: Frame,
    /// When it is made.
    pub now: Timestamp,
    /// What is searched for.
    pub wish: Wish,
    /// What is wrong with that.
    pub refused: Option<String>,
    /// The builds in which something was found, newest first within a job.
    pub found: Vec<Found>,
    /// Where to go on, and with which build, if not everything is searched.
    pub next: Option<(String, BuildRef)>,
    /// Whether this is where an earlier page went on.
    pub is_later: bool,
}

/// What is searched for, as it was typed.
#[derive(Debug, Default)]
pub struct Wish {
    /// The text or expression.
    pub text: String,
    /// Of which jobs.
    pub job: String,
    /// Of which task.
    pub task: String,
    /// Of builds how old at most.
    pub since: String,
    /// Whether the text is an expression.
    pub regex: bool,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Whether only builds that did not succeed are wanted.
    pub failed: bool,
}

/// A build in which something was found.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub build: BuildRef,
    /// How it stands.
    pub summary: BuildSummary,
    /// The lines.
    pub lines: Vec<GrepView>,
}

impl Found {
    fn address(&self) -> String {
        format!("/jobs/{}/builds/{}", self.build.job, self.build.number)
    }

    /// The line in the console that it is of.
    fn place(&self, line: &GrepView) -> String {
        let number = line.hit.line;
        format!(
            "{}/console?task={}&attempt={}&line={}#L{number}",
            self.address(),
            Segment(line.task.as_str()),
            line.attempt,
            number.saturating_sub(AROUND).max(1)
        )
    }
}

impl Search {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago {
            at: *at,
            now: self.now,
        }
    }

    fn number(line: &GrepView) -> Count {
        Count(line.hit.line)
    }

    /// The end of what stands before the place.
    fn before(hit: &HitView) -> String {
        let plain = ansi::plain(&hit.before);
        let all = plain.chars().count();
        match all.checked_sub(BEFORE) {
            None | Some(0) => plain,
            Some(cut) => ['…'].into_iter().chain(plain.chars().skip(cut)).collect(),
        }
    }

    fn place(hit: &HitView) -> String {
        shorten(&ansi::plain(&hit.found), FOUND)
    }

    fn after(hit: &HitView) -> String {
        shorten(&ansi::plain(&hit.after), AFTER)
    }

    fn lines(&self) -> usize {
        self.found.iter().map(|found| found.lines.len()).sum()
    }

    /// Whether something was searched for.
    fn is_asked(&self) -> bool {
        !self.wish.text.is_empty() && self.refused.is_none()
    }

    /// This search again, from the beginning or from where it has stopped.
    fn address(&self, cursor: Option<&str>) -> String {
        let wish = &self.wish;
        let mut address = format!("/search?q={}", Segment(&wish.text));
        let texts = [
            ("job", &wish.job),
            ("task", &wish.task),
            ("since", &wish.since),
        ];
        let flags = [
            ("regex", wish.regex),
            ("ignore_case", wish.ignore_case),
            ("failed", wish.failed),
        ];
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let flags = flags.into_iter().filter(|(_, is_on)| *is_on);
        let said = texts.map(|(name, text)| (name, text.as_str()));
        let said = said.chain(flags.map(|(name, _)| (name, "true")));
        for (name, value) in said.chain(cursor.map(|cursor| ("cursor", cursor))) {
            // Writing to a string cannot go wrong.
            let written = write!(address, "&{name}={}", Segment(value));
            debug_assert!(written.is_ok());
        }
        address
    }
}
