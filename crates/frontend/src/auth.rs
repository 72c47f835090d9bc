//! Who may use the API.
//!
//! Owns the check of the bearer token. The token is never logged and is compared in constant time.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;

use crate::error::ApiError;

/// The one token that opens the API, as its hash.
#[derive(Clone)]
pub(crate) struct Gate(Arc<blake3::Hash>);

impl Gate {
    pub(crate) fn new(token: &str) -> Self {
        Self(Arc::new(blake3::hash(token.as_bytes())))
    }

    fn admits(&self, request: &Request) -> bool {
        let header = request.headers().get(AUTHORIZATION);
        let token = header.and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        // Hashes compare in constant time.
        token.is_some_and(|token| blake3::hash(token.trim().as_bytes()) == *self.0)
    }
}

/// Lets a request pass that carries the token.
pub(crate) async fn require(
    State(gate): State<Gate>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if gate.admits(&request) {
        Ok(next.run(request).await)
    } else {
        Err(ApiError::unauthorized())
    }
}
