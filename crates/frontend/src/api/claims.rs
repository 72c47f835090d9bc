//! Claiming tickets and keeping claims alive.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use distci_model::Timestamp;
use distci_model::errand::ErrandOrder;
use distci_model::id::{Attempt, RequestId, TicketKey, WorkerId};
use distci_model::ticket::{ClaimName, Duty, QueueName};
use distci_model::wire::{
    About, BeatReply, BeatRequest, Claim, ClaimRequest, Held, Problem, Standing, Work,
};
use distci_store::coordination::Health;
use distci_store::{Claiming, StoreError, TicketFacts};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::extract::{Json, wait};
use crate::app::App;
use crate::board::Offer;
use crate::error::ApiError;

/// Most capabilities of a worker.
const MAX_CAPABILITIES: usize = 64;
/// Longest that a beat is held: well below the shortest lease.
const MAX_HOLD: Duration = Duration::from_secs(10);
/// The same for a beat that names a claim of build control, whose lease is half as long.
const MAX_CONTROL_HOLD: Duration = Duration::from_secs(5);
/// So many lost races in a row are more than chance.
const PATIENT: u32 = 3;
/// The pause after them, times 1 to 4.
const STEP: Duration = Duration::from_millis(5);
/// Most claims of one beat.
const MAX_HELD: usize = 1024;

/// Asks for a ticket. Held until there is one that the worker's capabilities satisfy.
#[utoipa::path(post, path = "/claims", tag = "worker", request_body = ClaimRequest,
    responses((status = 200, body = Claim), (status = 204, description = "there is none"),
        (status = 400, body = Problem),
        (status = 410, body = Problem, description = "the worker is asked to leave")))]
pub(super) async fn claim(
    State(app): State<App>,
    Json(request): Json<ClaimRequest>,
) -> Result<Response, ApiError> {
    if request.capabilities.len() > MAX_CAPABILITIES {
        let detail = format!("a worker offers at most {MAX_CAPABILITIES} capabilities");
        return Err(ApiError::malformed(detail));
    }
    let deadline = Instant::now() + wait(request.wait);
    let began = began(&app, &request);
    let mut drains = app.drains.subscribe();
    // An earlier try of this request may have been heard by another frontend, which is about to make
    // the claim, or has made it and the news are on their way.
    let holder = request.holder().mark();
    let id = (holder.clone(), request.request.short().to_owned());
    let mut made = app.requests.subscribe(&id);
    let mut lost = 0;
    loop {
        made.mark_unchanged();
        drains.mark_unchanged();
        if let Some(claim) = earlier(&app, &request, &holder).await? {
            return Ok(Answer(claim).into_response());
        }
        if let Some(order) = began.and_then(|began| app.drains.asks(&request.worker, began)) {
            return Err(ApiError::draining(&order));
        }
        app.seen.note(&request.worker, &request.capabilities);
        let offer = match app.board.ask(&request.worker, &request.capabilities) {
            Ok(offer) => offer,
            Err(promise) => tokio::select! {
                offered = timeout_at(deadline, promise) => match offered {
                    Ok(Ok(offer)) => offer,
                    Ok(Err(_)) | Err(_) => return Ok(StatusCode::NO_CONTENT.into_response()),
                },
                Ok(()) = made.changed() => continue,
                Ok(()) = drains.changed() => continue,
                () = app.stop.cancelled() => return Ok(StatusCode::NO_CONTENT.into_response()),
            },
        };
        match try_to_claim(&app, &request, offer).await? {
            Claiming::Claimed(claim) => {
                return Ok(Answer(addressed(&app, *claim).await?).into_response());
            }
            // Passed over from now on; another entry may do.
            Claiming::Blocked(_) => continue,
            Claiming::Taken => {}
        }
        app.metrics.races_lost.inc();
        lost += 1;
        if lost % PATIENT == 0 {
            // Somebody goes through the same queue at the same pace: step out of it.
            tokio::time::sleep(STEP * (1 + u32::from(request.request.as_str().as_bytes()[31] % 4)))
                .await;
        }
    }
}

/// When the worker that asks began, if it says so.
fn began(app: &App, request: &ClaimRequest) -> Option<Timestamp> {
    let age = Duration::from_millis(request.age_ms?);
    // Nobody is older than time.
    Some(app.cluster_now().checked_sub(age).unwrap_or(Timestamp::MIN))
}

/// The claim with what only a frontend knows: the page that a report links to.
async fn addressed(app: &App, mut claim: Claim) -> Result<Claim, StoreError> {
    if let Work::Errand { order } = &mut claim.work
        && let ErrandOrder::Report { url, .. } = order.as_mut()
        && app.public_url.is_some()
        && let Some(TicketFacts {
            about: About::Errand {
                build: Some(build), ..
            },
            ..
        }) = app.store.ticket_facts(&claim.ticket).await?
    {
        *url = app.page(&build);
    }
    Ok(claim)
}

/// When a ticket is claimed. Who decides what happens when goes by the clock that woke it.
fn claimed_at(app: &App, key: &TicketKey) -> Timestamp {
    match key.ticket.duty() {
        Duty::Control | Duty::Errand => app.cluster_now(),
        Duty::Task => app.now(),
    }
}

