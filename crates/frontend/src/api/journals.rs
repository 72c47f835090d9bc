//! What happened in a build.

use axum::Json;
use axum::extract::{Path, State};
use distci_model::id::JobId;
use distci_model::journal::Entry;
use distci_model::wire::Problem;

use super::builds::find;
use crate::app::App;
use crate::error::ApiError;

/// All that happened in a build so far, in the order of time. What is told once stays, but for the
/// claims in the middle of very many.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/journal", tag = "builds",
    responses((status = 200, body = Vec<Entry>), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
) -> Result<Json<Vec<Entry>>, ApiError> {
    let build = find(&app, job, &selector).await?;
    Ok(Json(app.store.journal(&build).await?))
}
