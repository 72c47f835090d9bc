//! Artifacts, layers and summaries over HTTP, streamed both ways.

mod archive;

use axum::Json as Answer;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use distci_model::id::{Attempt, BuildNumber, JobId, TaskName, TicketKey};
use distci_model::wire::{ArtifactManifest, ArtifactView, Place, Problem, Uploaded};
use distci_store::blobs::SignedUrl;
use distci_store::{LayerOf, StoredArtifact};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Deserialize;
use utoipa::IntoParams;

use super::builds::find;
use super::extract::{Json, byte_range};
use crate::app::App;
use crate::error::ApiError;

/// The artifacts of a build, by path.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/artifacts", tag = "builds",
    responses((status = 200, body = Vec<ArtifactView>), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
) -> Result<Answer<Vec<ArtifactView>>, ApiError> {
    let build = find(&app, job, &selector).await?;
    Ok(Answer(app.store.artifacts(&build).await?))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct Directly {
    /// Lead to the blob store itself, if it has such addresses: for who can reach it.
    #[serde(default)]
    pub(super) direct: bool,
}

/// Leads to the blob store. What it leads to is a secret, and soon of no use.
pub(super) fn lead(address: &SignedUrl) -> Response {
    let headers = [(LOCATION, address.reveal()), (CACHE_CONTROL, "no-store")];
    (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
}

/// The content of an artifact. `Range` is honoured; the `ETag` is its BLAKE3 digest.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/artifacts/{*path}", tag = "builds",
    params(Directly),
    responses((status = 307, description = "It is there, to be read without a token"),
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, body = Problem), (status = 416, body = Problem)))]
pub(super) async fn get(
    State(app): State<App>,
    Path((job, selector, path)): Path<(JobId, String, String)>,
    Query(how): Query<Directly>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let build = find(&app, job, &selector).await?;
    let found = app.store.artifact(&build, &path).await?;
    if how.direct
        && let Some(address) = app.store.artifact_address(&found).await?
    {
        return Ok(lead(&address));
    }
    let content = content(&app, &found, &headers).await?;
    // What a build made is data: no browser shall run it on this site.
    Ok(([(CONTENT_DISPOSITION, "attachment")], content).into_response())
}

/// The content of an artifact, as far as was asked for.
pub(crate) async fn content(
    app: &App,
    found: &StoredArtifact,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let artifact = &found.artifact;
    let bytes = artifact.bytes;
    let range = if bytes > 0 {
        byte_range(headers, bytes)?
    } else {
        None
    };
    let wanted = range.clone().unwrap_or(0..bytes);
    let (_, pieces) = app.store.open_artifact(found, wanted.start).await?;
    let length = wanted.end - wanted.start;
    let reply: [(HeaderName, String); 5] = [
        (CONTENT_TYPE, artifact.content_type.clone()),
        (CONTENT_LENGTH, length.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, format!("\"{}\"", artifact.digest)),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    let body = Body::from_stream(first_bytes(pieces, length));
    Ok(match range {
        Some(range) => {
            let value = format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
            let header = AppendHeaders([(CONTENT_RANGE, value)]);
            (StatusCode::PARTIAL_CONTENT, reply, header, body).into_response()
        }
        None => (reply, body).into_response(),
    })
}

/// The first `length` bytes of a stream; nothing is read after them.
fn first_bytes<E>(
    pieces: impl Stream<Item = Result<Bytes, E>>,
    length: u64,
) -> impl Stream<Item = Result<Bytes, E>> {
    pieces.scan(length, |left, piece| {
        let cut = piece.map(|mut piece| {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
            piece
        });
        let over = matches!(&cut, Ok(piece) if piece.is_empty());
        std::future::ready((!over).then_some(cut))
    })
}

#[derive(Deserialize, IntoParams)]
pub(super) struct Part {
    /// Only what is in this folder: `FOLDER/`.
    #[serde(default)]
    below: String,
}

/// The artifacts of a build, or of a folder of them, as one archive.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/artifacts.tar.zst", tag = "builds",
    params(Part),
    responses((status = 200, content_type = "application/zstd", body = Vec<u8>),
        (status = 404, body = Problem)))]
pub(super) async fn archive(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(part): Query<Part>,
) -> Result<Response, ApiError> {
    let build = find(&app, job, &selector).await?;
    let mut artifacts = app.store.stored_artifacts(&build).await?;
    artifacts.retain(|one| one.artifact.path.starts_with(&part.below));
    if artifacts.is_empty() && !part.below.is_empty() {
        let detail = format!("{build} has no artifact below {:?}", part.below);
        return Err(ApiError::not_found(detail));
    }
    let made = app.store.build(&build).await?.created;
    let name = format!("{}-{}.tar.zst", build.job, build.number);
    let headers = [
        (CONTENT_TYPE, "application/zstd".to_owned()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
    ];
    let pieces = archive::pieces(app.store, artifacts, made)?;
    Ok((headers, Body::from_stream(pieces)).into_response())
}

#[derive(Deserialize, IntoParams)]
pub(super) struct OfTask {
    /// The task.
    task: TaskName,
}

/// What a finished task says about itself.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/summary", tag = "builds", params(OfTask),
    responses((status = 200, content_type = "text/plain", body = String), (status = 204),
        (status = 404, body = Problem)))]
