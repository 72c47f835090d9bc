//! What the holder of a claim does with its ticket.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use distci_model::errand::ErrandResult;
use distci_model::id::{Attempt, TicketKey};
use distci_model::outcome::TaskResult;
use distci_model::wire::{CommitReply, CommitRequest, Problem};

use super::extract::Json;
use crate::app::App;
use crate::error::ApiError;

/// Most bytes of a result, messages and names included.
const MAX_RESULT: usize = 2 * TaskResult::MAX_VALUES;

/// Reports the end of a task's run.
#[utoipa::path(post, path = "/tickets/{ticket}/{attempt}/complete", tag = "worker",
    request_body = TaskResult, responses((status = 204), (status = 409, body = Problem)))]
pub(super) async fn complete(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    Json(result): Json<TaskResult>,
) -> Result<StatusCode, ApiError> {
    if result.value_bytes() > TaskResult::MAX_VALUES {
        let most = TaskResult::MAX_VALUES;
        return Err(ApiError::malformed(format!(
            "exports and outputs have over {most} bytes"
        )));
    }
    if serde_json::to_vec(&result).map_or(0, |text| text.len()) > MAX_RESULT {
        let detail = format!("a result has at most {MAX_RESULT} bytes");
        return Err(ApiError::too_large(detail));
    }
    app.store
        .complete(&ticket, Attempt::new(attempt), &result, app.now())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reports what came of a try at an errand.
#[utoipa::path(post, path = "/tickets/{ticket}/{attempt}/errand", tag = "worker",
    request_body = ErrandResult, responses((status = 204), (status = 409, body = Problem)))]
pub(super) async fn complete_errand(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    Json(result): Json<ErrandResult>,
) -> Result<StatusCode, ApiError> {
    app.store
        .complete_errand(&ticket, Attempt::new(attempt), &result, app.cluster_now())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hands a ticket back undone.
#[utoipa::path(post, path = "/tickets/{ticket}/{attempt}/release", tag = "worker",
    responses((status = 204), (status = 409, body = Problem)))]
pub(super) async fn release(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
) -> Result<StatusCode, ApiError> {
    app.store
        .release(&ticket, Attempt::new(attempt), app.now())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Commits a decision of build control.
#[utoipa::path(post, path = "/tickets/{ticket}/{attempt}/commit", tag = "worker",
    request_body = CommitRequest,
    responses((status = 200, body = CommitReply), (status = 409, body = Problem)))]
pub(super) async fn commit(
    State(app): State<App>,
    Path((ticket, attempt)): Path<(TicketKey, u32)>,
    Json(request): Json<CommitRequest>,
) -> Result<Answer<CommitReply>, ApiError> {
    let attempt = Attempt::new(attempt);
    Ok(Answer(
        app.store
            .commit(&ticket, attempt, &request, app.cluster_now())
            .await?,
    ))
}
