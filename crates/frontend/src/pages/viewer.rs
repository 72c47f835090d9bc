//! What the viewer of a console asks for: lines as they are shown, and how many there are.
//!
//! Owns the two answers that its script lives on. What is told of growth is a state, so whoever comes
//! back, to whichever frontend, misses nothing and sees nothing twice; and however many watch a
//! console through this frontend, it is looked at once for all of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use distci_model::id::{Attempt, BuildRef, JobId, TaskName, TicketKey};
use distci_pages::console_lines;
use distci_store::{ConsoleHome, LinesFrom, StoreError};
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Seat;
use crate::api::builds::find;
use crate::api::console_lines::{self, Wanted};
use crate::app::App;
use crate::error::ApiError;
use crate::shared::{Look, Looks};

/// How many lines before those that are wanted are looked at for colours that last.
const BEFORE: u64 = 200;
/// How often a console is looked at for what came through another frontend.
const LOOK: Duration = Duration::from_millis(250);
/// How long a burst of output is collected before it is told.
const TOGETHER: Duration = Duration::from_millis(40);

/// How soon a reader whose frontend is gone asks again.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// Lines as the viewer shows them.
#[derive(Serialize)]
struct Part {
    total: u64,
    complete: bool,
    lines: Vec<String>,
}

/// Some lines as HTML. All who watch a console ask for its end at the same moment: who comes while it
/// is read waits, and one more reading serves all of them.
pub(super) async fn part(
    State(Watch { app, parts, .. }): State<Watch>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<impl IntoResponse, ApiError> {
    let now = Instant::now();
    let build = find(&app, job, &selector).await?;
    let look = parts.at((build.clone(), wanted.clone()));
    let part = look.since(now, async || {
        // Colours last from line to line: those before say how the first of these begins.
        let (wanted, before) = wanted.clone().with_before(BEFORE);
        let (home, lines) = console_lines::read(&app, &build, &wanted).await?;
        let shown = lines.lines.iter();
        let shown = shown.map(|line| (&line.bytes[..], line.cut));
        let part = serde_json::to_vec(&Part {
            total: lines.total,
            complete: home.complete,
            lines: console_lines(shown).split_off(before.min(lines.lines.len())),
        });
        let part = part.map_err(|error| ApiError::malformed(error.to_string()))?;
        Ok::<_, ApiError>(Bytes::from(part))
    });
    Ok(([(CONTENT_TYPE, "application/json")], part.await?))
}

/// From which line on the lines came when: `[[1, "2026-11-23T09:00:00Z"], …]`.
pub(super) async fn times(
    seat: Seat,
    Path((job, selector)): Path<(JobId, String)>,
    Query(wanted): Query<Watched>,
) -> Result<impl IntoResponse, ApiError> {
    let store = &seat.app.store;
    let build = find(&seat.app, job, &selector).await?;
    let attempt = wanted.attempt.map(Attempt::new);
    let home = store.console(&build, &wanted.task, attempt).await?;
    let times = store.console_times(&home).await?;
    let times = times.into_iter().map(|(line, at)| (line + 1, at));
    Ok(Json(times.collect::<Vec<_>>()))
}

/// How a console has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Growth {
    total: u64,
    length: u64,
    complete: bool,
}

/// The consoles that somebody watches here.
#[derive(Clone)]
pub(super) struct Watch {
    app: App,
    looks: Arc<Looks<(TicketKey, Attempt), Growth>>,
    /// What they ask for.
    parts: Arc<Looks<(BuildRef, Wanted), Bytes>>,
}

impl Watch {
    pub(super) fn new(app: &App) -> Self {
        Self {
            app: app.clone(),
            looks: Arc::default(),
            parts: Arc::default(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Watched {
    task: TaskName,
    /// The attempt; the latest, if left out.
    attempt: Option<u32>,
}

/// How a console grows: server-sent events.
pub(super) async fn growth(
    State(Watch { app, looks, .. }): State<Watch>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(wanted): Query<Watched>,
) -> Result<impl IntoResponse, ApiError> {
    let build = find(&app, job, &selector).await?;
    let attempt = wanted.attempt.map(Attempt::new);
    let home = app.store.console(&build, &wanted.task, attempt).await?;
    let watcher = Watcher {
        look: looks.at((home.ticket.clone(), home.attempt)),
        calls: app.consoles.subscribe(&home.ticket),
        app,
        build,
        task: wanted.task,
        home,
        told: None,
    };
    let keep = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(watcher.events()).keep_alive(keep))
}

/// One who watches a console.
struct Watcher {
    app: App,
    build: BuildRef,
    task: TaskName,
    home: ConsoleHome,
    look: Arc<Look<Growth>>,
    calls: watch::Receiver<()>,
    told: Option<Growth>,
}

impl Watcher {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        futures::stream::unfold(Some(self), async |state| {
            let mut own = state?;
            let growth = own.next().await?;
            own.told = Some(growth);
            let data = serde_json::to_string(&growth).unwrap_or_default();
            let event = Event::default().event("growth").retry(RETRY).data(data);
            // Closed by the script, which would open it again if it only ended.
            Some((Ok(event), (!growth.complete).then_some(own)))
        })
    }

    /// What has changed since it was told last, as soon as something has; nothing, if this frontend
    /// leaves or the build is gone.
    async fn next(&mut self) -> Option<Growth> {
        let mut since = Instant::now();
        loop {
            self.calls.mark_unchanged();
            match self.see(since).await {
                Ok(growth) if Some(growth) != self.told => return Some(growth),
                Ok(_) => {}
                Err(StoreError::NotFound { .. }) => return None,
                // Trouble passes, or the reader comes back to another frontend.
                Err(error) => tracing::debug!(%error, "a console that is watched cannot be read"),
            }
            let rung = tokio::select! {
                () = self.app.stop.cancelled() => return None,
                changed = self.calls.changed() => changed.is_ok(),
                () = sleep(LOOK) => false,
            };
            let now = Instant::now();
            // All who wait for these news are awake by then, and one look serves them.
            since = if rung {
                sleep(TOGETHER).await;
                now
            } else {
                now.checked_sub(LOOK / 2).unwrap_or(now)
            };
        }
    }

    async fn see(&self, since: Instant) -> Result<Growth, StoreError> {
        self.look
            .since(since, async || {
                let store = &self.app.store;
                let attempt = Some(self.home.attempt);
                // Whether it is complete is read before the bytes: what comes later is not missed.
                let home = store.console(&self.build, &self.task, attempt).await?;
                let lines = store.console_lines(&home, LinesFrom::Line(0), 0).await?;
                Ok(Growth {
                    total: lines.total,
                    length: lines.length,
                    complete: home.complete,
                })
            })
            .await
    }
}
