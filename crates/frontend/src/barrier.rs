//! The barrier: has this frontend taken in all news up to now?
//!
//! Owns the question and its answer between whoever must know and the loop that follows the store.

use tokio::sync::watch;

/// Asked by many, answered by the loop that follows the store. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Barrier {
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

impl Barrier {
    /// Waits until all news that are queued now are taken in. Cancel safe.
    pub(crate) async fn pass(&self) {
        let mut mine = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            mine = *asked;
        });
        let mut answered = self.answered.subscribe();
        // The sender is ours: this cannot fail.
        drop(answered.wait_for(|answered| *answered >= mine).await);
    }

    /// The questions, for the one who answers.
    pub(crate) fn questions(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Says that there was no news left when this question had been read.
    pub(crate) fn answer(&self, question: u64) {
        self.answered.send_replace(question);
    }
}
