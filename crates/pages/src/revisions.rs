//! The revisions of a job: which there were, and what one changed.

use askama::Template;
use distci_model::Timestamp;
use distci_model::id::JobId;
use distci_model::revision::{ComparedLine, Fate, Hunk, RevisionView, compare};
use distci_model::wire::JobView;

use crate::assets::Asset;
use crate::frame::Frame;
use crate::json::Coloured;
use crate::time::{Ago, Moment};
use crate::words::shorten;

/// Most lines of a difference on the page.
const MAX_LINES: usize = 2000;
/// Longest part of a line that is shown.
const MAX_LINE: usize = 2000;

/// The revisions of a job.
#[derive(Debug, Template)]
#[template(path = "revisions.html")]
pub struct Revisions {
    /// What surrounds it.
    pub frame: Frame,
    /// When it is made.
    pub now: Timestamp,
    /// Whose they are.
    pub job: JobId,
    /// The present one.
    pub present: u32,
    /// A page of them, the latest first.
    pub revisions: Vec<RevisionView>,
    /// The next page begins before this one.
    pub next: Option<String>,
    /// Whether this is a later page.
    pub is_later: bool,
    /// Two of them beside each other.
    pub compared: Option<Compared>,
}

/// Two revisions; each is missing if it was not noted.
#[derive(Debug)]
pub struct Compared {
    /// The number of the one,
    pub of: u32,
    /// and what it says.
    pub after: Option<JobView>,
    /// The number of the other, 0 for what was before the first,
    pub against: u32,
    /// and what it says.
    pub before: Option<JobView>,
}

impl Compared {
    /// The one of the two that cannot be shown.
    fn missing(&self) -> Option<u32> {
        let no_before = self.against > 0 && self.before.is_none();
        match self.after {
            None => Some(self.of),
            Some(_) => no_before.then_some(self.against),
        }
    }

    fn hunks(&self) -> Shown {
        let text = |view: Option<&JobView>| {
            let view = view.map(|view| serde_json::to_string_pretty(&view.configuration));
            view.and_then(Result::ok).unwrap_or_default()
        };
        let mut hunks = compare(&text(self.before.as_ref()), &text(self.after.as_ref()));
        let all: usize = hunks.iter().map(|hunk| hunk.0.len()).sum();
        let mut room = MAX_LINES;
        for hunk in &mut hunks {
            hunk.0.truncate(room);
            room -= hunk.0.len();
        }
        hunks.retain(|hunk| !hunk.0.is_empty());
        Shown {
            left_out: all.saturating_sub(MAX_LINES),
            hunks,
        }
    }
}

/// As much of a difference as a page holds.
struct Shown {
    hunks: Vec<Hunk>,
    left_out: usize,
}

impl Shown {
    fn count(&self, fate: Fate) -> usize {
        let lines = self.hunks.iter().flat_map(|hunk| &hunk.0);
        lines.filter(|line| line.fate == fate).count()
    }
}

impl Revisions {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago {
            at: *at,
            now: self.now,
        }
    }

    fn moment(at: &Timestamp) -> Moment {
        Moment(*at)
    }

    fn short(one: &RevisionView) -> String {
        one.hash.chars().take(12).collect()
    }

    /// The first revision that is noted, if there were others before it.
    fn first_noted(&self) -> Option<u32> {
        let last = self.revisions.last().filter(|_| self.next.is_none())?;
        (last.revision > 1).then_some(last.revision)
    }

    /// Which of the list are chosen to be compared next.
    fn chosen(&self) -> (u32, u32) {
        match &self.compared {
            Some(compared) => (compared.of, compared.against),
            None => (self.present, self.present.saturating_sub(1)),
        }
    }

    fn class(line: &ComparedLine) -> &'static str {
        match line.fate {
            Fate::Kept => "kept",
            Fate::Gone => "gone",
            Fate::New => "new",
        }
    }

    fn before(line: &ComparedLine) -> String {
        line.before
            .map_or_else(String::new, |line| line.to_string())
    }

    fn after(line: &ComparedLine) -> String {
        line.after.map_or_else(String::new, |line| line.to_string())
    }

    fn text(line: &ComparedLine) -> String {
        shorten(&line.text, MAX_LINE)
    }
}
