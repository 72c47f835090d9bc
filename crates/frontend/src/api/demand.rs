//! What is wanted: for people, and for pools, which start workers for it.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use distci_model::id::{WorkerId, WorkerName};
use distci_model::pool::{Demand, DemandReply, DemandRequest, MAX_POOL, Started};
use distci_model::wire::Problem;
use distci_store::StoreError;
use tokio::time::{Instant, sleep, sleep_until};

use super::extract::{Json, wait};
use crate::app::App;
use crate::error::ApiError;

/// How often a held question is looked at again. A pool whose machines take seconds to start does
/// not mind, and nobody has to ring for it at every ticket.
const LOOK: Duration = Duration::from_millis(200);

/// What waits, by the capabilities that it requires.
#[utoipa::path(get, path = "/demand", tag = "cluster",
    responses((status = 200, body = Vec<Demand>)))]
pub(super) async fn get(State(app): State<App>) -> Answer<Vec<Demand>> {
    Answer(app.board.demand())
}

/// The same for a pool, with those of its workers that hold claims. Held while the answer is one that
/// the pool knows.
#[utoipa::path(post, path = "/demand", tag = "worker", request_body = DemandRequest,
    responses((status = 200, body = DemandReply), (status = 400, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn ask(
    State(app): State<App>,
    Json(request): Json<DemandRequest>,
) -> Result<Answer<DemandReply>, ApiError> {
    if request.workers.len() > MAX_POOL {
        let detail = format!("a pool has at most {MAX_POOL} workers");
        return Err(ApiError::malformed(detail));
    }
    let deadline = Instant::now() + wait(request.wait);
    let workers: HashMap<String, WorkerName> = request.workers.into_iter().map(mark).collect();
    loop {
        // A frontend that has not seen everything would make the pool start what is there already.
        let current = *app.current.borrow();
        if current {
            let reply = reply(&app, &workers);
            let known = request.known.as_ref() == Some(&reply.tag);
            if !known || Instant::now() >= deadline {
                return Ok(Answer(reply));
            }
        } else if Instant::now() >= deadline {
            let behind = "this frontend has not yet taken in what the store holds";
            return Err(StoreError::Down(behind.into()).into());
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = sleep_until(deadline) => {}
            () = app.stop.cancelled() => return Ok(Answer(reply(&app, &workers))),
        }
    }
}

fn mark(started: Started) -> (String, WorkerName) {
    let name = started.worker.clone();
    let id = WorkerId {
        name: started.worker,
        session: started.session,
    };
    (id.mark(), name)
}

fn reply(app: &App, workers: &HashMap<String, WorkerName>) -> DemandReply {
    let mut demand = app.board.demand();
    demand.sort_by_cached_key(|row| row.requires.to_string());
    let claims = app.leases.all();
    let busy = claims.iter().filter_map(|claim| workers.get(&claim.worker));
    let mut busy: Vec<WorkerName> = busy.cloned().collect();
    busy.sort_unstable();
    busy.dedup();
    let mut hasher = blake3::Hasher::new();
    for row in &demand {
        let counts = (row.queued, row.blocked);
        hasher.update(format!("{} {counts:?}\n", row.requires).as_bytes());
    }
    for name in &busy {
        hasher.update(format!("{name}\n").as_bytes());
    }
    let tag = hasher.finalize().to_hex().chars().take(16).collect();
    DemandReply { tag, demand, busy }
}
