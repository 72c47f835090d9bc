//! The one map from what went wrong to what the client is told.
//!
//! Owns status codes and the stable codes of problems: malformed 400, unknown 404, lost race 409 or
//! 412, past 410, too large 413, lost store 503, our bug 500. Every error leaves with the request's id: as
//! problem+json, or as a page to who looks with a browser.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use distci_model::config::ConfigProblem;
use distci_model::drain::DrainOrder;
use distci_model::wire::{CONSOLE_LENGTH_HEADER, Problem};
use distci_pages::Unrendered;
use distci_store::StoreError;

use crate::app::App;
use crate::auth::Gate;
use crate::pages::Asker;

/// Most bytes of a plain-text rejection that are quoted.
const MAX_DETAIL: usize = 4 * 1024;
/// The header with the request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a handler answers when it cannot do what was asked.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    problems: Vec<ConfigProblem>,
    /// A header beside the problem.
    header: Option<(&'static str, String)>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            problems: Vec::new(),
            header: None,
        }
    }

    /// The request cannot be understood.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// The job file is wrong.
    pub(crate) fn invalid_job(problems: Vec<ConfigProblem>) -> Self {
        let detail = match problems.as_slice() {
            [only] => only.to_string(),
            several => format!("the job file has {} problems", several.len()),
        };
        Self {
            problems,
            ..Self::new(StatusCode::BAD_REQUEST, "invalid-job", detail)
        }
    }

    /// There is no such thing.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// The token is missing or wrong.
    pub(crate) fn unauthorized() -> Self {
        let detail = "the API needs `Authorization: Bearer TOKEN`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// A browser asked, but no page of ours made it.
    pub(crate) fn not_meant() -> Self {
        let detail = "the request does not show that a page of this site made it";
        Self::new(StatusCode::FORBIDDEN, "not-meant", detail)
    }

    /// A page cannot be written out.
    pub(crate) fn unrendered(error: &Unrendered) -> Self {
        tracing::error!(%error, source = ?std::error::Error::source(error), "a page was not shown");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
        )
    }

    /// The sender of a webhook does not show that it knows the secret.
    pub(crate) fn unsigned(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// The worker that asks for a claim is asked to leave.
    pub(crate) fn draining(order: &DrainOrder) -> Self {
        let DrainOrder { pattern, at } = order;
        let detail = format!("the workers {pattern} that were there at {at} are asked to leave");
        Self::new(StatusCode::GONE, "draining", detail)
    }

    /// What was to be sent did not come in time.
    pub(crate) fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail)
    }

    /// What was sent is larger than allowed.
    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    /// The range lies outside of the `length` bytes that there are.
    pub(crate) fn bad_range(detail: impl Into<String>, length: u64) -> Self {
        let code = StatusCode::RANGE_NOT_SATISFIABLE;
        Self {
            header: Some(("content-range", format!("bytes */{length}"))),
            ..Self::new(code, "bad-range", detail)
        }
    }
}

impl ApiError {
    /// Why not, if it is refused for what was given: whoever gave it can mend it.
    pub(crate) fn refusal(&self) -> Option<&str> {
        (self.status == StatusCode::UNPROCESSABLE_ENTITY).then_some(&self.detail)
    }

    /// What is wrong with what was asked, if it cannot be understood.
    pub(crate) fn complaint(&self) -> Option<&str> {
        (self.code == "malformed").then_some(&self.detail)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        let (status, code) = match &error {
            StoreError::NotFound { .. } => (StatusCode::NOT_FOUND, "not-found"),
            StoreError::Stale { .. } => (StatusCode::PRECONDITION_FAILED, "stale"),
            StoreError::AttemptOver { .. } => (StatusCode::CONFLICT, "attempt-over"),
            StoreError::Gone => (StatusCode::GONE, "gone"),
            StoreError::Offset { .. } => (StatusCode::CONFLICT, "offset"),
            StoreError::Refused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            StoreError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            StoreError::Interrupted(_) => (StatusCode::BAD_REQUEST, "interrupted"),
            StoreError::Full => (StatusCode::INSUFFICIENT_STORAGE, "store-full"),
            StoreError::Down(_) => (StatusCode::SERVICE_UNAVAILABLE, "store-down"),
            StoreError::Corrupt { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        if status.is_server_error() {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, code, "a request could not be served");
        }
        let header = match error {
            StoreError::Offset { length } => Some((CONSOLE_LENGTH_HEADER, length.to_string())),
            _ => None,
        };
        Self {
            header,
            ..Self::new(status, code, detail)
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(Problem {
            kind: format!("urn:distci:{}", self.code),
            title: self.code.replace('-', " "),
            status: self.status.as_u16(),
            detail: self.detail,
            request: None,
            problems: self.problems,
        });
        response
    }
}

/// Gives every error its form and the id of its request.
pub(crate) async fn in_words(
    State(site): State<(Gate, App)>,
    request: Request,
    next: Next,
) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| Some(id.to_str().ok()?.to_owned()));
    let how = (request.method(), request.headers());
    let asker = Asker::of(&site, how, request.uri());
    let response = next.run(request).await;
    let status = response.status();
    let is_page = response.extensions().get::<Problem>().is_none() && is_html(&response);
    if is_page || !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let mut problem = match parts.extensions.remove::<Problem>() {
        Some(problem) => problem,
        None => foreign(status, body).await,
    };
    problem.request = id;
    if let Some(Ok(page)) = asker.map(|asker| asker.told(&site.1, problem.clone())) {
        return page;
    }
    as_problem(parts, &problem)
}

fn is_html(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

fn as_problem(mut parts: http::response::Parts, problem: &Problem) -> Response {
    let text = serde_json::to_vec(problem).unwrap_or_default();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    parts.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if parts.status == StatusCode::UNAUTHORIZED {
        parts
            .headers
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(
        parts.status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        parts
            .headers
            .insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Response::from_parts(parts, Body::from(text))
}

/// The problem in a rejection that a library made.
async fn foreign(status: StatusCode, body: Body) -> Problem {
    let title = status.canonical_reason().unwrap_or("error").to_lowercase();
    let said = to_bytes(body, MAX_DETAIL).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Problem {
        kind: format!("urn:distci:{}", title.replace(' ', "-")),
        detail: if said.is_empty() { title.clone() } else { said },
        title,
        status: status.as_u16(),
        request: None,
        problems: Vec::new(),
    }
}