/// Tries to claim what the board offers, and tells the board what came of it.
async fn try_to_claim(
    app: &App,
    request: &ClaimRequest,
    offer: Offer,
) -> Result<Claiming, StoreError> {
    let Some(entry) = offer.entry().cloned() else {
        return Ok(Claiming::Taken);
    };
    let (now, begun) = (claimed_at(app, &entry.key), Instant::now());
    let claiming = app
        .store
        .claim(&entry.key, &request.worker, &request.request, now)
        .await;
    let took = begun.elapsed();
    let claiming = match claiming {
        // It must not stand in the way of all that can be claimed.
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(ticket = %entry.key, %error, "a queued ticket is passed over");
            Claiming::Taken
        }
        claiming => claiming?,
    };
    if let Claiming::Blocked(blocked) = &claiming {
        app.metrics.blocked.inc();
        offer.blocked(blocked);
        return Ok(claiming);
    }
    app.board.took(took);
    // By this claim or another's, the entry is out of the queue.
    offer.spent();
    if let Claiming::Claimed(claim) = &claiming {
        app.metrics.claims.inc();
        let marker = marker(request, entry, claim.attempt);
        app.leases.add_own(marker, Instant::now());
    }
    Ok(claiming)
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
async fn earlier(
    app: &App,
    request: &ClaimRequest,
    holder: &str,
) -> Result<Option<Claim>, StoreError> {
    let Some(key) = app.leases.claimed_by(holder, request.request.short()) else {
        return Ok(None);
    };
    let claiming = app
        .store
        .claim(
            &key,
            &request.worker,
            &request.request,
            claimed_at(app, &key),
        )
        .await?;
    Ok(match claiming {
        Claiming::Claimed(claim) => Some(addressed(app, *claim).await?),
        Claiming::Taken | Claiming::Blocked(_) => None,
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
    if request.pending.len() > MAX_HELD {
        return Err(ApiError::malformed(format!(
            "a worker waits for at most {MAX_HELD} claims"
        )));
    }
    // First of all: whatever goes wrong below, these were heard.
    for held in &request.held {
        app.leases.heard(&held.ticket, held.attempt, Instant::now());
    }
    release_orphans(&app, &request).await;
    let control = request
        .held
        .iter()
        .any(|held| held.ticket.ticket.is_control());
    let most = if control { MAX_CONTROL_HOLD } else { MAX_HOLD };
    let deadline = Instant::now() + wait(request.wait).min(most);
    let mut calls: Vec<_> = request
        .held
        .iter()
        .map(|held| app.builds.subscribe(&held.ticket.build))
        .collect();
    let mut health = app.store.health();
    loop {
        // Whom a frontend hears that nobody hears, should go to another.
        if !matches!(*health.borrow_and_update(), Health::Connected { .. }) {
            return Err(StoreError::Down("this frontend cannot reach the store".into()).into());
        }
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
        let reply = BeatReply {
            standings,
            unheard: app.pulse.silent_for().as_secs(),
        };
        if news || calls.is_empty() {
            return Ok(Answer(reply));
        }
        let mut any: FuturesUnordered<_> = calls.iter_mut().map(watch::Receiver::changed).collect();
        let called = tokio::select! {
            called = timeout_at(deadline, any.next()) => called.is_ok(),
            changed = health.changed() => changed.is_ok(),
            () = app.stop.cancelled() => false,
        };
        if !called {
            return Ok(Answer(reply));
        }
    }
}

/// Hands back the claims of this run of a worker that it does not know of, because nobody got the
/// answer that told of them.
async fn release_orphans(app: &App, request: &BeatRequest) {
    let held = request.held.iter().map(|held| (&held.ticket, held.attempt));
    let pending = request.pending.iter().map(RequestId::short);
    let (held, pending) = (held.collect(), pending.collect());
    let mark = WorkerId {
        name: request.worker.clone(),
        session: request.session.clone(),
    }
    .mark();
    let orphans = app.leases.orphans(&mark, &held, &pending, Instant::now());
    for (key, attempt) in orphans {
        match app.store.release(&key, attempt, app.now()).await {
            Ok(()) => {
                app.metrics.orphaned.inc();
                let what = format!(
                    "worker {} does not know of a claim of its own",
                    request.worker
                );
                app.vitals
                    .lapse(what, format!("ticket {key}, attempt {attempt}"));
                tracing::warn!(ticket = %key, %attempt, worker = %request.worker, "claimed in vain; queued again");
            }
            Err(StoreError::AttemptOver { .. } | StoreError::Gone) => {
                app.leases.forget(&key, attempt);
            }
            // The claims that the worker does hold must not suffer for it; its lease ends as well.
            Err(error) => {
                return tracing::warn!(ticket = %key, %attempt, %error, "an orphan stays for now");
            }
        }
    }
}

/// What became of a claim. The store is asked only for what the mirror does not know.
async fn standing(app: &App, held: &Held) -> Result<Standing, StoreError> {
    if let Some(known) = app.leases.heard(&held.ticket, held.attempt, Instant::now()) {
        return Ok(known);
    }
    Ok(
        match app.store.check_claim(&held.ticket, held.attempt).await {
            // The news of its marker are on their way, and with them whether it is to stop.
            Ok(_) => Standing::Held,
            Err(StoreError::AttemptOver { .. } | StoreError::Gone) => Standing::Lost,
            // Nor must the others suffer for one that nobody can read.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(ticket = %held.ticket, %error, "a claim cannot be looked up");
                Standing::Held
            }
            Err(error) => return Err(error),
        },
    )
}
