//! The queue: what waits, and why.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::pool::Demand;
use distci_pages::{Place, Queue, Wanted};
use serde::Deserialize;

use super::{Seat, page};
use crate::api::cluster;
use crate::api::jobs::Paging;
use crate::api::locks;
use crate::error::ApiError;

/// Most locks of the page.
const LOCKS: usize = 50;

#[derive(Deserialize)]
pub(super) struct From {
    cursor: Option<String>,
}

pub(super) async fn show(seat: Seat, Query(from): Query<From>) -> Result<Response, ApiError> {
    let app = || State(seat.app.clone());
    let tickets = Paging {
        cursor: from.cursor,
        limit: None,
    };
    let first = Paging {
        cursor: None,
        limit: Some(LOCKS),
    };
    let (tickets, locks) = tokio::try_join!(
        cluster::queue(app(), Query(tickets)),
        locks::list(app(), Query(first))
    )?;
    let wanted = |demand: Demand| Wanted {
        requires: demand.requires,
        queued: demand.queued,
        workers: demand.workers,
    };
    let demand = seat.app.board.demand();
    let queue = Queue {
        frame: seat.frame(Place::Queue),
        now: seat.app.now(),
        tickets: tickets.0.items,
        next: tickets.0.next,
        demand: demand
            .into_iter()
            .filter(|row| row.queued > 0)
            .map(wanted)
            .collect(),
        locks: locks.0.items,
    };
    page(StatusCode::OK, &queue)
}
