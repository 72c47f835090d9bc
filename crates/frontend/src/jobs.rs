//! The jobs: their names, and how those stand that are looked at.
//!
//! Owns a mirror of all names, and what was read of the jobs that somebody looked at last. News of a
//! job make this forget what it read, never guess. Invariant: what is told is no older than what the
//! store's own reads would show to this frontend, for all news before the question are taken in first.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_model::id::{BuildKey, JobId};
use distci_model::wire::BuildPhase;
use distci_store::{JobHead, StoreError};
use futures::stream::{StreamExt, TryStreamExt, iter};
use lru::LruCache;
use tokio::time::timeout;

use crate::app::App;

/// Builds of each job that are told of.
pub(crate) const BUILDS: usize = 16;
/// Jobs that are remembered, looked at last: five pages of 100. One takes some 5 to 10 KB, and never
/// more than a node of the store.
const HEADS: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Jobs that are read at once: those of a page in one round trip.
const PARALLEL: usize = 100;
/// How long it may take to learn all that the store has told.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this frontend knows of all jobs.
#[derive(Debug)]
pub(crate) struct Jobs(Mutex<State>);

#[derive(Debug)]
struct State {
    /// All that there are, and those removed of which nobody has found that out here.
    names: BTreeSet<JobId>,
    heads: LruCache<JobId, Known>,
    /// The builds that wait, by what their jobs' heads say: the index tells of them, not of the jobs.
    waiting: HashMap<BuildKey, JobId>,
    /// Counts the readings, so that each knows whether news of its job came meanwhile,
    readings: u64,
    /// and the news of builds, for what is read may not say yet which builds wait.
    rings: u64,
}

#[derive(Debug)]
enum Known {
    /// Somebody reads it, and there were no news of it since.
    Reading(u64),
    Head(Arc<JobHead>),
}

/// Some of the jobs, and how they stand.
pub(crate) struct Listed {
    /// How many jobs there are,
    pub(crate) jobs: usize,
    /// and how many of them fit.
    pub(crate) fitting: usize,
    /// Those that were asked for, by name.
    pub(crate) heads: Vec<(JobId, Arc<JobHead>)>,
    /// The last of them, if more come after it.
    pub(crate) next: Option<JobId>,
}

/// Reading a job.
struct Reading {
    number: u64,
    rings: u64,
}

impl Default for Jobs {
    fn default() -> Self {
        Self(Mutex::new(State {
            names: BTreeSet::new(),
            heads: LruCache::new(HEADS),
            waiting: HashMap::new(),
            readings: 0,
            rings: 0,
        }))
    }
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are exactly these, and nothing is known of them.
    pub(crate) fn reset(&self, names: Vec<JobId>) {
        let mut state = self.lock();
        state.names = names.into_iter().collect();
        state.heads.clear();
        state.waiting.clear();
    }

    /// A job is new, or another than it was.
    pub(crate) fn changed(&self, job: JobId) {
        let mut state = self.lock();
        state.forget(&job);
        state.names.insert(job);
    }

    /// A build may have begun.
    pub(crate) fn ring(&self, build: &BuildKey) {
        let mut state = self.lock();
        state.rings += 1;
        if let Some(job) = state.waiting.get(build).cloned() {
            state.forget(&job);
        }
    }
}

impl State {
    fn forget(&mut self, job: &JobId) {
        if let Some(known) = self.heads.pop(job) {
            self.release(&known);
        }
    }

    fn release(&mut self, known: &Known) {
        if let Known::Head(head) = known {
            for build in waiting(head) {
                self.waiting.remove(&build);
            }
        }
    }

    fn set(&mut self, job: &JobId, known: Known) {
        if let Known::Head(head) = &known {
            let builds = waiting(head).map(|build| (build, job.clone()));
            self.waiting.extend(builds);
        }
        if let Some((_, lost)) = self.heads.push(job.clone(), known) {
            self.release(&lost);
        }
    }

    fn begin(&mut self, job: &JobId) -> Reading {
        self.readings += 1;
        let number = self.readings;
        self.set(job, Known::Reading(number));
        Reading {
            number,
            rings: self.rings,
        }
    }

    /// Takes in what was read of a job, nothing if it is removed, unless it may be old by now.
    fn end(&mut self, job: &JobId, reading: &Reading, head: Option<&Arc<JobHead>>) {
        let is_last = |known: &Known| matches!(known, Known::Reading(n) if *n == reading.number);
        if !self.heads.peek(job).is_some_and(is_last) {
            return;
        }
        self.forget(job);
        match head {
            Some(head) => {
                if self.rings == reading.rings || waiting(head).next().is_none() {
                    self.set(job, Known::Head(Arc::clone(head)));
                }
            }
            None => {
                self.names.remove(job);
            }
        }
    }

    fn head(&mut self, job: &JobId) -> Option<Arc<JobHead>> {
        match self.heads.get(job)? {
            Known::Head(head) => Some(Arc::clone(head)),
            Known::Reading(_) => None,
        }
    }
}

/// The builds that wait for their first worker.
fn waiting(head: &JobHead) -> impl Iterator<Item = BuildKey> {
    let builds = head.builds.iter();
    let waiting = builds.filter(|build| matches!(build.phase, BuildPhase::Queued));
    waiting.map(|build| BuildKey::derive(&head.key, build.number))
}

/// The names of all jobs, in order.
///
/// # Errors
/// [`StoreError::Down`] while this frontend does not know what the store holds.
pub(crate) async fn names(app: &App) -> Result<Vec<JobId>, StoreError> {
    catch_up(app).await?;
    Ok(app.jobs.lock().names.iter().cloned().collect())
}

