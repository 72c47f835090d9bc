//! How a worker leaves: gently, or soon.
//!
//! Owns the three steps that lead out, each of which implies the one before: no new claims, no more
//! time for those that there are, an end to them. Never decides that it is time to go. Invariant:
//! what a worker that only closes holds is finished, however long it takes.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long what runs may go on by itself when the worker has to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long it may take to end what still runs after that, and to give it back.
const LAST_GRACE: Duration = Duration::from_secs(10);

/// The way out of a worker.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// No new claims.
    closing: CancellationToken,
    /// Nor more than a grace for those that there are.
    stop: CancellationToken,
    /// An end to them.
    halt: CancellationToken,
}

impl Leaving {
    /// For a worker that is to stop with `stop`.
    pub(crate) fn with(stop: CancellationToken) -> Self {
        Self {
            closing: stop.child_token(),
            stop,
            halt: CancellationToken::new(),
        }
    }

    /// Claims no more, and leaves when what is held is finished.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Claims no more, and leaves within the graces.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until nothing more is to be claimed. Cancel safe.
    pub(crate) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// What ends everything that runs.
    pub(crate) fn halt(&self) -> CancellationToken {
        self.halt.clone()
    }

    /// Halts what does not end within the grace after a stop. Ends only when that was in vain.
    pub(crate) async fn overstayed(&self) {
        self.stop.cancelled().await;
        sleep(GRACE).await;
        self.halt.cancel();
        sleep(LAST_GRACE).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_closes_is_never_hurried() {
        let stop = CancellationToken::new();
        let leaving = Leaving::with(stop.clone());
        leaving.close();
        leaving.closed().await;
        let day = Duration::from_hours(24);
        assert!(timeout(day, leaving.overstayed()).await.is_err());
        assert!(!stop.is_cancelled() && !leaving.halt().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_has_its_graces() {
        let stop = CancellationToken::new();
        let leaving = Leaving::with(stop.child_token());
        stop.cancel();
        leaving.closed().await;
        let (begun, halt) = (Instant::now(), leaving.halt());
        let halted = async {
            halt.cancelled().await;
            begun.elapsed()
        };
        let (halted, ()) = tokio::join!(halted, leaving.overstayed());
        assert_eq!(halted, GRACE);
        assert_eq!(begun.elapsed(), GRACE + LAST_GRACE);
    }
}
