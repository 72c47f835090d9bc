//! The schedules: which moment of which job comes next, and firing it.
//!
//! Owns a mirror of all timetables and the loop that fires what cluster time has passed. Any number
//! of frontends may fire the same moment: one commit wins, and the others find it fired. Who goes
//! first is a matter of hashing. Invariant: nothing is fired before its time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use distci_model::Timestamp;
use distci_model::config::CatchUp;
use distci_model::id::{JobId, JobKey};
use distci_model::schedule::Schedule;
use distci_store::{Fired, Planned, StoreError, Timetable, TimetableNews, TimetableWatch};
use futures::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::timers::{AGAIN, RANK, TICK};

/// Most schedules fired in one look,
const MANY: usize = 256;
/// and at the same time.
const TOGETHER: usize = 16;

/// A schedule of a job, by its mark.
type Name = (JobId, String);

/// The schedules of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Schedules(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: HashMap<JobId, Vec<Entry>>,
    /// When each comes next.
    next: BTreeSet<(Timestamp, Name)>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: JobKey,
    mark: String,
    schedule: Schedule,
    catch_up: CatchUp,
    /// The moment that was fired or passed over last.
    last: Timestamp,
    next: Option<Timestamp>,
}

impl Entry {
    fn of(job: &JobId, key: &JobKey, planned: Planned) -> Option<Self> {
        let schedule = planned.schedule(job).inspect_err(|error| {
            tracing::error!(%job, %error, "a schedule cannot be read and is not fired");
        });
        let schedule = schedule.ok()?;
        Some(Self {
            key: key.clone(),
            next: schedule.next_after(planned.last),
            mark: planned.mark,
            schedule,
            catch_up: planned.catch_up,
            last: planned.last,
        })
    }
}

impl State {
    /// Makes the schedules of a job exactly these.
    fn set(&mut self, job: &JobId, table: Option<Timetable>) {
        let before = self.known.remove(job).unwrap_or_default();
        for entry in before {
            self.forget(job, &entry);
        }
        let Some(Timetable { key, schedules }) = table else {
            return;
        };
        let entries = schedules.into_iter();
        let entries: Vec<_> = entries
            .filter_map(|one| Entry::of(job, &key, one))
            .collect();
        for entry in &entries {
            self.expect(job, entry);
        }
        self.known.insert(job.clone(), entries);
    }

    fn expect(&mut self, job: &JobId, entry: &Entry) {
        if let Some(next) = entry.next {
            self.next.insert((next, (job.clone(), entry.mark.clone())));
        }
    }

    fn forget(&mut self, job: &JobId, entry: &Entry) {
        if let Some(next) = entry.next {
            self.next.remove(&(next, (job.clone(), entry.mark.clone())));
        }
    }

    fn entry(&self, (job, mark): &Name) -> Option<&Entry> {
        let entries = self.known.get(job)?;
        entries.iter().find(|entry| entry.mark == *mark)
    }

    /// Notes that all moments up to `last` are done with.
    fn pass(&mut self, (job, mark): &Name, last: Timestamp) {
        let entries = self.known.get_mut(job);
        let mut entries = entries.into_iter().flatten();
        let Some(entry) = entries.find(|entry| entry.mark == *mark) else {
            return;
        };
        let before = entry.clone();
        // The store may have told of a later one meanwhile.
        entry.last = entry.last.max(last);
        entry.next = entry.schedule.next_after(entry.last);
        let after = entry.clone();
        self.forget(job, &before);
        self.expect(job, &after);
    }
}

impl Schedules {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the first of them comes.
    fn first(&self) -> Option<Timestamp> {
        self.lock().next.first().map(|(next, _)| *next)
    }

    /// Those whose time has come, and this frontend's to fire by `rank`.
    fn due(&self, now: Timestamp, rank: impl Fn(&JobKey) -> Option<u32>) -> Vec<(Name, Entry)> {
        let state = self.lock();
        let is_due = |(next, _): &&(Timestamp, Name)| *next <= now;
        let ours = |(next, name): &(Timestamp, Name)| {
            let entry = state.entry(name)?;
            let late = now.duration_since(*next).unsigned_abs();
            let is_ours = rank(&entry.key).is_some_and(|rank| late >= RANK * rank);
            is_ours.then(|| (name.clone(), entry.clone()))
        };
        let due = state.next.iter().take_while(is_due).filter_map(ours);
        due.take(MANY).collect()
    }
}

/// Fires what comes until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    // Watched before listed: what happens in between is news.
    let mut news = app.store.watch_timetables();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut applied = list(&app).await;
    loop {
        if let Err(error) = &applied {
            tracing::warn!(%error, "the schedules cannot be read; they are listed again soon");
        }
        let behind = applied.is_err();
        applied = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            news = next(&mut news), if !behind => match news {
                Some(Some(job)) => learn(&app, &job).await,
                Some(None) => list(&app).await,
                None => return,
            },
            () = tokio::time::sleep(AGAIN), if behind => {
                news.skip();
                list(&app).await
            }
            _ = tick.tick(), if !behind => {
                tokio::select! {
                    () = fire_due(&app) => Ok(()),
                    () = stop.cancelled() => return,
                }
            }
        };
    }
}

/// The job that there is news of; no job if news were missed.
async fn next(news: &mut TimetableWatch) -> Option<Option<JobId>> {
    Some(match news.next().await? {
        TimetableNews::Changed(job) => Some(job),
        TimetableNews::Gap => {
            news.skip();
            None
        }
    })
}

async fn learn(app: &App, job: &JobId) -> Result<(), StoreError> {
    let table = match app.store.timetable(job).await {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(%job, %error, "the schedules of a job are not fired");
            None
        }
        table => table?,
    };
    app.schedules.lock().set(job, table);
    Ok(())
}

async fn list(app: &App) -> Result<(), StoreError> {
    let tables = app.store.timetables().await?;
    let mut fresh = State::default();
    for (job, table) in tables {
        fresh.set(&job, Some(table));
    }
    *app.schedules.lock() = fresh;
    Ok(())
}

async fn fire_due(app: &App) {
    let Some(first) = app.schedules.first() else {
        return;
    };
    if !app.time.is_soon(first, Instant::now(), app.now()) {
        return;
    }
    let Some(now) = app.time.now(Instant::now()) else {
        return;
    };
    let due = app.schedules.due(now, |key| app.peers.job_rank(key));
    let fires = due.into_iter().map(|(name, entry)| async move {
        let fired = fire(app, &name, &entry, now).await;
        fired.inspect_err(|error| {
            tracing::warn!(job = %name.0, %error, "a schedule waits for the store");
        })
    });
    let outcomes: Vec<_> = stream::iter(fires)
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    if outcomes.iter().any(Result::is_err) {
        tokio::time::sleep(AGAIN).await;
    }
}

/// Fires those moments of a schedule that have come and are wanted.
async fn fire(app: &App, name: &Name, entry: &Entry, now: Timestamp) -> Result<(), StoreError> {
    let (job, mark) = name;
    for due in entry.schedule.due(entry.catch_up, entry.last, now) {
        match app.store.fire(job, mark, due, app.cluster_now()).await? {
            Fired::Posted(build) => {
                app.metrics.fired.inc();
                tracing::info!(%job, %build, %due, "scheduled");
            }
            Fired::Refused(why) => {
                tracing::warn!(%job, %due, why, "a scheduled build is refused by its job");
            }
            Fired::Before | Fired::Gone => {}
        }
    }
    app.schedules.lock().pass(name, now);
    Ok(())
}
