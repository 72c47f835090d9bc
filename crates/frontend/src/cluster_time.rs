//! Cluster time: the one clock that timers go by.
//!
//! Owns what this frontend knows of the store's clock: whenever it writes something of its own, the
//! store says when that was. In between, its own monotonic clock goes on from there. Never early:
//! a reading counts from when its answer came, so this clock is late by the way of one answer at
//! most. Never reads a clock: the time is an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_model::Timestamp;
use tokio::time::Instant;

/// For how long a reading is good; two clocks drift apart by milliseconds in that time.
const GOOD: Duration = Duration::from_secs(90);
/// After this long another one is asked for, if anything is to happen soon.
const RENEW: Duration = Duration::from_mins(1);
/// What happens within this time happens soon.
const SOON: Duration = Duration::from_mins(1);
/// A clock that was set forward by more is not believed at once.
const STEP: Duration = Duration::from_mins(5);
/// How much later it has to say so again.
const CONFIRM: Duration = Duration::from_secs(10);

/// What is known of the store's clock.
#[derive(Debug, Default)]
pub(crate) struct ClusterTime(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    believed: Option<Reading>,
    /// A reading that is far ahead of what was believed.
    doubted: Option<Reading>,
    asked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    /// What the store's clock said,
    time: Timestamp,
    /// when the answer came,
    at: Instant,
    /// and what this machine's clock said then.
    local: Timestamp,
}

impl Reading {
    /// What the store's clock says by now.
    fn on(&self, now: Instant) -> Timestamp {
        later(self.time, now.saturating_duration_since(self.at))
    }

    fn is_younger(&self, age: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < age
    }
}

impl ClusterTime {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has said what time it is, in an answer that came `now`.
    pub(crate) fn heard(&self, time: Timestamp, now: Instant, local: Timestamp) {
        let reading = Reading {
            time,
            at: now,
            local,
        };
        let mut state = self.lock();
        if let Some(believed) = &state.believed
            && time > later(believed.on(now), STEP)
            && !state.confirms(&reading)
        {
            // Who doubts asks again; a later doubt about the same step does not begin anew.
            if !state.doubts(&reading) {
                tracing::warn!(%time, "the store's clock leaps ahead; not believed yet");
                state.doubted = Some(reading);
            }
            state.asked = true;
            return;
        }
        *state = State {
            believed: Some(reading),
            ..State::default()
        };
    }

    /// The time, if it is known well enough to act on.
    pub(crate) fn now(&self, now: Instant) -> Option<Timestamp> {
        let state = self.lock();
        let believed = state.believed.as_ref()?;
        believed.is_younger(GOOD, now).then(|| believed.on(now))
    }

    /// Whether `due` is soon, or may be: then the time is asked for, if it is not known well enough.
    /// This machine may have slept, so its wall clock has a say as well.
    pub(crate) fn is_soon(&self, due: Timestamp, now: Instant, local: Timestamp) -> bool {
        let mut state = self.lock();
        let Some(believed) = state.believed else {
            state.asked = true;
            return true;
        };
        let by_wall = believed.time + local.duration_since(believed.local);
        let soon = due <= later(believed.on(now).max(by_wall), SOON);
        state.asked |= soon && !believed.is_younger(RENEW, now);
        soon
    }

    /// Whether somebody has to write something to learn what time it is.
    pub(crate) fn is_asked(&self, now: Instant) -> bool {
        let state = self.lock();
        let waits = state.doubted.is_some_and(|it| it.is_younger(CONFIRM, now));
        state.asked && !waits
    }
}

impl State {
    /// Whether a reading tells of the step that is doubted.
    fn doubts(&self, reading: &Reading) -> bool {
        self.doubted.as_ref().is_some_and(|doubted| {
            let apart = reading.time.duration_since(doubted.on(reading.at));
            apart.unsigned_abs() <= STEP
        })
    }

    /// Whether a reading tells of it once more, and late enough.
    fn confirms(&self, reading: &Reading) -> bool {
        let is_late = |doubted: &Reading| !doubted.is_younger(CONFIRM, reading.at);
        self.doubts(reading) && self.doubted.as_ref().is_some_and(is_late)
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn it_goes_on_from_a_reading_and_is_never_early() {
        let (time, start) = (ClusterTime::default(), Instant::now());
        assert_eq!(time.now(start), None);
        time.heard(at(1000), start, at(5));
        assert_eq!(time.now(start + 30 * SECOND), Some(at(1030)));
        assert_eq!(time.now(start + 91 * SECOND), None);
    }

    #[test]
    fn it_is_asked_for_only_while_something_is_soon() {
        let (time, start) = (ClusterTime::default(), Instant::now());
        assert!(!time.is_asked(start));
        assert!(time.is_soon(at(9000), start, at(0)), "nothing is known yet");
        assert!(time.is_asked(start));
        time.heard(at(1000), start, at(0));
        assert!(!time.is_asked(start));
        let late = start + 70 * SECOND;
        assert!(!time.is_soon(at(1200), late, at(70)));
        assert!(!time.is_asked(late));
        assert!(time.is_soon(at(1100), late, at(70)));
        assert!(time.is_asked(late));
    }

    #[test]
    fn a_machine_that_slept_looks_again() {
        let (time, start) = (ClusterTime::default(), Instant::now());
        time.heard(at(1000), start, at(0));
        // The monotonic clock stood still, the wall clock did not.
        assert!(time.is_soon(at(4000), start + 61 * SECOND, at(3600)));
        assert!(time.is_asked(start + 61 * SECOND));
    }

    #[test]
    fn a_leap_ahead_is_believed_the_second_time() {
        let (time, start) = (ClusterTime::default(), Instant::now());
        time.heard(at(1000), start, at(0));
        time.heard(at(5001), start + SECOND, at(1));
        assert_eq!(time.now(start + SECOND), Some(at(1001)));
        assert!(!time.is_asked(start + SECOND), "too soon to ask again");
        time.heard(at(5002), start + 2 * SECOND, at(2));
        assert_eq!(time.now(start + 2 * SECOND), Some(at(1002)));
        assert!(time.is_asked(start + 12 * SECOND));
        time.heard(at(5012), start + 12 * SECOND, at(12));
        assert_eq!(time.now(start + 12 * SECOND), Some(at(5012)));
        assert!(!time.is_asked(start + 12 * SECOND));
    }

    #[test]
    fn a_leap_ahead_that_was_a_mistake_is_forgotten() {
        let (time, start) = (ClusterTime::default(), Instant::now());
        time.heard(at(1000), start, at(0));
        time.heard(at(9000), start + SECOND, at(1));
        time.heard(at(1020), start + 20 * SECOND, at(20));
        assert_eq!(time.now(start + 20 * SECOND), Some(at(1020)));
        time.heard(at(9021), start + 21 * SECOND, at(21));
        assert_eq!(time.now(start + 21 * SECOND), Some(at(1021)));
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed() {
        let (time, start) = (ClusterTime::default(), Instant::now());
        time.heard(at(9000), start, at(0));
        time.heard(at(1000), start + SECOND, at(1));
        assert_eq!(time.now(start + SECOND), Some(at(1000)));
    }
}
