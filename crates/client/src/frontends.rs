//! The frontends of one DistCI, and which of them to ask next.
//!
//! Owns what this client knows about them: who answered last, and who gave trouble lately. Each
//! client has an order of its own, drawn at random, so that many clients are spread over the
//! frontends, before one of them dies and after. Never forgets a frontend: when all are in trouble,
//! the one whose trouble is the oldest is asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a frontend that gave trouble is passed over, give or take a quarter: a call that runs
/// into a silent one pays seconds, and not every call shall.
const AVOIDED: Duration = Duration::from_secs(10);
/// After so long with another frontend the first one is asked again, give or take a quarter; or
/// one that was restarted would have no clients until the others are.
const AWAY: Duration = Duration::from_mins(2);

#[derive(Debug)]
pub(crate) struct Frontends {
    /// As given, without a slash at the end; never empty.
    addresses: Vec<String>,
    /// The places of the addresses, in this client's order.
    order: Vec<usize>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Who answered last, as a place in the order.
    current: usize,
    /// The trouble that each gave, by its place in the order.
    troubles: Vec<Option<Trouble>>,
    /// When to go back to the first in the order.
    home: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    /// When it is forgotten.
    until: Instant,
}

impl Frontends {
    /// Frontends to be asked in an order of this client's own.
    pub(crate) fn shuffled(addresses: Vec<String>) -> Self {
        let mut order: Vec<usize> = (0..addresses.len()).collect();
        for last in (1..order.len()).rev() {
            let other = random() as usize % (last + 1);
            order.swap(last, other);
        }
        Self::in_order(addresses, order)
    }

    pub(crate) fn in_order(addresses: Vec<String>, order: Vec<usize>) -> Self {
        let state = State {
            current: 0,
            troubles: vec![None; addresses.len()],
            home: None,
        };
        Self {
            addresses,
            order,
            state: Mutex::new(state),
        }
    }

    /// As they were given.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Whom to ask now: an index of [`Frontends::addresses`].
    pub(crate) fn choose(&self) -> usize {
        let now = Instant::now();
        let mut state = self.state();
        if state.home.is_some_and(|home| home <= now) {
            state.home = None;
            state.current = 0;
        }
        let count = self.order.len();
        let from_current = (0..count).map(|step| (state.current + step) % count);
        // Who gave none has no time at all, which is before every time; and of equals the first wins.
        let since = |place: &usize| state.trouble(*place, now).map(|trouble| trouble.since);
        self.order[from_current.min_by_key(since).unwrap_or_default()]
    }

    /// A frontend answered. Whoever is avoided stays so: it may answer, and yet be worse than others.
    pub(crate) fn answered(&self, frontend: usize) {
        let (now, place) = (Instant::now(), self.place(frontend));
        let mut state = self.state();
        if state.trouble(place, now).is_some() {
            return;
        }
        state.current = place;
        if place == 0 {
            state.home = None;
        } else {
            state.home.get_or_insert_with(|| now + roughly(AWAY));
        }
    }

    /// A frontend gave trouble, or asked to be left alone for so long.
    pub(crate) fn avoid(&self, frontend: usize, asked: Option<Duration>) {
        let (since, place) = (Instant::now(), self.place(frontend));
        let until = since + roughly(AVOIDED).max(asked.unwrap_or_default());
        self.state().troubles[place] = Some(Trouble { since, until });
    }

    fn place(&self, frontend: usize) -> usize {
        let place = self.order.iter().position(|index| *index == frontend);
        place.unwrap_or_default()
    }

    /// No panic can leave the state half-changed, so a poisoned lock is as good as another.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn trouble(&self, place: usize, now: Instant) -> Option<Trouble> {
        self.troubles[place].filter(|trouble| trouble.until > now)
    }
}

/// From three to five quarters of it, so that clients that failed together do not return together.
fn roughly(time: Duration) -> Duration {
    time.mul_f64(0.75 + 0.5 * f64::from(random()) / f64::from(u32::MAX))
}

/// Without randomness the choice is merely less fair.
pub(crate) fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn frontends(count: usize) -> Frontends {
        let addresses = (0..count).map(|index| index.to_string()).collect();
        Frontends::in_order(addresses, (0..count).collect())
    }

    #[test]
    fn clients_are_spread_over_the_frontends() {
        let first = || Frontends::shuffled(vec![String::new(); 3]).choose();
        let seen: std::collections::HashSet<usize> = (0..200).map(|_| first()).collect();
        assert_eq!(seen.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gave_trouble_is_passed_over_for_a_while() {
        let frontends = frontends(3);
        assert_eq!(frontends.choose(), 0);
        frontends.avoid(0, None);
        assert_eq!(frontends.choose(), 1);
        frontends.avoid(1, None);
        assert_eq!(frontends.choose(), 2);
        frontends.answered(2);
        // What the avoided one still answers does not bring it back.
        frontends.answered(0);
        assert_eq!(frontends.choose(), 2);
        advance(AVOIDED * 2).await;
        assert_eq!(frontends.choose(), 2, "who answers is kept");
        frontends.avoid(2, None);
        assert_eq!(frontends.choose(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_give_trouble_the_oldest_is_asked_first() {
        let frontends = frontends(3);
        for frontend in [1, 2, 0] {
            frontends.avoid(frontend, None);
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(frontends.choose(), 1);
        frontends.avoid(1, None);
        assert_eq!(frontends.choose(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_goes_back_to_its_first_frontend() {
        let frontends = frontends(2);
        frontends.avoid(0, None);
        frontends.answered(frontends.choose());
        advance(AWAY / 2).await;
        assert_eq!(frontends.choose(), 1);
        frontends.answered(1);
        advance(AWAY).await;
        assert_eq!(frontends.choose(), 0);
        // Still in trouble: the next look is as far away again.
        frontends.avoid(0, None);
        frontends.answered(frontends.choose());
        advance(AVOIDED * 2).await;
        assert_eq!(frontends.choose(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_one_is_always_asked() {
        let frontends = frontends(1);
        frontends.avoid(0, Some(Duration::from_hours(1)));
        assert_eq!(frontends.choose(), 0);
    }
}
