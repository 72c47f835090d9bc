//! What happens in a run, as lines that a person reads.
//!
//! Owns the lines and their order. Never decides anything: a run goes the same way whether anybody
//! reads its story or not.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Time;

/// One thing that happened.
#[derive(Debug, Clone)]
struct Line {
    at: Duration,
    who: String,
    what: String,
}

/// All that happened so far. Clones add to the same.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    time: Time,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Story {
    pub(crate) fn new(time: Time) -> Self {
        let lines = Arc::default();
        Self { time, lines }
    }

    /// Adds a line.
    pub(crate) fn tell(&self, who: &str, what: impl fmt::Display) {
        let line = Line {
            at: self.time.passed(),
            who: who.to_owned(),
            what: what.to_string(),
        };
        self.lines().push(line);
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { at, who, what } in self.lines().iter() {
            let (minutes, seconds) = (at.as_secs() / 60, at.as_secs() % 60);
            let millis = at.subsec_millis();
            writeln!(f, "{minutes:3}:{seconds:02}.{millis:03}  {who:<9} {what}")?;
        }
        Ok(())
    }
}
