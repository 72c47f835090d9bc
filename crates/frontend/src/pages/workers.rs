//! The workers, as this frontend sees them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use distci_pages::{Place, Workers};

use super::{Seat, page};
use crate::api::{cluster, drains};
use crate::error::ApiError;

pub(super) async fn show(seat: Seat) -> Result<Response, ApiError> {
    let workers = cluster::workers(State(seat.app.clone())).await?;
    let workers = Workers {
        frame: seat.frame(Place::Workers),
        now: seat.app.now(),
        workers: workers.0,
        drains: drains::list(State(seat.app.clone())).await.0,
    };
    page(StatusCode::OK, &workers)
}
