//! A build: its page, and what its forms do.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::build::Answer;
use distci_model::id::{BuildNumber, BuildRef, JobId, TaskName};
use distci_model::journal::stretches;
use distci_model::rerun::Again;
use distci_model::wire::MAX_COMMENT;
use distci_pages::{Build, Place};
use distci_store::{Store, StoreError};

use super::form::Form;
use super::{Seat, address, page, see, wish};
use crate::api::builds::find;
use crate::api::why;
use crate::error::ApiError;

pub(super) async fn show(
    seat: Seat,
    Path((job, selector)): Path<(JobId, String)>,
) -> Result<Response, ApiError> {
    let app = &seat.app;
    let build = find(app, job, &selector).await?;
    let at = Path((build.job.clone(), build.number.to_string()));
    let (view, artifacts, journal, previous) = tokio::try_join!(
        app.store.build(&build),
        app.store.artifacts(&build),
        app.store.journal(&build),
        previous(&app.store, &build)
    )?;
    let why = why::get(State(app.clone()), at).await?;
    let build = Build {
        frame: seat.frame(Place::Jobs),
        now: app.now(),
        view,
        why: why.0,
        artifacts,
        previous,
        stretches: stretches(&journal),
        request: wish()?,
    };
    page(StatusCode::OK, &build)
}

/// The build before one, and the revision that it is of; none if it is not there.
async fn previous(
    store: &Store,
    build: &BuildRef,
) -> Result<Option<(BuildNumber, u32)>, StoreError> {
    let Some(number) = BuildNumber::new(build.number.get() - 1) else {
        return Ok(None);
    };
    let before = BuildRef {
        job: build.job.clone(),
        number,
    };
    match store.build(&before).await {
        Ok(view) => Ok(Some((number, view.revision))),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks to cancel it.
pub(super) async fn cancel(
    Path((job, selector)): Path<(JobId, String)>,
    form: Form,
) -> Result<Response, ApiError> {
    let app = &form.seat.app;
    let build = find(app, job, &selector).await?;
    app.store.cancel_build(&build, app.now()).await?;
    Ok(see(&address(&build)))
}

/// Runs it again, and leads to the new one.
pub(super) async fn rerun(
    Path((job, selector)): Path<(JobId, String)>,
    form: Form,
) -> Result<Response, ApiError> {
    let app = &form.seat.app;
    let build = find(app, job, &selector).await?;
    let again = match form.get("what") {
        Some("failed") => Again::Failed,
        Some("from") => {
            let task = form.get("from").unwrap_or_default().parse();
            let task = task.map_err(|_| ApiError::malformed("the form names no task"))?;
            Again::From { task }
        }
        _ => Again::All,
    };
    let request = form.request()?;
    let rerun = app.store.rerun_build(&build, &again, &request, app.now());
    Ok(see(&address(&rerun.await?.shown())))
}

/// Asks to cancel one task.
pub(super) async fn stop_task(
    Path((job, selector, task)): Path<(JobId, String, TaskName)>,
    form: Form,
) -> Result<Response, ApiError> {
    let app = &form.seat.app;
    let build = find(app, job, &selector).await?;
    app.store.stop_task(&build, &task, app.now()).await?;
    Ok(see(&format!("{}#task-{task}", address(&build))))
}

/// Answers a task that asks.
pub(super) async fn answer_task(
    Path((job, selector, task)): Path<(JobId, String, TaskName)>,
    form: Form,
) -> Result<Response, ApiError> {
    let app = &form.seat.app;
    let build = find(app, job, &selector).await?;
    let approved = match form.get("answer") {
        Some("approve") => true,
        Some("reject") => false,
        _ => return Err(ApiError::malformed("the form says neither yes nor no")),
    };
    let comment = form.get("comment").unwrap_or_default().trim();
    if comment.len() > MAX_COMMENT {
        let detail = format!("a comment has at most {MAX_COMMENT} bytes");
        return Err(ApiError::malformed(detail));
    }
    let answer = Answer {
        approved,
        comment: comment.to_owned(),
        at: app.now(),
    };
    app.store.answer_task(&build, &task, &answer).await?;
    Ok(see(&address(&build)))
}
