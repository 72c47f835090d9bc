//! How long things have taken of late.
//!
//! Owns counts of durations by their length, without a lock: whoever measures adds one to a number.
//! What is told is of the last five to ten minutes, for nobody asks how it was last week; lengths are
//! right to a quarter. Counts that are made while a period begins may be lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After this counts begin anew; those of the period before are told with them.
const PERIOD: Duration = Duration::from_mins(5);
/// Four for each doubling, of microseconds up to a minute; the last holds whatever was longer.
const BUCKETS: usize = 104;

/// How long one kind of thing takes.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    /// Which period counts are of.
    period: AtomicU64,
    /// The counts of this period and of the one before, by whether its number is even.
    counts: [[AtomicU64; BUCKETS]; 2],
}

/// How long things took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantiles {
    /// How many there were.
    pub(crate) count: u64,
    /// Half of them took no longer.
    pub(crate) median: Duration,
    /// Nor did 99 of 100 than this.
    pub(crate) p99: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            period: AtomicU64::new(0),
            counts: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
        }
    }
}

impl Pace {
    /// Counts one.
    pub(crate) fn note(&self, took: Duration) {
        self.note_at(self.began.elapsed(), took);
    }

    /// How long they took of late; nothing if there was none.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        self.quantiles_at(self.began.elapsed())
    }

    fn note_at(&self, now: Duration, took: Duration) {
        let counts = self.present(now);
        counts[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    fn quantiles_at(&self, now: Duration) -> Option<Quantiles> {
        self.present(now);
        let [even, odd] = &self.counts;
        let both = even.iter().zip(odd);
        let counts: Vec<u64> = both
            .map(|(one, other)| one.load(Ordering::Relaxed) + other.load(Ordering::Relaxed))
            .collect();
        let count: u64 = counts.iter().sum();
        let within = |percent: u64| {
            let wanted = (count * percent).div_ceil(100);
            let mut sum = 0;
            let found = counts.iter().position(|count| {
                sum += count;
                sum >= wanted
            });
            end(found.unwrap_or(BUCKETS - 1))
        };
        (count > 0).then(|| Quantiles {
            count,
            median: within(50),
            p99: within(99),
        })
    }

    /// The counts of this period, which begins now if it has not.
    fn present(&self, now: Duration) -> &[AtomicU64; BUCKETS] {
        let period = now.as_secs() / PERIOD.as_secs();
        let before = self.period.fetch_max(period, Ordering::Relaxed);
        let [even, odd] = &self.counts;
        let (this, other) = if period.is_multiple_of(2) {
            (even, odd)
        } else {
            (odd, even)
        };
        let clear = |counts: &[AtomicU64; BUCKETS]| {
            for count in counts {
                count.store(0, Ordering::Relaxed);
            }
        };
        if before < period {
            clear(this);
        }
        if before + 1 < period {
            clear(other);
        }
        this
    }
}

/// Where a duration is counted.
fn bucket(took: Duration) -> usize {
    let micros = usize::try_from(took.as_micros()).unwrap_or(usize::MAX);
    if micros < 4 {
        return micros;
    }
    let doublings = micros.ilog2() as usize;
    let quarter = (micros >> (doublings - 2)) & 3;
    ((doublings - 1) * 4 + quarter).min(BUCKETS - 1)
}

/// The first duration that is counted after this place.
fn end(bucket: usize) -> Duration {
    let next = bucket as u64 + 1;
    let micros = match next {
        0..=4 => next,
        _ => (4 + next % 4) << (next / 4 - 1),
    };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_counted_where_it_is_told() {
        for micros in (0..5000).chain([65_535, 65_536, 1_000_000, 59_000_000]) {
            let took = Duration::from_micros(micros);
            let told = end(bucket(took));
            assert!(told > took, "{took:?} is told as {told:?}");
            assert!(
                told <= took + took / 4 + Duration::from_micros(1),
                "{took:?}: {told:?}"
            );
        }
        assert_eq!(bucket(Duration::from_hours(9)), BUCKETS - 1);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let pace = Pace::default();
        let (fast, slow) = (Duration::from_millis(1), Duration::from_secs(1));
        assert_eq!(pace.quantiles_at(Duration::ZERO), None);
        for _ in 0..98 {
            pace.note_at(Duration::ZERO, fast);
        }
        pace.note_at(PERIOD, slow);
        pace.note_at(PERIOD, slow);
        let both = pace.quantiles_at(PERIOD).unwrap();
        assert_eq!(both.count, 100);
        assert!(both.median < 2 * fast && both.p99 > slow, "{both:?}");
        let later = pace.quantiles_at(2 * PERIOD).unwrap();
        assert!(later.count == 2 && later.median > slow, "{later:?}");
        assert_eq!(pace.quantiles_at(4 * PERIOD), None);
    }
}
