//! How a cluster fares, as one frontend sees it: for people, who have to trust it.
//!
//! Owns the form alone. Nothing is decided by any of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::wire::FrontendView;

/// How a cluster fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// The frontends, by their own account.
    pub frontends: Vec<FrontendView>,
    /// Since when the one that answers runs.
    pub since: Timestamp,
    /// What coordinates.
    pub coordination: CoordinationView,
    /// Where the bytes are, without secrets.
    pub blobs: String,
    /// How long it took just now to ask for some, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs_us: Option<u64>,
    /// Why none could be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs_trouble: Option<String>,
    /// Claims that this frontend has taken in the last hour from workers that were not heard of, or
    /// did not know of them.
    #[serde(default)]
    pub lapsed_last_hour: u64,
    /// How long things took here in the last five to ten minutes; what was not done is left out.
    pub paces: Vec<PaceView>,
    /// What went wrong here since it runs, newest first.
    pub faults: Vec<FaultView>,
    /// What was counted here since it runs.
    pub counts: BTreeMap<String, u64>,
}

/// What coordinates a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoordinationView {
    /// What it is.
    pub place: String,
    /// How the frontend is connected: `connected`, `disconnected` or `fenced`.
    pub health: String,
    /// Whether the frontend has taken in what it holds.
    pub current: bool,
    /// How long a read took just now, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_us: Option<u64>,
    /// Why nothing could be read just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The session with it, if it has sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionView>,
    /// The servers that it is, each asked just now; none if it is in the frontend's own process.
    pub servers: Vec<ServerView>,
}

/// A session with what coordinates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Its id, as the servers' own tools show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// After how long a silence it ends, in milliseconds.
    pub timeout_ms: u64,
    /// How often a connection was lost.
    pub losses: u64,
    /// How many sessions have ended.
    pub ended: u64,
}

/// A server of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    /// Where it is.
    pub address: String,
    /// Why it is not known how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How it stands, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ServerStanding>,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerStanding {
    /// What it is among the others: `leader`, `follower`, `observer`, `standalone`.
    pub role: String,
    /// Its version.
    pub version: String,
    /// How long it takes to answer: least, average, longest, in milliseconds.
    pub latency: String,
    /// How many clients it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// How many requests wait in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outstanding: Option<u64>,
}

/// How long something took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PaceView {
    /// What: `request`, or what was asked of the store, as the measurements call it.
    pub what: String,
    /// How often.
    pub count: u64,
    /// Half of them took no longer, in microseconds.
    pub median_us: u64,
    /// Nor did 99 of 100 than this.
    pub p99_us: u64,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultView {
    /// When it was met last.
    pub at: Timestamp,
    /// What it was.
    pub what: String,
    /// Where.
    pub place: String,
    /// How often it was met.
    pub times: u64,
}
