//! The ticket: a posting of work that stays posted until it is completed.
//!
//! Owns the record (the *anchor*) and its index names. A name is a pure function of the anchor, so
//! an index can always be rebuilt and a transaction is the difference of two records.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::id::{
    Attempt, BuildNumber, ClassId, JobKey, RequestId, TicketKey, WorkerId, WorkerName,
};
use crate::lock::{LockNeed, Slot};
use crate::outcome::TaskResult;
use crate::past::Past;

/// Most urgent is 0.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    ToSchema,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(#[schemars(range(max = 9))] u8);

impl TryFrom<u8> for Priority {
    type Error = String;
    fn try_from(level: u8) -> Result<Self, String> {
        Self::new(level).ok_or_else(|| format!("{level} is no priority: 0 to 9"))
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl Priority {
    /// For control tickets: nothing else moves until they do.
    pub const CONTROL: Self = Self(0);
    /// For tasks.
    pub const NORMAL: Self = Self(5);

    /// `None` above 9: the index name has one digit.
    pub fn new(level: u8) -> Option<Self> {
        (level <= 9).then_some(Self(level))
    }

    /// The level, 0–9.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// A moment as index names hold it, in milliseconds since 1970.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp of a moment.
    pub fn at(now: Timestamp) -> Self {
        Self(u64::try_from(now.as_millisecond()).unwrap_or(0))
    }

    /// The first stamp that is not before a moment: who waits for it wakes no earlier.
    pub fn not_before(moment: Timestamp) -> Self {
        let begun = moment.as_nanosecond() % 1_000_000 > 0;
        Self(Self::at(moment).0 + u64::from(begun))
    }

    /// From milliseconds since 1970.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// The moment.
    pub fn time(self) -> Timestamp {
        let millis = i64::try_from(self.0).unwrap_or_default();
        Timestamp::from_millisecond(millis).unwrap_or_default()
    }
}

/// What a ticket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// The build itself: claimed for milliseconds, it decides, commits and parks.
    Control,
    /// One run of a task.
    Task,
    /// Work for DistCI itself: looking at a repository, telling a forge.
    Errand,
}

impl Duty {
    /// How long a claim is believed without news. A control claim lasts milliseconds.
    pub const fn lease(self) -> Duration {
        match self {
            Self::Control => Duration::from_secs(15),
            Self::Task | Self::Errand => Duration::from_secs(30),
        }
    }

    /// Whether the slots of its locks are held from the first claim to the end, and not by each
    /// claim anew.
    pub fn keeps_slots(self) -> bool {
        match self {
            // Between two claims a build runs on: its tasks do.
            Self::Control => true,
            Self::Task | Self::Errand => false,
        }
    }

    /// How many lost attempts end a ticket; `None`: it is tried for ever.
    pub fn max_losses(self) -> Option<u32> {
        match self {
            // A build whose control gave up would be a stuck build; an errand is never lost.
            Self::Control | Self::Errand => None,
            Self::Task => Some(3),
        }
    }
}

/// The anchor of a ticket. Its version in the store is the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What it is for.
    pub duty: Duty,
    /// The job that the build belongs to.
    pub job: JobKey,
    /// The number of the build.
    pub number: BuildNumber,
    /// What it requires, as a class.
    pub class: ClassId,
    /// How urgent it is.
    pub priority: Priority,
    /// When it was first queued; kept when it is queued again, so it keeps its place.
    pub stamp: Stamp,
    /// The number of the latest claim.
    pub attempt: Attempt,
    /// How many attempts were lost or ended in a fault.
    pub losses: u32,
    /// When it was queued last: posted, or handed back, or taken from one who was lost. Not noted
    /// when it is woken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Timestamp>,
    /// Its earlier claims; of a control ticket those since the last decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
    /// The locks of which it holds a slot while it is worked on: a task while it is claimed, a
    /// build from its first claim to its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<LockNeed>,
    /// The slots that it holds now. Nothing else says who holds a slot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// Where it stands.
    pub state: TicketState,
}

/// Where a ticket stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TicketState {
    /// Posted: any worker with the capabilities may claim it.
    Queued,
    /// A worker has it.
    Claimed(Claimed),
    /// A control ticket that waits for news.
    Parked {
        /// When it is queued again even if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// A task's run is over; its build has not yet taken notice.
    Done(Box<Done>),
}

/// Who holds a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// The worker.
    pub worker: WorkerName,
    /// The request that made the claim; a repeated request finds it again.
    pub request: RequestId,
    /// Since when, for people to read.
    pub since: Timestamp,
    /// Whether the holder is asked to stop.
    pub cancel: bool,
}

