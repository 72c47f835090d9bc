//! What travels over the HTTP API.
//!
//! Owns the shape of requests and answers; the nouns inside them live in their own modules. Every
//! act may be repeated: what makes a repetition recognisable is part of the request.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::build::{Build, Cause, Downstream, Event, Finished, Skip};
use crate::capability::{Capabilities, Kind};
use crate::config::{CatchUp, ConfigProblem, JobConfig};
use crate::decide::Decision;
use crate::errand::{CommitState, ErrandName, ErrandOrder, Setback};
use crate::event::{self, Source};
use crate::id::{
    Attempt, BuildNumber, BuildRef, DeliveryId, FrontendId, JobId, LockKey, NamePattern, RequestId,
    SessionId, TaskName, TicketKey, WorkerId, WorkerName,
};
use crate::order::TaskOrder;
use crate::outcome::Outcome;
use crate::rerun::Again;

/// The header that names a request across retries; 32 hex digits.
pub const REQUEST_ID_HEADER: &str = "idempotency-key";
/// The header of a console append or read that holds the console's length in bytes.
pub const CONSOLE_LENGTH_HEADER: &str = "x-console-length";
/// The header of a console read: `true` if nothing will be added.
pub const CONSOLE_COMPLETE_HEADER: &str = "x-console-complete";
/// The header of a console read that holds the attempt that was read.
pub const CONSOLE_ATTEMPT_HEADER: &str = "x-console-attempt";
/// Longest that a long poll is held, in seconds.
pub const MAX_WAIT: u64 = 30;
/// Most bytes of one console append.
pub const MAX_CONSOLE_CHUNK: usize = 256 * 1024;
/// Most bytes of the console of one attempt.
pub const MAX_CONSOLE: u64 = 1024 * 1024 * 1024;
/// Most bytes of one artifact or workspace layer.
pub const MAX_BLOB: u64 = 64 * 1024 * 1024 * 1024;
/// Most bytes that go straight to a blob store: what S3 takes in one request.
pub const MAX_DIRECT: u64 = 5 * 1024 * 1024 * 1024;
/// Most artifacts of one task.
pub const MAX_ARTIFACTS: usize = 10_000;
/// Most bytes of a task's summary.
pub const MAX_SUMMARY: usize = 256 * 1024;

/// Most bytes of the comment of an answer.
pub const MAX_COMMENT: usize = 500;

/// An error, as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable code, as a URI reference: `urn:distci:not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What exactly was wrong, and what to do.
    pub detail: String,
    /// The request, for the operator to find it in the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What is wrong with a job file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ConfigProblem>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSummary {
    /// Its name.
    pub job: JobId,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Counts the changes of its configuration.
    pub revision: u32,
    /// The latest build, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<BuildSummary>,
}

/// A job with its configuration. The answer's `ETag` is the revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Its name.
    pub job: JobId,
    /// Counts the changes of its configuration.
    pub revision: u32,
    /// The configuration.
    #[schema(value_type = Object)]
    pub configuration: JobConfig,
}

/// A schedule of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// When it comes,
    pub cron: String,
    /// by the clocks of which zone.
    pub timezone: String,
    /// What is done about moments that were missed.
    #[schema(value_type = String)]
    pub catch_up: CatchUp,
    /// The moment that was fired last, or when the schedule was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// The next moments.
    pub next: Vec<Timestamp>,
}

/// What signs a reader in without the token.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Pass {
    /// To be shown at `/sign-in` within a minute.
    pub pass: String,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass(…)")
    }
}

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BuildPhase {
    /// No task has been claimed yet.
    Queued,
    /// At least one task has been claimed.
    Running,
    /// Over.
    Finished,
}

/// A build in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildSummary {
    /// Its number.
    pub number: BuildNumber,
    /// Where it stands.
    pub phase: BuildPhase,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it exists.
    pub cause: Cause,
    /// When it was posted.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
}

/// A build with everything about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildView {
    /// Job and number.
    pub build: BuildRef,
    /// Where it stands.
    pub phase: BuildPhase,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it exists.
    pub cause: Cause,
    /// With which values.
    pub parameters: BTreeMap<String, String>,
    /// The revision of the configuration that it runs.
    pub revision: u32,
    /// When it was posted.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// Whether somebody asked to cancel it.
    pub cancelled: bool,
    /// What did, if that was no person: `superseded by job#8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// Its tasks, in the order of the configuration.
    pub tasks: Vec<TaskView>,
    /// What it triggered.
    pub downstream: Vec<Downstream>,
}

