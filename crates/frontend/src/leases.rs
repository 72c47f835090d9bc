//! The leases: which claims there are, and when each was last heard of.
//!
//! Owns the decision that a worker is gone. It is taken on this process's own monotonic clock alone:
//! a claim lapses when this frontend has not heard of it for its lease, not counting the time that
//! this frontend itself was asleep. A wrong guess costs a restart, never data: the attempt number
//! fences whoever was wrongly given up.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use distci_model::id::{Attempt, TicketKey};
use distci_model::ticket::{ClaimName, Duty};
use distci_model::wire::Standing;

/// How often leases are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// A gap between two looks that is this long was not only the scheduler.
const ASLEEP: Duration = Duration::from_secs(1);

/// The claims that there are.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    claims: HashMap<TicketKey, Seen>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    claim: ClaimName,
    at: Instant,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claim marker appeared.
    pub(crate) fn add(&self, claim: ClaimName, now: Instant) {
        let mut state = self.lock();
        // A marker that only changed (cancel asked) is the same claim: its time goes on.
        let known = state
            .claims
            .get(&claim.key)
            .filter(|seen| seen.claim.attempt == claim.attempt);
        let at = known.map_or(now, |seen| seen.at);
        state.claims.insert(claim.key.clone(), Seen { claim, at });
    }

    /// A claim was made here, of whose marker the news may be still to come: its request must find
    /// it at once. What the news said already stays.
    pub(crate) fn add_own(&self, claim: ClaimName, now: Instant) {
        let mut state = self.lock();
        let known = state.claims.entry(claim.key.clone());
        known.or_insert(Seen { claim, at: now });
    }

    /// A claim turned out to be over.
    pub(crate) fn forget(&self, key: &TicketKey, attempt: Attempt) {
        let mut state = self.lock();
        if state
            .claims
            .get(key)
            .is_some_and(|seen| seen.claim.attempt == attempt)
        {
            state.claims.remove(key);
        }
    }

    /// A claim marker is gone.
    pub(crate) fn remove(&self, claim: &ClaimName) {
        let mut state = self.lock();
        if state
            .claims
            .get(&claim.key)
            .is_some_and(|seen| seen.claim == *claim)
        {
            state.claims.remove(&claim.key);
        }
    }

    /// Makes the claims exactly these, after news were missed.
    pub(crate) fn reset(&self, claims: Vec<ClaimName>, now: Instant) {
        let seen = |claim: ClaimName| (claim.key.clone(), Seen { claim, at: now });
        // At once: a repeated request must find its claim at any time.
        self.lock().claims = claims.into_iter().map(seen).collect();
    }

    /// The holder was heard of. Gives what it is to be told; `None` if no such claim is known here.
    pub(crate) fn heard(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        now: Instant,
    ) -> Option<Standing> {
        let mut state = self.lock();
        let seen = state
            .claims
            .get_mut(key)
            .filter(|seen| seen.claim.attempt == attempt)?;
        seen.at = now;
        Some(if seen.claim.cancel {
            Standing::Cancel
        } else {
            Standing::Held
        })
    }

    /// The claim that a request made, if it is known here.
    pub(crate) fn claimed_by(&self, worker: &str, request: &str) -> Option<TicketKey> {
        let state = self.lock();
        let made = |seen: &&Seen| seen.claim.worker == worker && seen.claim.request == request;
        state
            .claims
            .values()
            .find(made)
            .map(|seen| seen.claim.key.clone())
    }

    /// All claims.
    pub(crate) fn all(&self) -> Vec<ClaimName> {
        self.lock()
            .claims
            .values()
            .map(|seen| seen.claim.clone())
            .collect()
    }

    /// The claims that have lapsed.
    pub(crate) fn lapsed(&self, now: Instant) -> Vec<(TicketKey, Attempt)> {
        let mut state = self.lock();
        let asleep = state
            .looked
            .map(|looked| now.saturating_duration_since(looked))
            .filter(|gap| *gap > ASLEEP);
        state.looked = Some(now);
        if let Some(gap) = asleep {
            // While we slept nobody could be heard.
            state.claims.values_mut().for_each(|seen| seen.at += gap);
        }
        let is_lapsed = |seen: &&Seen| {
            let duty = if seen.claim.control {
                Duty::Control
            } else {
                Duty::Task
            };
            now.saturating_duration_since(seen.at) > duty.lease()
        };
        let lapsed = state.claims.values().filter(is_lapsed);
        lapsed
            .map(|seen| (seen.claim.key.clone(), seen.claim.attempt))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use distci_model::capability::Capabilities;
    use distci_model::id::{BuildKey, BuildNumber, JobKey};

    use super::*;

    fn claim(attempt: u32) -> ClaimName {
        let job = JobKey::derive(&"j".parse().unwrap(), 0);
        ClaimName {
            key: TicketKey::control(BuildKey::derive(&job, BuildNumber::FIRST)),
            attempt: Attempt::new(attempt),
            control: false,
            worker: "worker".into(),
            request: "request".into(),
            job: job.short().to_owned(),
            class: Capabilities::control().class(),
            cancel: false,
        }
    }

    /// Looks every tick until `end`, as the loop does; gives what had lapsed at the end.
    fn look(leases: &Leases, start: Instant, end: Duration) -> Vec<(TicketKey, Attempt)> {
        let mut now = start;
        while now < start + end {
            leases.lapsed(now);
            now += TICK;
        }
        leases.lapsed(start + end)
    }

    #[test]
    fn a_claim_lapses_after_its_lease_without_news() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(1), start);
        assert_eq!(look(&leases, start, Duration::from_secs(29)), []);
        let later = start + Duration::from_secs(29);
        assert_eq!(look(&leases, later, Duration::from_secs(2)).len(), 1);
    }

    #[test]
    fn a_beat_of_this_attempt_renews_and_of_another_does_not() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(2), start);
        let beat = start + Duration::from_secs(20);
        look(&leases, start, Duration::from_secs(20));
        let key = claim(2).key;
        assert_eq!(leases.heard(&key, Attempt::new(1), beat), None);
        assert_eq!(
            leases.heard(&key, Attempt::new(2), beat),
            Some(Standing::Held)
        );
        assert_eq!(look(&leases, beat, Duration::from_secs(29)), []);
    }

    #[test]
    fn an_own_claim_is_found_before_its_news_and_never_overrules_them() {
        let (leases, now) = (Leases::default(), Instant::now());
        leases.add_own(claim(1), now);
        let found = leases.claimed_by("worker", "request");
        assert_eq!(found, Some(claim(1).key));
        let asked = ClaimName {
            cancel: true,
            ..claim(1)
        };
        leases.add(asked, now);
        leases.add_own(claim(1), now);
        let heard = leases.heard(&claim(1).key, Attempt::new(1), now);
        assert_eq!(heard, Some(Standing::Cancel));
        leases.forget(&claim(1).key, Attempt::new(2));
        assert_eq!(leases.all().len(), 1);
        leases.forget(&claim(1).key, Attempt::new(1));
        assert_eq!(leases.all().len(), 0);
    }

    #[test]
    fn time_asleep_does_not_count() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(1), start);
        leases.lapsed(start);
        let woken = start + Duration::from_hours(1);
        assert_eq!(leases.lapsed(woken), []);
        assert_eq!(look(&leases, woken, Duration::from_secs(29)), []);
        assert_eq!(
            look(
                &leases,
                woken + Duration::from_secs(29),
                Duration::from_secs(2)
            )
            .len(),
            1
        );
    }

    #[test]
    fn a_cancel_changes_the_standing_and_not_the_lease() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(1), start);
        let asked = ClaimName {
            cancel: true,
            ..claim(1)
        };
        leases.add(asked, start + Duration::from_secs(20));
        // The news of the removal of the old name comes after that of the new one.
        leases.remove(&claim(1));
        assert_eq!(look(&leases, start, Duration::from_secs(31)).len(), 1);
        let now = start + Duration::from_secs(31);
        assert_eq!(
            leases.heard(&claim(1).key, Attempt::new(1), now),
            Some(Standing::Cancel)
        );
    }
}
