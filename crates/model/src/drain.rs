//! Drain orders: workers that are asked to finish what they hold and leave.
//!
//! Owns which workers an order is for: those whose names fit its pattern and that were there when it
//! was given. Who begins later under the same name works as ever, so no order has to be taken back.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::id::{NamePattern, WorkerName};
use crate::ticket::Stamp;

impl NamePattern {
    /// Whether a name fits. It takes at most as many steps as both are long, multiplied: nothing of a
    /// pattern is worth being kept.
    pub fn fits(&self, worker: &WorkerName) -> bool {
        let (pattern, name) = (self.as_str().as_bytes(), worker.as_str().as_bytes());
        let (mut at, mut read) = (0, 0);
        // What comes after the latest `*`, and how much of the name was read before that.
        let mut star = None;
        while let Some(byte) = name.get(read) {
            match (pattern.get(at), star) {
                (Some(b'*'), _) => {
                    at += 1;
                    star = Some((at, read));
                }
                (Some(wanted), _) if *wanted == b'?' || wanted == byte => {
                    at += 1;
                    read += 1;
                }
                // The `*` takes one more.
                (_, Some((after, before))) => {
                    (at, read) = (after, before + 1);
                    star = Some((at, read));
                }
                (_, None) => return false,
            }
        }
        pattern[at..].iter().all(|rest| *rest == b'*')
    }
}

/// An order to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainOrder {
    /// Whose names it is for.
    pub pattern: NamePattern,
    /// When it was given, in whole milliseconds: it is for those who were there.
    pub at: Timestamp,
}

impl DrainOrder {
    /// An order that is given now.
    pub fn new(pattern: NamePattern, now: Timestamp) -> Self {
        let at = Stamp::at(now).time();
        Self { pattern, at }
    }

    /// Whether it is for a worker that was there at `moment`.
    pub fn is_for(&self, worker: &WorkerName, moment: Timestamp) -> bool {
        moment <= self.at && self.pattern.fits(worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_names() {
        for (pattern, name, expected) in [
            ("w1", "w1", true),
            ("w1", "w11", false),
            ("w?", "w1", true),
            ("w?", "w", false),
            ("w*", "w", true),
            ("*", "any.worker-1_2", true),
            ("**", "w", true),
            ("*-gpu-*", "a-gpu-b", true),
            ("*-gpu-*", "a-cpu-b", false),
            ("a.c", "abc", false),
            ("W1", "w1", false),
            ("*ab", "aab", true),
            ("*a?c*", "abaxc.d", true),
            ("*a*b", "ab.a", false),
            ("w*?", "w", false),
            (&"*a".repeat(32), &"a".repeat(31), false),
        ] {
            let fits = pattern.parse::<NamePattern>().unwrap();
            let name = name.parse().unwrap();
            assert_eq!(fits.fits(&name), expected, "{pattern} and {name}");
        }
        for bad in [
            "",
            "a/b",
            "[a]",
            "{a,b}",
            "a b",
            "!a",
            "\\*",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_order_is_for_those_who_were_there() {
        let now = Timestamp::from_microsecond(1_700_000_000_000_700).unwrap();
        let order = DrainOrder::new("w*".parse().unwrap(), now);
        let moment = |millis| Timestamp::from_millisecond(1_700_000_000_000_i64 + millis).unwrap();
        assert_eq!(order.at, moment(0));
        let (ours, other) = ("w1".parse().unwrap(), "x1".parse().unwrap());
        assert!(order.is_for(&ours, moment(-1)) && order.is_for(&ours, moment(0)));
        assert!(!order.is_for(&ours, moment(1)));
        assert!(!order.is_for(&other, moment(-1)));
    }
}
