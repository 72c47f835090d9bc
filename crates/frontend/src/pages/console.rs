//! The console of an attempt: some of its lines. The viewer of all of them is in [`super::viewer`].

use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::id::{Attempt, JobId, TaskName};
use distci_model::wire::TaskState;
use distci_pages::{Console, Place, State, View};
use distci_store::LinesFrom;
use serde::Deserialize;

use super::{Seat, page};
use crate::api::builds::find;
use crate::error::ApiError;

/// Lines of a page.
const LINES: usize = 500;

#[derive(Deserialize)]
pub(super) struct Wanted {
    task: TaskName,
    /// The attempt; the latest, if left out.
    attempt: Option<u32>,
    /// The first line, from 1; without it, the last lines are shown.
    line: Option<u64>,
    /// Another attempt, to be shown beside it.
    beside: Option<u32>,
    /// Whether only what surrounds the lines is wanted, as the viewer of an open page does.
    #[serde(default)]
    head: bool,
}

pub(super) async fn show(
    seat: Seat,
    Path((job, selector)): Path<(JobId, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let store = &seat.app.store;
    let build = find(&seat.app, job, &selector).await?;
    let attempt = wanted.attempt.map(Attempt::new);
    let (home, view) = tokio::try_join!(
        store.console(&build, &wanted.task, attempt),
        store.build(&build)
    )?;
    let from = wanted.line.map_or(LinesFrom::End, |line| {
        LinesFrom::Line(line.saturating_sub(1))
    });
    let most = if wanted.head { 0 } else { LINES };
    let lines = store.console_lines(&home, from, most).await?;
    let beside = match wanted.beside {
        Some(attempt) => {
            let attempt = Some(Attempt::new(attempt));
            let home = store.console(&build, &wanted.task, attempt).await?;
            let lines = store.console_lines(&home, LinesFrom::End, 0).await?;
            Some(View {
                attempt: home.attempt.get(),
                total: lines.total,
                is_complete: home.complete,
            })
        }
        None => None,
    };
    let mut tasks = view.tasks.iter();
    let task = tasks.find(|task| task.name == wanted.task);
    let state = task.map(|task| &task.state);
    let shown = lines.lines.iter();
    let console = Console {
        frame: seat.frame(Place::Jobs),
        build,
        task: wanted.task,
        state: state.map_or(State::None, State::of_task),
        attempt: home.attempt.get(),
        attempts: state.map_or(home.attempt, TaskState::attempt).get(),
        is_complete: home.complete,
        is_head: wanted.head,
        first: lines.lines.first().map_or(1, |line| line.number + 1),
        shown: shown.map(|line| (line.bytes.to_vec(), line.cut)).collect(),
        total: lines.total,
        length: lines.length,
        beside,
    };
    page(StatusCode::OK, &console)
}
