//! Caches over HTTP, for who holds a claim.

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use distci_model::id::{Attempt, TicketKey};
use distci_model::wire::{CacheFound, Place, Problem, Uploaded};
use distci_store::keys::CacheEntry;

use super::artifacts::{self, Directly, Size, lead, upload};
use crate::app::App;
use crate::error::ApiError;

/// The newest state of a cache that the build of this claim may read.
#[utoipa::path(get, path = "/tickets/{ticket}/{attempt}/caches/{name}", tag = "worker",
    responses((status = 200, body = CacheFound), (status = 204, description = "There is none"),
        (status = 409, body = Problem)))]
pub(super) async fn find(
    State(app): State<App>,
    Path((ticket, attempt, name)): Path<(TicketKey, u32, String)>,
) -> Result<Response, ApiError> {
    let attempt = Attempt::new(attempt);
    let found = app.store.find_cache(&ticket, attempt, &name).await?;
    Ok(match found {
        Some((CacheEntry { scope, id, .. }, bytes)) => {
            Answer(CacheFound { scope, id, bytes }).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Reads one state of a cache.
#[utoipa::path(get, path = "/tickets/{ticket}/{attempt}/caches/{name}/{scope}/{id}", tag = "worker",
    params(Directly),
    responses((status = 307, description = "It is there, to be read without a token"),
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, body = Problem)))]
pub(super) async fn get(
    State(app): State<App>,
    Path((ticket, attempt, name, scope, id)): Path<(TicketKey, u32, String, String, String)>,
    Query(how): Query<Directly>,
) -> Result<Response, ApiError> {
    let entry = CacheEntry::of(&scope, &name, &id)
        .ok_or_else(|| ApiError::not_found(format!("there is no cache {name:?}")))?;
    let attempt = Attempt::new(attempt);
    if how.direct
        && let Some(address) = app.store.cache_address(&ticket, attempt, &entry).await?
    {
        return Ok(lead(&address));
    }
    let (size, pieces) = app.store.cache(&ticket, attempt, &entry).await?;
    Ok((
        [(CONTENT_LENGTH, size.to_string())],
        Body::from_stream(pieces),
    )
        .into_response())
}

/// Where to store what a cache holds now, if not here.
#[utoipa::path(post, path = "/tickets/{ticket}/{attempt}/caches/{name}", tag = "worker",
    params(Size),
    responses((status = 200, body = Place), (status = 204, description = "Here, by PUT"),
        (status = 409, body = Problem)))]
pub(super) async fn place(
    State(app): State<App>,
    Path((ticket, attempt, name)): Path<(TicketKey, u32, String)>,
    Query(size): Query<Size>,
) -> Result<Response, ApiError> {
    let attempt = Attempt::new(attempt);
    let address = app.store.cache_place(&ticket, attempt, &name, size.bytes);
    Ok(artifacts::place(address.await?))
}

/// Stores what a cache holds now.
#[utoipa::path(put, path = "/tickets/{ticket}/{attempt}/caches/{name}", tag = "worker",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Uploaded), (status = 409, body = Problem)))]
pub(super) async fn put(
    State(app): State<App>,
    Path((ticket, attempt, name)): Path<(TicketKey, u32, String)>,
    body: Body,
) -> Result<Answer<Uploaded>, ApiError> {
    let attempt = Attempt::new(attempt);
    let stored = app.store.put_cache(&ticket, attempt, &name, upload(body));
    let bytes = stored.await?;
    Ok(Answer(Uploaded { bytes }))
}
