//! Builds over HTTP.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json as Said;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::ETAG;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use distci_model::build::Answer;
use distci_model::id::{BuildKey, BuildNumber, BuildRef, JobId, TaskName};
use distci_model::wire::{
    AnswerRequest, BuildPhase, BuildSummary, BuildView, MAX_COMMENT, Page, Problem, ReportView,
    RerunRequest, TriggerRequest, Triggered,
};
use distci_store::{Posted, StoreError, Which};
use futures::Stream;
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;

use super::extract::{Json, request_id, wait};
use super::jobs::Paging;
use crate::app::App;
use crate::error::ApiError;

/// Most parameters of a trigger; no job has as many.
const MAX_PARAMETERS: usize = 256;

/// A build by job and number, or by what it is: `latest`, `latest-success`.
pub(crate) async fn find(app: &App, job: JobId, selector: &str) -> Result<BuildRef, ApiError> {
    let which =
        match selector {
            "latest" => Which::Any,
            "latest-success" => Which::Successful,
            number => {
                let number = number.parse().ok().and_then(BuildNumber::new).ok_or_else(|| {
                ApiError::malformed(format!(
                    "{number:?} is neither the number of a build nor latest or latest-success"
                ))
            })?;
                return Ok(BuildRef { job, number });
            }
        };
    Ok(app.store.latest_build(&job, which).await?)
}

/// The builds of a job, latest first.
#[utoipa::path(get, path = "/jobs/{job}/builds", tag = "builds", params(Paging),
    responses((status = 200, body = Page<BuildSummary>), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    Path(job): Path<JobId>,
    Query(paging): Query<Paging>,
) -> Result<Said<Page<BuildSummary>>, ApiError> {
    let before = match &paging.cursor {
        None => None,
        Some(cursor) => {
            let number = cursor.parse().ok().and_then(BuildNumber::new);
            Some(number.ok_or_else(|| ApiError::malformed("the cursor is not a build number"))?)
        }
    };
    Ok(Said(
        app.store.list_builds(&job, before, paging.limit()).await?,
    ))
}

/// Posts a build. The header `Idempotency-Key` (32 hex digits) makes it safe to repeat.
#[utoipa::path(post, path = "/jobs/{job}/builds", tag = "builds", request_body = TriggerRequest,
    responses((status = 201, body = BuildRef), (status = 200, body = Triggered,
        description = "an earlier try had posted it, or it is skipped"),
        (status = 422, body = Problem)))]
pub(super) async fn trigger(
    State(app): State<App>,
    Path(job): Path<JobId>,
    headers: HeaderMap,
    Json(request): Json<TriggerRequest>,
) -> Result<Response, ApiError> {
    if request.parameters.len() > MAX_PARAMETERS {
        let detail = format!("a build has at most {MAX_PARAMETERS} parameters");
        return Err(ApiError::malformed(detail));
    }
    let id = request_id(&headers)?;
    Ok(posted(
        app.store
            .post_build(&job, &id, &request.parameters, app.now())
            .await?,
    ))
}

/// Posts a build with the parameters and the event of an earlier one. Of one that is over, what
/// succeeded may be kept.
#[utoipa::path(post, path = "/jobs/{job}/builds/{build}/rerun", tag = "builds",
    request_body = Option<RerunRequest>,
    responses((status = 201, body = BuildRef), (status = 200, body = Triggered,
        description = "an earlier try had posted it, or it is skipped"),
        (status = 404, body = Problem)))]
pub(super) async fn rerun(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let build = find(&app, job, &selector).await?;
    let id = request_id(&headers)?;
    let wish: RerunRequest = if body.is_empty() {
        RerunRequest::default()
    } else {
        let parsed = serde_json::from_slice(&body);
        parsed.map_err(|error| ApiError::malformed(error.to_string()))?
    };
    let (at, again) = (app.now(), wish.into());
    let rerun = app.store.rerun_build(&build, &again, &id, at);
    Ok(posted(rerun.await?))
}

/// What the forge has not heard yet of a build.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/report", tag = "builds",
    responses((status = 200, body = ReportView),
        (status = 204, description = "it has heard all, or is told nothing"),
        (status = 404, body = Problem)))]
pub(super) async fn report(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
) -> Result<Response, ApiError> {
    let build = find(&app, job, &selector).await?;
    Ok(match app.store.report(&build).await? {
        Some(report) => Said(report).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

fn posted(posted: Posted) -> Response {
    let (status, triggered) = match posted {
        Posted::Build { build, fresh: true } => (StatusCode::CREATED, Triggered::Build(build)),
        Posted::Build { build, .. } => (StatusCode::OK, Triggered::Build(build)),
        Posted::Skipped { holder } => (StatusCode::OK, Triggered::Skipped { skipped: holder }),
    };
    (status, Said(triggered)).into_response()
}

/// Asks to cancel a build. Its tasks are stopped; what has ended stays as it ended.
#[utoipa::path(post, path = "/jobs/{job}/builds/{build}/cancel", tag = "builds",
    responses((status = 202), (status = 404, body = Problem)))]
pub(super) async fn cancel(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
) -> Result<StatusCode, ApiError> {
    let build = find(&app, job, &selector).await?;
    app.store.cancel_build(&build, app.now()).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Asks to cancel one task of a build. The build goes on as if it had failed.
#[utoipa::path(post, path = "/jobs/{job}/builds/{build}/tasks/{task}/cancel", tag = "builds",
    responses((status = 202), (status = 404, body = Problem)))]
