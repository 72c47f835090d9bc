//! The cluster, as this frontend sees it. Shown also while the store does not answer.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use distci_pages::{Cluster, Place};

use super::{Seat, page};
use crate::api::vitals;
use crate::error::ApiError;

pub(super) async fn show(seat: Seat) -> Result<Response, ApiError> {
    let cluster = Cluster {
        frame: seat.frame(Place::Cluster),
        now: seat.app.now(),
        view: vitals::get(State(seat.app.clone())).await.0,
    };
    page(StatusCode::OK, &cluster)
}
