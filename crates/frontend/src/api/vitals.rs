//! How the cluster fares, as this frontend sees it. Told also while the store does not answer.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use distci_model::vitals::{
    ClusterView, CoordinationView, FaultView, PaceView, ServerStanding, ServerView, SessionView,
};
use distci_store::StoreError;
use distci_store::coordination::{Health, ServerFacts, ServerState, SessionFacts};
use tokio::time::{Instant, timeout};

use super::cluster;
use crate::app::App;
use crate::pace::Quantiles;

/// How long the store is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the cluster fares, as this frontend sees it: frontends, what coordinates, what keeps the
/// bytes, how long things take, and the last faults.
#[utoipa::path(get, path = "/cluster", tag = "cluster",
    responses((status = 200, body = ClusterView)))]
pub(crate) async fn get(State(app): State<App>) -> Json<ClusterView> {
    let (coordination, blobs, frontends) = tokio::join!(
        coordination(&app),
        timed(app.store.check_blobs()),
        cluster::frontends(State(app.clone()))
    );
    let paces = app.vitals.paces();
    let paces = paces.map(|(act, pace)| (act.as_str(), pace));
    let requests = [("request", app.vitals.requests.quantiles())];
    let paces = requests.into_iter().chain(paces);
    let faults = app.vitals.faults().into_iter();
    let counts = app.metrics.counts().into_iter();
    Json(ClusterView {
        frontends: frontends.0,
        since: app.vitals.since,
        coordination,
        blobs: app.store.blob_place().to_owned(),
        blobs_us: blobs.as_ref().ok().copied(),
        blobs_trouble: blobs.err(),
        lapsed_last_hour: app.vitals.lapsed_last_hour(),
        paces: paces.filter_map(|(what, pace)| view(what, pace?)).collect(),
        faults: faults
            .map(|fault| FaultView {
                at: fault.at,
                what: fault.what,
                place: fault.place,
                times: fault.times,
            })
            .collect(),
        counts: counts
            .map(|(what, count)| (what.to_owned(), count))
            .collect(),
    })
}

async fn coordination(app: &App) -> CoordinationView {
    let (read, servers) = tokio::join!(timed(app.store.check()), app.vitals.servers(&app.store));
    let standing = app.store.standing();
    let (read_us, trouble) = match read {
        Ok(micros) => (Some(micros), None),
        Err(why) => (None, Some(why)),
    };
    CoordinationView {
        place: standing.place,
        health: match *app.store.health().borrow() {
            Health::Connected { .. } => "connected",
            Health::Disconnected => "disconnected",
            Health::Fenced => "fenced",
        }
        .to_owned(),
        current: *app.current.borrow(),
        read_us,
        trouble,
        session: standing.session.map(session),
        servers: servers.into_iter().map(server).collect(),
    }
}

/// How long something takes, in microseconds, or why it does not come about. Nobody who looks waits
/// long for it.
async fn timed(work: impl Future<Output = Result<(), StoreError>>) -> Result<u64, String> {
    let began = Instant::now();
    match timeout(PATIENCE, work).await {
        Ok(Ok(())) => Ok(micros(began.elapsed())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn session(session: SessionFacts) -> SessionView {
    SessionView {
        id: session.id,
        timeout_ms: micros(session.timeout) / 1000,
        losses: session.losses,
        ended: session.ended,
    }
}

fn server(server: ServerFacts) -> ServerView {
    let standing = |state: ServerState| ServerStanding {
        role: state.role,
        version: state.version,
        latency: state.latency,
        connections: state.connections,
        outstanding: state.outstanding,
    };
    let (state, trouble) = match server.state {
        Ok(state) => (Some(standing(state)), None),
        Err(why) => (None, Some(why)),
    };
    ServerView {
        address: server.address,
        trouble,
        state,
    }
}

fn view(what: &str, pace: Quantiles) -> Option<PaceView> {
    (pace.count > 0).then(|| PaceView {
        what: what.to_owned(),
        count: pace.count,
        median_us: micros(pace.median),
        p99_us: micros(pace.p99),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
