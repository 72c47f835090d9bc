//! What this frontend measures of itself.
//!
//! Owns the names of the metrics and the counting of requests. Labels have few values by design:
//! routes and methods, never jobs or builds.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
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
    queued: Gauge<u64, AtomicU64>,
    claimed: Gauge<u64, AtomicU64>,
    waiting: Gauge<u64, AtomicU64>,
    /// Claims given up because their worker was silent.
    pub(crate) expired: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        // From half a millisecond to half a minute, the longest that a request is held.
        let requests = Family::<Answered, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.0005, 4.0, 9))
        });
        let (queued, claimed, waiting) = (Gauge::default(), Gauge::default(), Gauge::default());
        let expired = Counter::default();
        let mut registry = Registry::with_prefix("distci");
        registry.register(
            "http_request_duration_seconds",
            "Time to answer, held requests included",
            requests.clone(),
        );
        registry.register(
            "tickets_queued",
            "Tickets that wait for a worker",
            queued.clone(),
        );
        registry.register(
            "tickets_claimed",
            "Tickets that a worker has",
            claimed.clone(),
        );
        registry.register(
            "claims_waiting",
            "Claim requests held here",
            waiting.clone(),
        );
        registry.register(
            "leases_expired",
            "Claims of silent workers given up",
            expired.clone(),
        );
        Self {
            registry,
            requests,
            queued,
            claimed,
            waiting,
            expired,
        }
    }
}

impl Metrics {
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
    let response = next.run(request).await;
    let labels = Answered {
        method,
        route,
        status: response.status().as_u16(),
    };
    app.metrics
        .requests
        .get_or_create(&labels)
        .observe(start.elapsed().as_secs_f64());
    response
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
