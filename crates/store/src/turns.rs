//! Turns: whoever changes the numbers of a job waits for those before it in this process.
//!
//! Owns nothing but the waiting. A turn spares commits that would lose their race, which cost an
//! ensemble as much as those that win; it decides nothing, for other processes take none of it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use distci_model::id::JobId;
use tokio::sync::{Mutex, MutexGuard};

/// Jobs that share a turn wait for each other for nothing: enough that few do.
const TURNS: usize = 64;

/// The turns of one process.
#[derive(Debug)]
pub(crate) struct Turns {
    turns: [Mutex<()>; TURNS],
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            turns: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl Turns {
    /// Waits for its turn, in the order of the calls. Dropped, the turn goes to the next.
    pub(crate) async fn take(&self, job: &JobId) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one(job.as_str());
        let index = usize::try_from(hash % TURNS as u64).unwrap_or_default();
        self.turns[index].lock().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_turn_is_of_one_at_a_time() {
        let (turns, job) = (Turns::default(), "job".parse().unwrap());
        let first = turns.take(&job).now_or_never().expect("nobody before it");
        assert!(turns.take(&job).now_or_never().is_none());
        drop(first);
        assert!(turns.take(&job).now_or_never().is_some());
    }
}
