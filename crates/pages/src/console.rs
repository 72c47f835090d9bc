//! The console of an attempt: some of its lines, and the viewer of all.

use askama::Template;
use distci_model::id::{BuildRef, TaskName};

use crate::ansi::{self, Html, Look};
use crate::assets::Asset;
use crate::frame::Frame;
use crate::state::State;
use crate::words::{Bytes, Count, Segment};

/// Some lines of a console, and the way to the others.
#[derive(Debug, Template)]
#[template(path = "console.html")]
pub struct Console {
    /// What surrounds it.
    pub frame: Frame,
    /// Of which build.
    pub build: BuildRef,
    /// Of which task.
    pub task: TaskName,
    /// How the task stands.
    pub state: State,
    /// Which attempt it is of,
    pub attempt: u32,
    /// and how many have begun.
    pub attempts: u32,
    /// Whether nothing will be added.
    pub is_complete: bool,
    /// Whether the lines are left out, which the viewer brings into the page.
    pub is_head: bool,
    /// The number of the first line that is shown, from 1.
    pub first: u64,
    /// The bytes of each line that is shown, and how many are left out of a very long one.
    pub shown: Vec<(Vec<u8>, u64)>,
    /// How many lines there are,
    pub total: u64,
    /// and how many bytes.
    pub length: u64,
    /// Another attempt that is shown beside it.
    pub beside: Option<View>,
}

/// A console that is shown by the viewer.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Of which attempt it is,
    pub attempt: u32,
    /// how many lines it has,
    pub total: u64,
    /// and whether nothing will be added.
    pub is_complete: bool,
}

/// A line with its number.
struct Line {
    number: u64,
    html: Html,
}

impl Console {
    fn lines(&self) -> Vec<Line> {
        let shown = self.shown.iter().map(|(bytes, cut)| (&bytes[..], *cut));
        let numbers = self.first..;
        html(shown)
            .zip(numbers)
            .map(|(html, number)| Line { number, html })
            .collect()
    }

    /// Which lines are shown.
    fn range(&self) -> String {
        let last = self.first + (self.shown.len() as u64).saturating_sub(1);
        let (first, last, total) = (Count(self.first), Count(last), Count(self.total));
        format!("Lines {first} to {last} of {total}.")
    }

    /// The first line of the page before this one, if there is one.
    fn earlier(&self) -> Option<u64> {
        let shown = self.shown.len().max(1) as u64;
        (self.first > 1 && !self.shown.is_empty()).then(|| self.first.saturating_sub(shown).max(1))
    }

    /// The first line of the page after this one, if there is one.
    fn later(&self) -> Option<u64> {
        let next = self.first + self.shown.len() as u64;
        (next <= self.total).then_some(next)
    }

    fn favicon(&self) -> &'static str {
        Asset::favicon(self.state).path()
    }

    fn has_others(&self) -> bool {
        self.attempts > 1
    }

    /// The attempts that are offered, the latest of them if there are very many.
    fn numbers(&self) -> std::ops::RangeInclusive<u32> {
        self.attempts.saturating_sub(20).max(1)..=self.attempts
    }

    fn size(&self) -> Bytes {
        Bytes(self.length)
    }

    fn address(&self) -> String {
        format!("/jobs/{}/builds/{}", self.build.job, self.build.number)
    }

    /// This one, and the one beside it.
    fn views(&self) -> Vec<View> {
        let own = View {
            attempt: self.attempt,
            total: self.total,
            is_complete: self.is_complete,
        };
        [Some(own), self.beside].into_iter().flatten().collect()
    }

    /// Which console it is, as addresses say it.
    fn query(&self) -> String {
        self.query_of_attempt(self.attempt)
    }

    fn query_of(&self, view: &View) -> String {
        self.query_of_attempt(view.attempt)
    }

    fn query_of_attempt(&self, attempt: u32) -> String {
        format!("task={}&attempt={attempt}", Segment(self.task.as_str()))
    }

    fn raw(&self) -> String {
        format!("/api/v1{}/console?{}", self.address(), self.query())
    }
}

/// Lines as HTML, each with how many bytes are left out of it. Colours last from one to the next.
pub fn console_lines<'a>(lines: impl Iterator<Item = (&'a [u8], u64)>) -> Vec<String> {
    html(lines).map(|line| line.to_string()).collect()
}

/// Lines as HTML, each with how many bytes are left out of it.
pub(crate) fn html<'a>(lines: impl Iterator<Item = (&'a [u8], u64)>) -> impl Iterator<Item = Html> {
    let mut look = Look::default();
    lines.map(move |(bytes, cut)| {
        let line = ansi::line(bytes, &mut look);
        if cut > 0 { line.cut(cut) } else { line }
    })
}
