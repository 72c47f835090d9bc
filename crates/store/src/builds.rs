//! Builds: posting, reading, listing.
//!
//! Owns what a build is from its post to its record. Numbers are allocated and used in one commit,
//! so they have no gaps and listing needs no index: build `n` of a job is its anchor, or its record.

use std::collections::BTreeMap;

use distci_model::Timestamp;
use distci_model::build::{Archived, Build, Cause, Checkpoint, ConfigRef, Progress};
use distci_model::capability::Capabilities;
use distci_model::config::{JobConfig, TaskConfig, WhenFull, resolve_parameters};
use distci_model::id::{
    Attempt, BuildKey, BuildNumber, BuildRef, JobId, JobKey, RequestId, TicketKey,
};
use distci_model::lock::concurrency_of;
use distci_model::order::question;
use distci_model::outcome::Outcome;
use distci_model::ticket::{Duty, Priority, Stamp, Ticket, TicketState};
use distci_model::wire::{BuildPhase, BuildSummary, BuildView, TaskState, TaskView};

use crate::admission::Admission;
use crate::error::StoreError;
use crate::jobs::{Job, Numbers, RECENT};
use crate::keys;
use crate::store::Store;
use crate::transaction::{Child, Read, Transaction, Tried, decode, pack, read, until_done};

/// A build that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// It is there.
    Build {
        /// Job and number.
        build: BuildRef,
        /// Whether this request made it, and not an earlier try.
        fresh: bool,
    },
    /// It was not made, for the job's builds are to be skipped when there is no room.
    Skipped {
        /// A build that has the room.
        holder: BuildRef,
    },
}

impl Posted {
    /// The build to look at: this one, or the one that has its room.
    pub fn shown(self) -> BuildRef {
        match self {
            Self::Build { build, .. } => build,
            Self::Skipped { holder } => holder,
        }
    }

    /// The build, if there is one.
    pub fn build(self) -> Option<BuildRef> {
        match self {
            Self::Build { build, .. } => Some(build),
            Self::Skipped { .. } => None,
        }
    }
}

/// A build wherever it is now.
pub(crate) enum Found {
    /// In the coordination store.
    Active(Box<Read<Build>>),
    /// In the blob store.
    Archived(Box<Archived>),
}

/// The trigger of a build, as one commit needs it.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) request: RequestId,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) cause: Cause,
    pub(crate) depth: u32,
    /// The configuration and the checkpoint to begin with, if not the job's own and none.
    pub(crate) resumed: Option<(ConfigRef, Checkpoint)>,
    pub(crate) at: Timestamp,
}

impl Store {
    /// Posts a build.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job, [`StoreError::Refused`] if the parameters do
    /// not fit.
    ///
    /// # Idempotence
    /// A repeated `request` finds the build that it made. One that was skipped is not remembered.
    pub async fn post_build(
        &self,
        job: &JobId,
        request: &RequestId,
        given: &BTreeMap<String, String>,
        at: Timestamp,
    ) -> Result<Posted, StoreError> {
        let post = Post {
            request: request.clone(),
            parameters: given.clone(),
            cause: Cause::Manual,
            depth: 0,
            resumed: None,
            at,
        };
        self.post_once(job, post).await
    }

    /// Posts a build, unless its request has done so before.
    pub(crate) async fn post_once(&self, job: &JobId, post: Post) -> Result<Posted, StoreError> {
        let _turn = self.turns.take(job).await;
        until_done!(self.coordination, async {
            let job = self.read_job_as_seen(job).await?;
            if let Some(number) = job.numbers.record.taken(&keys::request_mark(&post.request)) {
                let build = BuildRef {
                    job: job.id,
                    number,
                };
                return Ok(Tried::Done(Posted::Build {
                    build,
                    fresh: false,
                }));
            }
            // What a poll has found is not built again because a webhook tells of it.
            let told = post.cause.told();
            if let Some(number) = told.and_then(|told| job.numbers.record.built(told)) {
                let build = BuildRef {
                    job: job.id,
                    number,
                };
                return Ok(Tried::Done(Posted::Build {
                    build,
                    fresh: false,
                }));
            }
            let config = self.config(&job.key, &job.node.record.config).await?;
            let given = &post.parameters;
            let parameters = check_parameters(&config, given).map_err(StoreError::refused)?;
            let post = Post {
                parameters,
                ..post.clone()
            };
            let mut transaction = Transaction::default();
            let posted = self.post_in(&mut transaction, job, &config, post).await?;
            if let Posted::Skipped { .. } = posted {
                return Ok(Tried::Done(posted));
            }
            let committed = transaction.commit(&*self.coordination).await?;
            Ok(committed.map_or(Tried::Again, |_| Tried::Done(posted)))
        })
    }

