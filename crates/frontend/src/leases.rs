//! The leases: which claims there are, and when each was last heard of.
//!
//! Owns the decision that a worker is gone. It is taken on this process's own monotonic clock alone:
//! a claim lapses when nobody has told this frontend of it for its lease, not counting the time that
//! this frontend itself was asleep. A wrong guess costs a restart, never data: the attempt number
//! fences whoever was wrongly given up. Never reads a clock: the time is an argument.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_model::id::{Attempt, TicketKey};
use distci_model::lease::has_lapsed;
use distci_model::ticket::{ClaimHash, ClaimName, Duty};
use distci_model::wire::Standing;
use tokio::time::Instant;

/// How often leases are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// A gap between two looks that is this long was not only the scheduler.
const ASLEEP: Duration = Duration::from_secs(1);
/// If so many claims, and this part of all, have lapsed, it is the network and not the workers.
const MANY: usize = 50;
const MANY_PERCENT: usize = 30;
/// How long workers get to be heard again then.
const MERCY: Duration = Duration::from_secs(30);
/// And how many are given up in one look after that: 48 a second.
const FEW: usize = 12;
/// How long a claim is missing from its own worker's beats before nobody knows of it.
const ORPHANED: Duration = Duration::from_secs(5);

/// The claims that there are.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    claims: HashMap<TicketKey, Seen>,
    by_hash: HashMap<ClaimHash, TicketKey>,
    looked: Option<Instant>,
    many_since: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    claim: ClaimName,
    hash: ClaimHash,
    /// When the marker was first seen, or a beat heard of, here or elsewhere.
    at: Instant,
    /// Whether its worker was heard here since the others were told last.
    untold: bool,
    /// Since when its worker does not know of it.
    orphaned: Option<Instant>,
}

/// A claim that nobody was heard of for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lapsed {
    pub(crate) key: TicketKey,
    pub(crate) attempt: Attempt,
    at: Instant,
}

impl State {
    fn each(&mut self, hashes: &[ClaimHash], change: impl Fn(&mut Seen)) {
        let keys = hashes.iter().filter_map(|hash| self.by_hash.get(hash));
        for key in keys {
            if let Some(seen) = self.claims.get_mut(key) {
                change(seen);
            }
        }
    }

    fn insert(&mut self, claim: ClaimName, at: Instant) {
        let hash = ClaimHash::of(&claim.key, claim.attempt);
        let key = claim.key.clone();
        self.by_hash.insert(hash, key.clone());
        let seen = Seen {
            claim,
            hash,
            at,
            untold: false,
            orphaned: None,
        };
        if let Some(before) = self.claims.insert(key, seen)
            && before.hash != hash
        {
            self.by_hash.remove(&before.hash);
        }
    }

    fn remove(&mut self, key: &TicketKey, is_it: impl Fn(&Seen) -> bool) {
        if self.claims.get(key).is_some_and(is_it)
            && let Some(gone) = self.claims.remove(key)
        {
            self.by_hash.remove(&gone.hash);
        }
    }
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claim marker appeared.
    pub(crate) fn add(&self, claim: ClaimName, now: Instant) {
        let mut state = self.lock();
        match state.claims.get_mut(&claim.key) {
            // A marker that only changed (cancel asked) is the same claim: its time goes on.
            Some(seen) if seen.claim.attempt == claim.attempt => seen.claim = claim,
            Some(_) | None => state.insert(claim, now),
        }
    }

    /// A claim was made here, of whose marker the news may be still to come: its request must find
    /// it at once. What the news said already stays.
    pub(crate) fn add_own(&self, claim: ClaimName, now: Instant) {
        let mut state = self.lock();
        if !state.claims.contains_key(&claim.key) {
            state.insert(claim, now);
        }
    }

    /// A claim turned out to be over.
    pub(crate) fn forget(&self, key: &TicketKey, attempt: Attempt) {
        self.lock()
            .remove(key, |seen| seen.claim.attempt == attempt);
    }

    /// A claim marker is gone.
    pub(crate) fn remove(&self, claim: &ClaimName) {
        self.lock().remove(&claim.key, |seen| seen.claim == *claim);
    }

    /// Makes the claims exactly these, after news were missed: whoever was heard of meanwhile is
    /// not known, so all begin anew.
    pub(crate) fn reset(&self, claims: Vec<ClaimName>, now: Instant) {
        let mut fresh = State::default();
        for claim in claims {
            fresh.insert(claim, now);
        }
        let mut state = self.lock();
        for (key, seen) in &mut fresh.claims {
            let known = state.claims.get(key);
            let known = known.filter(|known| known.hash == seen.hash);
            seen.untold = known.is_some_and(|known| known.untold);
        }
        fresh.looked = state.looked;
        // At once: a repeated request must find its claim at any time.
        *state = fresh;
    }

