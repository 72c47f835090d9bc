//! What happened in a build, entry by entry.
//!
//! Owns the entries and how they follow from what is stored. Nothing is written for them: every entry
//! is a fact that the commit of a transition has left in its record, so there is an entry for exactly
//! what has happened, for as long as the record of the build is there.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::build::{Build, Downstream, Finished, Progress, Skip};
use crate::config::JobConfig;
use crate::id::{Attempt, BuildRef, JobId, TaskName, WorkerName};
use crate::outcome::Outcome;
use crate::past::{End, Past};
use crate::ticket::{Ticket, TicketState};

/// Something that happened in a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// The task that it is about; none for the build itself and what is decided about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// The build was posted.
    Posted {
        /// Why, in a word.
        cause: String,
    },
    /// A ticket was posted, or queued again.
    Queued {
        /// The attempts before.
        after: Attempt,
    },
    /// A worker took the ticket.
    Claimed {
        /// Which claim of it.
        attempt: Attempt,
        /// Who.
        worker: WorkerName,
        /// How long it had waited, in milliseconds, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waited_ms: Option<u64>,
    },
    /// The worker was not heard of for the time of the lease, or did not know of its claim.
    Lost {
        /// Which claim.
        attempt: Attempt,
        /// Whose.
        worker: WorkerName,
    },
    /// The worker handed the ticket back undone.
    Released {
        /// Which claim.
        attempt: Attempt,
        /// Whose.
        worker: WorkerName,
    },
    /// The build was decided about, and what follows was committed.
    Decided {
        /// In which claim of its ticket.
        attempt: Attempt,
        /// By whom.
        worker: WorkerName,
    },
    /// An attempt ended.
    Ended {
        /// Which; 0 if none had begun.
        attempt: Attempt,
        /// How, in words.
        outcome: String,
        /// Whether it is tried again.
        again: bool,
    },
    /// Somebody is asked to agree.
    Asked,
    /// It will not run.
    Skipped {
        /// Why not.
        why: Skip,
    },
    /// What an earlier build made of the task was kept.
    Kept {
        /// That build.
        build: BuildRef,
    },
    /// Somebody asked to cancel the build.
    Cancelled {
        /// What did, if that was no person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// A build downstream was posted.
    Triggered {
        /// Which.
        build: BuildRef,
    },
    /// A build downstream could not be posted.
    Refused {
        /// Of which job.
        job: JobId,
        /// Why not.
        why: String,
    },
    /// The build ended.
    Over {
        /// How.
        outcome: Outcome,
    },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Posted { cause } => write!(f, "posted: {cause}"),
            Self::Queued { after } if after.get() == 0 => f.write_str("queued"),
            Self::Queued { .. } => f.write_str("queued again"),
            Self::Claimed {
                attempt,
                worker,
                waited_ms: Some(waited),
            } => write!(f, "attempt {attempt} claimed by {worker} after {waited} ms"),
            Self::Claimed {
                attempt, worker, ..
            } => write!(f, "attempt {attempt} claimed by {worker}"),
            Self::Lost { attempt, worker } => {
                write!(f, "attempt {attempt} lost: {worker} was not heard of")
            }
            Self::Released { attempt, worker } => {
                write!(f, "attempt {attempt} handed back by {worker}")
            }
            Self::Decided { worker, .. } => write!(f, "decided by {worker}"),
            Self::Ended {
                attempt,
                outcome,
                again,
            } => {
                if attempt.get() > 0 {
                    write!(f, "attempt {attempt} ")?;
                }
                write!(f, "ended: {outcome}")?;
                f.write_str(if *again { "; it is tried again" } else { "" })
            }
            Self::Asked => f.write_str("asks"),
            Self::Skipped { why } => write!(f, "skipped: {why}"),
            Self::Kept { build } => write!(f, "kept from {build}"),
            Self::Cancelled { by: Some(by) } => write!(f, "cancelled: {by}"),
            Self::Cancelled { by: None } => f.write_str("asked to cancel"),
            Self::Triggered { build } => write!(f, "triggered {build}"),
            Self::Refused { job, why } => write!(f, "did not trigger {job}: {why}"),
            Self::Over { outcome } => write!(f, "over: {outcome}"),
        }
    }
}