    /// Adds the post of a build to a commit, or nothing if it is skipped.
    pub(crate) async fn post_in(
        &self,
        transaction: &mut Transaction,
        job: Job,
        config: &JobConfig,
        post: Post,
    ) -> Result<Posted, StoreError> {
        let needed = concurrency_of(config, &job.key, &post.parameters, &post.cause);
        let (locks, slots) = match self.admit(needed.as_ref()).await? {
            Admission::Granted { locks, slots } => (locks, slots),
            Admission::Full { holder } => return Ok(Posted::Skipped { holder }),
        };
        let requires = Capabilities::control();
        self.ensure_class(&requires).await?;
        let mut numbers = job.numbers.record;
        let number = numbers.take(keys::request_mark(&post.request));
        let id = BuildRef {
            job: job.id,
            number,
        };
        if let Some((need, WhenFull::CancelOlder)) = &needed {
            let new = (&job.key, &id, &post);
            self.supersede(transaction, &mut numbers, need, new).await?;
        }
        let fresh = || Checkpoint::start(config.tasks.len(), post.at);
        let (revision, checkpoint) = post
            .resumed
            .unwrap_or_else(|| (job.node.record.config, fresh()));
        let build = Build {
            ticket: Ticket {
                locks,
                slots,
                ..ticket(Duty::Control, &job.key, number, &requires, post.at)
            },
            id: id.clone(),
            config: revision,
            parameters: post.parameters,
            cause: post.cause,
            request: post.request,
            depth: post.depth,
            created: post.at,
            checkpoint,
        };
        let key = TicketKey::control(BuildKey::derive(&job.key, number));
        if let Some(told) = build.cause.told() {
            numbers.note_commit(number, told);
        }
        self.report_begin(transaction, config, &build).await?;
        let path = keys::numbers(&id.job);
        let data = pack(&path, &numbers)?;
        // The configuration must still be the job's, and the job still there.
        transaction.check(keys::job(&id.job), job.node.version);
        transaction.set(path, data, job.numbers.version);
        transaction.post(&key, &build)?;
        transaction.create(keys::mailbox(&key.build), bytes::Bytes::new());
        Ok(Posted::Build {
            build: id,
            fresh: true,
        })
    }

    /// Makes sure that the requirements of a class can be looked up.
    pub(crate) async fn ensure_class(&self, requires: &Capabilities) -> Result<(), StoreError> {
        let path = keys::class(&requires.class());
        until_done!(self.coordination, async {
            if self.coordination.get(&path).await?.is_some() {
                return Ok(Tried::Done(()));
            }
            let mut transaction = Transaction::default();
            transaction.create(path.clone(), keys::class_payload(requires).into());
            let committed = transaction.commit(&*self.coordination).await?;
            Ok(committed.map_or(Tried::Again, |_| Tried::Done(())))
        })
    }

