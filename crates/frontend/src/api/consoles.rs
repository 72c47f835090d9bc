//! Consoles over HTTP: appended by offset and attempt, read by range or followed live.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{AppendHeaders, IntoResponse, Response};
use distci_model::id::{Attempt, BuildRef, JobId, TaskName, TicketKey};
use distci_model::wire::{
    CONSOLE_ATTEMPT_HEADER, CONSOLE_COMPLETE_HEADER, CONSOLE_LENGTH_HEADER, Problem,
};
use distci_store::{ConsoleHome, ConsolePart, StoreError};
use futures::Stream;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::builds::find;
use super::extract::{byte_range, wait};
use crate::app::App;
use crate::error::ApiError;

/// Most bytes of one answer to a reader who says where to begin.
const PART: usize = 1024 * 1024;
/// How often a live reader looks for what came through another frontend.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Deserialize, IntoParams)]
pub(super) struct Appending {
    /// Where the body begins in the console.
    offset: u64,
}

/// Appends to the console of a claimed ticket.
#[utoipa::path(post, path = "/tickets/{ticket}/{attempt}/console", tag = "worker",
    params(Appending), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = 409, body = Problem,
        description = "the attempt is over, or the offset is not the end")))]
pub(super) async fn append(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    Query(appending): Query<Appending>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let attempt = Attempt::new(attempt);
    let length = app
        .store
        .append_console(&ticket, attempt, appending.offset, body)
        .await?;
    app.consoles.ring(&ticket);
    let headers = AppendHeaders([(CONSOLE_LENGTH_HEADER, length.to_string())]);
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

#[derive(Deserialize, IntoParams)]
pub(super) struct Reading {
    /// The task.
    task: TaskName,
    /// The attempt; the latest, if left out.
    attempt: Option<u32>,
    /// Where to begin; with it, one answer has at most 1 MiB. Without it, all there is.
    offset: Option<u64>,
    /// Seconds to wait for bytes at `offset`.
    #[serde(default)]
    wait: u64,
}

/// The console of a task: bytes as they are. `Range` is honoured; `Accept: text/event-stream`
/// follows it live, with byte offsets as event ids.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/console", tag = "builds", params(Reading),
    responses((status = 200, content_type = "text/plain", body = String),
        (status = 206, content_type = "text/plain", body = String),
        (status = 404, body = Problem), (status = 416, body = Problem)))]
pub(super) async fn get(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(reading): Query<Reading>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let build = find(&app, job, &selector).await?;
    let mut tail = Tail::of(&app, build, &reading).await?;
    let accept = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    if accept.contains("text/event-stream") {
        let last = headers
            .get("last-event-id")
            .and_then(|id| id.to_str().ok()?.parse().ok());
        return Ok(follow(app, tail, last.or(reading.offset).unwrap_or(0)).into_response());
    }
    match reading.offset {
        Some(offset) => {
            let deadline = Instant::now() + wait(reading.wait);
            let part = tail.read_by(&app, offset, deadline).await?;
            let complete = tail.home.complete && offset + part.bytes.len() as u64 >= part.length;
            Ok((tail.headers(part.length, complete), part.bytes).into_response())
        }
        None => whole(app, tail, &headers).await,
    }
}

/// All of it, or the range asked for, streamed.
async fn whole(app: App, tail: Tail, headers: &HeaderMap) -> Result<Response, ApiError> {
    let length = app
        .store
        .read_console(&tail.home, u64::MAX, 0)
        .await?
        .length;
    let range = byte_range(headers, length)?;
    let reply = tail.headers(length, tail.home.complete);
    let wanted = range.clone().unwrap_or(0..length);
    let content_range = format!(
        "bytes {}-{}/{length}",
        wanted.start,
        wanted.end.saturating_sub(1)
    );
    let stream = futures::stream::try_unfold((app, tail, wanted), async |(app, tail, left)| {
        if left.is_empty() {
            return Ok(None);
        }
        let most = usize::try_from(left.end - left.start)
            .unwrap_or(PART)
            .min(PART);
        let part = app.store.read_console(&tail.home, left.start, most).await?;
        if part.bytes.is_empty() {
            return Ok::<_, StoreError>(None);
        }
        let left = left.start + part.bytes.len() as u64..left.end;
        Ok(Some((part.bytes, (app, tail, left))))
    });
    let body = Body::from_stream(stream);
    Ok(match range {
        Some(_) => {
            let headers = AppendHeaders([(CONTENT_RANGE, content_range)]);
            (StatusCode::PARTIAL_CONTENT, reply, headers, body).into_response()
        }
        None => (reply, body).into_response(),
    })
}

