//! The console of an attempt: its last lines.

use askama::Template;
use distci_model::id::{BuildRef, TaskName};

use crate::ansi::{self, Html, Look};
use crate::assets::Asset;
use crate::frame::Frame;
use crate::state::State;
use crate::words::Bytes;

/// Most lines of a page.
const LINES: usize = 2000;

/// The end of a console.
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
    /// The console from `skipped` on.
    pub text: Vec<u8>,
    /// How many bytes come before.
    pub skipped: u64,
}

/// A line with its number, if that is known.
struct Line {
    number: Option<usize>,
    html: Html,
}

impl Console {
    fn lines(&self) -> Vec<Line> {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        let mut all: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        // What the first line begins with was skipped.
        if self.skipped > 0 {
            all.remove(0);
        }
        let first = all.len().saturating_sub(LINES);
        let mut look = Look::default();
        let line = |(place, bytes): (usize, &&[u8])| Line {
            number: (self.skipped == 0).then_some(first + place + 1),
            html: ansi::line(bytes, &mut look),
        };
        if text.is_empty() {
            return Vec::new();
        }
        all[first..].iter().enumerate().map(line).collect()
    }

    /// Whether lines come before those that are shown.
    fn is_cut(&self, lines: &[Line]) -> bool {
        self.skipped > 0 || lines.first().is_some_and(|line| line.number != Some(1))
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

    fn length(&self) -> Bytes {
        Bytes(self.skipped + self.text.len() as u64)
    }

    fn address(&self) -> String {
        format!("/jobs/{}/builds/{}", self.build.job, self.build.number)
    }

    fn raw(&self) -> String {
        let address = self.address();
        format!(
            "/api/v1{address}/console?task={}&attempt={}",
            self.task, self.attempt
        )
    }
}