pub(super) async fn summary(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(of): Query<OfTask>,
) -> Result<Response, ApiError> {
    let build = find(&app, job, &selector).await?;
    Ok(match app.store.summary(&build, of.task.as_str()).await? {
        Some(text) => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

pub(super) fn upload(body: Body) -> impl distci_store::Upload {
    body.into_data_stream()
        .map_err(std::io::Error::other)
        .boxed()
}

/// Stores the layer of the workspace that an attempt made.
#[utoipa::path(put, path = "/tickets/{ticket}/{attempt}/layer", tag = "worker",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Uploaded), (status = 409, body = Problem)))]
pub(super) async fn put_layer(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    body: Body,
) -> Result<Answer<Uploaded>, ApiError> {
    let bytes = app
        .store
        .put_layer(&ticket, Attempt::new(attempt), upload(body))
        .await?;
    Ok(Answer(Uploaded { bytes }))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct Size {
    /// How many bytes there are to store.
    pub(super) bytes: u64,
}

/// A place in the blob store, if it has any.
pub(super) fn place(address: Option<SignedUrl>) -> Response {
    let Some(address) = address else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let url = address.reveal().to_owned();
    ([(CACHE_CONTROL, "no-store")], Answer(Place { url })).into_response()
}

/// Where to store the layer of the workspace that an attempt made, if not here.
#[utoipa::path(post, path = "/tickets/{ticket}/{attempt}/layer", tag = "worker", params(Size),
    responses((status = 200, body = Place), (status = 204, description = "Here, by PUT"),
        (status = 409, body = Problem)))]
pub(super) async fn layer_place(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    Query(size): Query<Size>,
) -> Result<Response, ApiError> {
    let attempt = Attempt::new(attempt);
    let address = app.store.layer_place(&ticket, attempt, size.bytes);
    Ok(place(address.await?))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct Earlier {
    /// The earlier build of the same job that the layer is of, if it is not of the ticket's.
    #[param(value_type = Option<u64>)]
    build: Option<BuildNumber>,
}

/// Reads a layer.
#[utoipa::path(get, path = "/layers/{ticket}/{attempt}", tag = "worker", params(Directly, Earlier),
    responses((status = 307, description = "It is there, to be read without a token"),
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, body = Problem)))]
pub(super) async fn get_layer(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    Query(how): Query<Directly>,
    Query(earlier): Query<Earlier>,
) -> Result<Response, ApiError> {
    let layer = LayerOf {
        key: ticket,
        attempt: Attempt::new(attempt),
        build: earlier.build,
    };
    if how.direct
        && let Some(address) = app.store.layer_address(&layer).await?
    {
        return Ok(lead(&address));
    }
    let (size, pieces) = app.store.layer(&layer).await?;
    Ok((
        [(CONTENT_LENGTH, size.to_string())],
        Body::from_stream(pieces),
    )
        .into_response())
}

/// Where to store the content of an artifact, if not here.
#[utoipa::path(post, path = "/tickets/{ticket}/{attempt}/artifacts/{index}", tag = "worker",
    params(Size),
    responses((status = 200, body = Place), (status = 204, description = "Here, by PUT"),
        (status = 409, body = Problem)))]
pub(super) async fn artifact_place(
    State(app): State<App>,
    Path((ticket, attempt, index)): Path<(TicketKey, u32, usize)>,
    Query(size): Query<Size>,
) -> Result<Response, ApiError> {
    let attempt = Attempt::new(attempt);
    let address = app
        .store
        .artifact_place(&ticket, attempt, index, size.bytes);
    Ok(place(address.await?))
}

/// Stores the content of an artifact.
#[utoipa::path(put, path = "/tickets/{ticket}/{attempt}/artifacts/{index}", tag = "worker",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Uploaded), (status = 409, body = Problem)))]
pub(super) async fn put(
    State(app): State<App>,
    Path((ticket, attempt, index)): Path<(TicketKey, u32, usize)>,
    body: Body,
) -> Result<Answer<Uploaded>, ApiError> {
    let attempt = Attempt::new(attempt);
    let bytes = app
        .store
        .put_artifact(&ticket, attempt, index, upload(body))
        .await?;
    Ok(Answer(Uploaded { bytes }))
}

/// Stores the names and digests of an attempt's artifacts, after their contents.
#[utoipa::path(put, path = "/tickets/{ticket}/{attempt}/artifacts", tag = "worker",
    request_body = ArtifactManifest, responses((status = 204), (status = 409, body = Problem)))]
pub(super) async fn put_manifest(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    Json(manifest): Json<ArtifactManifest>,
) -> Result<StatusCode, ApiError> {
    app.store
        .put_artifact_manifest(&ticket, Attempt::new(attempt), &manifest)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stores what a task says about itself.
#[utoipa::path(put, path = "/tickets/{ticket}/{attempt}/summary", tag = "worker",
    request_body = String, responses((status = 204), (status = 409, body = Problem)))]
pub(super) async fn put_summary(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    app.store
        .put_summary(&ticket, Attempt::new(attempt), body)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
