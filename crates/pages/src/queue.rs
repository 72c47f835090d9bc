//! The queue: what waits, for what, and since when.

use askama::Template;
use distci_model::Timestamp;
use distci_model::capability::Capabilities;
use distci_model::wire::{About, LockView, QueueView};

use crate::assets::Asset;
use crate::frame::Frame;
use crate::state::State;
use crate::time::Ago;

/// What waits.
#[derive(Debug, Template)]
#[template(path = "queue.html")]
pub struct Queue {
    /// What surrounds it.
    pub frame: Frame,
    /// When it is made.
    pub now: Timestamp,
    /// A page of the tickets that wait, most urgent first.
    pub tickets: Vec<QueueView>,
    /// Where the next page begins.
    pub next: Option<String>,
    /// How many tickets wait for what.
    pub demand: Vec<Wanted>,
    /// The locks that are held, or waited for: the first of them.
    pub locks: Vec<LockView>,
}

/// How much is wanted of one set of capabilities.
#[derive(Debug)]
pub struct Wanted {
    /// What a worker must offer.
    pub requires: Capabilities,
    /// Tickets that wait for it.
    pub queued: usize,
    /// Claim requests that could take one.
    pub workers: usize,
}

impl Queue {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago {
            at: *at,
            now: self.now,
        }
    }

    fn all(&self) -> usize {
        self.demand.iter().map(|one| one.queued).sum()
    }

    /// Why a ticket waits, in words.
    fn why(ticket: &QueueView) -> String {
        match (&ticket.blocked, ticket.workers) {
            (Some(block), _) => {
                let holders: Vec<String> = block.held_by.iter().map(ToString::to_string).collect();
                format!("lock {} is held by {}", block.lock, holders.join(", "))
            }
            (None, 0) => "no waiting worker offers what it needs".to_owned(),
            (None, 1) => "1 waiting worker could take it".to_owned(),
            (None, count) => format!("{count} waiting workers could take it"),
        }
    }
}

/// The address of what a ticket is about.
pub(crate) fn address(about: &About) -> Option<String> {
    match (about, about.build()) {
        (_, Some(build)) => Some(format!("/jobs/{}/builds/{}", build.job, build.number)),
        (About::Errand { job, .. }, None) => Some(format!("/jobs/{job}")),
        (About::Build { .. }, None) => None,
    }
}
