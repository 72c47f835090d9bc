//! The workers: who offers what, and does what.

use askama::Template;
use distci_model::Timestamp;
use distci_model::drain::DrainOrder;
use distci_model::wire::WorkerView;

use crate::assets::Asset;
use crate::frame::Frame;
use crate::state::State;
use crate::time::Ago;

/// The workers.
#[derive(Debug, Template)]
#[template(path = "workers.html")]
pub struct Workers {
    /// What surrounds it.
    pub frame: Frame,
    /// When it is made.
    pub now: Timestamp,
    /// By name.
    pub workers: Vec<WorkerView>,
    /// The orders to leave that stand.
    pub drains: Vec<DrainOrder>,
}

impl Workers {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago {
            at: *at,
            now: self.now,
        }
    }

    fn claims(&self) -> usize {
        self.workers.iter().map(|worker| worker.claims.len()).sum()
    }

    fn state(worker: &WorkerView) -> State {
        if worker.claims.is_empty() {
            State::Waiting
        } else {
            State::Running
        }
    }
}
