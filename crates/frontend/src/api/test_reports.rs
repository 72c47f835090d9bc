//! Test reports over HTTP: those of a build, and the history of one test.

use axum::Json as Answer;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use distci_model::id::{Attempt, BuildNumber, JobId, TaskName, TicketKey};
use distci_model::test_report::{TestHistoryView, TestOutcome, TestReport, TestView, TestsView};
use distci_model::wire::Problem;
use distci_store::Lately;
use serde::Deserialize;
use utoipa::IntoParams;

use super::builds::find;
use super::extract::Json;
use super::jobs::Paging;
use crate::app::App;
use crate::error::ApiError;

/// How many builds a history shows, if nobody says.
const BUILDS: usize = 30;

#[derive(Deserialize, IntoParams)]
pub(crate) struct Wanted {
    /// Only those that failed or could not be run to their end.
    #[serde(default)]
    pub(crate) failed: bool,
    /// Only those of this task.
    #[param(value_type = Option<String>)]
    pub(crate) task: Option<TaskName>,
    /// Say of each whether it is flaky, as that many builds until this one show; at most 100.
    pub(crate) history: Option<usize>,
}

/// The tests of a build as far as its tasks have ended: those that failed first, then the slowest.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/tests", tag = "builds",
    params(Paging, Wanted),
    responses((status = 200, body = TestsView), (status = 404, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<TestsView>, ApiError> {
    let begin = match &paging.cursor {
        Some(cursor) => cursor
            .parse()
            .map_err(|_| ApiError::malformed(format!("cursor {cursor:?} is none of this list")))?,
        None => 0,
    };
    let build = find(&app, job, &selector).await?;
    let all = app.store.build_tests(&build).await?;
    let is_wanted = |view: &TestView| {
        let of_task = wanted.task.as_ref().is_none_or(|task| *task == view.task);
        of_task && (!wanted.failed || view.test.outcome.is_bad())
    };
    let mut tests: Vec<TestView> = all.tests.into_iter().filter(is_wanted).collect();
    tests.sort_by(|a, b| rank(a).cmp(&rank(b)));
    let end = tests.len().min(begin + paging.limit());
    let next = (end < tests.len()).then(|| end.to_string());
    let mut items: Vec<TestView> = tests.drain(begin.min(end)..end).collect();
    if let Some(builds) = wanted.history.filter(|builds| *builds > 0) {
        app.store.mark_flaky(&build, builds, &mut items).await?;
    }
    Ok(Answer(TestsView {
        counts: all.counts,
        left_out: all.left_out,
        items,
        next,
    }))
}

/// Where a test comes in the list: what is bad before what is not, then the slowest, then by name.
fn rank(view: &TestView) -> impl Ord + '_ {
    let test = &view.test;
    let skipped = test.outcome == TestOutcome::Skipped;
    let slowest = std::cmp::Reverse(test.duration_ms);
    let name = (&test.suite, &test.name, &view.task);
    (!test.outcome.is_bad(), skipped, slowest, name)
}

#[derive(Deserialize, IntoParams)]
pub(super) struct Called {
    /// What the test is called: its name, or suite and name with `::` between.
    name: String,
    /// Only of this task.
    #[param(value_type = Option<String>)]
    task: Option<TaskName>,
    /// How many builds to look at; at most 100.
    builds: Option<usize>,
    /// Only builds before this one; from the page before.
    #[param(value_type = Option<u64>)]
    cursor: Option<BuildNumber>,
}

/// What became of the tests of one name in the latest builds of a job, and whether they are flaky.
#[utoipa::path(get, path = "/jobs/{job}/tests", tag = "jobs", params(Called),
    responses((status = 200, body = TestHistoryView), (status = 404, body = Problem)))]
pub(super) async fn history(
    State(app): State<App>,
    Path(job): Path<JobId>,
    Query(called): Query<Called>,
) -> Result<Answer<TestHistoryView>, ApiError> {
    let lately = Lately {
        before: called.cursor,
        builds: called.builds.unwrap_or(BUILDS),
    };
    let (name, task) = (&called.name, called.task.as_ref());
    let history = app.store.test_history(&job, name, task, lately).await?;
    Ok(Answer(history))
}

/// Stores what the tests of an attempt came to.
#[utoipa::path(put, path = "/tickets/{ticket}/{attempt}/tests", tag = "worker",
    request_body = TestReport, responses((status = 204), (status = 409, body = Problem)))]
pub(super) async fn put(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    Json(report): Json<TestReport>,
) -> Result<StatusCode, ApiError> {
    let attempt = Attempt::new(attempt);
    app.store.put_tests(&ticket, attempt, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}