fn follow(app: App, tail: Tail, offset: u64) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let start = Some((app, tail, offset, Vec::new()));
    let stream = futures::stream::unfold(start, async |state| {
        let (app, mut tail, mut offset, mut held) = state?;
        loop {
            let soon = Instant::now() + Duration::from_secs(30);
            let part = tail
                .read_by(&app, offset + held.len() as u64, soon)
                .await
                .ok()?;
            let over = tail.home.complete && part.bytes.is_empty();
            if app.stop.is_cancelled() && part.bytes.is_empty() {
                return None;
            }
            held.extend_from_slice(&part.bytes);
            if over && held.is_empty() {
                let end = Event::default()
                    .event("end")
                    .id(offset.to_string())
                    .data("{}");
                return Some((Ok(end), None));
            }
            // A character that is cut in two waits for its other half, unless there is none.
            let cut = if over {
                held.len()
            } else {
                whole_characters(&held)
            };
            if cut == 0 {
                continue;
            }
            let rest = held.split_off(cut);
            let text = String::from_utf8_lossy(&held);
            let data = serde_json::json!({ "offset": offset, "text": text }).to_string();
            offset += cut as u64;
            let event = Event::default()
                .event("console")
                .id(offset.to_string())
                .data(data);
            return Some((Ok(event), Some((app, tail, offset, rest))));
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

/// How many bytes end with a whole character; an invalid sequence counts as whole.
fn whole_characters(bytes: &[u8]) -> usize {
    let mut position = 0;
    loop {
        match std::str::from_utf8(&bytes[position..]) {
            Ok(_) => return bytes.len(),
            Err(error) => match error.error_len() {
                None => return position + error.valid_up_to(),
                Some(length) => position += error.valid_up_to() + length,
            },
        }
    }
}

/// Reads one console as it grows.
struct Tail {
    build: BuildRef,
    task: TaskName,
    home: ConsoleHome,
    calls: tokio::sync::watch::Receiver<()>,
}

impl Tail {
    async fn of(app: &App, build: BuildRef, reading: &Reading) -> Result<Self, StoreError> {
        let attempt = reading.attempt.map(Attempt::new);
        let home = app.store.console(&build, &reading.task, attempt).await?;
        let calls = app.consoles.subscribe(&home.ticket);
        Ok(Self {
            build,
            task: reading.task.clone(),
            home,
            calls,
        })
    }

    /// What there is from `offset` on; waits for at least one byte, the end, or the deadline.
    async fn read_by(
        &mut self,
        app: &App,
        offset: u64,
        deadline: Instant,
    ) -> Result<ConsolePart, StoreError> {
        loop {
            self.calls.mark_unchanged();
            // Whether it is complete is read before the bytes: what comes later is not missed.
            if !self.home.complete {
                let attempt = Some(self.home.attempt);
                self.home = app.store.console(&self.build, &self.task, attempt).await?;
            }
            let part = app.store.read_console(&self.home, offset, PART).await?;
            let over = self.home.complete || Instant::now() >= deadline;
            if !part.bytes.is_empty() || over || app.stop.is_cancelled() {
                return Ok(part);
            }
            let look = (Instant::now() + LOOK).min(deadline);
            tokio::select! {
                // An error means that nobody can call any more; the look goes on.
                _ = self.calls.changed() => {}
                () = tokio::time::sleep_until(look) => {}
                () = app.stop.cancelled() => {}
            }
        }
    }

    fn headers(&self, length: u64, complete: bool) -> [(HeaderName, String); 5] {
        let own = |name: &'static str| HeaderName::from_static(name);
        [
            (CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
            (ACCEPT_RANGES, "bytes".to_owned()),
            (own(CONSOLE_LENGTH_HEADER), length.to_string()),
            (own(CONSOLE_COMPLETE_HEADER), complete.to_string()),
            (own(CONSOLE_ATTEMPT_HEADER), self.home.attempt.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_character_is_held_back_and_an_invalid_one_is_not() {
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(b"a\xffb"), 3);
        assert_eq!(whole_characters(b"a\xff\xc3"), 2);
        assert_eq!(whole_characters(b""), 0);
    }
}