pub(super) async fn stop_task(
    State(app): State<App>,
    Path((job, selector, task)): Path<(JobId, String, TaskName)>,
) -> Result<StatusCode, ApiError> {
    let build = find(&app, job, &selector).await?;
    app.store.stop_task(&build, &task, app.now()).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Answers a task that asks whether to go on. The first answer counts.
#[utoipa::path(post, path = "/jobs/{job}/builds/{build}/tasks/{task}/answer", tag = "builds",
    request_body = AnswerRequest,
    responses((status = 202), (status = 404, body = Problem),
        (status = 422, description = "it does not ask", body = Problem)))]
pub(super) async fn answer_task(
    State(app): State<App>,
    Path((job, selector, task)): Path<(JobId, String, TaskName)>,
    Json(request): Json<AnswerRequest>,
) -> Result<StatusCode, ApiError> {
    if request.comment.len() > MAX_COMMENT {
        let detail = format!("a comment has at most {MAX_COMMENT} bytes");
        return Err(ApiError::malformed(detail));
    }
    let build = find(&app, job, &selector).await?;
    let answer = Answer {
        approved: request.approved,
        comment: request.comment,
        at: app.now(),
    };
    app.store.answer_task(&build, &task, &answer).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Where a build stands, in short.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/state", tag = "builds",
    responses((status = 200, body = BuildSummary), (status = 404, body = Problem)))]
pub(super) async fn state(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
) -> Result<Said<BuildSummary>, ApiError> {
    let build = find(&app, job, &selector).await?;
    let view = app.store.build(&build).await?;
    Ok(Said(BuildSummary {
        number: view.build.number,
        phase: view.phase,
        outcome: view.outcome,
        cause: view.cause,
        created: view.created,
        finished: view.finished,
    }))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct Watching {
    /// The `ETag` of the answer that is known already.
    seen: Option<String>,
    /// Seconds to wait for another answer.
    #[serde(default)]
    wait: u64,
}

/// A build with everything about it. With `seen` and `wait`, held until that has changed.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}", tag = "builds", params(Watching),
    responses((status = 200, body = BuildView), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(watching): Query<Watching>,
) -> Result<Response, ApiError> {
    let build = find(&app, job, &selector).await?;
    let deadline = tokio::time::Instant::now() + wait(watching.wait);
    let mut watcher = Watcher::of(&app, build).await?;
    loop {
        let (body, tag, _) = watcher.look(&app).await?;
        let seen = watching.seen.as_deref().map(|seen| seen.trim_matches('"'));
        let news = seen != Some(tag.as_str());
        if news || !watcher.changed(&app, deadline).await {
            let json = "application/json";
            let headers = [
                (http::header::CONTENT_TYPE, json.to_owned()),
                (ETAG, format!("\"{tag}\"")),
            ];
            return Ok((headers, body).into_response());
        }
    }
}

/// A build as it changes: server-sent events, each a whole view.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/events", tag = "builds",
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 404, body = Problem)))]
pub(super) async fn events(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let build = find(&app, job, &selector).await?;
    let watcher = Watcher::of(&app, build).await?;
    let seen = headers
        .get("last-event-id")
        .and_then(|id| Some(id.to_str().ok()?.to_owned()));
    let start = Some((app, watcher, seen));
    let stream = futures::stream::unfold(start, async |state| {
        let (app, mut watcher, seen) = state?;
        loop {
            let (body, tag, phase) = watcher.look(&app).await.ok()?;
            let over = phase == BuildPhase::Finished;
            if seen.as_deref() != Some(tag.as_str()) {
                let event = Event::default().event("build").id(&tag).data(body);
                let next = (!over).then_some((app, watcher, Some(tag)));
                return Some((Ok(event), next));
            }
            let soon = tokio::time::Instant::now() + Duration::from_secs(30);
            if over || app.stop.is_cancelled() {
                return None;
            }
            watcher.changed(&app, soon).await;
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// Looks at one build again and again.
struct Watcher {
    build: BuildRef,
    calls: watch::Receiver<()>,
}

impl Watcher {
    async fn of(app: &App, build: BuildRef) -> Result<Self, StoreError> {
        let key: BuildKey = app.store.build_key(&build).await?;
        Ok(Self {
            build,
            calls: app.builds.subscribe(&key),
        })
    }

    /// The build now: as JSON, with a tag that changes with it.
    async fn look(&mut self, app: &App) -> Result<(String, String, BuildPhase), StoreError> {
        self.calls.mark_unchanged();
        let view = app.store.build(&self.build).await?;
        let body = serde_json::to_string(&view).unwrap_or_default();
        let tag = blake3::hash(body.as_bytes()).to_hex()[..16].to_owned();
        Ok((body, tag, view.phase))
    }

    /// Whether there was a call before `deadline`.
    async fn changed(&mut self, app: &App, deadline: tokio::time::Instant) -> bool {
        tokio::select! {
            changed = self.calls.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(deadline) => false,
            () = app.stop.cancelled() => false,
        }
    }
}
