//! What this frontend measures of itself.
//!
//! Owns the names of the metrics and the counting of requests. Labels have few values by design:
//! routes and methods, never jobs or builds.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use distci_store::Act;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::app::App;

/// The media type of the text form.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    act: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: u16,
}

/// How much waits and runs, as the mirrors have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Depth {
    pub(crate) queued: usize,
    pub(crate) claimed: usize,
    pub(crate) waiting: usize,
}

/// The metrics of one frontend.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Histogram>,
    store: Family<Asked, Histogram>,
    queued: Gauge<u64, AtomicU64>,
    claimed: Gauge<u64, AtomicU64>,
    waiting: Gauge<u64, AtomicU64>,
    skew: Gauge<f64, AtomicU64>,
    /// Claims given up because their worker was silent.
    pub(crate) expired: Counter,
    /// Claims given up because their worker does not know of them.
    pub(crate) orphaned: Counter,
    /// Tickets queued because their time had come.
    pub(crate) woken: Counter,
    /// Builds posted because a schedule's time had come.
    pub(crate) fired: Counter,
    /// Reports given up because no worker took them for a week.
    pub(crate) forsaken: Counter,
    /// Tickets claimed here.
    pub(crate) claims: Counter,
    /// Tickets that another frontend claimed first.
    pub(crate) races_lost: Counter,
    /// Tries to claim a ticket of which a lock was full.
    pub(crate) blocked: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        // From half a millisecond to half a minute, the longest that a request is held.
        let requests = Family::<Answered, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.0005, 4.0, 9))
        });
        // From a tenth of a millisecond: a read of a store on this machine takes less than one.
        let store = Family::<Asked, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.0001, 4.0, 10))
        });
        let mut metrics = Self {
            registry: Registry::with_prefix("distci"),
            requests,
            store,
            queued: Gauge::default(),
            claimed: Gauge::default(),
            waiting: Gauge::default(),
            skew: Gauge::default(),
            expired: Counter::default(),
            orphaned: Counter::default(),
            woken: Counter::default(),
            fired: Counter::default(),
            forsaken: Counter::default(),
            claims: Counter::default(),
            races_lost: Counter::default(),
            blocked: Counter::default(),
        };
        metrics.register();
        metrics.register_claims();
        metrics
    }
}

impl Metrics {
    /// What is counted, in words.
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("tickets claimed here", self.claims.get()),
            ("races for tickets lost", self.races_lost.get()),
            ("tries at a full lock", self.blocked.get()),
            ("claims given up, worker silent", self.expired.get()),
            ("claims given up, not known", self.orphaned.get()),
            ("timers that went off", self.woken.get()),
            ("moments fired", self.fired.get()),
            ("reports given up", self.forsaken.get()),
        ]
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "http_request_duration_seconds",
            "Time to answer, held requests included",
            self.requests.clone(),
        );
        registry.register(
            "store_duration_seconds",
            "Time that the store took to answer, streams left out",
            self.store.clone(),
        );
        registry.register(
            "tickets_queued",
            "Tickets that wait for a worker",
            self.queued.clone(),
        );
        registry.register(
            "tickets_claimed",
            "Tickets that a worker has",
            self.claimed.clone(),
        );
        registry.register(
            "claims_waiting",
            "Claim requests held here",
            self.waiting.clone(),
        );
        registry.register(
            "leases_expired",
            "Claims of silent workers given up",
            self.expired.clone(),
        );
        registry.register(
            "claims_orphaned",
            "Claims given up because their worker does not know of them",
            self.orphaned.clone(),
        );
        registry.register(
            "timers_woken",
            "Tickets queued here because their time had come",
            self.woken.clone(),
        );
        registry.register(
            "schedules_fired",
            "Builds posted here because their time had come",
            self.fired.clone(),
        );
        registry.register(
            "reports_forsaken",
            "Reports given up here because no worker took them for a week",
            self.forsaken.clone(),
        );
        registry.register(
            "clock_skew_seconds",
            "How far this clock and the store's are apart",
            self.skew.clone(),
        );
    }

    fn register_claims(&mut self) {
        let registry = &mut self.registry;
        registry.register("claims", "Tickets claimed here", self.claims.clone());
        registry.register(
            "claims_blocked",
            "Tries to claim a ticket of which a lock was full",
            self.blocked.clone(),
        );
        registry.register(
            "claim_races_lost",
            "Tickets that another frontend claimed first",
            self.races_lost.clone(),
        );
    }

    /// Where it is counted how long the store takes for something.
    pub(crate) fn of_store(&self, act: Act) -> Histogram {
        let asked = Asked { act: act.as_str() };
        self.store.get_or_create(&asked).clone()
    }

    /// Notes how far this clock and the store's are apart.
    pub(crate) fn skew(&self, skew: Duration) {
        self.skew.set(skew.as_secs_f64());
    }

    /// All of it as text.
    pub(crate) fn encode(&self, depth: Depth) -> String {
        self.queued.set(depth.queued as u64);
        self.claimed.set(depth.claimed as u64);
        self.waiting.set(depth.waiting as u64);
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}

/// Counts a request by its route.
pub(crate) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = known(request.method()).to_owned();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let is_held = is_held(&route, request.uri().query().unwrap_or_default());
    let response = next.run(request).await;
    let (took, status) = (start.elapsed(), response.status());
    if !is_held {
        app.vitals.requests.note(took);
    }
    // Whoever asks whether it is ready is told no, and that is all.
    if status.is_server_error() && route != "/readyz" {
        let what = format!("a request was answered by {status}");
        app.vitals.fault(what, format!("{method} {route}"));
    }
    let labels = Answered {
        method,
        route,
        status: status.as_u16(),
    };
    app.metrics
        .requests
        .get_or_create(&labels)
        .observe(took.as_secs_f64());
    response
}

/// Whether a request may wait for news: then its length says nothing of this frontend.
fn is_held(route: &str, query: &str) -> bool {
    let waits = ["/api/v1/claims", "/api/v1/beats"].contains(&route);
    waits || query.split('&').any(|field| field.starts_with("wait="))
}

/// A method by its name, if it is one that any route has: a stranger invents no labels.
fn known(method: &Method) -> &str {
    let usual = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::POST,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if usual.contains(method) {
        method.as_str()
    } else {
        "other"
    }
}
