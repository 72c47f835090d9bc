//! The tests of a build.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::id::JobId;
use distci_pages::{Place, Reports};

use super::{Seat, page};
use crate::api::builds::find;
use crate::api::jobs::Paging;
use crate::api::test_reports::{self, Wanted};
use crate::error::ApiError;

/// Builds that are looked at to tell which tests are flaky.
const HISTORY: usize = 20;

pub(super) async fn show(
    seat: Seat,
    Path((job, selector)): Path<(JobId, String)>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let app = &seat.app;
    let build = find(app, job, &selector).await?;
    let at = Path((build.job.clone(), build.number.to_string()));
    let failed = wanted.failed;
    let wanted = Wanted {
        history: Some(HISTORY),
        ..wanted
    };
    let view = test_reports::list(State(app.clone()), at, Query(paging), Query(wanted)).await?;
    let reports = Reports {
        frame: seat.frame(Place::Jobs),
        build,
        view: view.0,
        failed,
    };
    page(StatusCode::OK, &reports)
}