    /// The key of a build that was posted.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn build_key(&self, id: &BuildRef) -> Result<BuildKey, StoreError> {
        until_done!(self.coordination, async {
            let job = self.read_job_as_seen(&id.job).await?;
            if id.number >= job.numbers.record.next {
                return Err(StoreError::missing(format!("build {id}")));
            }
            Ok(Tried::Done(BuildKey::derive(&job.key, id.number)))
        })
    }

    /// A build with everything about it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn build(&self, id: &BuildRef) -> Result<BuildView, StoreError> {
        until_done!(self.coordination, self.try_build(id))
    }

    async fn try_build(&self, id: &BuildRef) -> Result<Tried<BuildView>, StoreError> {
        let job = self.read_job_as_seen(&id.job).await?;
        let (build, outcome) = match self.find_build_as_seen(&job, id).await? {
            Found::Active(build) => (build.record, None),
            Found::Archived(archived) => (archived.build, Some(archived.outcome)),
        };
        let viewed = self.view_of(&job.key, build, outcome).await?;
        Ok(viewed.map_or(Tried::Again, Tried::Done))
    }

    /// What is seen of a build that was read; `None` if it went on meanwhile.
    pub(crate) async fn view_of(
        &self,
        job: &JobKey,
        build: Build,
        outcome: Option<Outcome>,
    ) -> Result<Option<BuildView>, StoreError> {
        let config = self.config(job, &build.config).await?;
        let key = BuildKey::derive(job, build.id.number);
        let mut tasks = Vec::with_capacity(config.tasks.len());
        for (index, task) in config.tasks.iter().enumerate() {
            let Some(progress) = build.checkpoint.tasks.get(index) else {
                break;
            };
            // Consumed between the two reads: the build says by now how the task ended.
            let Some(mut state) = self.task_state(&key, progress, task).await? else {
                return Ok(None);
            };
            if let TaskState::Asking { message, .. } = &mut state {
                *message = question(&config, &build, index).unwrap_or_default();
            }
            tasks.push(TaskView {
                name: task.name.clone(),
                kind: task.action.kind(),
                needs: task.needs.iter().map(|need| need.task.clone()).collect(),
                state,
            });
        }
        let noted = build.checkpoint.cancelled.is_some();
        let flag = match &outcome {
            None if !noted => self.cancel_flag(&key).await?,
            None | Some(_) => None,
        };
        Ok(Some(BuildView {
            build: build.id,
            phase: phase(outcome.as_ref(), &tasks),
            finished: outcome.as_ref().map(|_| build.checkpoint.latest),
            outcome,
            cause: build.cause,
            parameters: build.parameters,
            revision: build.config.revision,
            created: build.created,
            cancelled: noted || flag.is_some(),
            cancelled_by: build
                .checkpoint
                .cancelled_by
                .or(flag.and_then(|flag| flag.by)),
            tasks,
            downstream: build.checkpoint.downstream,
        }))
    }

    /// Where a task stands; `None` if its ticket is gone though the checkpoint knows it as posted.
    async fn task_state(
        &self,
        build: &BuildKey,
        progress: &Progress,
        task: &TaskConfig,
    ) -> Result<Option<TaskState>, StoreError> {
        let (ticket, run) = match progress {
            Progress::Waiting => return Ok(Some(TaskState::Waiting)),
            Progress::Skipped { why } => return Ok(Some(TaskState::Skipped { why: why.clone() })),
            Progress::Finished(run) => return Ok(Some(TaskState::Finished { run: run.clone() })),
            Progress::Backoff { run, until, last } => {
                return Ok(Some(TaskState::Backoff {
                    run: *run,
                    until: *until,
                    last: last.clone(),
                }));
            }
            Progress::Asking { since, until } => {
                return Ok(Some(TaskState::Asking {
                    message: String::new(),
                    since: *since,
                    until: *until,
                }));
            }
            Progress::Posted { ticket, run } => (ticket, *run),
        };
        let key = TicketKey {
            build: build.clone(),
            ticket: ticket.clone(),
        };
        let child: Option<Read<Child>> = read(&*self.coordination, &keys::anchor(&key)).await?;
        let Some(child) = child else {
            return Ok(None);
        };
        let record = child.record.ticket;
        let attempt = record.attempt;
        Ok(Some(match record.state {
            TicketState::Queued | TicketState::Parked { .. } => TaskState::Queued {
                attempt,
                requires: task.requires(),
            },
            TicketState::Claimed(claimed) => TaskState::Running {
                attempt,
                worker: claimed.worker,
                started: claimed.since,
            },
            TicketState::Done(_) => {
                let Some(mut last) = crate::control::finished(ticket.clone(), record) else {
                    return Ok(None);
                };
                last.run = run;
                let last = Box::new(last);
                let retry = task.retry.as_ref();
                // Build control will say the same when it takes notice.
                match retry.and_then(|retry| retry.next_after(&last)) {
                    Some(until) => TaskState::Backoff {
                        run: run + 1,
                        until,
                        last,
                    },
                    None => TaskState::Finished { run: last },
                }
            }
        }))
    }

    pub(crate) async fn find_build(&self, job: &Job, id: &BuildRef) -> Result<Found, StoreError> {
        until_done!(self.coordination, async {
            self.find_build_as_seen(job, id).await.map(Tried::Done)
        })
    }

    /// The job says which builds there are to whom it is known; a later one may have come since.
    pub(crate) async fn find_build_as_seen(
        &self,
        job: &Job,
        id: &BuildRef,
    ) -> Result<Found, StoreError> {
        let missing = || StoreError::missing(format!("build {id}"));
        let key = TicketKey::control(BuildKey::derive(&job.key, id.number));
        if let Some(build) = read(&*self.coordination, &keys::anchor(&key)).await? {
            return Ok(Found::Active(Box::new(build)));
        }
        let record = self.record(&job.key, id.number).await?;
        record
            .map(|record| Found::Archived(Box::new(record)))
            .ok_or_else(missing)
    }

    pub(crate) async fn record(
        &self,
        job: &JobKey,
        number: BuildNumber,
    ) -> Result<Option<Archived>, StoreError> {
        let key = keys::record(job, number);
        let Some(data) = self.blobs.get(&key, MAX_RECORD).await? else {
            return Ok(None);
        };
        let text = zstd::decode_all(&*data).map_err(|error| StoreError::corrupt(&key, error))?;
        decode(key.as_str(), &text).map(Some)
    }

    /// The number of the last build, or of the last that succeeded.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn latest_build(&self, id: &JobId, which: Which) -> Result<BuildRef, StoreError> {
        let job = self.read_job(id).await?;
        let wanted = |summary: &BuildSummary| match which {
            Which::Any => true,
            Which::Successful => summary.outcome.as_ref().is_some_and(Outcome::is_success),
        };
        let (mut before, mut limit) = (None, RECENT);
        loop {
            let (page, next) = self.list_builds_of(&job, before, limit).await?;
            // Beyond the latest, whole pages: each is read once.
            limit = 256;
            if let Some(found) = page.iter().find(|summary| wanted(summary)) {
                return Ok(BuildRef {
                    job: id.clone(),
                    number: found.number,
                });
            }
            match next {
                Some(next) => before = Some(next),
                None => return Err(StoreError::missing(format!("{which} build of {id}"))),
            }
        }
    }

    /// The first build of a job that is not archived.
    pub(crate) async fn first_active(
        &self,
        job: &JobKey,
        numbers: &Numbers,
    ) -> Result<Option<BuildNumber>, StoreError> {
        for number in (1..numbers.next.get()).rev().filter_map(BuildNumber::new) {
            let key = keys::build(&BuildKey::derive(job, number));
            if self.coordination.get(&key).await?.is_some() {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

/// Most bytes of the values of a build's parameters. They are in the build's anchor, which has to
/// fit into one commit beside what its tasks report.
const MAX_PARAMETERS: usize = 16 * 1024;

/// The value of each parameter of a job, or why `given` does not fit.
pub(crate) fn check_parameters(
    config: &JobConfig,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let values =
        resolve_parameters(&config.parameters, given).map_err(|error| error.to_string())?;
    let bytes: usize = values.values().map(String::len).sum();
    if bytes > MAX_PARAMETERS {
        return Err(format!(
            "the parameters have {bytes} bytes; the limit is {MAX_PARAMETERS}"
        ));
    }
    Ok(values)
}

/// Largest build record, compressed.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// Which of the latest builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The latest.
    Any,
    /// The latest that succeeded.
    Successful,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Successful => "successful",
        })
    }
}

/// A new ticket.
pub(crate) fn ticket(
    duty: Duty,
    job: &JobKey,
    number: BuildNumber,
    requires: &Capabilities,
    at: Timestamp,
) -> Ticket {
    Ticket {
        queued: None,
        past: Vec::new(),
        duty,
        job: job.clone(),
        number,
        class: requires.class(),
        priority: match duty {
            Duty::Control => Priority::CONTROL,
            Duty::Task | Duty::Errand => Priority::NORMAL,
        },
        stamp: Stamp::at(at),
        attempt: Attempt::default(),
        losses: 0,
        locks: Vec::new(),
        slots: Vec::new(),
        state: TicketState::Queued,
    }
}

fn phase(outcome: Option<&Outcome>, tasks: &[TaskView]) -> BuildPhase {
    let begun = |task: &TaskView| {
        matches!(
            task.state,
            TaskState::Running { .. }
                | TaskState::Backoff { .. }
                | TaskState::Asking { .. }
                | TaskState::Finished { .. }
        )
    };
    match outcome {
        Some(_) => BuildPhase::Finished,
        None if tasks.iter().any(begun) => BuildPhase::Running,
        None => BuildPhase::Queued,
    }
}
