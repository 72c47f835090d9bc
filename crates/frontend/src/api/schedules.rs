//! The schedules of a job over HTTP.

use axum::Json;
use axum::extract::{Path, Query, State};
use distci_model::id::JobId;
use distci_model::wire::{Problem, ScheduleView};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::error::ApiError;

/// Most moments of each schedule that are told.
const MAX_COUNT: usize = 100;

#[derive(Deserialize, IntoParams)]
pub(crate) struct Counting {
    /// How many moments of each schedule; 5 if it is left out, at most 100.
    pub(crate) count: Option<usize>,
}

/// The schedules of a job: when each was fired last, and when it comes next.
#[utoipa::path(get, path = "/jobs/{job}/schedules", tag = "jobs", params(Counting),
    responses((status = 200, body = Vec<ScheduleView>), (status = 404, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Path(job): Path<JobId>,
    Query(Counting { count }): Query<Counting>,
) -> Result<Json<Vec<ScheduleView>>, ApiError> {
    // Whether there is such a job.
    app.store.job_head(&job).await?;
    let table = app.store.timetable(&job).await?;
    let planned = table.map(|table| table.schedules).unwrap_or_default();
    let count = count.unwrap_or(5).min(MAX_COUNT);
    let now = app.cluster_now();
    let view = planned.into_iter().map(|planned| ScheduleView {
        next: planned
            .schedule(&job)
            .map(|schedule| {
                schedule
                    .moments(planned.last.max(now))
                    .take(count)
                    .collect()
            })
            .unwrap_or_default(),
        cron: planned.cron,
        timezone: planned.timezone,
        catch_up: planned.catch_up,
        last: Some(planned.last),
    });
    Ok(Json(view.collect()))
}
