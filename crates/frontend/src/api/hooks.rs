//! Webhooks over HTTP: their endpoints, which have keys of their own, and what is kept of them.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use distci_model::event::{Event, Source};
use distci_model::id::{DeliveryId, JobId};
use distci_model::wire::{Page, Problem, WebhookAnswer, WebhookDelivery, WebhookView};
use distci_store::StoreError;
use tokio::time::timeout;

use super::jobs::Paging;
use crate::app::App;
use crate::error::ApiError;
use crate::hooks::dispatch::{Outcome, Whom, dispatch, gist, whom};
use crate::hooks::{self, Label, Told, generic};

/// Most bytes of a body: so much GitHub sends at most.
const MAX_BODY: usize = 25 * 1024 * 1024;
/// Most bytes of the body of a generic webhook.
const MAX_CALL: usize = 1024 * 1024;
/// How long a body may take: no forge waits longer for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes a forge's webhook for all jobs. The source is `github`, `gitlab`, `gitea` (also Forgejo) or
/// `bitbucket`; who signs with its secret is believed.
#[utoipa::path(post, path = "/hooks/{source}", tag = "webhooks", request_body = String,
    responses((status = 200, body = WebhookAnswer), (status = 202, body = WebhookAnswer,
        description = "no build comes of it"), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 413, body = Problem)))]
pub(super) async fn all(
    State(app): State<App>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    match source_of(&source)? {
        Source::Generic => Err(ApiError::not_found(
            "a generic webhook is of one job: /hooks/generic/JOB",
        )),
        source => forge(&app, (source, Whom::All), &headers, body).await,
    }
}

/// Takes a webhook for one job: a forge's, or with the source `generic` a call of anybody who shows
/// the token of one of the job's `webhook` triggers.
#[utoipa::path(post, path = "/hooks/{source}/{job}", tag = "webhooks", request_body = String,
    responses((status = 200, body = WebhookAnswer), (status = 202, body = WebhookAnswer,
        description = "no build comes of it"), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 413, body = Problem)))]
pub(super) async fn one(
    State(app): State<App>,
    Path((source, job)): Path<(String, JobId)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    match source_of(&source)? {
        Source::Generic => call(&app, job, &headers, body).await,
        source => forge(&app, (source, Whom::Job(job)), &headers, body).await,
    }
}

/// The deliveries of the last 30 days that started no build, or not all; latest first.
#[utoipa::path(get, path = "/webhooks", tag = "webhooks", params(Paging),
    responses((status = 200, body = Page<WebhookDelivery>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<WebhookDelivery>>, ApiError> {
    let cursor = paging.cursor.as_deref().map(str::parse::<DeliveryId>);
    let before = cursor.transpose();
    let before = before.map_err(|error| ApiError::malformed(format!("the cursor: {error}")))?;
    let now = app.now();
    let page = app
        .store
        .list_deliveries(before.as_ref(), paging.limit(), now);
    Ok(Json(page.await?))
}

/// A kept delivery with its body.
#[utoipa::path(get, path = "/webhooks/{id}", tag = "webhooks",
    responses((status = 200, body = WebhookView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<DeliveryId>,
) -> Result<Json<WebhookView>, ApiError> {
    let (delivery, body) = app.store.delivery(&id).await?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Json(WebhookView { delivery, body }))
}

/// Offers a kept delivery to the jobs as they are now. What it has started before is found.
#[utoipa::path(post, path = "/webhooks/{id}/replay", tag = "webhooks",
    responses((status = 200, body = WebhookAnswer), (status = 404, body = Problem)))]
pub(super) async fn replay(
    State(app): State<App>,
    Path(id): Path<DeliveryId>,
) -> Result<Json<WebhookAnswer>, ApiError> {
    let (delivery, body) = app.store.delivery(&id).await?;
    let label = Label {
        event: delivery.event.clone(),
        delivery: delivery.delivery.clone(),
    };
    let told = hooks::told(delivery.source, &label, &body).map_err(unreadable)?;
    let events = match told {
        Told::Events(events) => events,
        Told::Ping | Told::Nothing(_) => Vec::new(),
    };
    let outcome = dispatch(&app, &events, &whom(&delivery)).await;
    let answer = outcome.answer(Some(id));
    app.store.note_replay(delivery, answer.clone()).await?;
    match outcome.error {
        Some(error) => Err(error.into()),
        None => Ok(Json(answer)),
    }
}

fn source_of(name: &str) -> Result<Source, ApiError> {
    let missing =
        || ApiError::not_found("the source is github, gitlab, gitea, bitbucket or generic");
    hooks::source(name).ok_or_else(missing)
}

