//! Schedules: which a job has, when each was fired last, and firing.
//!
//! Owns `/t`: one node for each job that ever had a schedule. A fire sets it in the same commit that
//! posts the build, and only to a later time, so no moment is fired twice, whoever fires and however
//! clocks are set. Never computes a moment: that is `model::schedule`.

use std::collections::BTreeMap;

use distci_model::Timestamp;
use distci_model::build::Cause;
use distci_model::config::{CatchUp, JobConfig};
use distci_model::event::{Event, EventKind, Source};
use distci_model::id::{BuildRef, JobId, JobKey, RequestId};
use distci_model::schedule::{Marked, Schedule, ScheduleProblem, marked};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::builds::{Post, Posted, check_parameters};
use crate::coordination::{Event as Change, NodePath, Watch};
use crate::error::StoreError;
use crate::events::filled;
use crate::jobs::Job;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Read, Transaction, Tried, pack, read, until_done};

/// Timetables read at the same time.
const TOGETHER: usize = 64;

/// The schedules of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timetable {
    /// The job.
    pub key: JobKey,
    /// Its schedules; none of a job that was removed.
    pub schedules: Vec<Planned>,
}

/// A schedule of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Which of the job's.
    pub mark: String,
    /// When it comes,
    pub cron: String,
    /// by the clocks of which zone.
    pub timezone: String,
    /// What to do about moments that were missed.
    pub catch_up: CatchUp,
    /// The moment that was fired last, or when the schedule was set.
    pub last: Timestamp,
}

impl Planned {
    /// Its moments.
    ///
    /// # Errors
    /// Another version of DistCI knew what is written there.
    pub fn schedule(&self, job: &JobId) -> Result<Schedule, ScheduleProblem> {
        Schedule::of(job, &self.mark, &self.cron, &self.timezone)
    }
}

/// What came of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fired {
    /// The build that it posted.
    Posted(BuildRef),
    /// No build: the job takes no such parameters. The moment counts as fired.
    Refused(String),
    /// It was fired before, or passed over.
    Before,
    /// The job has no such schedule any more.
    Gone,
}

/// News of schedules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimetableNews {
    /// Those of a job changed, or one was fired.
    Changed(JobId),
    /// News were missed: list again.
    Gap,
}

/// Follows the schedules of all jobs.
#[derive(Debug)]
pub struct TimetableWatch(Watch);

impl TimetableWatch {
    /// Forgets the news that are queued, for whoever lists next sees what they tell.
    pub fn skip(&mut self) {
        self.0.skip();
    }

    /// The next news; `None` when the store is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<TimetableNews> {
        loop {
            match self.0.next().await? {
                Change::Gap => return Some(TimetableNews::Gap),
                Change::Created(path) | Change::Changed(path) | Change::Deleted(path) => {
                    if let Some(job) = job_at(&path) {
                        return Some(TimetableNews::Changed(job));
                    }
                }
            }
        }
    }
}

/// The job whose timetable is at `path`, which may be a shard.
pub(crate) fn job_at(path: &NodePath) -> Option<JobId> {
    let job = path.name().parse().ok();
    job.filter(|job| keys::timetable(job) == *path)
}

impl Store {
    /// Follows the schedules of all jobs.
    pub fn watch_timetables(&self) -> TimetableWatch {
        TimetableWatch(self.coordination.watch(&keys::timetables()))
    }

