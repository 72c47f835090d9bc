//! What a gateway says when it says no.
//!
//! Owns the reading of refusals: the library keeps the code and the date of an answer to itself, so
//! they are taken from it on their way, and found again at the root of the error that it makes.

use std::error::Error as StdError;
use std::fmt;

use async_trait::async_trait;
use bytes::BytesMut;
use futures::TryStreamExt;
use http::StatusCode;
use http::header::DATE;
use jiff::Timestamp;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, Error, Result};

/// Most bytes of a refusal that are read.
const MAX_BODY: usize = 4096;
/// Most characters of what is no refusal of S3 that are quoted.
const MAX_QUOTE: usize = 200;

/// A refusal.
#[derive(Debug)]
pub(in super::super) struct Answer {
    pub(in super::super) status: StatusCode,
    /// The name that S3 has for what is wrong, such as `NoSuchBucket`, if this is S3.
    pub(in super::super) code: Option<String>,
    /// What else was said.
    pub(super) said: String,
    /// The gateway's time.
    pub(super) date: Option<Timestamp>,
}

impl Answer {
    /// The refusal at the root of an error, if there was one.
    pub(in super::super) fn of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut causes = std::iter::successors(Some(error), |&error| error.source());
        causes.find_map(<dyn StdError>::downcast_ref)
    }

    /// Whether a quota is used up, or the store has no room.
    pub(in super::super) fn is_full(&self) -> bool {
        let quota = self.code.as_deref() == Some("QuotaExceeded");
        quota || self.status == StatusCode::INSUFFICIENT_STORAGE
    }

    async fn read(response: HttpResponse) -> Self {
        let (parts, body) = response.into_parts();
        let date = parts.headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let body = begin_of(body).await;
        Self {
            status: parts.status,
            code: code(&body).map(str::to_owned),
            said: body.trim().chars().take(MAX_QUOTE).collect(),
            date: date.map(|date| date.timestamp()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.code.as_ref().unwrap_or(&self.said);
        write!(f, "{} {said}", self.status)
    }
}

impl StdError for Answer {}

/// What comes of a body, at most [`MAX_BODY`] bytes.
async fn begin_of(body: HttpResponseBody) -> String {
    let mut begin = BytesMut::new();
    let mut pieces = body.bytes_stream();
    while let Ok(Some(piece)) = pieces.try_next().await {
        let room = MAX_BODY - begin.len();
        begin.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() >= room {
            break;
        }
    }
    String::from_utf8_lossy(&begin).into_owned()
}

fn code(body: &str) -> Option<&str> {
    let (_, rest) = body.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code)
}

/// The error with the meaning that callers know, if it is a refusal that has one.
pub(super) fn meant(error: Error) -> Error {
    let Some(answer) = Answer::of(&error) else {
        return error;
    };
    // The source names the address.
    let path = String::new();
    match (answer.status, answer.code.as_deref()) {
        // All blobs are missing where the bucket is: that is no news about one of them.
        (_, Some("NoSuchBucket")) => error,
        (StatusCode::NOT_FOUND, _) => Error::NotFound {
            path,
            source: Box::new(error),
        },
        (StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT, _) => Error::AlreadyExists {
            path,
            source: Box::new(error),
        },
        _ => error,
    }
}

/// Connects as the library does, and reads refusals.
#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

#[derive(Debug)]
struct Listener(HttpClient);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(Listener(self.0.connect(options)?)))
    }
}

#[async_trait]
impl HttpService for Listener {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let answer = Answer::read(response).await;
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}