/// At most `most` jobs that `fit` and come after this one, with how they stand. Reads nothing of
/// those that have been looked at since they changed.
///
/// # Errors
/// As [`names`].
pub(crate) async fn list(
    app: &App,
    fit: impl Fn(&JobId) -> bool,
    after: Option<JobId>,
    most: usize,
) -> Result<Listed, StoreError> {
    catch_up(app).await?;
    let mut last = after;
    let mut heads = Vec::new();
    loop {
        let (wanted, more) = {
            let state = app.jobs.lock();
            let start = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let rest = state.names.range((start, Bound::Unbounded));
            let mut rest = rest.filter(|id| fit(id));
            let wanted: Vec<_> = rest.by_ref().take(most - heads.len()).cloned().collect();
            (wanted, rest.next().is_some())
        };
        last = wanted.last().cloned().or(last);
        heads.extend(look(app, wanted).await?);
        // Of some it was found only now that they are removed: others take their places.
        if heads.len() >= most || !more {
            let state = app.jobs.lock();
            return Ok(Listed {
                jobs: state.names.len(),
                fitting: state.names.iter().filter(|id| fit(id)).count(),
                heads,
                next: last.filter(|_| more),
            });
        }
    }
}

/// Takes in all news up to now.
async fn catch_up(app: &App) -> Result<(), StoreError> {
    let mut current = app.current.subscribe();
    if !*current.borrow() {
        // Says why, if the store itself is the reason.
        app.store.check().await?;
    }
    let fresh = async {
        if current.wait_for(|is| *is).await.is_ok() {
            app.barrier.pass().await;
        }
    };
    let behind = |_| StoreError::Down("this frontend is behind the store".into());
    timeout(PATIENCE, fresh).await.map_err(behind)
}

/// How these jobs stand, but those that are removed.
async fn look(app: &App, jobs: Vec<JobId>) -> Result<Vec<(JobId, Arc<JobHead>)>, StoreError> {
    let heads = iter(jobs).map(async |job| Ok((head(app, &job).await?, job)));
    let heads = heads.buffered(PARALLEL);
    let there = heads.try_filter_map(async |(head, job)| Ok(head.map(|head| (job, head))));
    there.try_collect().await
}

async fn head(app: &App, job: &JobId) -> Result<Option<Arc<JobHead>>, StoreError> {
    let reading = {
        let mut state = app.jobs.lock();
        if let Some(head) = state.head(job) {
            return Ok(Some(head));
        }
        state.begin(job)
    };
    let head = match app.store.job_with_builds(job, BUILDS).await {
        Ok(head) => Some(Arc::new(head)),
        // Removed, now or since it was listed.
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    app.jobs.lock().end(job, &reading, head.as_ref());
    Ok(head)
}

#[cfg(test)]
mod tests {
    use distci_model::Timestamp;
    use distci_model::build::Cause;
    use distci_model::id::{BuildNumber, JobKey};
    use distci_model::wire::BuildSummary;

    use super::*;

    fn job(name: &str) -> JobId {
        name.parse().unwrap()
    }

    fn head_of(id: &JobId, phase: BuildPhase) -> Arc<JobHead> {
        Arc::new(JobHead {
            key: JobKey::derive(id, 0),
            description: None,
            revision: 1,
            builds: vec![BuildSummary {
                number: BuildNumber::FIRST,
                phase,
                outcome: None,
                cause: Cause::Manual,
                created: Timestamp::UNIX_EPOCH,
                finished: None,
            }],
        })
    }

    fn first_build(id: &JobId) -> BuildKey {
        BuildKey::derive(&JobKey::derive(id, 0), BuildNumber::FIRST)
    }

    /// Reads a job, while `meanwhile` happens, and says whether it is known then.
    fn known_after(phase: BuildPhase, meanwhile: impl Fn(&Jobs)) -> bool {
        let (jobs, id) = (Jobs::default(), job("j"));
        jobs.reset(vec![id.clone()]);
        let reading = jobs.lock().begin(&id);
        meanwhile(&jobs);
        let head = head_of(&id, phase);
        jobs.lock().end(&id, &reading, Some(&head));
        jobs.lock().head(&id).is_some()
    }

    #[test]
    fn what_was_read_while_news_came_is_not_kept() {
        assert!(known_after(BuildPhase::Queued, |_| {}));
        for phase in [BuildPhase::Queued, BuildPhase::Finished] {
            assert!(!known_after(phase, |jobs| jobs.changed(job("j"))));
            assert!(!known_after(phase, |jobs| jobs.reset(vec![job("j")])));
            assert!(known_after(phase, |jobs| jobs.changed(job("k"))));
        }
        let begins = |jobs: &Jobs| jobs.ring(&first_build(&job("j")));
        assert!(!known_after(BuildPhase::Queued, begins));
        assert!(known_after(BuildPhase::Finished, begins));
    }

    #[test]
    fn what_is_forgotten_leaves_nothing() {
        let jobs = Jobs::default();
        for number in 0..2 * HEADS.get() {
            let id = job(&format!("j{number}"));
            jobs.changed(id.clone());
            let reading = jobs.lock().begin(&id);
            let head = head_of(&id, BuildPhase::Queued);
            jobs.lock().end(&id, &reading, Some(&head));
        }
        assert_eq!(jobs.lock().waiting.len(), HEADS.get());
        let last = job(&format!("j{}", 2 * HEADS.get() - 1));
        jobs.ring(&first_build(&last));
        assert!(jobs.lock().head(&last).is_none());
        jobs.reset(Vec::new());
        let state = jobs.lock();
        assert!(state.waiting.is_empty() && state.heads.is_empty());
    }
}