/// A task of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// Its name.
    pub name: TaskName,
    /// Its kind.
    pub kind: Kind,
    /// The tasks that it needs.
    pub needs: Vec<TaskName>,
    /// Where it stands.
    #[serde(flatten)]
    pub state: TaskState,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TaskState {
    /// Not every task that it needs has ended.
    Waiting,
    /// Posted; no worker has it.
    Queued {
        /// The attempts before, if it was claimed already.
        attempt: Attempt,
        /// What a worker must offer to claim it.
        requires: Capabilities,
    },
    /// A worker has it.
    Running {
        /// Which claim of it.
        attempt: Attempt,
        /// Who.
        worker: WorkerName,
        /// Since when.
        started: Timestamp,
    },
    /// It did not succeed and will be run again.
    Backoff {
        /// Which run will be next, from 2.
        run: u32,
        /// When.
        until: Timestamp,
        /// How the last run was.
        last: Box<Finished>,
    },
    /// It waits until somebody agrees.
    Asking {
        /// What is asked.
        message: String,
        /// Since when.
        since: Timestamp,
        /// How long at most.
        until: Timestamp,
    },
    /// It will not run.
    Skipped {
        /// Why not.
        why: Skip,
    },
    /// It is over.
    Finished {
        /// How it was.
        run: Box<Finished>,
    },
}

impl TaskState {
    /// The latest attempt that began; 0 before the first.
    pub fn attempt(&self) -> Attempt {
        match self {
            Self::Waiting | Self::Asking { .. } | Self::Skipped { .. } => Attempt::default(),
            Self::Queued { attempt, .. } | Self::Running { attempt, .. } => *attempt,
            Self::Backoff { last: run, .. } | Self::Finished { run } => run.attempt,
        }
    }
}

/// A build that an event has posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventBuild {
    /// Job and number.
    pub build: BuildRef,
    /// Whether this telling of the event made it, and not an earlier one.
    pub fresh: bool,
}

/// A job that an event has posted no build of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PassedOver {
    /// The job.
    pub job: JobId,
    /// Why not.
    pub why: String,
}

/// What became of a webhook's delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookAnswer {
    /// In words.
    pub detail: String,
    /// The builds.
    #[serde(default)]
    pub builds: Vec<EventBuild>,
    /// Jobs that watch the repository and got no build; at most 100.
    #[serde(default)]
    pub passed_over: Vec<PassedOver>,
    /// Under which id it is kept, to be replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<DeliveryId>,
}

/// A webhook's delivery that is kept, for it started no build, or not all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookDelivery {
    /// Its id here.
    pub id: DeliveryId,
    /// When it came, last.
    pub received: Timestamp,
    /// Who sent it.
    pub source: Source,
    /// What the source calls the event.
    pub event: String,
    /// What the source calls the delivery.
    pub delivery: String,
    /// The one job that it was for; all jobs, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Of a generic webhook, the SHA-256 of the token that was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// What it told of: of several things, the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<event::Event>,
    /// How large its body is.
    pub bytes: u64,
    /// What became of it, last.
    pub answer: WebhookAnswer,
}

/// A kept delivery with its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookView {
    /// What is known of it.
    pub delivery: WebhookDelivery,
    /// The body: JSON, as it came.
    pub body: String,
}

/// Asks for a build. The request id is in the header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerRequest {
    /// Values for the job's parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// Asks to run a build again. Of one that is over, what succeeded may be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunRequest {
    /// Keep what succeeded, and run the rest.
    #[serde(default)]
    pub failed: bool,
    /// Keep what succeeded, but run this task and what comes after it.
    #[serde(default)]
    pub from: Option<TaskName>,
}

impl From<RerunRequest> for Again {
    fn from(request: RerunRequest) -> Self {
        match request.from {
            Some(task) => Self::From { task },
            None if request.failed => Self::Failed,
            None => Self::All,
        }
    }
}

/// What came of asking for a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Triggered {
    /// The build.
    Build(BuildRef),
    /// None was made: the job skips builds for which there is no room.
    Skipped {
        /// A build that has the room.
        skipped: BuildRef,
    },
}

impl Triggered {
    /// The build, if there is one.
    pub fn build(self) -> Option<BuildRef> {
        match self {
            Self::Build(build) => Some(build),
            Self::Skipped { .. } => None,
        }
    }
}

/// Answers a task that asks whether to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    /// Whether the build goes on.
    pub approved: bool,
    /// Why, for people; at most [`MAX_COMMENT`] bytes.
    #[serde(default)]
    pub comment: String,
}

