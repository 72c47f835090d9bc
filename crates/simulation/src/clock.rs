//! Simulated time.
//!
//! Owns what every wall clock of the simulation says: how much simulated time has passed since the
//! beginning, and by how much each clock is wrong. Never looks at a clock of the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use distci_model::Timestamp;
use distci_store::coordination::Clock;
use tokio::time::Instant;

/// When it all begins, by the store's clock.
const BEGINNING: i64 = 1_700_000_000;

/// The time of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    start: Instant,
}

impl Time {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// How much has passed.
    pub(crate) fn passed(self) -> Duration {
        self.start.elapsed()
    }

    /// What the store's clock says.
    pub(crate) fn now(self) -> Timestamp {
        self.wrong_by(0)
    }

    /// The store's clock.
    pub(crate) fn clock(self) -> Clock {
        Arc::new(move || self.now())
    }

    /// A clock that is so many seconds ahead of the store's, by what somebody may set it.
    pub(crate) fn wrong_clock(self, seconds: Arc<AtomicI64>) -> Clock {
        Arc::new(move || self.wrong_by(seconds.load(Ordering::Relaxed)))
    }

    fn wrong_by(self, seconds: i64) -> Timestamp {
        let begun = Timestamp::from_second(BEGINNING + seconds).unwrap_or_default();
        begun.checked_add(self.passed()).unwrap_or(begun)
    }
}
