//! The builds of a job as a picture: how each ended, and how long it took.

use distci_model::Timestamp;
use distci_model::id::BuildNumber;
use distci_model::wire::BuildSummary;

use askama::Template;
use askama::filters::HtmlSafe;

use crate::state::State;
use crate::time::Took;

/// Units from bar to bar, and of the place below which the bars stand.
const STEP: u64 = 15;
const BAR: u64 = 11;
const HEIGHT: u64 = 110;
const LOWEST: u64 = 3;
/// Fewer builds leave room at the left.
const ROOM: u64 = 50;

/// A picture of the builds of a job.
#[derive(Debug, Template)]
#[template(path = "chart.html")]
pub(crate) struct Chart {
    job: String,
    bars: Vec<Bar>,
    longest: Took,
    median: Option<(u64, Took)>,
    width: u64,
}

#[derive(Debug)]
struct Bar {
    number: BuildNumber,
    state: State,
    took: Took,
    x: u64,
    height: u64,
}

impl Chart {
    /// Of builds, latest first.
    pub(crate) fn of(job: &str, builds: &[BuildSummary], now: Timestamp) -> Self {
        let took =
            |build: &BuildSummary| Took::between(build.created, build.finished.unwrap_or(now));
        let longest = builds.iter().map(took).max().unwrap_or(Took(0));
        let height = |took: Took| LOWEST + (HEIGHT - LOWEST) * took.0 / longest.0.max(1);
        let room = ROOM.max(builds.len() as u64);
        let first = room - builds.len() as u64;
        let bar = |(place, build): (u64, &BuildSummary)| Bar {
            number: build.number,
            state: State::of_summary(build),
            took: took(build),
            x: place * STEP,
            height: height(took(build)),
        };
        let mut over: Vec<Took> = builds
            .iter()
            .filter(|build| build.finished.is_some())
            .map(took)
            .collect();
        over.sort_unstable();
        let median = over.get(over.len() / 2).copied();
        Self {
            job: job.to_owned(),
            bars: (first..).zip(builds.iter().rev()).map(bar).collect(),
            median: median
                .filter(|_| over.len() > 2)
                .map(|median| (HEIGHT - height(median), median)),
            longest,
            width: room * STEP,
        }
    }
}

impl Bar {
    fn y(&self) -> u64 {
        HEIGHT - self.height
    }
}

// A template, which escapes what it shows.
impl HtmlSafe for Chart {}
