//! DistCI in this process: embedded store, frontend and workers, spoken to over loopback HTTP.
//!
//! Owns the parts and their order: the worker stops before the frontend that it reports to, that
//! before the store that it writes to. A part that ends by itself is an error, never silence.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use distci_client::{Client, Token};
use distci_frontend::{Frontend, HookSecrets};
use distci_model::id::WorkerId;
use distci_store::Store;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::now;

/// How long a worker may take to give back what it holds.
const WORKER_GRACE: Duration = Duration::from_secs(20);
/// How long a frontend may take to answer what it was asked.
const FRONTEND_GRACE: Duration = Duration::from_secs(5);

/// The parts that run here.
pub(crate) struct Local {
    address: SocketAddr,
    token: Token,
    store: Store,
    frontend: Part,
    worker: Part,
}

/// A part with its name for people and the way to stop it.
struct Part {
    name: &'static str,
    running: JoinSet<Result<()>>,
    stop: CancellationToken,
}

/// Where a frontend runs, and for whom.
pub(crate) struct Place {
    /// The store.
    pub(crate) store: Store,
    /// The addresses to listen on.
    pub(crate) listen: Vec<SocketAddr>,
    /// What opens it.
    pub(crate) token: Token,
    /// The secrets of forges whose webhooks are taken.
    pub(crate) hooks: HookSecrets,
    /// Where people reach it, if that is known.
    pub(crate) public_url: Option<String>,
    /// The worker that ran here before, and is dead.
    pub(crate) dead_worker: Option<WorkerId>,
}

impl Local {
    /// Prepares the store and starts a frontend over it.
    pub(crate) async fn start(place: Place) -> Result<Self> {
        let store = place.store;
        store.prepare(now()).await?;
        let mut frontend = Part::new("frontend");
        let settings = distci_frontend::Settings {
            listen: place.listen,
            token: place.token.reveal().to_owned(),
            clock: Arc::new(now),
            hooks: place.hooks,
            public_url: place.public_url,
            dead_worker: place.dead_worker,
        };
        let started = Frontend::start(settings, store.clone(), frontend.stop.clone()).await?;
        let address = started.addresses().first().copied();
        let address = address.context("there is no address to listen on")?;
        frontend
            .running
            .spawn(async move { Ok(started.join().await?) });
        Ok(Self {
            address,
            token: place.token,
            store,
            frontend,
            worker: Part::new("worker"),
        })
    }

    /// The address of the frontend, as seen from this machine.
    pub(crate) fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// A client of the frontend.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::new(vec![self.url()], Some(self.token.clone()))?)
    }

    /// Starts a worker. Asked to leave, it does so, and the rest goes on.
    pub(crate) fn start_worker(&mut self, settings: distci_worker::Settings) -> Result<()> {
        let (client, stop) = (self.client()?, self.worker.stop.clone());
        self.worker.running.spawn(async move {
            distci_worker::run(settings, client, stop.clone()).await?;
            if !stop.is_cancelled() {
                tracing::warn!("the worker here has left; the next start brings another");
                stop.cancelled().await;
            }
            Ok(())
        });
        Ok(())
    }

    /// Waits for a part to end that was not told to.
    ///
    /// # Cancel safety
    /// Nothing is lost if this is dropped and called again.
    pub(crate) async fn failed(&mut self) -> Error {
        tokio::select! {
            error = self.frontend.ended() => error,
            error = self.worker.ended() => error,
        }
    }

    /// Ends everything at once, as a kill would: what was claimed lapses.
    pub(crate) async fn abandon(mut self) {
        self.worker.running.shutdown().await;
        self.frontend.running.shutdown().await;
    }

    /// Stops everything, in order, within a grace.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let worker = self.worker.stop(WORKER_GRACE).await;
        let frontend = self.frontend.stop(FRONTEND_GRACE).await;
        // The last handle: what is acknowledged is on disk, and the folder is free again.
        drop(self.store);
        worker.and(frontend)
    }
}

impl Part {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            running: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Waits for the part to end by itself; for ever, if it was never started.
    async fn ended(&mut self) -> Error {
        match self.running.join_next().await {
            None => std::future::pending().await,
            Some(ended) => match flatten(ended) {
                Ok(()) => anyhow!("the {} ended by itself", self.name),
                Err(error) => error.context(format!("the {} here", self.name)),
            },
        }
    }

    async fn stop(&mut self, grace: Duration) -> Result<()> {
        self.stop.cancel();
        let all = async {
            let mut outcome = Ok(());
            while let Some(ended) = self.running.join_next().await {
                outcome = outcome.and(flatten(ended));
            }
            outcome
        };
        if let Ok(outcome) = timeout(grace, all).await {
            return outcome.with_context(|| format!("the {} here", self.name));
        }
        self.running.shutdown().await;
        tracing::warn!(
            "the {} did not stop within {} s",
            self.name,
            grace.as_secs()
        );
        Ok(())
    }
}

fn flatten(ended: Result<Result<()>, JoinError>) -> Result<()> {
    ended.unwrap_or_else(|error| Err(error.into()))
}