/// Asks for a ticket. Held until there is one, or `wait` is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Who asks.
    pub worker: WorkerName,
    /// What it offers.
    pub capabilities: Capabilities,
    /// The same in every retry: it finds the claim that an earlier try made. It begins with the
    /// digits of the worker's session.
    pub request: RequestId,
    /// Seconds to wait, at most [`MAX_WAIT`].
    #[serde(default)]
    pub wait: u64,
    /// How many milliseconds ago this run of the worker began, by its own clock. Whoever says it
    /// understands that it may be asked to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

impl ClaimRequest {
    /// The run of the worker that asks.
    pub fn holder(&self) -> WorkerId {
        WorkerId {
            name: self.worker.clone(),
            session: self.request.session(),
        }
    }
}

/// A claimed ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    /// Which ticket.
    pub ticket: TicketKey,
    /// Which claim of it.
    pub attempt: Attempt,
    /// Seconds that the claim is believed without a beat.
    pub lease: u64,
    /// What to do.
    pub work: Work,
}

/// What a claimed ticket asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "work", rename_all = "kebab-case")]
pub enum Work {
    /// Run a task.
    Task {
        /// Which, and with what.
        order: Box<TaskOrder>,
    },
    /// Decide what a build does next.
    Control {
        /// What is known.
        order: Box<ControlOrder>,
    },
    /// Do something for DistCI itself.
    Errand {
        /// What.
        order: Box<ErrandOrder>,
    },
}

/// Everything that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControlOrder {
    /// The configuration of the build.
    #[schema(value_type = Object)]
    pub config: JobConfig,
    /// The build.
    #[schema(value_type = Object)]
    pub build: Build,
    /// The version of the mailbox that was read before the events.
    pub mailbox: u32,
    /// What is news.
    pub events: Vec<Event>,
}

/// Commits a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommitRequest {
    /// From the order.
    pub mailbox: u32,
    /// What was decided.
    pub decision: Decision,
}

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "committed", rename_all = "kebab-case")]
pub enum CommitReply {
    /// The claim is still held: decide again, from this.
    Again {
        /// What is known now.
        order: Box<ControlOrder>,
    },
    /// The claim is over.
    Over,
}

/// Keeps claims alive, and asks what became of them. Held until there is news, or `wait` is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeatRequest {
    /// Who asks.
    pub worker: WorkerName,
    /// Which run of it.
    pub session: SessionId,
    /// The claims that it holds.
    pub held: Vec<Held>,
    /// The claim requests whose answers it still waits for. What this run of the worker has claimed
    /// and is neither here nor held was claimed in vain: nobody got the answer.
    #[serde(default)]
    pub pending: Vec<RequestId>,
    /// Seconds to wait for news, at most [`MAX_WAIT`].
    #[serde(default)]
    pub wait: u64,
}

/// A claim that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// Which ticket.
    pub ticket: TicketKey,
    /// Which claim of it.
    pub attempt: Attempt,
    /// What the worker was told of it last, so that only news answers early.
    #[serde(default)]
    pub standing: Standing,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is held.
    #[default]
    Held,
    /// It is held, and the holder is asked to stop.
    Cancel,
    /// It is over: kill the processes, drop the results.
    Lost,
}

/// The standing of each claim asked for, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BeatReply {
    /// One for each.
    pub standings: Vec<Standing>,
    /// Seconds since this frontend last told the others whom it hears; a worker that is told of
    /// many is better heard by another.
    #[serde(default)]
    pub unheard: u64,
}

/// One published file of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    /// Path in the workspace.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// BLAKE3 of its content, hex.
    pub digest: String,
    /// Media type, guessed from the name.
    pub content_type: String,
}

/// The artifacts that one attempt published; blob `i` holds the content of entry `i`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactManifest {
    /// In the order of their upload.
    pub artifacts: Vec<Artifact>,
}

/// An artifact of a build, with the task that published it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// The task.
    pub task: TaskName,
    /// The file.
    #[serde(flatten)]
    pub artifact: Artifact,
}

/// What an upload came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Uploaded {
    /// Stored bytes.
    pub bytes: u64,
}

/// A state of a cache that a build may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CacheFound {
    /// Where it is: the scope and the attempt that wrote it.
    pub scope: String,
    /// Which it is there.
    pub id: String,
    /// Its size, packed.
    pub bytes: u64,
}

/// Where to store something straight in the blob store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// The address that takes it by one `PUT` without a token. It opens the store to whoever has
    /// it: a secret.
    pub url: String,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place(…)")
    }
}

/// A repository that is looked at for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PollView {
    /// Its address or path.
    pub repository: String,
    /// Patterns of the refs that count; none: the default branch.
    pub refs: Vec<String>,
    /// How often: `5m`.
    pub every: String,
    /// The commits of its refs at the last look.
    pub heads: BTreeMap<String, String>,
    /// When it was last looked at with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<Timestamp>,
    /// When it will be looked at; none while a look is due or under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What was wrong with the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setback: Option<Setback>,
}

