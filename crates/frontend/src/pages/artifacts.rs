//! Artifacts: a folder of them, one looked at, and what a report needs to be seen.
//!
//! Owns how what a build made comes into a browser. A report is served from addresses that carry a pass
//! for the artifacts of its build alone, and under a policy that makes a stranger of it: it has no
//! cookie, reads nothing of this site, and asks nobody anything.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use distci_model::id::{BuildNumber, BuildRef, JobId};
use distci_model::wire::Artifact;
use distci_pages::{Artifacts, Place, Preview, Sight};
use distci_store::StoredArtifact;
use futures::StreamExt;
use serde::Deserialize;

use super::{Seat, headers, page};
use crate::api::artifacts::content;
use crate::api::builds::find;
use crate::app::App;
use crate::auth::Gate;
use crate::error::ApiError;

/// Most bytes of a text that are shown.
const MOST_TEXT: u64 = 256 * 1024;
/// How long a report can be read on after its page was opened.
const READING: Duration = Duration::from_hours(4);
/// What a report may do: run and show what came with it. It can neither ask nor send.
const REPORT_POLICY: &str = "sandbox allow-scripts; default-src 'none'; \
     script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data:; frame-src 'self'; \
     worker-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'";
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    below: String,
    from: usize,
}

/// The artifacts of a build in one folder.
pub(super) async fn list(
    seat: Seat,
    Path((job, selector)): Path<(JobId, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let build = find(&seat.app, job, &selector).await?;
    let mut below = wanted.below;
    if !below.is_empty() && !below.ends_with('/') {
        below.push('/');
    }
    let artifacts = Artifacts {
        frame: seat.frame(Place::Jobs),
        artifacts: seat.app.store.artifacts(&build).await?,
        build,
        below,
        skip: wanted.from,
    };
    page(StatusCode::OK, &artifacts)
}

/// One artifact, as far as it can be looked at.
pub(super) async fn show(
    seat: Seat,
    Extension(gate): Extension<Gate>,
    Path((job, selector, path)): Path<(JobId, String, String)>,
) -> Result<Response, ApiError> {
    let app = &seat.app;
    let build = find(app, job, &selector).await?;
    let found = app.store.artifact(&build, &path).await?;
    let raw = || {
        let pass = gate.lasting(&purpose(&build), app.now(), READING);
        raw_address(&build, &pass, &path)
    };
    let sight = match kind(&found.artifact) {
        Kind::Picture => Sight::Picture(raw()),
        Kind::Report => Sight::Report(raw()),
        Kind::Other => text(app, &found).await?,
    };
    let frames = matches!(sight, Sight::Report(_));
    let listed = app.store.artifacts(&build).await?;
    let task = listed
        .into_iter()
        .rev()
        .find(|one| one.artifact.path == path);
    let preview = Preview {
        frame: seat.frame(Place::Jobs),
        build,
        task: task
            .map(|one| one.task)
            .ok_or_else(|| ApiError::not_found(format!("artifact {path:?}")))?,
        artifact: found.artifact,
        sight,
    };
    let mut response = page(StatusCode::OK, &preview)?;
    if frames {
        let policy = headers::framing();
        response
            .headers_mut()
            .insert(CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

/// What a build made, for whoever has a pass for it.
pub(super) async fn raw(
    State((gate, app)): State<(Gate, App)>,
    Path((pass, job, number, path)): Path<(String, JobId, u64, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let missing = || ApiError::not_found("there is nothing here, or not any more".to_owned());
    let number = BuildNumber::new(number).ok_or_else(missing)?;
    let build = BuildRef { job, number };
    let known = gate.is_lasting(&purpose(&build), &pass, app.now());
    if !known || is_part_of_ours(&headers) {
        return Err(missing());
    }
    let found = app.store.artifact(&build, &path).await?;
    let content = content(&app, &found, &headers).await?;
    let stranger = [
        (CONTENT_SECURITY_POLICY, REPORT_POLICY),
        (X_FRAME_OPTIONS, "SAMEORIGIN"),
        // A report is of no origin: what it brings along would be kept from it otherwise. Whoever has
        // the address may read what is there anyhow.
        (ACCESS_CONTROL_ALLOW_ORIGIN, "null"),
        // The address opens something: no link leads it away.
        (REFERRER_POLICY, "no-referrer"),
        // A browser makes no stranger of a window that is opened with any other.
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "unsafe-none",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
        (CACHE_CONTROL, "private, max-age=3600"),
    ];
    Ok((stranger, content).into_response())
}

/// Whether a page of this site asks for what would become a part of it: a script, a style.
fn is_part_of_ours(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let purpose = text("sec-fetch-dest").unwrap_or("document");
    let is_apart = matches!(purpose, "document" | "iframe" | "frame" | "image");
    text("sec-fetch-site") == Some("same-origin") && !is_apart
}

/// What a pass for the artifacts of a build is for.
fn purpose(build: &BuildRef) -> String {
    format!("artifacts of {build}")
}

fn raw_address(build: &BuildRef, pass: &str, path: &str) -> String {
    let (job, number) = (&build.job, build.number);
    format!("/made/{pass}/{job}/{number}/{}", distci_pages::below(path))
}

enum Kind {
    Picture,
    Report,
    Other,
}

fn kind(artifact: &Artifact) -> Kind {
    let media = artifact.content_type.split(';').next().unwrap_or_default();
    match media.trim() {
        "text/html" | "application/xhtml+xml" => Kind::Report,
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" | "image/avif"
        | "image/svg+xml" | "image/bmp" | "image/x-icon" => Kind::Picture,
        _ => Kind::Other,
    }
}

/// The beginning of what is text.
async fn text(app: &App, found: &StoredArtifact) -> Result<Sight, ApiError> {
    let (_, mut pieces) = app.store.open_artifact(found, 0).await?;
    let most = usize::try_from(found.artifact.bytes.min(MOST_TEXT)).unwrap_or_default();
    let mut text = Vec::new();
    while text.len() < most
        && let Some(piece) = pieces.next().await
    {
        text.extend_from_slice(&piece.map_err(distci_store::StoreError::from)?);
    }
    text.truncate(most);
    if text.contains(&0) {
        return Ok(Sight::Nothing);
    }
    let rest = found.artifact.bytes.saturating_sub(text.len() as u64);
    Ok(Sight::Text(text, rest))
}
