//! Jobs over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::ETAG;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use distci_model::config::JobConfig;
use distci_model::id::JobId;
use distci_model::revision::RevisionView;
use distci_model::wire::{JobSummary, JobView, Page, PollView, Problem};
use distci_store::{JobHead, Put};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::expected;
use crate::app::App;
use crate::error::ApiError;
use crate::jobs;

/// Most entries of one page.
const MAX_PAGE: usize = 500;

#[derive(Deserialize, IntoParams)]
pub(crate) struct Paging {
    /// Where to go on, from the page before.
    pub(crate) cursor: Option<String>,
    /// Most entries.
    pub(crate) limit: Option<usize>,
}

impl Paging {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(100).clamp(1, MAX_PAGE)
    }
}

/// All jobs by name, each with its latest build.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(Paging),
    responses((status = 200, body = Page<JobSummary>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<JobSummary>>, ApiError> {
    let after = paging.cursor.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| ApiError::malformed("the cursor is no job"))?;
    let listed = jobs::list(&app, |_| true, after, paging.limit()).await?;
    let items = listed.heads.into_iter().map(summary).collect();
    let next = listed.next.map(|last| last.to_string());
    Ok(Json(Page { items, next }))
}

fn summary((job, head): (JobId, Arc<JobHead>)) -> JobSummary {
    JobSummary {
        job,
        description: head.description.clone(),
        revision: head.revision,
        latest: head.builds.first().cloned(),
    }
}

/// A job with its configuration.
#[utoipa::path(get, path = "/jobs/{job}", tag = "jobs",
    responses((status = 200, body = JobView), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(app): State<App>,
    Path(job): Path<JobId>,
) -> Result<Response, ApiError> {
    let view = app.store.job(&job).await?;
    Ok((etag(&view), Json(view)).into_response())
}

/// Gives a job its configuration: the body is a job file. `If-Match` names the revision that it
/// replaces; `If-None-Match: *` makes only a new job.
#[utoipa::path(put, path = "/jobs/{job}", tag = "jobs", request_body = String,
    responses((status = 200, body = JobView), (status = 201, body = JobView),
        (status = 400, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn put(
    State(app): State<App>,
    Path(job): Path<JobId>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, ApiError> {
    let expected = expected(&headers)?;
    let config = JobConfig::parse(&body).map_err(ApiError::invalid_job)?;
    if config.job_id != job {
        let detail = format!(
            "the file is of job \"{}\", the path of \"{job}\"",
            config.job_id
        );
        return Err(ApiError::malformed(detail));
    }
    let (view, put) = app
        .store
        .set_job(&config, expected, app.cluster_now())
        .await?;
    let status = match put {
        Put::Created => StatusCode::CREATED,
        Put::Updated => StatusCode::OK,
    };
    Ok((status, etag(&view), Json(view)).into_response())
}

/// The revisions of a job, the present one first. Where the list ends above 1, the earlier ones were
/// not noted.
#[utoipa::path(get, path = "/jobs/{job}/revisions", tag = "jobs", params(Paging),
    responses((status = 200, body = Page<RevisionView>), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn revisions(
    State(app): State<App>,
    Path(job): Path<JobId>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<RevisionView>>, ApiError> {
    let before = paging.cursor.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| ApiError::malformed("the cursor is no revision"))?;
    let revisions = app.store.revisions(&job, before, paging.limit());
    Ok(Json(revisions.await?))
}

/// A job as it was at a revision.
#[utoipa::path(get, path = "/jobs/{job}/revisions/{revision}", tag = "jobs",
    responses((status = 200, body = JobView), (status = 404, body = Problem)))]
pub(super) async fn revision(
    State(app): State<App>,
    Path((job, revision)): Path<(JobId, u32)>,
) -> Result<Json<JobView>, ApiError> {
    Ok(Json(app.store.revision(&job, revision).await?))
}

/// Removes a job with all that its builds left.
#[utoipa::path(delete, path = "/jobs/{job}", tag = "jobs",
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn delete(
    State(app): State<App>,
    Path(job): Path<JobId>,
) -> Result<StatusCode, ApiError> {
    app.store.remove_job(&job).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The repositories that are looked at for a job.
#[utoipa::path(get, path = "/jobs/{job}/polls", tag = "jobs",
    responses((status = 200, body = Vec<PollView>), (status = 404, body = Problem)))]
pub(crate) async fn polls(
    State(app): State<App>,
    Path(job): Path<JobId>,
) -> Result<Json<Vec<PollView>>, ApiError> {
    Ok(Json(app.store.polls(&job).await?))
}

fn etag(view: &JobView) -> [(http::HeaderName, String); 1] {
    [(ETAG, format!("\"{}\"", view.revision))]
}
