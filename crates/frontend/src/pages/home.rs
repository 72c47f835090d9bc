//! Home: all jobs.
//!
//! Owns what is read for it: the names of all jobs, and more of those only that are shown.

use std::collections::BTreeSet;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::id::{JobId, TicketKey};
use distci_model::wire::About;
use distci_pages::{Home, Place, Row, Running};
use distci_store::StoreError;
use futures::stream::{StreamExt, TryStreamExt, iter};
use serde::Deserialize;

use super::{Seat, page};
use crate::app::App;
use crate::error::ApiError;

/// Jobs of one page.
const ROWS: usize = 100;
/// Builds of each that are shown.
const BUILDS: usize = 16;
/// Builds that run now and are shown.
const RUNNING: usize = 12;
/// Jobs, or tickets, that are read at once.
const PARALLEL: usize = 32;

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// What the names shall contain.
    #[serde(default)]
    q: String,
    /// The last job of the page before.
    after: Option<String>,
}

pub(super) async fn show(seat: Seat, Query(wanted): Query<Wanted>) -> Result<Response, ApiError> {
    let app = &seat.app;
    let ids = app.store.job_ids().await?;
    let jobs = ids.len();
    let query = wanted.q.trim().to_owned();
    let fitting: Vec<JobId> = ids.into_iter().filter(|id| fits(id, &query)).collect();
    let count = fitting.len();
    let after = |id: &JobId| {
        wanted
            .after
            .as_deref()
            .is_none_or(|last| id.as_str() > last)
    };
    let mut rest = fitting.into_iter().filter(after).peekable();
    let shown: Vec<JobId> = rest.by_ref().take(ROWS).collect();
    let next = shown.last().filter(|_| rest.peek().is_some()).cloned();
    let is_later = wanted.after.is_some();
    let at_start = !is_later && query.is_empty();
    let home = Home {
        frame: seat.frame(Place::Jobs),
        now: app.now(),
        query,
        jobs,
        fitting: count,
        rows: rows(app, shown).await?,
        next,
        is_later,
        running: if at_start {
            running(app).await?
        } else {
            Vec::new()
        },
        claimed: app.leases.all().len(),
        queued: app.board.demand().iter().map(|row| row.queued).sum(),
    };
    page(StatusCode::OK, &home)
}

fn fits(id: &JobId, query: &str) -> bool {
    let query = query.as_bytes();
    query.is_empty()
        || id
            .as_str()
            .as_bytes()
            .windows(query.len())
            .any(|part| part.eq_ignore_ascii_case(query))
}

async fn rows(app: &App, jobs: Vec<JobId>) -> Result<Vec<Row>, StoreError> {
    let row = async |job: JobId| match app.store.job_with_builds(&job, BUILDS).await {
        Ok(head) => Ok(Some(Row {
            job,
            description: head.description,
            builds: head.builds,
        })),
        // Removed, now or since it was listed.
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    let rows = iter(jobs).map(row).buffered(PARALLEL);
    rows.try_filter_map(async |row| Ok(row)).try_collect().await
}

/// Some of the builds of which workers hold a task, those that began first.
async fn running(app: &App) -> Result<Vec<Running>, StoreError> {
    let claims = app.leases.all().into_iter().map(|claim| claim.key);
    let tasks: BTreeSet<TicketKey> = claims
        .filter(|key| !key.ticket.is_control() && !key.ticket.is_errand())
        .take(RUNNING)
        .collect();
    let look = async |key: TicketKey| app.store.ticket_facts(&key).await;
    let facts = iter(tasks).map(look).buffered(PARALLEL);
    let facts: Vec<_> = facts.try_collect().await?;
    let mut running: Vec<Running> = facts
        .into_iter()
        .flatten()
        .filter_map(|facts| match facts.about {
            About::Build { build, task } => Some(Running {
                build,
                task: task.map(|task| task.to_string()),
                since: facts.claimed?.since,
            }),
            About::Errand { .. } => None,
        })
        .collect();
    running.sort_by_key(|one| one.since);
    Ok(running)
}
