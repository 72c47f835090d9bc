//! What handlers take from a request.
//!
//! Owns the reading of bodies, headers and ranges, with errors that say what was wrong.

use std::ops::Range;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, RANGE};
use axum::http::{HeaderMap, StatusCode};
use distci_model::id::RequestId;
use distci_model::wire::{MAX_WAIT, REQUEST_ID_HEADER};
use distci_store::Expected;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// A JSON body. Its media type is not looked at: there is only one.
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = axum::body::Bytes::from_request(request, state).await;
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(rejection.body_text()),
            _ => ApiError::malformed(format!("the body cannot be read: {rejection}")),
        })?;
        let mut reader = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut reader);
        let value = value.map_err(|error| ApiError::malformed(format!("the body: {error}")))?;
        reader
            .end()
            .map_err(|error| ApiError::malformed(format!("the body: {error}")))?;
        Ok(Self(value))
    }
}

/// The id that the client gave its request; a random one if it gave none.
pub(super) fn request_id(headers: &HeaderMap) -> Result<RequestId, ApiError> {
    if let Some(value) = headers.get(REQUEST_ID_HEADER) {
        let id = value.to_str().unwrap_or_default().parse();
        return id
            .map_err(|error| ApiError::malformed(format!("header {REQUEST_ID_HEADER}: {error}")));
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::malformed(error.to_string()))?;
    Ok(RequestId::from_random(bytes))
}

/// What the client expects a job to be, from `If-Match` and `If-None-Match`.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expected, ApiError> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Expected::Any),
        (None, Some("*")) => Ok(Expected::Absent),
        (Some(tag), None) => tag
            .trim_matches('"')
            .parse()
            .map(Expected::Revision)
            .map_err(|_| ApiError::malformed("header if-match: not a revision")),
        _ => Err(ApiError::malformed(
            "header if-none-match: only \"*\" has a meaning here",
        )),
    }
}

/// How long a request may be held.
pub(super) fn wait(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(MAX_WAIT))
}

/// The one range of bytes that was asked for, as far as there are bytes. `None` for all.
pub(super) fn byte_range(headers: &HeaderMap, length: u64) -> Result<Option<Range<u64>>, ApiError> {
    let Some(text) = headers.get(RANGE).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let bad = || ApiError::bad_range(format!("{text:?} is no range of {length} bytes"), length);
    let spec = text.strip_prefix("bytes=").ok_or_else(bad)?;
    let (first, last) = spec.split_once('-').ok_or_else(bad)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
    let range = match (first, last) {
        ("", suffix) => length.saturating_sub(number(suffix)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(length),
    };
    if range.start < range.end {
        Ok(Some(range))
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn ranges_are_cut_to_what_there_is() {
        let range = |text: &str| {
            let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_str(text).unwrap())]);
            byte_range(&headers, 10)
        };
        assert_eq!(range("bytes=0-3").unwrap(), Some(0..4));
        assert_eq!(range("bytes=4-").unwrap(), Some(4..10));
        assert_eq!(range("bytes=4-99").unwrap(), Some(4..10));
        assert_eq!(range("bytes=-3").unwrap(), Some(7..10));
        for bad in [
            "bytes=10-",
            "bytes=5-4",
            "lines=0-1",
            "bytes=a-b",
            "bytes=0-1,3-4",
        ] {
            assert!(range(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(byte_range(&HeaderMap::new(), 10).unwrap(), None);
    }
}
