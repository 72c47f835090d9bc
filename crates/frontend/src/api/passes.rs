//! Passes: what signs a reader in without the token.

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use distci_model::wire::Pass;

use crate::app::App;
use crate::auth::Gate;

/// Gives what may be shown at `/sign-in` instead of the token, for a minute.
#[utoipa::path(post, path = "/passes", tag = "cluster", responses((status = 200, body = Pass)))]
pub(super) async fn give(
    State(app): State<App>,
    Extension(gate): Extension<Gate>,
) -> impl IntoResponse {
    let pass = gate.pass(app.now());
    ([(CACHE_CONTROL, "no-store")], Json(Pass { pass }))
}
