//! One look for all who look at the same.
//!
//! Owns what was seen last of each thing that somebody follows, and when. Whoever wants to see it as
//! it was at some moment or later gets what another has seen since, or looks, while the others wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex as Lock, PoisonError};

use tokio::sync::Mutex;
use tokio::time::Instant;

/// What is followed, by its name.
#[derive(Debug)]
pub(crate) struct Looks<K, T>(Lock<HashMap<K, Arc<Look<T>>>>);

/// One thing that is followed. It is remembered as long as somebody holds this.
#[derive(Debug)]
pub(crate) struct Look<T>(Mutex<Option<(Instant, T)>>);

impl<K, T> Default for Looks<K, T> {
    fn default() -> Self {
        Self(Lock::default())
    }
}

impl<K: Hash + Eq, T: Clone> Looks<K, T> {
    /// What all who look at this share.
    pub(crate) fn at(&self, name: K) -> Arc<Look<T>> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() == looks.capacity() {
            // Before the map grows it loses what nobody looks at.
            looks.retain(|_, look| Arc::strong_count(look) > 1);
        }
        let look = || Arc::new(Look(Mutex::new(None)));
        Arc::clone(looks.entry(name).or_insert_with(look))
    }
}

impl<T: Clone> Look<T> {
    /// How it was at `since` or later.
    ///
    /// # Errors
    /// Those of `look`, of which nothing is remembered.
    pub(crate) async fn since<E>(
        &self,
        since: Instant,
        look: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut last = self.0.lock().await;
        if let Some((_, seen)) = last.as_ref().filter(|(at, _)| *at >= since) {
            return Ok(seen.clone());
        }
        let now = Instant::now();
        let seen = look().await?;
        *last = Some((now, seen.clone()));
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_look_are_one_look() {
        let looks: Looks<&str, u32> = Looks::default();
        let count = AtomicU32::new(0);
        let look = async || Ok::<_, ()>(count.fetch_add(1, Ordering::Relaxed));
        let since = Instant::now();
        let (one, other) = (looks.at("a"), looks.at("a"));
        let both = tokio::join!(one.since(since, look), other.since(since, look));
        assert_eq!(both, (Ok(0), Ok(0)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(one.since(since, look).await, Ok(0));
        assert_eq!(one.since(Instant::now(), look).await, Ok(1));
        assert_eq!(looks.at("b").since(since, look).await, Ok(2));
        assert_eq!(
            one.since(Instant::now(), async || Err(())).await,
            Ok(1),
            "not looked again"
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(one.since(Instant::now(), async || Err(())).await, Err(()));
    }
}
