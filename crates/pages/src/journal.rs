//! What happened in a build, entry by entry.

use askama::Template;
use distci_model::id::BuildRef;
use distci_model::journal::{Entry, What};

use crate::assets::Asset;
use crate::frame::Frame;
use crate::time::{Moment, Took};

/// What happened in a build.
#[derive(Debug, Template)]
#[template(path = "journal.html")]
pub struct Journal {
    /// What surrounds it.
    pub frame: Frame,
    /// Of which build.
    pub build: BuildRef,
    /// All that happened, in the order of time.
    pub entries: Vec<Entry>,
}

impl Journal {
    fn address(&self) -> String {
        format!("/jobs/{}/builds/{}", self.build.job, self.build.number)
    }

    fn moment(entry: &Entry) -> Moment {
        Moment(entry.at)
    }

    /// How long after the build was posted.
    fn after(&self, entry: &Entry) -> Took {
        let first = self.entries.first().map_or(entry.at, |first| first.at);
        Took::between(first, entry.at)
    }

    /// Whether it is something that ought not to happen.
    fn is_bad(entry: &Entry) -> bool {
        match &entry.what {
            What::Lost { .. } | What::Refused { .. } => true,
            What::Ended { again, .. } => *again,
            What::Posted { .. }
            | What::Queued { .. }
            | What::Claimed { .. }
            | What::Released { .. }
            | What::Decided { .. }
            | What::Asked
            | What::Skipped { .. }
            | What::Kept { .. }
            | What::Cancelled { .. }
            | What::Triggered { .. }
            | What::Over { .. } => false,
        }
    }
}