    /// The schedules of all jobs that have any. Watch first, then list.
    pub async fn timetables(&self) -> Result<Vec<(JobId, Timetable)>, StoreError> {
        let names = self.list_shards(&keys::timetables()).await?;
        let jobs = names.iter().filter_map(|name| name.parse::<JobId>().ok());
        let looks = jobs.map(|job| async move {
            let path = keys::timetable(&job);
            let table = match read::<Timetable>(&*self.coordination, &path).await {
                Ok(table) => table,
                // Of one job alone: the others must not wait for somebody to mend it.
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%job, %error, "the schedules of a job are not fired");
                    None
                }
                Err(error) => return Err(error),
            };
            let table = table.map(|table| table.record);
            Ok(table
                .filter(|table| !table.schedules.is_empty())
                .map(|table| (job, table)))
        });
        let looks = stream::iter(looks).buffer_unordered(TOGETHER).boxed();
        let found: Vec<_> = looks.try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The schedules of a job, as they were last seen; `None` if it has none.
    pub async fn timetable(&self, job: &JobId) -> Result<Option<Timetable>, StoreError> {
        let table = self.read_timetable(job).await?;
        let table = table.map(|table| table.record);
        Ok(table.filter(|table| !table.schedules.is_empty()))
    }

    async fn read_timetable(&self, job: &JobId) -> Result<Option<Read<Timetable>>, StoreError> {
        read(&*self.coordination, &keys::timetable(job)).await
    }

    /// Adds the schedules of a job's new configuration to the commit that sets it; of a job that is
    /// removed, there is none. What was fired stays fired; a new schedule begins `at` this moment.
    pub(crate) async fn set_schedules(
        &self,
        transaction: &mut Transaction,
        (job, key): (&JobId, &JobKey),
        config: Option<(&JobConfig, Timestamp)>,
    ) -> Result<(), StoreError> {
        let before = self.read_timetable(job).await?;
        let same_job = before.as_ref().filter(|before| before.record.key == *key);
        let last = |mark: &str| {
            let before = same_job?.record.schedules.iter();
            before
                .clone()
                .find(|known| known.mark == mark)
                .map(|known| known.last)
        };
        let plan = |(config, at): (&JobConfig, Timestamp)| -> Vec<Planned> {
            let planned = marked(&config.triggers).into_iter().map(|marked| Planned {
                last: last(&marked.mark).unwrap_or(at),
                cron: marked.trigger.cron.clone(),
                timezone: marked.trigger.timezone.clone(),
                catch_up: marked.trigger.catch_up,
                mark: marked.mark,
            });
            planned.collect()
        };
        let after = Timetable {
            key: key.clone(),
            schedules: config.map(plan).unwrap_or_default(),
        };
        let path = keys::timetable(job);
        let data = pack(&path, &after)?;
        match before {
            None if after.schedules.is_empty() => {}
            None => transaction.create(path, data),
            Some(before) if before.record == after => {}
            Some(before) => transaction.set(path, data, before.version),
        }
        Ok(())
    }

    /// Posts the build of a moment of a schedule, unless that moment or a later one has been fired.
    ///
    /// # Idempotence
    /// Any number of frontends may fire the same moment any number of times.
    pub async fn fire(
        &self,
        job: &JobId,
        mark: &str,
        due: Timestamp,
        at: Timestamp,
    ) -> Result<Fired, StoreError> {
        let _turn = self.turns.take(job).await;
        let moment = (mark, due);
        until_done!(self.coordination, self.try_fire(job, moment, at))
    }

    async fn try_fire(
        &self,
        id: &JobId,
        (mark, due): (&str, Timestamp),
        at: Timestamp,
    ) -> Result<Tried<Fired>, StoreError> {
        let Some(mut table) = self.read_timetable(id).await? else {
            return Ok(Tried::Refused(Fired::Gone));
        };
        let planned = &mut table.record.schedules.iter_mut();
        let Some(planned) = planned.find(|planned| planned.mark == mark) else {
            return Ok(Tried::Refused(Fired::Gone));
        };
        if planned.last >= due {
            return Ok(Tried::Done(Fired::Before));
        }
        planned.last = due;
        let job = match self.read_job_as_seen(id).await {
            Ok(job) => job,
            Err(StoreError::NotFound { .. }) => return Ok(Tried::Refused(Fired::Gone)),
            Err(error) => return Err(error),
        };
        let config = self.config(&job.key, &job.node.record.config).await?;
        let triggers = marked(&config.triggers);
        let trigger = triggers.iter().find(|marked| marked.mark == mark);
        let Some(Marked { trigger, .. }) = trigger.filter(|_| job.key == table.record.key) else {
            // Read before and after the same change.
            return Ok(Tried::Again);
        };
        let mut transaction = Transaction::default();
        let path = keys::timetable(id);
        let data = pack(&path, &table.record)?;
        transaction.set(path, data, table.version);
        let told = told(mark, due);
        let given = filled(&trigger.parameters, &told);
        let given = given.and_then(|given| check_parameters(&config, &given));
        let fired = match given {
            Ok(parameters) => {
                let post = post(&job, (mark, due), (told, parameters), at);
                match self.post_in(&mut transaction, job, &config, post).await? {
                    Posted::Build { build, .. } => Fired::Posted(build),
                    Posted::Skipped { holder } => {
                        Fired::Refused(format!("skipped: {holder} is still running"))
                    }
                }
            }
            Err(why) => Fired::Refused(why),
        };
        let committed = transaction.commit(&*self.coordination).await?;
        Ok(committed.map_or(Tried::Again, |_| Tried::Done(fired)))
    }
}

fn told(mark: &str, due: Timestamp) -> Event {
    Event {
        source: Source::Own,
        kind: EventKind::Schedule,
        delivery: Some(format!("{mark} {due}")),
        facts: [("scheduled".to_owned(), due.to_string())].into(),
        paths: None,
        labels: Vec::new(),
    }
}

fn post(
    job: &Job,
    (mark, due): (&str, Timestamp),
    (told, parameters): (Event, BTreeMap<String, String>),
    at: Timestamp,
) -> Post {
    Post {
        request: RequestId::derive(&format!("{} schedule {mark} {due}", job.key)),
        parameters,
        cause: Cause::Event {
            told: Box::new(told),
        },
        depth: 0,
        resumed: None,
        at,
    }
}
