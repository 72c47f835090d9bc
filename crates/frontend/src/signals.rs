//! Wake-up calls for long polls and live views.
//!
//! Owns who waits for news of what. A call is a hint: whoever is woken reads again. Invariant: who
//! subscribes before reading misses no call after the reading.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// Wake-up calls, by what they are about.
#[derive(Debug)]
pub(crate) struct Signals<K>(Mutex<HashMap<K, watch::Sender<()>>>);

impl<K> Default for Signals<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> Signals<K> {
    /// Waits for calls about `key` from now on.
    pub(crate) fn subscribe(&self, key: &K) -> watch::Receiver<()> {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = senders.get(key) {
            return sender.subscribe();
        }
        // What is over never calls again: before the map grows, it loses what nobody waits for.
        if senders.len() == senders.capacity() {
            senders.retain(|_, sender| sender.receiver_count() > 0);
        }
        let (sender, receiver) = watch::channel(());
        senders.insert(key.clone(), sender);
        receiver
    }

    /// Wakes all who wait for `key`.
    pub(crate) fn ring(&self, key: &K) {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A call that nobody hears is also the moment to forget about it.
        if senders
            .get(key)
            .is_some_and(|sender| sender.send(()).is_err())
        {
            senders.remove(key);
        }
    }

    /// Wakes everybody: something was missed.
    pub(crate) fn ring_all(&self) {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|_, sender| sender.send(()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_called_and_who_left_is_forgotten() {
        let signals = Signals::default();
        let mut waiting = signals.subscribe(&0);
        for key in 1..10_000 {
            drop(signals.subscribe(&key));
        }
        assert!(
            signals.0.lock().unwrap().len() < 100,
            "memory for those who left"
        );
        signals.ring(&0);
        assert!(waiting.has_changed().unwrap());
        waiting.mark_unchanged();
        signals.ring_all();
        assert!(waiting.has_changed().unwrap());
        drop(waiting);
        signals.ring(&0);
        assert!(!signals.0.lock().unwrap().contains_key(&0));
    }
}
