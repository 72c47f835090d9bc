//! One running frontend.
//!
//! Owns the listener, the background loops and their end. Killing it loses nothing but the requests
//! in flight; stopping it answers those first. Without a listener it is an [`Inner`]: whoever has one
//! brings the requests himself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::serve::ListenerExt;
use distci_model::id::WorkerId;
use distci_store::coordination::Clock;
use distci_store::{Store, StoreError};
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::App;
use crate::hooks::HookSecrets;
use crate::{api, forsaken, mirror, pulse, schedules, timers, vitals};

/// How long requests may take to end once the frontend stops.
const GRACE: Duration = Duration::from_secs(10);

/// How to run a frontend.
pub struct Settings {
    /// Where to listen, at least one address; port 0 for any free one.
    pub listen: Vec<SocketAddr>,
    /// The bearer token that opens the API.
    pub token: String,
    /// The wall clock.
    pub clock: Clock,
    /// The secrets of forges whose webhooks are taken.
    pub hooks: HookSecrets,
    /// Where people reach this DistCI, if that is told: what forges link to begins with it.
    pub public_url: Option<String>,
    /// A worker that is known to be dead: its claims are given up at once.
    pub dead_worker: Option<WorkerId>,
}

/// What a frontend is told, but for where it listens.
pub struct Who {
    /// The bearer token that opens the API.
    pub token: String,
    /// The wall clock.
    pub clock: Clock,
    /// The secrets of forges whose webhooks are taken.
    pub hooks: HookSecrets,
    /// Where people reach this DistCI, if that is told.
    pub public_url: Option<String>,
    /// What the other frontends are told of where it is.
    pub address: String,
}

/// A frontend without a listener: what answers requests, and the loops that nobody asks for. It does
/// nothing by itself; whoever holds it brings the requests and polls the loops.
#[derive(Clone)]
pub struct Inner {
    app: App,
    router: Router,
    address: String,
    stop: CancellationToken,
}

impl Inner {
    /// A frontend over `store` that answers held requests when `stop` is cancelled.
    pub fn new(who: Who, store: Store, stop: CancellationToken) -> Self {
        let mut app = App::new(store, who.clock, stop.clone()).with_hooks(who.hooks);
        app.public_url = who.public_url.map(Arc::from);
        let router = api::router(app.clone(), &who.token);
        Self {
            app,
            router,
            address: who.address,
            stop,
        }
    }

    /// The answer to a request, whole.
    ///
    /// # Cancel safety
    /// Dropped, it is as if the connection was lost: what was asked for may have been done.
    pub async fn answer(&self, request: http::Request<Bytes>) -> http::Response<Bytes> {
        let request = request.map(axum::body::Body::from);
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (head, body) = response.into_parts();
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(body) => http::Response::from_parts(head, body),
            Err(error) => {
                // The connection would break off here.
                let mut broken = http::Response::new(Bytes::from(error.to_string()));
                *broken.status_mut() = http::StatusCode::BAD_GATEWAY;
                broken
            }
        }
    }

    /// The loops that nobody asks for; to be polled side by side until they end.
    pub fn duties(&self) -> Vec<BoxFuture<'static, ()>> {
        duties(&self.app, self.address.clone(), &self.stop)
    }
}

/// Why a frontend did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The store does not answer.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

/// A running frontend.
pub struct Frontend {
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<io::Result<()>>,
}

impl Frontend {
    /// Starts a frontend over `store` that runs until `stop`.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        settings: Settings,
        store: Store,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let mut listeners = Vec::with_capacity(settings.listen.len());
        for address in settings.listen {
            listeners.push(listen(address).await?);
        }
        let shown: Vec<_> = listeners
            .iter()
            .map(|(address, _)| address.to_string())
            .collect();
        let who = Who {
            token: settings.token,
            clock: settings.clock,
            hooks: settings.hooks,
            public_url: settings.public_url,
            address: shown.join(" "),
        };
        let Inner { app, router, .. } = Inner::new(who, store, stop.clone());
        if let Some(worker) = settings.dead_worker {
            bury(&app, &worker).await?;
        }
        let mut tasks = JoinSet::new();
        for duty in duties(&app, shown.join(" "), &stop) {
            tasks.spawn(async move {
                duty.await;
                Ok(())
            });
        }
        let mut addresses = Vec::with_capacity(listeners.len());
        for (address, listener) in listeners {
            tasks.spawn(serve(listener, router.clone(), stop.clone()));
            tracing::info!(%address, "frontend listens");
            addresses.push(address);
        }
        Ok(Self { addresses, tasks })
    }

    /// Where it listens, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// What ended it, if it was not told to stop.
    pub async fn join(mut self) -> io::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

async fn listen(address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let unheard = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(unheard)?;
    Ok((listener.local_addr().map_err(unheard)?, listener))
}

/// Answers whoever comes, until `stop` and a grace.
async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    // Answers are small and awaited: nothing is gained by collecting them.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
    });
    // A bare router is copied with all its routes for each connection, 400 KB; this one is shared.
    let serve = axum::serve(listener, router.into_make_service());
    let serve = serve.with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = serve.into_future() => served,
        () = overstayed(stop) => Ok(()),
    }
}

/// The loops that nobody asks for, until `stop`.
fn duties(app: &App, address: String, stop: &CancellationToken) -> Vec<BoxFuture<'static, ()>> {
    let (board, token) = (app.board.clone(), stop.clone());
    let ripen = async move {
        tokio::select! {
            () = board.ripen() => {}
            () = token.cancelled() => {}
        }
    };
    vec![
        Box::pin(ripen),
        Box::pin(mirror::follow(app.clone(), stop.clone())),
        Box::pin(mirror::expire(app.clone(), stop.clone())),
        Box::pin(timers::run(app.clone(), stop.clone())),
        Box::pin(schedules::run(app.clone(), stop.clone())),
        Box::pin(forsaken::run(app.clone(), stop.clone())),
        Box::pin(vitals::follow(app.clone(), stop.clone())),
        Box::pin(pulse::beat(app.clone(), address, stop.clone())),
    ]
}

/// When nobody may keep a stopping frontend any longer, however slowly he reads.
async fn overstayed(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
    tracing::warn!("requests are still open; they are cut off");
}

/// Gives up what a dead worker held.
async fn bury(app: &App, worker: &WorkerId) -> Result<(), StoreError> {
    let mark = worker.mark();
    for name in app.store.list_claims().await? {
        let distci_model::ticket::IndexName::Claim(claim) = name else {
            continue;
        };
        if claim.worker != mark {
            continue;
        }
        tracing::info!(ticket = %claim.key, attempt = %claim.attempt, "its worker died; queued again");
        match app.store.expire(&claim.key, claim.attempt, app.now()).await {
            Ok(()) | Err(StoreError::AttemptOver { .. } | StoreError::Gone) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
