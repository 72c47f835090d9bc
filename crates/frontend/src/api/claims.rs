//! Claiming tickets and keeping claims alive.

use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use distci_model::id::Attempt;
use distci_model::ticket::{ClaimName, QueueName, TicketState};
use distci_model::wire::{BeatReply, BeatRequest, Claim, ClaimRequest, Held, Problem, Standing};
use distci_store::{Claiming, StoreError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant as Deadline, timeout_at};

use super::extract::{Json, wait};
use crate::app::App;
use crate::error::ApiError;

/// Most capabilities of a worker.
const MAX_CAPABILITIES: usize = 64;
/// Longest that a beat is held: well below the shortest lease.
const MAX_HOLD: Duration = Duration::from_secs(10);
/// Most claims of one beat.
const MAX_HELD: usize = 1024;

/// Asks for a ticket. Held until there is one that the worker's capabilities satisfy.
#[utoipa::path(post, path = "/claims", tag = "worker", request_body = ClaimRequest,
    responses((status = 200, body = Claim), (status = 204, description = "there is none"),
        (status = 400, body = Problem)))]
pub(super) async fn claim(
    State(app): State<App>,
    Json(request): Json<ClaimRequest>,
) -> Result<Response, ApiError> {
    if request.capabilities.len() > MAX_CAPABILITIES {
        let detail = format!("a worker offers at most {MAX_CAPABILITIES} capabilities");
        return Err(ApiError::malformed(detail));
    }
    if let Some(claim) = earlier(&app, &request).await? {
        return Ok(Answer(claim).into_response());
    }
    let deadline = Deadline::now() + wait(request.wait);
    loop {
        let offer = match app.board.ask(&request.worker, &request.capabilities) {
            Ok(offer) => offer,
            Err(promise) => tokio::select! {
                offered = timeout_at(deadline, promise) => match offered {
                    Ok(Ok(offer)) => offer,
                    Ok(Err(_)) | Err(_) => return Ok(StatusCode::NO_CONTENT.into_response()),
                },
                () = app.stop.cancelled() => return Ok(StatusCode::NO_CONTENT.into_response()),
            },
        };
        let Some(entry) = offer.entry().cloned() else {
            continue;
        };
        let now = app.now();
        let claiming = app
            .store
            .claim(&entry.key, &request.worker, &request.request, now)
            .await?;
        // By this claim or another's, the entry is out of the queue.
        offer.spent();
        if let Claiming::Claimed(claim) = claiming {
            let marker = marker(&request, entry, claim.attempt);
            app.leases.add_own(marker, Instant::now());
            return Ok(Answer(claim).into_response());
        }
    }
}

/// The marker of the claim that a request made of a queued ticket.
fn marker(request: &ClaimRequest, entry: QueueName, attempt: Attempt) -> ClaimName {
    ClaimName {
        control: entry.key.ticket.is_control(),
        key: entry.key,
        attempt,
        worker: request.holder().mark(),
        request: request.request.short().to_owned(),
        job: entry.job,
        class: entry.class,
        cancel: false,
    }
}

/// The claim that an earlier try of this request made, whose answer got lost.
async fn earlier(app: &App, request: &ClaimRequest) -> Result<Option<Claim>, StoreError> {
    let mark = request.holder().mark();
    let Some(key) = app.leases.claimed_by(&mark, request.request.short()) else {
        return Ok(None);
    };
    let claiming = app
        .store
        .claim(&key, &request.worker, &request.request, app.now())
        .await?;
    Ok(match claiming {
        Claiming::Claimed(claim) => Some(*claim),
        Claiming::Taken => None,
    })
}

/// Keeps claims alive. Held until one of them is cancelled or lost, but for ten seconds at most: a
/// claim is believed from the beginning of its latest beat.
#[utoipa::path(post, path = "/beats", tag = "worker", request_body = BeatRequest,
    responses((status = 200, body = BeatReply), (status = 400, body = Problem)))]
pub(super) async fn beat(
    State(app): State<App>,
    Json(request): Json<BeatRequest>,
) -> Result<Answer<BeatReply>, ApiError> {
    if request.held.len() > MAX_HELD {
        return Err(ApiError::malformed(format!(
            "a beat is for at most {MAX_HELD} claims"
        )));
    }
    let deadline = Deadline::now() + wait(request.wait).min(MAX_HOLD);
    let mut calls: Vec<_> = request
        .held
        .iter()
        .map(|held| app.builds.subscribe(&held.ticket.build))
        .collect();
    loop {
        calls.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let mut standings = Vec::with_capacity(request.held.len());
        for held in &request.held {
            standings.push(standing(&app, held).await?);
        }
        let news = request
            .held
            .iter()
            .zip(&standings)
            .any(|(held, now)| held.standing != *now);
        if news || calls.is_empty() {
            return Ok(Answer(BeatReply {
                standings,
                unheard: 0,
            }));
        }
        let mut any: FuturesUnordered<_> = calls.iter_mut().map(watch::Receiver::changed).collect();
        let called = tokio::select! {
            called = timeout_at(deadline, any.next()) => called.is_ok(),
            () = app.stop.cancelled() => false,
        };
        if !called {
            return Ok(Answer(BeatReply {
                standings,
                unheard: 0,
            }));
        }
    }
}

/// What became of a claim. The store is asked only for what the mirror does not know.
async fn standing(app: &App, held: &Held) -> Result<Standing, StoreError> {
    if let Some(known) = app.leases.heard(&held.ticket, held.attempt, Instant::now()) {
        return Ok(known);
    }
    let ticket = app.store.ticket(&held.ticket).await?;
    let ticket = ticket.filter(|ticket| ticket.attempt == held.attempt);
    Ok(match ticket.map(|ticket| ticket.state) {
        Some(TicketState::Claimed(claimed)) if claimed.cancel => Standing::Cancel,
        Some(TicketState::Claimed(_)) => Standing::Held,
        Some(TicketState::Queued | TicketState::Parked | TicketState::Done(_)) | None => {
            Standing::Lost
        }
    })
}