async fn forge(
    app: &App,
    (source, whom): (Source, Whom),
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let secrets = app.hooks.secrets.of(source);
    if secrets.is_empty() {
        return Err(ApiError::not_found(format!(
            "webhooks of {source} are not switched on: give the frontends a secret, \
             `[hooks] {source}-secret-file`, or to standalone `--webhook-secret {source}=FILE`"
        )));
    }
    let proofs = hooks::proofs(source, headers);
    if proofs.is_empty() {
        let detail = format!("there is no signature of the form that {source} has");
        return Err(ApiError::unsigned(detail));
    }
    let event = hooks::event_name(source, headers);
    let event = event.ok_or_else(|| ApiError::malformed("no header names the event"))?;
    let body = read(app, headers, body, MAX_BODY).await?;
    if !proofs
        .iter()
        .any(|proof| proof.holds(secrets, &body, app.now()))
    {
        return Err(ApiError::unsigned("the signature is not by our secret"));
    }
    let delivery = hooks::delivery_name(source, headers, &body);
    let label = Label { event, delivery };
    let payload = hooks::payload(headers, &body);
    let payload = payload.ok_or_else(|| ApiError::malformed("the form has no `payload`"))?;
    match hooks::told(source, &label, &payload).map_err(unreadable)? {
        Told::Ping => Ok(told_nothing(StatusCode::OK, "pong")),
        Told::Nothing(why) => Ok(told_nothing(StatusCode::ACCEPTED, why)),
        Told::Events(events) => {
            deliver(
                app,
                Received {
                    source,
                    label,
                    payload,
                    whom,
                },
                events,
            )
            .await
        }
    }
}

/// A body that is not JSON is told to someone who is believed.
fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::malformed(format!("the payload: {error}"))
}

fn told_nothing(status: StatusCode, detail: &str) -> Response {
    let answer = WebhookAnswer {
        detail: detail.to_owned(),
        builds: Vec::new(),
        passed_over: Vec::new(),
        kept: None,
    };
    (status, Json(answer)).into_response()
}

async fn call(
    app: &App,
    job: JobId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    // One answer for everything: whoever has no token learns nothing of the jobs.
    let unknown = || {
        ApiError::unsigned(
            "there is no such job, or the token (`Authorization: Bearer` or `X-Distci-Token`) \
             opens none of its `webhook` triggers",
        )
    };
    let token = generic::token_hash(headers).ok_or_else(unknown)?;
    if !app.store.has_webhook(&job, &token).await? {
        return Err(unknown());
    }
    let body = read(app, headers, body, MAX_CALL).await?;
    let delivery = match headers.get("idempotency-key") {
        Some(_) => hooks::delivery_name(Source::Generic, headers, &body),
        // Each call means a build, and equal bodies say nothing.
        None => random()?,
    };
    let event = "webhook".to_owned();
    let label = Label { event, delivery };
    match hooks::told(Source::Generic, &label, &body).map_err(unreadable)? {
        Told::Events(events) => {
            let received = Received {
                source: Source::Generic,
                label,
                payload: body,
                whom: Whom::Webhook(job, token),
            };
            deliver(app, received, events).await
        }
        Told::Ping | Told::Nothing(_) => Ok(told_nothing(StatusCode::ACCEPTED, "nothing")),
    }
}

fn random() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::malformed(error.to_string()))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// Reads a body that nobody vouches for yet.
async fn read(app: &App, headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::too_large(format!("more than {limit} bytes"));
    let announced = headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let reading = async {
        let _held = app.hooks.bodies.acquire().await;
        to_bytes(body, limit).await
    };
    match timeout(PATIENCE, reading).await {
        Ok(Ok(body)) => Ok(body),
        // Either it was too long, or the sender went away and hears nothing of this.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(ApiError::too_slow("the body did not come in time")),
    }
}

/// A delivery whose sender is believed.
struct Received {
    source: Source,
    label: Label,
    payload: Bytes,
    whom: Whom,
}

async fn deliver(app: &App, received: Received, events: Vec<Event>) -> Result<Response, ApiError> {
    let outcome = dispatch(app, &events, &received.whom).await;
    let kept = if outcome.is_unfinished() {
        keep(app, &received, &events, &outcome).await?
    } else {
        None
    };
    let answer = outcome.answer(kept);
    if let Some(error) = outcome.error {
        return Err(error.into());
    }
    let status = if answer.builds.is_empty() {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(answer)).into_response())
}

/// Keeps a delivery, to be looked at and replayed. Of its headers, only names are kept.
async fn keep(
    app: &App,
    received: &Received,
    events: &[Event],
    outcome: &Outcome,
) -> Result<Option<DeliveryId>, StoreError> {
    let (job, token) = match &received.whom {
        Whom::All => (None, None),
        Whom::Job(job) => (Some(job), None),
        Whom::Webhook(job, token) => (Some(job), Some(token)),
    };
    let now = app.now();
    let (source, Label { event, delivery }) = (received.source, &received.label);
    let place = job.map_or("", JobId::as_str);
    let kept = WebhookDelivery {
        id: DeliveryId::derive(now, &format!("{source}\n{delivery}\n{place}")),
        received: now,
        source,
        event: event.clone(),
        delivery: delivery.clone(),
        job: job.cloned(),
        token_sha256: token.cloned(),
        told: events.first().map(gist),
        bytes: received.payload.len() as u64,
        answer: outcome.answer(None),
    };
    let kept = app
        .store
        .keep_delivery(kept, received.payload.clone())
        .await?;
    if kept.is_none() {
        tracing::warn!(%source, "so many webhooks of today started no build that no more are kept");
    }
    Ok(kept)
}
