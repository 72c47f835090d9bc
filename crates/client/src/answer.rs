//! From a status to what the caller can do.
//!
//! Owns the one place where HTTP statuses mean something on this side: [`judge`].

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use distci_model::wire::{CONSOLE_LENGTH_HEADER, Problem};
use reqwest::header::{ETAG, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::ClientError;
use crate::retry::{Passing, Trouble};

/// Longest that the next bytes of an answer may take.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// Longest that a frontend may ask us to stay away.
const LONGEST_ASKED: Duration = Duration::from_secs(30);
/// What a frontend says that is well, and whose store is not.
const STORE_DOWN: &str = "urn:distci:store-down";

/// What a worker is told that is asked to leave.
const DRAINING: &str = "urn:distci:draining";

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn read(response: Response) -> Result<Self, Trouble> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_all(response).await.map_err(passing)?;
        Ok(Self {
            status,
            headers,
            body,
        })
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::Strange {
            detail: error.to_string(),
        })
    }

    /// The value of a header that belongs to the answer.
    pub(crate) fn header<T: std::str::FromStr>(&self, name: &str) -> Result<T, ClientError> {
        let value = read_header(&self.headers, name);
        value.ok_or_else(|| ClientError::Strange {
            detail: format!("the header {name} is missing or malformed"),
        })
    }

    pub(crate) fn etag(&self) -> Result<String, ClientError> {
        self.header(ETAG.as_str())
    }
}

/// The answer if it is one, or what to do instead.
pub(crate) async fn judge(response: Response) -> Result<Response, Trouble> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let after = read_header(response.headers(), RETRY_AFTER.as_str());
    let after = after.map(|seconds| Duration::from_secs(seconds).min(LONGEST_ASKED));
    let length = read_header(response.headers(), CONSOLE_LENGTH_HEADER);
    let problem = read_problem(response).await;
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let passing = Passing {
            why: format!("{status}: {}", problem.detail),
            after,
            store_down: problem.kind == STORE_DOWN,
        };
        return Err(passing.into());
    }
    let problem = Box::new(problem);
    Err(Trouble::Final(match (status, length) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => ClientError::Unauthorized,
        (StatusCode::GONE, _) if problem.kind == DRAINING => ClientError::Draining(problem),
        (StatusCode::NOT_FOUND | StatusCode::GONE, _) => ClientError::NotFound(problem),
        (StatusCode::CONFLICT, Some(length)) => ClientError::ConsoleAt { length },
        (StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED, _) => {
            ClientError::Conflict(problem)
        }
        _ => ClientError::Refused(problem),
    }))
}

/// What went wrong below HTTP: the next frontend may do better.
pub(crate) fn passing(error: reqwest::Error) -> Trouble {
    let why = cause(&error.without_url());
    unheard(why)
}

pub(crate) fn stalled(what: &str, limit: Duration) -> Trouble {
    unheard(format!("no {what} within {} s", limit.as_secs()))
}

pub(crate) fn unheard(why: String) -> Trouble {
    let passing = Passing {
        why,
        after: None,
        store_down: false,
    };
    passing.into()
}

/// The innermost error says what happened; those around it only say where.
pub(crate) fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn read_header<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

async fn read_all(response: Response) -> Result<Bytes, reqwest::Error> {
    response.bytes().await
}

/// The problem that an error describes, or one that says what came instead.
async fn read_problem(response: Response) -> Problem {
    let status = response.status();
    let body = read_all(response).await.unwrap_or_default();
    serde_json::from_slice(&body).unwrap_or_else(|_| {
        let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: format!("{status} {}", text.trim()).trim().to_owned(),
            request: None,
            problems: Vec::new(),
        }
    })
}
