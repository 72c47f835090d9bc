//! What every handler works with.
//!
//! Owns nothing but handles: the store, and what this frontend mirrors of it.

use std::sync::Arc;

use distci_model::Timestamp;
use distci_model::id::{BuildKey, BuildRef, TicketKey};
use distci_store::coordination::Clock;
use distci_store::{Observer, Store};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::barrier::Barrier;
use crate::board::Board;
use crate::cluster_time::ClusterTime;
use crate::drains::Drains;
use crate::hooks::{HookSecrets, Hooks};
use crate::jobs::Jobs;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::pulse::Pulse;
use crate::schedules::Schedules;
use crate::seen::Seen;
use crate::signals::Signals;
use crate::timers::Timers;
use crate::vitals::Vitals;

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) board: Board,
    pub(crate) leases: Arc<Leases>,
    pub(crate) timers: Arc<Timers>,
    pub(crate) schedules: Arc<Schedules>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) drains: Arc<Drains>,
    pub(crate) time: Arc<ClusterTime>,
    /// Who has asked for work here of late.
    pub(crate) seen: Arc<Seen>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) barrier: Barrier,
    pub(crate) hooks: Arc<Hooks>,
    /// Whether the mirror shows what the store holds.
    pub(crate) current: watch::Sender<bool>,
    pub(crate) metrics: Arc<Metrics>,
    /// How this frontend fares.
    pub(crate) vitals: Arc<Vitals>,
    /// Rings when a build may have changed.
    pub(crate) builds: Arc<Signals<BuildKey>>,
    /// Rings when the claim of a request, by its worker's mark and its own, may have been made.
    pub(crate) requests: Arc<Signals<(String, String)>>,
    /// Rings when the console of a ticket may have grown or ended.
    pub(crate) consoles: Arc<Signals<TicketKey>>,
    /// Where people reach this DistCI.
    pub(crate) public_url: Option<Arc<str>>,
    /// Held requests answer when this is cancelled.
    pub(crate) stop: CancellationToken,
    clock: Clock,
}

impl App {
    pub(crate) fn new(store: Store, clock: Clock, stop: CancellationToken) -> Self {
        let peers = Arc::<Peers>::default();
        let metrics = Arc::<Metrics>::default();
        let vitals = Arc::new(Vitals::new(&metrics, Arc::clone(&clock)));
        Self {
            store: store.observed(Arc::clone(&vitals) as Arc<dyn Observer>),
            board: Board::new(Arc::clone(&peers)),
            peers,
            seen: Arc::default(),
            pulse: Arc::default(),
            barrier: Barrier::default(),
            hooks: Arc::default(),
            current: watch::Sender::default(),
            leases: Arc::default(),
            timers: Arc::default(),
            schedules: Arc::default(),
            jobs: Arc::default(),
            drains: Arc::default(),
            time: Arc::default(),
            metrics,
            vitals,
            builds: Arc::default(),
            requests: Arc::default(),
            consoles: Arc::default(),
            public_url: None,
            stop,
            clock,
        }
    }

    /// The same that takes the webhooks of those who sign with these secrets.
    pub(crate) fn with_hooks(self, secrets: HookSecrets) -> Self {
        let hooks = Arc::new(Hooks::new(secrets));
        Self { hooks, ..self }
    }

    /// The page of a build, if it is known where people see it.
    pub(crate) fn page(&self, build: &BuildRef) -> Option<String> {
        let base = self.public_url.as_deref()?.trim_end_matches('/');
        let BuildRef { job, number } = build;
        Some(format!("{base}/jobs/{job}/builds/{number}"))
    }

    /// Tells whoever shows a build that it may be another than before.
    pub(crate) fn ring_build(&self, build: &BuildKey) {
        self.jobs.ring(build);
        self.builds.ring(build);
    }

    /// The present moment by the clock that was handed in.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The present moment as all frontends agree on it, as well as it is known; before anything is, by
    /// the clock that was handed in.
    pub(crate) fn cluster_now(&self) -> Timestamp {
        let local = self.now();
        self.time.roughly(Instant::now(), local).unwrap_or(local)
    }
}
