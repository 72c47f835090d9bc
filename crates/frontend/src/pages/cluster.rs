//! The cluster, as this frontend sees it. Shown also while the store does not answer.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use distci_pages::{Cluster, Place, Store};
use distci_store::coordination::Health;
use tokio::time::Instant;

use super::{Seat, page};
use crate::api::cluster;
use crate::app::App;
use crate::error::ApiError;

pub(super) async fn show(seat: Seat) -> Result<Response, ApiError> {
    let app = &seat.app;
    let cluster = Cluster {
        frame: seat.frame(Place::Cluster),
        frontends: cluster::frontends(State(app.clone())).await.0,
        store: store(app).await,
        counts: app.metrics.counts(),
    };
    page(StatusCode::OK, &cluster)
}

async fn store(app: &App) -> Store {
    let began = Instant::now();
    let read = app.store.check().await;
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Store {
        read: read.map(|()| millis).map_err(|error| error.to_string()),
        health: match *app.store.health().borrow() {
            Health::Connected { .. } => "connected",
            Health::Disconnected => "disconnected",
            Health::Fenced => "fenced",
        },
        is_current: *app.current.borrow(),
    }
}
