//! What was seen of a cluster.
//!
//! Owns the form alone. Whoever records a history notes requests and what was answered, as clients see
//! them; what tasks say that they did; and at the end, when everything is over, all that the cluster
//! shows. Times of one history are those of one clock.

use std::collections::BTreeMap;

use distci_model::Timestamp;
use distci_model::id::{Attempt, BuildRef, JobId, RequestId, TaskName, WorkerName};
use distci_model::journal::Entry;
use distci_model::outcome::Verdict;
use distci_model::wire::BuildView;
use serde::{Deserialize, Serialize};

/// What was seen of a cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// The builds that were asked for.
    pub posts: Vec<Post>,
    /// What tasks did, as they say themselves: one for each attempt that began.
    pub works: Vec<Work>,
    /// Every build, when all was over.
    pub builds: Vec<Seen>,
    /// The names under which builds may be, other than by a request in `posts`: those that others
    /// trigger.
    pub downstream: Vec<JobId>,
    /// What a check of the store has found, in words.
    pub flaws: Vec<String>,
    /// What was done to the cluster.
    pub faults: Vec<Fault>,
    /// Claims while nothing was done to it.
    pub calm: Claims,
}

/// A build that was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Post {
    /// The request, the same however often it was sent.
    pub request: RequestId,
    /// Of which job.
    pub job: JobId,
    /// What was answered, each time that it was sent and an answer came: the build.
    pub answers: Vec<BuildRef>,
    /// How the build must end; none if that depends on what was done to the cluster.
    pub must: Option<Verdict>,
}

/// An attempt, as the task itself tells of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    /// Of which build.
    pub build: BuildRef,
    /// Which task.
    pub task: TaskName,
    /// Which attempt.
    pub attempt: Attempt,
    /// When it began.
    pub began: Timestamp,
    /// When it ended; none if it was killed.
    pub ended: Option<Timestamp>,
    /// How it was to end; none if it was killed.
    pub verdict: Option<Verdict>,
    /// Whether its worker was told that the result is accepted.
    pub acknowledged: bool,
    /// All that it wrote to its console, by length and digest; none if it was killed.
    pub console: Option<Bytes>,
    /// What it left in the workspace for those who need it.
    pub made: Option<String>,
    /// What it found there of those that it needs.
    pub found: BTreeMap<TaskName, String>,
    /// What it found in artifacts of other builds, by the build and the task that made it.
    #[serde(default)]
    pub copied: Vec<Copied>,
    /// The locks that it held, each with how many may hold it at once.
    pub locks: BTreeMap<String, u32>,
}

/// Something of another build that a task has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The build that made it.
    pub build: BuildRef,
    /// The task of that build.
    pub task: TaskName,
    /// What was found.
    pub what: String,
}

/// Bytes, by what they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// How many.
    pub length: u64,
    /// A digest of all of them.
    pub digest: String,
}

/// A build as the cluster shows it at the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// The build.
    pub view: BuildView,
    /// All that happened in it.
    pub journal: Vec<Entry>,
    /// The consoles of the attempts that count.
    pub consoles: BTreeMap<TaskName, Bytes>,
}

/// Something that was done to the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// What, in words.
    pub what: String,
    /// The worker that it ended, if it ended one.
    pub ends: Option<WorkerName>,
    /// From when.
    pub from: Timestamp,
    /// Until when the cluster could not be expected to go on; the same as `from` for a death.
    pub until: Timestamp,
}

/// How claims went.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Claims {
    /// Claims that were tried.
    pub tried: u64,
    /// Those of them that somebody else was faster with.
    pub lost: u64,
}
