//! The workers that have asked this frontend for work of late.
//!
//! Owns a bounded memory of what each offered, for people who ask why something waits. Nothing is
//! decided by it, and a frontend that was just started knows nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_model::capability::{Capabilities, Capability};
use distci_model::id::WorkerName;
use tokio::time::Instant;

/// How long a worker is remembered.
const MEMORY: Duration = Duration::from_hours(1);
/// Most workers that are remembered.
const MOST: usize = 10_000;

/// What workers have offered here, and when last.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    workers: Mutex<HashMap<WorkerName, (Capabilities, Instant)>>,
}

impl Seen {
    /// Remembers a worker that asks for tasks.
    pub(crate) fn note(&self, worker: &WorkerName, offers: &Capabilities) {
        let now = Instant::now();
        let mut workers = self.lock();
        if workers.len() >= MOST && !workers.contains_key(worker) {
            workers.retain(|_, (_, last)| now.duration_since(*last) < MEMORY);
            if workers.len() >= MOST {
                return;
            }
        }
        workers.insert(worker.clone(), (offers.clone(), now));
    }

    /// How many of the last hour offered all of this.
    pub(crate) fn offering(&self, required: &Capabilities) -> usize {
        let workers = self.lock();
        let recent = recent(&workers);
        recent.filter(|offers| offers.satisfy(required)).count()
    }

    /// The images and drivers that those of the last hour offered.
    pub(crate) fn worlds(&self) -> BTreeSet<Capability> {
        let workers = self.lock();
        let all = recent(&workers).flat_map(Capabilities::iter);
        let worlds = all.filter(|one| matches!(one, Capability::Image(_) | Capability::Driver(_)));
        worlds.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkerName, (Capabilities, Instant)>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn recent(
    workers: &HashMap<WorkerName, (Capabilities, Instant)>,
) -> impl Iterator<Item = &Capabilities> {
    let now = Instant::now();
    workers
        .values()
        .filter(move |(_, last)| now.duration_since(*last) < MEMORY)
        .map(|(offers, _)| offers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(words: &[&str]) -> Capabilities {
        words
            .iter()
            .map(|word| word.parse::<Capability>().unwrap())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_asked_for_an_hour_is_forgotten() {
        let seen = Seen::default();
        let arm = offers(&["execute-shell", "label:arm64"]);
        seen.note(&"a".parse().unwrap(), &arm);
        tokio::time::advance(MEMORY / 2).await;
        seen.note(&"b".parse().unwrap(), &arm);
        seen.note(
            &"c".parse().unwrap(),
            &offers(&["execute-shell", "image:debian-12"]),
        );
        assert_eq!(seen.offering(&offers(&["label:arm64"])), 2);
        assert_eq!(
            seen.worlds(),
            offers(&["image:debian-12"]).iter().cloned().collect()
        );
        tokio::time::advance(MEMORY / 2).await;
        assert_eq!(seen.offering(&offers(&["label:arm64"])), 1);
    }
}
