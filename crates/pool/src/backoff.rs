//! How long to wait after a failure.
//!
//! Owns the growing pause between tries. Never reads a clock: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause; each is twice the one before.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_mins(5);

/// Failures in a row, and when it may be tried again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// It failed. Those that fail together, before the pause is over, count once. Gives the pause.
    pub(crate) fn fail(&mut self, now: Instant) -> Duration {
        if let Some(until) = self.until.filter(|until| now < *until) {
            return until - now;
        }
        let pause = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures += 1;
        self.until = Some(now + pause);
        pause
    }

    /// It succeeded: nothing is waited for any more.
    pub(crate) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// Until when it is waited, if it is.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_with_the_first_success() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..11 {
            assert_eq!(backoff.until(now), None);
            let pause = backoff.fail(now);
            assert_eq!(backoff.fail(now), pause, "failures of one time count once");
            assert_eq!(backoff.until(now), Some(now + pause));
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.succeed();
        assert_eq!(backoff.fail(now).as_secs(), 1);
    }
}
