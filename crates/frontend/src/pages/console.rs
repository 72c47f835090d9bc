//! The console of an attempt: its end, as far as a page has room for it.

use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::id::{Attempt, JobId, TaskName};
use distci_pages::{Console, Place};
use serde::Deserialize;

use super::{Seat, page};
use crate::api::builds::find;
use crate::error::ApiError;

/// Most bytes that are read of a console.
const MOST: u64 = 512 * 1024;

#[derive(Deserialize)]
pub(super) struct Wanted {
    task: TaskName,
    /// The attempt; the latest, if left out.
    attempt: Option<u32>,
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
    let length = store.read_console(&home, u64::MAX, 0).await?.length;
    let skipped = length.saturating_sub(MOST);
    let most = usize::try_from(length - skipped).unwrap_or_default();
    let part = store.read_console(&home, skipped, most).await?;
    let mut tasks = view.tasks.iter();
    let task = tasks.find(|task| task.name == wanted.task);
    let state = task.map(|task| &task.state);
    let console = Console {
        frame: seat.frame(Place::Jobs),
        build,
        task: wanted.task,
        state: state.map_or(distci_pages::State::None, distci_pages::State::of_task),
        attempt: home.attempt.get(),
        attempts: state
            .map_or(home.attempt, distci_model::wire::TaskState::attempt)
            .get(),
        is_complete: home.complete,
        text: part.bytes.to_vec(),
        skipped,
    };
    page(StatusCode::OK, &console)
}
