//! The judgement: what the cluster shows in the end, held against what its people and tasks know.
//!
//! Owns the last look, through the public API and a check of the store, and the laws of this simulation
//! beside those of the checker: nothing waits, and each moment of a schedule has one build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use distci_checker::Verdict;
use distci_checker::history::{History, Seen};
use distci_client::{Client, ConsoleFrom};
use distci_model::Timestamp;
use distci_model::build::{Cause, Downstream};
use distci_model::id::{Attempt, BuildRef, JobId, TaskName};
use distci_model::journal::What;
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildView, TaskState};
use distci_store::{Mending, Store};
use tokio::time::sleep;

use crate::attempt::digest;
use crate::followers::Followed;
use crate::jobs::CRON;
use crate::scene::Scene;

/// How long the last builds may take after the last fault.
const LAST: Duration = Duration::from_mins(15);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(3);

/// Who looks at the end.
pub(crate) struct Judge {
    pub(crate) scene: Arc<Scene>,
    pub(crate) client: Client,
    pub(crate) store: Store,
}

/// What came of a run.
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) counts: Counts,
    /// All that the cluster showed, as text.
    pub(crate) shown: String,
}

/// What there was to judge.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) builds: usize,
    /// Builds of which it was known how they must end.
    pub(crate) foretold: usize,
    pub(crate) attempts: usize,
    /// Claims that were given up.
    pub(crate) lost: usize,
}

impl Judge {
    /// Waits until nothing is to be done any more. What is left then is for the laws to find.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub(crate) async fn await_quiet(&self) -> Result<()> {
        for _ in 0..LAST.as_secs() / LOOK.as_secs() {
            if self.unfinished().await?.is_empty() {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        for build in self.unfinished().await? {
            self.scene.flaw(format!("{build} does not end"));
        }
        Ok(())
    }

    async fn unfinished(&self) -> Result<Vec<BuildRef>> {
        let mut unfinished = Vec::new();
        for job in self.scene.jobs.configs().keys() {
            for (build, is_over) in self.listed(job).await? {
                if !is_over {
                    unfinished.push(build);
                }
            }
        }
        Ok(unfinished)
    }

    /// The builds of a job, and whether each is over.
    async fn listed(&self, job: &JobId) -> Result<Vec<(BuildRef, bool)>> {
        let (mut builds, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.client.builds(job, cursor.as_deref()).await?;
            for item in page.items {
                let (job, number) = (job.clone(), item.number);
                builds.push((BuildRef { job, number }, item.finished.is_some()));
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(builds);
            }
        }
    }

    /// Looks at everything and judges it. `scheduled` is from when until when the schedule stood.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub(crate) async fn judge(&self, scheduled: (Timestamp, Timestamp)) -> Result<Judgement> {
        let mut builds = Vec::new();
        for job in self.scene.jobs.configs().keys() {
            for (build, _) in self.listed(job).await? {
                builds.push(self.look(&build).await.context(build.to_string())?);
            }
        }
        self.check_schedule(&builds, scheduled);
        let checkup = self.store.fsck(Mending::Look, LOOK).await?;
        for finding in checkup.findings {
            let (path, flaw, detail) = (&finding.path, finding.flaw, &finding.detail);
            self.scene.flaw(format!("fsck: {path}: {flaw}: {detail}"));
        }
        let history = self.history(builds);
        let is_lost = |what: &&What| matches!(what, What::Lost { .. });
        let entries = history.builds.iter().flat_map(|seen| &seen.journal);
        let counts = Counts {
            builds: history.builds.len(),
            foretold: history.posts.iter().filter(|it| it.must.is_some()).count(),
            attempts: history.works.len(),
            lost: entries.map(|entry| &entry.what).filter(is_lost).count(),
        };
        Ok(Judgement {
            verdict: distci_checker::check(&history),
            counts,
            shown: serde_json::to_string_pretty(&history)?,
        })
    }

    async fn look(&self, build: &BuildRef) -> Result<Seen> {
        let number = build.number.to_string();
        let view = self.client.build(&build.job, &number).await?;
        let mut consoles = BTreeMap::new();
        for task in &view.tasks {
            let TaskState::Finished { run } = &task.state else {
                continue;
            };
            if run.build.is_some() || run.worker.is_none() {
                continue;
            }
            let from = ConsoleFrom {
                attempt: Some(run.attempt),
                offset: 0,
            };
            let console = self.client.console(build, &task.name, from, Duration::ZERO);
            let bytes = console.await?.bytes;
            let (name, attempt) = (task.name.clone(), run.attempt);
            self.check_followed(&view, &(name.clone(), attempt), &bytes);
            consoles.insert(name, digest(&bytes));
        }
        Ok(Seen {
            journal: self.client.journal(build).await?,
            view,
            consoles,
        })
    }

