//! The queue, the workers, and this frontend itself.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use distci_model::capability::Capabilities;
use distci_model::id::FrontendId;
use distci_model::wire::{
    FrontendView, Page, Problem, QueueView, Version, WorkerClaim, WorkerView,
};
use distci_store::{Card, StoreError};

use super::jobs::Paging;
use super::locks::Blocks;
use crate::app::App;
use crate::board::Queued;
use crate::error::ApiError;
use crate::metrics::{Depth, OPENMETRICS};

/// Whether the process runs.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200)))]
pub(super) async fn livez() -> StatusCode {
    StatusCode::OK
}

/// Whether requests can be served: the store answers, this frontend has taken in what it holds, and
/// nobody asked to stop.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200), (status = 503, body = Problem)))]
pub(super) async fn readyz(State(app): State<App>) -> Result<StatusCode, ApiError> {
    if app.stop.is_cancelled() {
        return Ok(StatusCode::SERVICE_UNAVAILABLE);
    }
    app.store.check().await?;
    if !*app.current.borrow() {
        let behind = "this frontend has not yet taken in what the store holds";
        return Err(StoreError::Down(behind.into()).into());
    }
    Ok(StatusCode::OK)
}

/// What this program is.
#[utoipa::path(get, path = "/version", tag = "health", responses((status = 200, body = Version)))]
pub(super) async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Measurements as text that Prometheus reads.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let depth = app.board.demand().iter().map(|row| row.queued).sum();
    let text = app.metrics.encode(Depth {
        queued: depth,
        claimed: app.leases.all().len(),
        waiting: app.board.waiting().len(),
    });
    ([(CONTENT_TYPE, OPENMETRICS)], text).into_response()
}

/// The tickets that wait for a worker, most urgent first.
#[utoipa::path(get, path = "/queue", tag = "cluster", params(Paging),
    responses((status = 200, body = Page<QueueView>)))]
pub(crate) async fn queue(
    State(app): State<App>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<QueueView>>, ApiError> {
    let skip: usize = match &paging.cursor {
        None => 0,
        Some(cursor) => cursor
            .parse()
            .map_err(|_| ApiError::malformed("the cursor is not a number"))?,
    };
    let end = skip.saturating_add(paging.limit());
    let entries = app.board.queued(end.saturating_add(1));
    let more = entries.len() > end;
    let mut items = Vec::new();
    let mut blocks = Blocks::default();
    for queued in entries.into_iter().take(end).skip(skip) {
        let Queued {
            entry,
            requires,
            workers,
        } = queued;
        // Claimed since it was listed.
        let Some(facts) = app.store.ticket_facts(&entry.key).await? else {
            continue;
        };
        let blocked = match &facts.blocked {
            Some(blocked) => Some(blocks.of(&app, blocked).await?),
            None => None,
        };
        items.push(QueueView {
            since: entry.stamp.time(),
            ticket: entry.key,
            about: facts.about,
            requires,
            workers,
            blocked,
        });
    }
    Ok(Json(Page {
        items,
        next: more.then(|| end.to_string()),
    }))
}

/// The workers that wait at this frontend or hold a claim.
#[utoipa::path(get, path = "/workers", tag = "cluster",
    responses((status = 200, body = Vec<WorkerView>)))]
pub(crate) async fn workers(State(app): State<App>) -> Result<Json<Vec<WorkerView>>, ApiError> {
    let mut workers = BTreeMap::new();
    for waiting in app.board.waiting() {
        let view: &mut WorkerView = workers
            .entry(waiting.worker.clone())
            .or_insert_with(|| idle(waiting.worker.clone()));
        let known = view.capabilities.take().unwrap_or_default();
        let all = known.iter().chain(waiting.capabilities.iter()).cloned();
        view.capabilities = Some(all.collect::<Capabilities>());
        view.waiting += 1;
    }
    for claim in app.leases.all() {
        let Some(facts) = app.store.ticket_facts(&claim.key).await? else {
            continue;
        };
        let Some(claimed) = facts.claimed else {
            continue;
        };
        let view = workers
            .entry(claimed.worker.clone())
            .or_insert_with(|| idle(claimed.worker.clone()));
        // Whoever was asked to leave has claimed nothing since.
        let asked = app.drains.asks(&claimed.worker, claimed.since);
        view.draining |= asked.is_some();
        view.claims.push(WorkerClaim {
            ticket: claim.key,
            attempt: facts.attempt,
            about: facts.about,
            since: claimed.since,
        });
    }
    Ok(Json(workers.into_values().collect()))
}

/// The frontends that serve this store, by their own account.
#[utoipa::path(get, path = "/frontends", tag = "cluster",
    responses((status = 200, body = Vec<FrontendView>)))]
pub(crate) async fn frontends(State(app): State<App>) -> Json<Vec<FrontendView>> {
    let own = app.peers.own();
    let view = |(frontend, card): (FrontendId, Card)| FrontendView {
        here: own.as_ref() == Some(&frontend),
        frontend,
        address: card.address,
        version: card.version,
        since: card.since,
    };
    Json(app.peers.all().into_iter().map(view).collect())
}

fn idle(worker: distci_model::id::WorkerName) -> WorkerView {
    WorkerView {
        worker,
        capabilities: None,
        waiting: 0,
        claims: Vec::new(),
        draining: false,
    }
}
