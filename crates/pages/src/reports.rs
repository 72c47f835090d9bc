//! The tests of a build, those that failed first.

use askama::Template;
use distci_model::id::BuildRef;
use distci_model::test_report::{TestOutcome, TestView, TestsView};

use crate::assets::Asset;
use crate::frame::Frame;
use crate::state::State;
use crate::words::Segment;

/// The tests of a build.
#[derive(Debug, Template)]
#[template(path = "reports.html")]
pub struct Reports {
    /// What surrounds it.
    pub frame: Frame,
    /// Of which build.
    pub build: BuildRef,
    /// A page of its tests.
    pub view: TestsView,
    /// Whether only those that failed are shown.
    pub failed: bool,
}

impl Reports {
    fn state(&self) -> State {
        match (self.view.counts.bad(), self.view.counts.total()) {
            (1.., _) => State::Failure,
            (0, 1..) => State::Success,
            (0, 0) => State::None,
        }
    }

    fn state_of(view: &TestView) -> State {
        match view.test.outcome {
            TestOutcome::Failed => State::Failure,
            TestOutcome::Errored => State::Fault,
            TestOutcome::Passed => State::Success,
            TestOutcome::Skipped => State::Skipped,
        }
    }

    fn favicon(&self) -> &'static str {
        Asset::favicon(self.state()).path()
    }

    fn address(&self) -> String {
        format!("/jobs/{}/builds/{}", self.build.job, self.build.number)
    }

    fn console(&self, view: &TestView) -> String {
        let task = Segment(view.task.as_str());
        format!("{}/console?task={task}", self.address())
    }

    /// The address of the next page.
    fn next(&self) -> Option<String> {
        let cursor = self.view.next.as_deref()?;
        let failed = if self.failed { "&failed=true" } else { "" };
        Some(format!(
            "{}/tests?cursor={}{failed}",
            self.address(),
            Segment(cursor)
        ))
    }

    fn took(view: &TestView) -> String {
        match view.test.duration_ms {
            Some(ms @ 0..1000) => format!("{ms} ms"),
            Some(ms) => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
            None => String::new(),
        }
    }
}
