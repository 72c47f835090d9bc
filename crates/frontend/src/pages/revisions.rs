//! The revisions of a job, and what one changed.

use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::id::JobId;
use distci_model::wire::JobView;
use distci_pages::{Compared, Place, Revisions};
use distci_store::{Store, StoreError};
use serde::Deserialize;

use super::{Seat, page};
use crate::error::ApiError;

/// Revisions of one page.
const REVISIONS: usize = 50;

#[derive(Default, Deserialize)]
pub(super) struct Wanted {
    /// Revisions before this one.
    before: Option<u32>,
    /// The one that is compared,
    of: Option<u32>,
    /// and with which; left out, the one before it.
    against: Option<u32>,
}

pub(super) async fn show(
    seat: Seat,
    Path(job): Path<JobId>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let store = &seat.app.store;
    let (_, present) = store.job_head(&job).await?;
    let revisions = store.revisions(&job, wanted.before, REVISIONS).await?;
    let compared = match wanted.of {
        Some(of) => Some(compared(store, &job, of, wanted.against).await?),
        None => None,
    };
    let revisions = Revisions {
        frame: seat.frame(Place::Jobs),
        now: seat.app.now(),
        job,
        present,
        revisions: revisions.items,
        next: revisions.next,
        is_later: wanted.before.is_some(),
        compared,
    };
    page(StatusCode::OK, &revisions)
}

async fn compared(
    store: &Store,
    job: &JobId,
    of: u32,
    against: Option<u32>,
) -> Result<Compared, ApiError> {
    let against = against.unwrap_or(of.saturating_sub(1));
    let (after, before) = tokio::try_join!(noted(store, job, of), noted(store, job, against))?;
    Ok(Compared {
        of,
        after,
        against,
        before,
    })
}

/// A revision, if it is known.
async fn noted(store: &Store, job: &JobId, number: u32) -> Result<Option<JobView>, StoreError> {
    match store.revision(job, number).await {
        Ok(view) => Ok(Some(view)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
