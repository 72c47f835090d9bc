//! Home: all jobs, how they stand, and what runs now.

use askama::Template;
use distci_model::Timestamp;
use distci_model::id::{BuildRef, JobId};
use distci_model::wire::BuildSummary;

use crate::assets::Asset;
use crate::frame::Frame;
use crate::spark::Spark;
use crate::state::State;
use crate::time::{Ago, Took};
use crate::words::{self, Segment};

/// All jobs, a page of them.
#[derive(Debug, Template)]
#[template(path = "home.html")]
pub struct Home {
    /// What surrounds it.
    pub frame: Frame,
    /// When it is made.
    pub now: Timestamp,
    /// What the names of the jobs shall contain.
    pub query: String,
    /// How many jobs there are, and how many of them fit.
    pub jobs: usize,
    /// How many fit.
    pub fitting: usize,
    /// The jobs of this page, by name.
    pub rows: Vec<Row>,
    /// The first job of the next page comes after this one.
    pub next: Option<JobId>,
    /// Whether this is a later page.
    pub is_later: bool,
    /// Some of the builds that run now.
    pub running: Vec<Running>,
    /// How many tickets workers hold, and how many wait.
    pub claimed: usize,
    /// How many wait.
    pub queued: usize,
}

/// A job of the list.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub job: JobId,
    /// What it is for.
    pub description: Option<String>,
    /// Its last builds, latest first.
    pub builds: Vec<BuildSummary>,
}

impl Row {
    fn latest(&self) -> Option<&BuildSummary> {
        self.builds.first()
    }

    fn state(&self) -> State {
        self.latest().map_or(State::None, State::of_summary)
    }

    fn spark(&self, now: &Timestamp) -> Spark {
        Spark::of(&self.builds, *now)
    }

    fn cause(&self) -> String {
        self.latest()
            .map(|build| words::cause(&build.cause))
            .unwrap_or_default()
    }
}

/// A build that runs.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub build: BuildRef,
    /// The task of it that has been worked on longest, if one is.
    pub task: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

impl Home {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago {
            at: *at,
            now: self.now,
        }
    }

    fn took(&self, build: &BuildSummary) -> Took {
        Took::between(build.created, build.finished.unwrap_or(self.now))
    }

    /// The address of another page of the same list.
    fn page_after(&self, job: &JobId) -> String {
        let after = Segment(job.as_str());
        match self.query.as_str() {
            "" => format!("/?after={after}"),
            query => format!("/?q={}&after={after}", Segment(query)),
        }
    }
}