    /// The holder was heard here. Gives what it is to be told; `None` if no such claim is known.
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
        (seen.at, seen.untold) = (now, true);
        Some(if seen.claim.cancel {
            Standing::Cancel
        } else {
            Standing::Held
        })
    }

    /// The claims whose holders were heard here since this was asked last: the caller tells the
    /// others, or [`keeps`](Self::keep_untold) it in mind.
    pub(crate) fn take_untold(&self) -> Vec<ClaimHash> {
        let mut state = self.lock();
        let untold = state.claims.values_mut().filter(|seen| seen.untold);
        untold
            .map(|seen| {
                seen.untold = false;
                seen.hash
            })
            .collect()
    }

    /// The others could not be told of these.
    pub(crate) fn keep_untold(&self, hashes: &[ClaimHash]) {
        self.lock().each(hashes, |seen| seen.untold = true);
    }

    /// The holders of these claims were heard elsewhere.
    pub(crate) fn told(&self, hashes: &[ClaimHash], now: Instant) {
        self.lock().each(hashes, |seen| seen.at = now);
    }

    /// The claims of a run of a worker that it has not known of for a while: it neither holds them
    /// nor waits for the answers to these requests. Nobody works on such a ticket.
    pub(crate) fn orphans(
        &self,
        worker: &str,
        held: &HashSet<(&TicketKey, Attempt)>,
        pending: &HashSet<&str>,
        now: Instant,
    ) -> Vec<(TicketKey, Attempt)> {
        let mut state = self.lock();
        let mut orphans = Vec::new();
        for seen in state.claims.values_mut() {
            let claim = &seen.claim;
            if claim.worker != worker {
                continue;
            }
            if held.contains(&(&claim.key, claim.attempt))
                || pending.contains(claim.request.as_str())
            {
                seen.orphaned = None;
                continue;
            }
            let since = *seen.orphaned.get_or_insert(now);
            if now.duration_since(since) >= ORPHANED {
                orphans.push((claim.key.clone(), claim.attempt));
            }
        }
        orphans
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

    /// The claims that have lapsed and are ours to give up: `rank` says how many others have that
    /// duty before us. If very many lapse together nobody is given up for a while, and then few at
    /// a time.
    pub(crate) fn lapsed(
        &self,
        now: Instant,
        rank: impl Fn(&TicketKey) -> Option<u32>,
    ) -> Vec<Lapsed> {
        let mut state = self.lock();
        state.wake(now);
        let silent = |seen: &Seen| now.duration_since(seen.at);
        let lapsed: Vec<&Seen> = state
            .claims
            .values()
            .filter(|seen| has_lapsed(lease(seen), silent(seen), 0))
            .collect();
        let all = state.claims.len();
        let many = lapsed.len() >= MANY && lapsed.len() * 100 > all * MANY_PERCENT;
        let ours = lapsed.iter().filter_map(|seen| {
            let rank = rank(&seen.claim.key)?;
            has_lapsed(lease(seen), silent(seen), rank).then(|| Lapsed {
                key: seen.claim.key.clone(),
                attempt: seen.claim.attempt,
                at: seen.at,
            })
        });
        let mut ours: Vec<Lapsed> = ours.collect();
        let silent = lapsed.len();
        if silent == 0 {
            // Only now is it over: the last of many are not given up all at once either.
            state.many_since = None;
        }
        if !many && state.many_since.is_none() {
            return ours;
        }
        let since = *state.many_since.get_or_insert_with(|| {
            tracing::error!(
                silent,
                all,
                "most workers fell silent at once: giving nobody up yet"
            );
            now
        });
        let mercy = now.duration_since(since) < MERCY;
        ours.truncate(if mercy { 0 } else { FEW });
        ours
    }

    /// Looks at the clock only, so that time that passes otherwise is not taken for sleep.
    pub(crate) fn look(&self, now: Instant) {
        self.lock().wake(now);
    }

    /// Whether still nobody has heard of a lapsed claim, now that all is taken in that others had
    /// told before. Not if this frontend was asleep meanwhile: what others had told may have been
    /// written over before it was read.
    pub(crate) fn is_still_lapsed(&self, claim: &Lapsed, now: Instant) -> bool {
        let mut state = self.lock();
        state.wake(now);
        let seen = state.claims.get(&claim.key);
        seen.is_some_and(|seen| seen.claim.attempt == claim.attempt && seen.at == claim.at)
    }
}

impl State {
    /// While this frontend slept nobody could be heard.
    fn wake(&mut self, now: Instant) {
        let asleep = self
            .looked
            .map(|looked| now.duration_since(looked))
            .filter(|gap| *gap > ASLEEP);
        self.looked = Some(now);
        if let Some(gap) = asleep {
            self.claims.values_mut().for_each(|seen| seen.at += gap);
        }
    }
}

