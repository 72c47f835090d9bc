//! Calls about the tests of builds.

use distci_model::id::{BuildRef, JobId, TaskName};
use distci_model::test_report::{TestHistoryView, TestsView};

use crate::builds::build_path;
use crate::call::Call;
use crate::path::Path;
use crate::{Client, ClientError};

/// Which tests of a build to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct TestsWanted<'a> {
    /// Only those that failed or could not be run to their end.
    pub failed: bool,
    /// Only those of this task.
    pub task: Option<&'a TaskName>,
    /// Say of each whether it is flaky, as so many builds show.
    pub history: Option<usize>,
}

/// Which test of a job to follow.
#[derive(Debug, Clone, Copy)]
pub struct TestCalled<'a> {
    /// Its name, or suite and name with `::` between.
    pub name: &'a str,
    /// Only of this task.
    pub task: Option<&'a TaskName>,
    /// How many builds to look at.
    pub builds: usize,
}

impl Client {
    /// A page of the tests of a build, those that failed first, then the slowest.
    pub async fn tests(
        &self,
        build: &BuildRef,
        wanted: TestsWanted<'_>,
        cursor: Option<&str>,
    ) -> Result<TestsView, ClientError> {
        let path = build_path(build, &["tests"])
            .with("failed", wanted.failed)
            .with_some("task", wanted.task)
            .with_some("history", wanted.history)
            .with_some("cursor", cursor);
        self.answer(&Call::get(path)).await?.json()
    }

    /// What became of the tests of one name in the latest builds of a job.
    pub async fn test_history(
        &self,
        job: &JobId,
        called: TestCalled<'_>,
        cursor: Option<&str>,
    ) -> Result<TestHistoryView, ClientError> {
        let path = Path::api(&["jobs", job.as_str(), "tests"])
            .with("name", called.name)
            .with_some("task", called.task)
            .with("builds", called.builds)
            .with_some("cursor", cursor);
        self.answer(&Call::get(path)).await?.json()
    }
}