/// What is told of a build.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The build, at work or as its record has it.
    pub build: &'a Build,
    /// Its configuration.
    pub config: &'a JobConfig,
    /// The tickets of the tasks that are posted and not consumed, by the tasks' places.
    pub tickets: &'a [(usize, Ticket)],
    /// How it ended, if it has.
    pub outcome: Option<&'a Outcome>,
}

/// All that happened in a build, in the order of time; of one moment, causes come first.
pub fn journal(told: &Told) -> Vec<Entry> {
    let Told { build, outcome, .. } = told;
    let mut entries = Entries::default();
    entries.add(
        build.created,
        None,
        What::Posted {
            cause: build.cause.event().to_owned(),
        },
    );
    let checkpoint = &build.checkpoint;
    let start = entries.0.len();
    entries.add_past(None, checkpoint.decisions.iter().chain(&build.ticket.past));
    if let TicketState::Claimed(claimed) = &build.ticket.state {
        let (attempt, worker) = (build.ticket.attempt, claimed.worker.clone());
        let claim = What::Claimed {
            attempt,
            worker,
            waited_ms: waited(build.ticket.queued, claimed.since),
        };
        entries.add(claimed.since, None, claim);
    }
    entries.straighten(start);
    if let Some(at) = checkpoint.cancelled {
        let by = checkpoint.cancelled_by.clone();
        entries.add(at, None, What::Cancelled { by });
    }
    for (task, progress) in checkpoint.tasks.iter().enumerate() {
        let start = entries.0.len();
        entries.add_task(told, task, progress);
        entries.straighten(start);
    }
    for downstream in &checkpoint.downstream {
        let what = match downstream.clone() {
            Downstream::Triggered { build } => What::Triggered { build },
            Downstream::Refused { job, why } => What::Refused { job, why },
        };
        entries.add(checkpoint.latest, None, what);
    }
    if let Some(outcome) = *outcome {
        let outcome = outcome.clone();
        // Its end is when the last of its tasks ended; it was decided about after that.
        let last = entries.0.iter().map(|entry| entry.at).max();
        let at = checkpoint.latest.max(last.unwrap_or(checkpoint.latest));
        entries.add(at, None, What::Over { outcome });
    }
    entries.in_order(build.created)
}

#[derive(Default)]
struct Entries(Vec<Entry>);

impl Entries {
    fn add(&mut self, at: Timestamp, task: Option<&TaskName>, what: What) {
        let task = task.cloned();
        self.0.push(Entry { at, task, what });
    }

    /// The entries from `start` on are of one ticket, and stand as they were committed: clocks that
    /// differ do not turn them round.
    fn straighten(&mut self, start: usize) {
        let mut latest = Timestamp::MIN;
        for entry in &mut self.0[start..] {
            latest = latest.max(entry.at);
            entry.at = latest;
        }
    }

    /// The entries by time, none before the build was posted. Those of one moment stay as they came, but what the build did follows what
    /// its tasks did: they are why.
    fn in_order(mut self, created: Timestamp) -> Vec<Entry> {
        for entry in &mut self.0 {
            entry.at = entry.at.max(created);
        }
        let rank = |entry: &Entry| match (&entry.task, &entry.what) {
            (_, What::Posted { .. }) => 0,
            (Some(_), _) => 1,
            (None, What::Over { .. }) => 3,
            (None, _) => 2,
        };
        self.0.sort_by_key(|entry| (entry.at, rank(entry)));
        self.0
    }

