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