/// What a forge has not heard yet of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportView {
    /// Host and path of the repository.
    pub repository: String,
    /// The commit.
    pub sha: String,
    /// What the forge lists it as.
    pub context: String,
    /// What the forge is to hear.
    pub wanted: CommitState,
    /// What it has heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<CommitState>,
    /// When it will be told; none while that is due, under way, or waits for the build's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What was wrong with the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setback: Option<Setback>,
}

/// What a ticket is about, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum About {
    /// Work for DistCI itself.
    Errand {
        /// Of which kind: `poll` or `report`.
        errand: ErrandName,
        /// For which job.
        job: JobId,
        /// For which build, if for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        build: Option<BuildRef>,
    },
    /// A build, or a task of it.
    Build {
        /// Which.
        build: BuildRef,
        /// Which task; none for the build's control ticket.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskName>,
    },
}

impl About {
    /// The build that it is about, if it is about one.
    pub fn build(&self) -> Option<&BuildRef> {
        match self {
            Self::Errand { build, .. } => build.as_ref(),
            Self::Build { build, .. } => Some(build),
        }
    }

    /// The task that it is about, if it is about one.
    pub fn task(&self) -> Option<&TaskName> {
        match self {
            Self::Errand { .. } => None,
            Self::Build { task, .. } => task.as_ref(),
        }
    }

    /// What it is about, in two words: the build or job, and the task or what else is done.
    pub fn words(&self) -> (String, String) {
        match self {
            Self::Build { build, task } => {
                let task = task.as_ref();
                let task = task.map_or_else(|| "(control)".to_owned(), ToString::to_string);
                (build.to_string(), task)
            }
            Self::Errand { errand, job, build } => {
                let build = build.as_ref();
                let whose = build.map_or_else(|| job.to_string(), ToString::to_string);
                (whose, format!("({errand})"))
            }
        }
    }
}

/// A ticket that waits for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// Which ticket.
    pub ticket: TicketKey,
    /// What it is about.
    #[serde(flatten)]
    pub about: About,
    /// What a worker must offer.
    pub requires: Capabilities,
    /// Since when.
    pub since: Timestamp,
    /// How many waiting workers offer that now.
    pub workers: usize,
    /// The lock that holds it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<LockBlock>,
}

/// A lock that holds up a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockBlock {
    /// Its name.
    pub lock: String,
    /// Builds that hold it, a few of them.
    pub held_by: Vec<BuildRef>,
}

/// A lock that is held or waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockView {
    /// Which.
    pub lock: LockKey,
    /// What people call it.
    pub name: String,
    /// How many of its slots are held.
    pub taken: usize,
    /// Who holds them, the first hundred.
    pub held: Vec<LockHolder>,
    /// Who waits for one, the first hundred, the first first.
    pub waiting: Vec<LockWaiter>,
}

/// Who holds a slot of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockHolder {
    /// Which slot, from 0.
    pub slot: u16,
    /// The ticket that holds it.
    pub ticket: TicketKey,
    /// Of which build.
    pub build: BuildRef,
    /// Of which task; none if the build holds it as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// Since when.
    pub since: Timestamp,
}

/// A ticket that waits for a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockWaiter {
    /// Which ticket.
    pub ticket: TicketKey,
    /// Of which build.
    pub build: BuildRef,
    /// Of which task; none if the build waits as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// Since when it is queued.
    pub since: Timestamp,
}

/// A worker, as this frontend sees it now: waiting here, or holding a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// Its name.
    pub worker: WorkerName,
    /// What it offers, if it waits at this frontend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// How many claims it waits for.
    pub waiting: usize,
    /// What it holds.
    pub claims: Vec<WorkerClaim>,
    /// Whether it was asked to leave, and finishes what it held by then.
    #[serde(default)]
    pub draining: bool,
}

/// Asks workers to finish what they hold and leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Whose names it is for.
    pub pattern: NamePattern,
}

/// A frontend that serves the same store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrontendView {
    /// What it goes by, for as long as its session with the store lasts.
    pub frontend: FrontendId,
    /// Where it listens, as it says.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Since when it runs, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Whether it is the one that answers.
    pub here: bool,
}

/// A claim that a worker holds, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerClaim {
    /// Which ticket.
    pub ticket: TicketKey,
    /// Which claim of it.
    pub attempt: Attempt,
    /// What it is about.
    #[serde(flatten)]
    pub about: About,
    /// Since when.
    pub since: Timestamp,
}

/// What this program is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Its version.
    pub version: String,
}