    fn add_past<'a>(&mut self, task: Option<&TaskName>, past: impl IntoIterator<Item = &'a Past>) {
        for claim in past {
            let (attempt, worker) = (claim.attempt, claim.worker.clone());
            self.add_claim(task, claim.queued, (attempt, &worker, claim.since));
            let what = match &claim.end {
                End::Lost => What::Lost { attempt, worker },
                End::Released => What::Released { attempt, worker },
                End::Decided => What::Decided { attempt, worker },
                End::Ended { outcome } => What::Ended {
                    attempt,
                    outcome: outcome.clone(),
                    again: true,
                },
            };
            self.add(claim.until, task, what);
        }
    }

    fn add_claim(
        &mut self,
        task: Option<&TaskName>,
        queued: Option<Timestamp>,
        (attempt, worker, since): (Attempt, &WorkerName, Timestamp),
    ) {
        if let Some(at) = queued {
            let after = Attempt::new(attempt.get().saturating_sub(1));
            self.add(at, task, What::Queued { after });
        }
        let claim = What::Claimed {
            attempt,
            worker: worker.clone(),
            waited_ms: waited(queued, since),
        };
        self.add(since, task, claim);
    }

    fn add_task(&mut self, told: &Told, place: usize, progress: &Progress) {
        let checkpoint = &told.build.checkpoint;
        let name = told.config.tasks.get(place).map(|task| &task.name);
        self.add_past(name, checkpoint.past_of(place));
        match progress {
            // How the last run of a task that is tried again was is among its past.
            Progress::Waiting | Progress::Backoff { .. } => {}
            Progress::Posted { .. } => {
                let ticket = told.tickets.iter().find(|(of, _)| *of == place);
                if let Some((_, ticket)) = ticket {
                    self.add_ticket(name, ticket);
                }
            }
            Progress::Asking { since, .. } => self.add(*since, name, What::Asked),
            Progress::Skipped { why } => {
                let at = skipped_at(told.build, why);
                self.add(at, name, What::Skipped { why: why.clone() });
            }
            Progress::Finished(run) => self.add_run(told.build, name, run),
        }
    }

    fn add_ticket(&mut self, name: Option<&TaskName>, ticket: &Ticket) {
        self.add_past(name, &ticket.past);
        let attempt = ticket.attempt;
        match &ticket.state {
            TicketState::Queued | TicketState::Parked { .. } => {
                if let Some(at) = ticket.queued {
                    self.add(at, name, What::Queued { after: attempt });
                }
            }
            TicketState::Claimed(claimed) => {
                let claim = (attempt, &claimed.worker, claimed.since);
                self.add_claim(name, ticket.queued, claim);
            }
            TicketState::Done(done) => {
                if let (Some(worker), Some(since)) = (&done.worker, done.started) {
                    self.add_claim(name, ticket.queued, (attempt, worker, since));
                }
                let attempt = done.worker.as_ref().map_or(Attempt::default(), |_| attempt);
                self.add_end(name, attempt, (&done.result.outcome, done.finished));
            }
        }
    }

    fn add_run(&mut self, build: &Build, name: Option<&TaskName>, run: &Finished) {
        if let Some(number) = run.build {
            let job = build.id.job.clone();
            let build_of = BuildRef { job, number };
            self.add(build.created, name, What::Kept { build: build_of });
            return;
        }
        self.add_past(name, &run.past);
        match (&run.worker, run.started) {
            (Some(worker), Some(since)) => {
                self.add_claim(name, run.queued, (run.attempt, worker, since));
            }
            (None, Some(since)) => self.add(since, name, What::Asked),
            (_, None) => {
                if let Some(at) = run.queued {
                    self.add(at, name, What::Queued { after: run.attempt });
                }
            }
        }
        // Whose ticket was cancelled while it was queued again had no claim to end.
        let attempt = run
            .worker
            .as_ref()
            .map_or(Attempt::default(), |_| run.attempt);
        self.add_end(name, attempt, (&run.result.outcome, run.finished));
    }

    fn add_end(
        &mut self,
        name: Option<&TaskName>,
        attempt: Attempt,
        (outcome, at): (&Outcome, Timestamp),
    ) {
        let what = What::Ended {
            attempt,
            outcome: outcome.to_string(),
            again: false,
        };
        self.add(at, name, what);
    }
}

