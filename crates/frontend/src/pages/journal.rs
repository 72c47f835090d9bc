//! What happened in a build.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::id::JobId;
use distci_pages::{Journal, Place};

use super::{Seat, page};
use crate::api::builds::find;
use crate::error::ApiError;

pub(super) async fn show(
    seat: Seat,
    Path((job, selector)): Path<(JobId, String)>,
) -> Result<Response, ApiError> {
    let build = find(&seat.app, job, &selector).await?;
    let journal = Journal {
        frame: seat.frame(Place::Jobs),
        entries: seat.app.store.journal(&build).await?,
        build,
    };
    page(StatusCode::OK, &journal)
}
