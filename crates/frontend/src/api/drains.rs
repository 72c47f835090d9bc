//! Asking workers to leave.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use distci_model::drain::DrainOrder;
use distci_model::wire::{DrainRequest, Problem};

use super::extract::Json;
use crate::app::App;
use crate::error::ApiError;

/// The orders to leave that stand, newest first.
#[utoipa::path(get, path = "/workers/drain", tag = "cluster",
    responses((status = 200, body = Vec<DrainOrder>)))]
pub(crate) async fn list(State(app): State<App>) -> Answer<Vec<DrainOrder>> {
    let mut orders = app.drains.all();
    orders.sort_unstable_by_key(|order| std::cmp::Reverse(order.at));
    Answer(orders)
}

/// Asks the workers whose names fit, and that are there now, to leave: they take no more tickets, and
/// finish what they hold, however long it takes.
#[utoipa::path(post, path = "/workers/drain", tag = "cluster", request_body = DrainRequest,
    responses((status = 202, body = DrainOrder), (status = 400, body = Problem),
        (status = 422, body = Problem, description = "there are too many orders")))]
pub(super) async fn order(
    State(app): State<App>,
    Json(request): Json<DrainRequest>,
) -> Result<(StatusCode, Answer<DrainOrder>), ApiError> {
    let order = app.store.drain(&request.pattern, app.cluster_now()).await?;
    tracing::info!(pattern = %order.pattern, "workers are asked to leave");
    // Whoever asks here next shall see it.
    app.drains.add(order.clone());
    Ok((StatusCode::ACCEPTED, Answer(order)))
}