fn waited(queued: Option<Timestamp>, since: Timestamp) -> Option<u64> {
    let waited = since.duration_since(queued?).as_millis();
    Some(u64::try_from(waited).unwrap_or(0))
}

/// When it was plain that a task would not run: when the last of the others had ended that could have
/// said so, as far as that is known.
fn skipped_at(build: &Build, why: &Skip) -> Timestamp {
    let ends = build.checkpoint.tasks.iter().filter_map(|task| {
        let Progress::Finished(run) = task else {
            return None;
        };
        run.build.is_none().then_some(run.finished)
    });
    let last = ends.max().unwrap_or(build.created);
    match why {
        Skip::Cancelled => build.checkpoint.cancelled.unwrap_or(last),
        Skip::Failed { .. } | Skip::NothingFailed => last,
        Skip::Condition { .. } => build.created,
    }
}

/// A stretch of time in which a ticket waited, or was worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The task; none for the build's own ticket.
    pub task: Option<TaskName>,
    /// Which claim it was, or was to be.
    pub attempt: Attempt,
    /// From when.
    pub from: Timestamp,
    /// Until when; `None` if it goes on.
    pub until: Option<Timestamp>,
    /// Who worked; `None` if it waited.
    pub worker: Option<WorkerName>,
    /// How it came to an end.
    pub end: Option<What>,
}

/// The stretches of time that a journal tells of, in the order in which they began.
pub fn stretches(journal: &[Entry]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for entry in journal {
        let begun = |attempt, worker| Stretch {
            task: entry.task.clone(),
            attempt,
            from: entry.at,
            until: None,
            worker,
            end: None,
        };
        let same_ticket = |stretch: &&mut Stretch| {
            stretch.task == entry.task && stretch.until.is_none() && entry.what.ends_a_stretch()
        };
        if let Some(open) = stretches.iter_mut().rev().find(same_ticket) {
            open.until = Some(entry.at);
            open.end = Some(entry.what.clone());
        }
        if let Some((attempt, worker)) = entry.what.begins_a_stretch() {
            stretches.push(begun(attempt, worker));
        }
    }
    stretches
}

impl What {
    /// Which claim a ticket waits for, or is worked on in, from it on; and by whom.
    fn begins_a_stretch(&self) -> Option<(Attempt, Option<WorkerName>)> {
        match self {
            Self::Queued { after } => Some((after.next(), None)),
            Self::Asked => Some((Attempt::default(), None)),
            Self::Claimed {
                attempt, worker, ..
            } => Some((*attempt, Some(worker.clone()))),
            Self::Posted { .. }
            | Self::Lost { .. }
            | Self::Released { .. }
            | Self::Decided { .. }
            | Self::Ended { .. }
            | Self::Skipped { .. }
            | Self::Kept { .. }
            | Self::Cancelled { .. }
            | Self::Triggered { .. }
            | Self::Refused { .. }
            | Self::Over { .. } => None,
        }
    }

    /// Whether it is about a claim of a ticket.
    pub fn is_of_a_claim(&self) -> bool {
        self.ends_a_stretch() && !matches!(self, Self::Over { .. })
    }

    /// Whether a ticket ceases by it to wait, or to be worked on.
    fn ends_a_stretch(&self) -> bool {
        match self {
            Self::Claimed { .. }
            | Self::Lost { .. }
            | Self::Released { .. }
            | Self::Decided { .. }
            | Self::Ended { .. }
            | Self::Over { .. } => true,
            Self::Posted { .. }
            | Self::Queued { .. }
            | Self::Asked
            | Self::Skipped { .. }
            | Self::Kept { .. }
            | Self::Cancelled { .. }
            | Self::Triggered { .. }
            | Self::Refused { .. } => false,
        }
    }
}