    /// Whoever followed a build saw what is shown now.
    fn check_followed(&self, view: &BuildView, attempt: &(TaskName, Attempt), shown: &[u8]) {
        let mut wrong = Vec::new();
        let notes = self.scene.notes();
        let of = notes.followed.iter().filter(|it| it.build == view.build);
        for Followed {
            build,
            outcome,
            consoles,
        } in of
        {
            if view.outcome.as_ref() != Some(outcome) {
                wrong.push(format!("{build} was seen to end otherwise: {outcome}"));
            }
            let read = consoles.get(attempt);
            if !read.is_none_or(|read| shown.starts_with(read)) {
                let (task, attempt) = attempt;
                wrong.push(format!("{build} {task}: attempt {attempt} said otherwise"));
            }
        }
        drop(notes);
        for wrong in wrong {
            self.scene.flaw(wrong);
        }
    }

    fn history(&self, builds: Vec<Seen>) -> History {
        let accepted = self.scene.network.accepted();
        let notes = self.scene.notes();
        let views: BTreeMap<&BuildRef, &BuildView> = builds
            .iter()
            .map(|seen| (&seen.view.build, &seen.view))
            .collect();
        let posts = notes.posts.values().cloned().map(|mut post| {
            let build = post.answers.first().and_then(|build| views.get(build));
            let is_left_alone = |view: &&BuildView| {
                !notes.cancelled.contains(&view.build)
                    && !self.scene.jobs.is_superseded(&view.build.job)
                    && !has_fault(view)
            };
            if build.is_some_and(is_left_alone) {
                post.must = self.scene.jobs.must(&post.job);
            }
            post
        });
        let posts = posts.collect();
        let works = notes.works.iter().map(|(path, work)| {
            let mut work = work.clone();
            work.acknowledged = accepted.contains(path);
            work
        });
        let triggered = builds.iter().flat_map(|seen| &seen.view.downstream);
        let triggered = triggered.filter_map(|it| match it {
            Downstream::Triggered { build } => Some(build.job.clone()),
            Downstream::Refused { .. } => None,
        });
        let scheduled = self.scene.jobs.configs().keys();
        let scheduled = scheduled.filter(|job| job.as_str() == CRON).cloned();
        let downstream: BTreeSet<JobId> = triggered.chain(scheduled).collect();
        History {
            posts,
            works: works.collect(),
            downstream: downstream.into_iter().collect(),
            flaws: notes.flaws.clone(),
            builds,
            ..History::default()
        }
    }

    /// When the first task of a build began.
    fn began(&self, build: &BuildRef) -> Option<Timestamp> {
        let notes = self.scene.notes();
        let works = notes.works.iter().map(|(_, work)| work);
        let ours = works.filter(|work| work.build == *build);
        ours.map(|work| work.began).min()
    }

    /// Each moment of the schedule has one build, and there is no other.
    fn check_schedule(&self, builds: &[Seen], (from, until): (Timestamp, Timestamp)) {
        let mut fired: BTreeMap<String, u32> = BTreeMap::new();
        let ours = builds
            .iter()
            .filter(|seen| seen.view.build.job.as_str() == CRON);
        for seen in ours {
            let Cause::Event { told } = &seen.view.cause else {
                self.scene
                    .flaw(format!("{} has no moment", seen.view.build));
                continue;
            };
            let moment = told.facts.get("scheduled").cloned().unwrap_or_default();
            let due: Option<Timestamp> = moment.parse().ok();
            let early = self.began(&seen.view.build).filter(|it| Some(*it) < due);
            if let Some(began) = early {
                self.scene
                    .flaw(format!("the moment {moment} came at {began}"));
            }
            *fired.entry(moment).or_default() += 1;
        }
        for (moment, times) in &fired {
            if *times > 1 {
                self.scene
                    .flaw(format!("the moment {moment} came {times} times"));
            }
        }
        let minutes = (from.as_second().div_euclid(60) + 1)..=until.as_second().div_euclid(60);
        for minute in minutes {
            let moment = Timestamp::from_second(minute * 60).unwrap_or_default();
            if !fired.contains_key(&moment.to_string()) {
                self.scene.flaw(format!("the moment {moment} never came"));
            }
        }
    }
}

/// Whether a task ended with a fault, as one does whose workers died too often.
fn has_fault(view: &BuildView) -> bool {
    view.tasks.iter().any(|task| match &task.state {
        TaskState::Finished { run } => matches!(run.result.outcome, Outcome::Fault { .. }),
        _ => false,
    })
}