fn lease(seen: &Seen) -> Duration {
    let duty = if seen.claim.control {
        Duty::Control
    } else {
        Duty::Task
    };
    duty.lease()
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
    fn look(leases: &Leases, start: Instant, end: Duration) -> Vec<Lapsed> {
        let mut now = start;
        while now < start + end {
            leases.lapsed(now, |_| Some(0));
            now += TICK;
        }
        leases.lapsed(start + end, |_| Some(0))
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
        leases.lapsed(start, |_| Some(0));
        let woken = start + Duration::from_hours(1);
        assert_eq!(leases.lapsed(woken, |_| Some(0)), []);
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

    fn build(number: u64) -> ClaimName {
        let job = JobKey::derive(&"j".parse().unwrap(), 0);
        let build = BuildKey::derive(&job, BuildNumber::new(number).unwrap());
        ClaimName {
            key: TicketKey::control(build),
            ..claim(1)
        }
    }

    #[test]
    fn what_another_frontend_heard_counts_and_is_not_told_again() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(1), start);
        let later = start + Duration::from_secs(20);
        look(&leases, start, Duration::from_secs(20));
        leases.told(&[ClaimHash::of(&claim(1).key, Attempt::new(1))], later);
        assert_eq!(leases.take_untold(), []);
        assert_eq!(look(&leases, later, Duration::from_secs(29)), []);
        leases.heard(&claim(1).key, Attempt::new(1), later);
        let untold = leases.take_untold();
        assert_eq!(untold.len(), 1);
        assert_eq!(leases.take_untold(), []);
        leases.keep_untold(&untold);
        assert_eq!(leases.take_untold(), untold);
    }

    #[test]
    fn the_next_in_the_order_of_duty_waits_longer_and_a_stranger_for_ever() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(1), start);
        look(&leases, start, Duration::from_secs(31));
        let now = start + Duration::from_secs(31);
        assert_eq!(leases.lapsed(now, |_| Some(0)).len(), 1);
        assert_eq!(leases.lapsed(now, |_| Some(1)).len(), 0);
        assert_eq!(leases.lapsed(now, |_| None).len(), 0);
        look(&leases, now, Duration::from_secs(5));
        let now = now + Duration::from_secs(5);
        assert_eq!(leases.lapsed(now, |_| Some(1)).len(), 1);
    }

    #[test]
    fn who_is_heard_of_at_the_last_moment_is_spared() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(1), start);
        let lapsed = look(&leases, start, Duration::from_secs(31));
        let now = start + Duration::from_secs(31);
        assert!(leases.is_still_lapsed(&lapsed[0], now));
        let hash = ClaimHash::of(&claim(1).key, Attempt::new(1));
        leases.told(&[hash], now);
        assert!(!leases.is_still_lapsed(&lapsed[0], now));
    }

    #[test]
    fn who_was_asleep_before_the_last_judgement_gives_nobody_up() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(1), start);
        let lapsed = look(&leases, start, Duration::from_secs(31));
        let now = start + Duration::from_secs(31);
        assert!(leases.is_still_lapsed(&lapsed[0], now + TICK));
        assert!(!leases.is_still_lapsed(&lapsed[0], now + Duration::from_secs(20)));
    }

    #[test]
    fn if_most_workers_fall_silent_together_none_is_given_up_in_haste() {
        let (leases, start) = (Leases::default(), Instant::now());
        for number in 1..=100 {
            leases.add(build(number), start);
        }
        let silent = Duration::from_secs(31);
        assert_eq!(look(&leases, start, silent), []);
        let later = start + silent;
        assert_eq!(look(&leases, later, Duration::from_secs(29)), []);
        assert_eq!(look(&leases, later, MERCY + TICK).len(), FEW);
        // Those that are heard again make the others few, but still they do not go all at once.
        let now = later + MERCY + TICK;
        for number in 1..=60 {
            let key = build(number).key;
            leases.heard(&key, Attempt::new(1), now);
        }
        assert_eq!(leases.lapsed(now, |_| Some(0)).len(), FEW);
        for number in 61..=100 {
            leases.heard(&build(number).key, Attempt::new(1), now);
        }
        assert_eq!(leases.lapsed(now, |_| Some(0)), []);
        assert_eq!(look(&leases, now, silent), []);
    }

    #[test]
    fn a_claim_that_its_own_worker_does_not_know_is_an_orphan() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.add(claim(1), start);
        let (held, pending) = (HashSet::new(), HashSet::from(["request"]));
        let none = HashSet::new();
        let ask = |pending, after| leases.orphans("worker", &held, pending, start + after);
        assert_eq!(ask(&pending, Duration::from_secs(9)), []);
        assert_eq!(ask(&none, Duration::from_secs(10)), []);
        assert_eq!(ask(&none, Duration::from_secs(12)), []);
        assert_eq!(ask(&pending, Duration::from_secs(13)), []);
        assert_eq!(ask(&none, Duration::from_secs(14)), []);
        assert_eq!(ask(&none, Duration::from_secs(20)).len(), 1);
        let other = leases.orphans("other", &held, &none, start + Duration::from_secs(40));
        assert_eq!(other, []);
    }
}
