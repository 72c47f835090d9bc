//! A job: its page, its badge, and the form that asks for a build.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use distci_model::id::{BuildNumber, JobId};
use distci_pages::{Badge, Job, Page, Place, Wish};
use serde::Deserialize;

use super::form::Form;
use super::{Seat, address, page, see, wish};
use crate::api::{jobs, schedules};
use crate::error::ApiError;

/// Builds of one page.
const BUILDS: usize = 50;
/// Moments of each schedule.
const MOMENTS: usize = 1;

#[derive(Default, Deserialize)]
pub(super) struct Wanted {
    /// Builds before this one.
    before: Option<u64>,
}

pub(super) async fn show(
    seat: Seat,
    Path(job): Path<JobId>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let wish = Wish {
        request: wish()?,
        given: BTreeMap::new(),
        refused: None,
    };
    shown(&seat, job, &wanted, wish).await
}

async fn shown(seat: &Seat, job: JobId, wanted: &Wanted, wish: Wish) -> Result<Response, ApiError> {
    let app = &seat.app;
    let before = wanted.before.and_then(BuildNumber::new);
    let counting = schedules::Counting {
        count: Some(MOMENTS),
    };
    let (view, builds) = tokio::try_join!(
        app.store.job(&job),
        app.store.list_builds(&job, before, BUILDS)
    )?;
    let (schedules, polls) = tokio::try_join!(
        schedules::list(State(app.clone()), Path(job.clone()), Query(counting)),
        jobs::polls(State(app.clone()), Path(job.clone())),
    )?;
    let status = match wish.refused {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    };
    let job = Job {
        frame: seat.frame(Place::Jobs),
        now: app.now(),
        view,
        next: builds.next,
        builds: builds.items,
        is_later: before.is_some(),
        schedules: schedules.0,
        polls: polls.0,
        wish,
    };
    page(status, &job)
}

/// Where the builds of a job are listed.
pub(super) async fn lead(Path(job): Path<JobId>) -> Response {
    see(&format!("/jobs/{job}"))
}

/// Posts a build, and leads to it; what is wrong with the values is told beside them.
pub(super) async fn trigger(Path(job): Path<JobId>, form: Form) -> Result<Response, ApiError> {
    let given = form.named("p.");
    let given: BTreeMap<String, String> = given
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let (app, request) = (&form.seat.app, form.request()?);
    let posted = app
        .store
        .post_build(&job, &request, &given, app.now())
        .await;
    match posted.map_err(ApiError::from) {
        Ok(posted) => Ok(see(&address(&posted.shown()))),
        Err(error) => {
            let Some(refused) = error.refusal().map(str::to_owned) else {
                return Err(error);
            };
            let wish = Wish {
                request: wish()?,
                given,
                refused: Some(refused),
            };
            shown(&form.seat, job, &Wanted::default(), wish).await
        }
    }
}

/// How the latest build stands, as a small picture.
pub(super) async fn badge(seat: Seat, Path(job): Path<JobId>) -> Result<Response, ApiError> {
    let head = seat.app.store.job_with_builds(&job, 1).await?;
    let latest = head.builds.first();
    let badge = Badge {
        label: job.to_string(),
        state: latest.map_or(distci_pages::State::None, distci_pages::State::of_summary),
    };
    let picture = badge.html().map_err(|error| ApiError::unrendered(&error))?;
    let headers = [(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, picture).into_response())
}
