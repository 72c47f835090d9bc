//! The last builds of a job as a small picture: a bar each, as high as it took long.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;
use distci_model::Timestamp;
use distci_model::wire::BuildSummary;

use crate::state::State;
use crate::time::Took;

/// How many builds there is room for.
pub(crate) const BARS: usize = 16;
/// Units from bar to bar, and the height of the longest.
const STEP: usize = 7;
const HEIGHT: u64 = 20;
/// Height of a build that took no time.
const LOWEST: u64 = 3;

/// The last builds of a job.
///
/// One path for all bars of a state: a list has many of these pictures, and a page shall be small.
#[derive(Debug, Clone)]
pub(crate) struct Spark {
    bars: Vec<(State, u64)>,
}

impl Spark {
    /// Of builds, latest first.
    pub(crate) fn of(builds: &[BuildSummary], now: Timestamp) -> Self {
        let took = |build: &BuildSummary| {
            let end = build.finished.unwrap_or(now);
            (
                State::of_summary(build),
                Took::between(build.created, end).0,
            )
        };
        Self {
            bars: builds.iter().take(BARS).rev().map(took).collect(),
        }
    }
}

impl fmt::Display for Spark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.bars.iter().map(|(_, took)| *took).max().unwrap_or(0);
        let empty = BARS - self.bars.len().min(BARS);
        let width = BARS * STEP;
        write!(
            f,
            "<svg class=\"spark\" viewBox=\"0 0 {width} {HEIGHT}\" aria-hidden=\"true\">"
        )?;
        for state in State::ALL {
            let mut path = String::new();
            for (place, (_, took)) in self
                .bars
                .iter()
                .enumerate()
                .filter(|(_, bar)| bar.0 == state)
            {
                let x = (empty + place) * STEP + STEP / 2;
                let height = LOWEST + (HEIGHT - LOWEST) * took / longest.max(1);
                write!(path, "M{x} {HEIGHT}v-{height}")?;
            }
            if !path.is_empty() {
                write!(f, "<path class=\"{}\" d=\"{path}\"/>", state.word())?;
            }
        }
        f.write_str("</svg>")
    }
}

// It is made of numbers and our own words.
impl HtmlSafe for Spark {}