/// How a task's run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What the worker reported, or what was concluded without it.
    pub result: TaskResult,
    /// The worker of the last attempt.
    pub worker: Option<WorkerName>,
    /// When the last attempt was claimed.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
}

/// The entry of a queued ticket in the queue index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName {
    /// How urgent.
    pub priority: Priority,
    /// What it requires.
    pub class: ClassId,
    /// Since when.
    pub stamp: Stamp,
    /// First characters of the job key.
    pub job: String,
    /// Which ticket.
    pub key: TicketKey,
    /// The anchor's version when queued: no name is ever used twice.
    pub version: u32,
}

/// The marker of a claimed ticket in the claim index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimName {
    /// Which ticket.
    pub key: TicketKey,
    /// Which claim of it.
    pub attempt: Attempt,
    /// Control or task, which sets the lease.
    pub control: bool,
    /// Mark of the [`WorkerId`].
    pub worker: String,
    /// First digits of the claiming request.
    pub request: String,
    /// First characters of the job key.
    pub job: String,
    /// What it requires.
    pub class: ClassId,
    /// Whether the holder is asked to stop.
    pub cancel: bool,
}

/// The entry of a parked ticket that waits for a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueName {
    /// When it is to be queued.
    pub due: Stamp,
    /// Which ticket.
    pub key: TicketKey,
    /// The anchor's version when parked: no name is ever used twice.
    pub version: u32,
}

/// A claim in a digest. Two claims that share one would merely keep each other alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimHash(pub u64);

impl ClaimHash {
    /// The hash of one claim of a ticket.
    pub fn of(key: &TicketKey, attempt: Attempt) -> Self {
        let claim = format!("{key}.{attempt}");
        let hash = blake3::derive_key("distci claim hash v1", claim.as_bytes());
        let (first, _) = hash.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self(u64::from_le_bytes(*first))
    }
}

/// The index entry that a ticket has in its present state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IndexName {
    /// In the queue.
    Queue(QueueName),
    /// Among the claims.
    Claim(ClaimName),
    /// Among those that wait for a time.
    Due(DueName),
}

impl IndexName {
    /// The ticket that it is of.
    pub fn key(&self) -> &TicketKey {
        match self {
            Self::Queue(QueueName { key, .. })
            | Self::Claim(ClaimName { key, .. })
            | Self::Due(DueName { key, .. }) => key,
        }
    }
}

impl Claimed {
    /// The run of the worker that holds the claim.
    pub fn holder(&self) -> WorkerId {
        WorkerId {
            name: self.worker.clone(),
            session: self.request.session(),
        }
    }
}

impl Ticket {
    /// The locks of which it holds no slot.
    pub fn locks_missing(&self) -> impl Iterator<Item = &LockNeed> {
        let held = |need: &LockNeed| self.slots.iter().any(|slot| slot.lock == need.key);
        self.locks.iter().filter(move |need| !held(need))
    }

    /// Since when it holds its slots, for people to read.
    pub fn slots_since(&self) -> Timestamp {
        match &self.state {
            TicketState::Claimed(claimed) => claimed.since,
            TicketState::Queued | TicketState::Parked { .. } | TicketState::Done(_) => {
                self.stamp.time()
            }
        }
    }

    /// The index entry of this ticket, whose anchor has `version`. `None` while parked for
    /// no time, or done.
    pub fn index_name(&self, key: &TicketKey, version: u32) -> Option<IndexName> {
        match &self.state {
            TicketState::Queued => Some(IndexName::Queue(QueueName {
                priority: self.priority,
                class: self.class.clone(),
                stamp: self.stamp,
                job: self.job.short().to_owned(),
                key: key.clone(),
                version,
            })),
            TicketState::Claimed(claimed) => Some(IndexName::Claim(ClaimName {
                key: key.clone(),
                attempt: self.attempt,
                control: matches!(self.duty, Duty::Control),
                worker: claimed.holder().mark(),
                request: claimed.request.short().to_owned(),
                job: self.job.short().to_owned(),
                class: self.class.clone(),
                cancel: claimed.cancel,
            })),
            TicketState::Parked { until: Some(until) } => Some(IndexName::Due(DueName {
                due: Stamp::not_before(*until),
                key: key.clone(),
                version,
            })),
            TicketState::Parked { until: None } | TicketState::Done(_) => None,
        }
    }
}
