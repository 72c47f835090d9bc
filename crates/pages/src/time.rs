//! Moments and spans as people read them.
//!
//! Owns their words. A page is made for nobody's zone: moments are UTC in words and exact in the
//! attribute, from which a script makes the reader's own.

use std::fmt;

use askama::filters::HtmlSafe;
use distci_model::Timestamp;

/// A moment as a whole: `2026-11-23 03:34:48 UTC`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.strftime("%Y-%m-%d %H:%M:%S UTC");
        write!(f, "<time datetime=\"{}\">{words}</time>", Exact(self.0))
    }
}

// Digits and our own words.
impl HtmlSafe for Moment {}

/// How long ago a moment is, or how far ahead: `3 min ago`, `in 2 h`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ago {
    pub(crate) at: Timestamp,
    pub(crate) now: Timestamp,
}

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<time class=\"ago\" datetime=\"{}\">", Exact(self.at))?;
        let seconds = (self.now.as_millisecond() - self.at.as_millisecond()) / 1000;
        let words = roughly(seconds.unsigned_abs());
        match (words, seconds < 0) {
            (None, _) => f.write_str("just now")?,
            (Some(words), false) => write!(f, "{words} ago")?,
            (Some(words), true) => write!(f, "in {words}")?,
        }
        f.write_str("</time>")
    }
}

// Digits and our own words.
impl HtmlSafe for Ago {}

/// The exact form, to the second: nobody reads more, and a list has many of them.
struct Exact(Timestamp);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

/// A span in its largest unit; none if it is no span to speak of. `times.js` says the same words.
fn roughly(seconds: u64) -> Option<String> {
    Some(match seconds {
        0..5 => return None,
        5..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        172_800.. => format!("{} d", seconds / 86_400),
    })
}

/// How long something took: `850 ms`, `12.4 s`, `3 m 05 s`, `2 h 10 m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Took(pub(crate) u64);

impl Took {
    /// From one moment to another; nothing if clocks disagree about their order.
    pub(crate) fn between(from: Timestamp, to: Timestamp) -> Self {
        let millis = to.as_millisecond() - from.as_millisecond();
        Self(u64::try_from(millis).unwrap_or(0))
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (millis, seconds) = (self.0, self.0 / 1000);
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        match seconds {
            0 => write!(f, "{millis} ms"),
            1..10 => write!(f, "{seconds}.{} s", millis % 1000 / 100),
            10..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{minutes} m {:02} s", seconds % 60),
            3600..86_400 => write!(f, "{hours} h {:02} m", minutes % 60),
            86_400.. => write!(f, "{days} d {:02} h", hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn spans_are_told_in_two_units_at_most() {
        let told = |millis| Took(millis).to_string();
        assert_eq!(told(0), "0 ms");
        assert_eq!(told(850), "850 ms");
        assert_eq!(told(9_940), "9.9 s");
        assert_eq!(told(59_999), "59 s");
        assert_eq!(told(185_000), "3 m 05 s");
        assert_eq!(told(7_800_000), "2 h 10 m");
        assert_eq!(told(90_000_000), "1 d 01 h");
        assert_eq!(Took::between(at(5), at(0)), Took(0));
    }

    #[test]
    fn moments_are_exact_in_the_attribute() {
        let told = |seconds| {
            Ago {
                at: at(seconds),
                now: at(0),
            }
            .to_string()
        };
        assert_eq!(
            told(-3600),
            "<time class=\"ago\" datetime=\"2023-11-14T21:13:20Z\">1 h ago</time>"
        );
        assert!(told(0).contains(">just now<"));
        assert!(told(300).contains(">in 5 min<"));
        assert!(
            Moment(at(0))
                .to_string()
                .contains(">2023-11-14 22:13:20 UTC<")
        );
    }
}
