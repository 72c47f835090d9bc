//! Home: all jobs.
//!
//! Owns what is read for it: nothing of jobs that have not changed since they were shown last, and
//! what runs now.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::id::{JobId, TicketKey};
use distci_model::wire::About;
use distci_pages::{Home, Place, Row, Running};
use distci_store::{JobHead, StoreError};
use futures::stream::{StreamExt, TryStreamExt, iter};
use serde::Deserialize;

use super::{Seat, page};
use crate::app::App;
use crate::error::ApiError;
use crate::jobs;

/// Jobs of one page.
const ROWS: usize = 100;
/// Builds that run now and are shown.
const RUNNING: usize = 12;
/// Tickets that are read at once.
const PARALLEL: usize = 32;

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// What the names shall contain.
    #[serde(default)]
    q: String,
    /// The last job of the page before.
    after: Option<JobId>,
}

pub(super) async fn show(seat: Seat, Query(wanted): Query<Wanted>) -> Result<Response, ApiError> {
    let app = &seat.app;
    let query = wanted.q.trim().to_owned();
    let is_later = wanted.after.is_some();
    let at_start = !is_later && query.is_empty();
    let listed = jobs::list(app, |id| fits(id, &query), wanted.after, ROWS).await?;
    let row = |(job, head): (JobId, Arc<JobHead>)| Row {
        job,
        description: head.description.clone(),
        builds: head.builds.clone(),
    };
    let home = Home {
        frame: seat.frame(Place::Jobs),
        now: app.now(),
        query,
        jobs: listed.jobs,
        fitting: listed.fitting,
        rows: listed.heads.into_iter().map(row).collect(),
        next: listed.next,
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
