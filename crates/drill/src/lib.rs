//! A drill: a cluster is put under load, hurt in every way that its operator can think of, healed, and
//! held against its promises.
//!
//! Owns the workload, the order of the faults, the gathering of what the cluster shows, and the report.
//! Sees the cluster through the public API alone, hurts it through the operator's commands alone, and
//! leaves the verdict to `distci-checker`. Never knows how a cluster is built.

mod book;
mod faults;
mod gather;
mod jobs;
mod nemesis;
mod report;
mod words;
mod workload;

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;
use distci_checker::check;
use distci_checker::history::{Fault, History, Seen};
use distci_model::Timestamp;
use distci_model::capability::Label;
use distci_model::id::JobId;
use fastrand::Rng;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::book::Book;
use crate::jobs::{Jobs, Theme};
use crate::nemesis::torment;

pub use crate::faults::{Faults, Planned};
pub use crate::nemesis::{Done, Recovery};
pub use crate::report::{Report, Tally};
pub use crate::workload::Doors;
use crate::workload::Workload;

/// Reads the clock.
pub type Clock = fn() -> Timestamp;

/// Takes what happens, a line each.
pub type Tell<'a> = &'a dyn Fn(&str);

/// How often it is told how far the workload is.
const NEWS: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug, Clone)]
pub struct Drill {
    /// How long to hurt the cluster. What comes after, until all builds are over, is not counted.
    pub lasts: Duration,
    /// Clients that each have one build on its way.
    pub clients: usize,
    /// Draws the order of faults and builds.
    pub seed: u64,
    /// The workers that the builds may run on; none: all.
    pub label: Option<Label>,
    /// What can be done to the cluster.
    pub faults: Faults,
    /// Whether the jobs stay when no promise was broken; otherwise they always do.
    pub keep: bool,
    /// How to know the time.
    pub clock: Clock,
}

impl Drill {
    /// Does it all, and judges.
    ///
    /// # Errors
    /// The cluster could not be used before anything was done to it, a command of the operator's
    /// failed, or what the cluster shows in the end cannot be read.
    ///
    /// # Cancel safety
    /// A fault that was not taken back yet is taken back when this is dropped.
    pub async fn run(&self, doors: Doors, tell: Tell<'_>) -> Result<(Report, History)> {
        let began = (self.clock)();
        let prefix = format!("drill-{}", began.strftime("%Y%m%d-%H%M%S"));
        let workload = Workload {
            doors,
            jobs: Jobs::new(&prefix, self.label.clone())?,
            book: Book::default(),
            chance: RefCell::new(Rng::with_seed(self.seed)),
            deck: RefCell::default(),
        };
        workload.set().await?;
        tell(&format!("the jobs are {prefix}-*"));
        let faults = Box::pin(self.hurt(&workload, tell)).await?;
        tell("nothing hurts the cluster any more; waiting for the last builds");
        let (history, tally) = self.gather(&workload, &faults).await?;
        let verdict = check(&history);
        if verdict.is_clean() && !self.keep {
            for job in workload.jobs.names() {
                workload.doors.any.remove_job(job).await?;
            }
        }
        let report = Report {
            began,
            seconds: self.lasts.as_secs(),
            seed: self.seed,
            frontends: workload.doors.each.len(),
            faults,
            work: tally,
            verdict,
        };
        Ok((report, history))
    }

    /// Has builds asked for, and meanwhile does the faults.
    async fn hurt(&self, workload: &Workload, tell: Tell<'_>) -> Result<Vec<Done>> {
        let begin = Instant::now();
        let (stopping, stop) = watch::channel(false);
        let asking = join_all((0..self.clients).map(|_| workload.ask_on(stop.clone())));
        let news = async {
            loop {
                sleep(NEWS).await;
                let (asked, over) = workload.book.counts();
                let passed = begin.elapsed().as_secs();
                tell(&format!(
                    "{passed} s: {asked} builds acknowledged, {over} over"
                ));
            }
        };
        let tormenting = async {
            let end = begin + self.lasts;
            let done = torment(workload, &self.faults.faults, end, self.clock, tell).await;
            stopping.send_replace(true);
            done
        };
        let work = async { tokio::join!(asking, tormenting).1 };
        tokio::select! {
            done = work => done,
            () = news => Ok(Vec::new()),
        }
    }

    async fn gather(&self, workload: &Workload, faults: &[Done]) -> Result<(History, Tally)> {
        let client = &workload.doors.any;
        let jobs: Vec<&JobId> = workload.jobs.names().collect();
        let builds = gather::settle(client, &jobs).await?;
        let mut pages = workload.book.close();
        let mut tally = Tally::default();
        tally.waits(std::mem::take(&mut pages.waits));
        let downstream = vec![workload.jobs.name(Theme::After).clone()];
        let mut history = gather::history(client, builds, downstream, pages).await?;
        history.faults = faults
            .iter()
            .map(|done| done.fault.clone())
            .collect::<Vec<Fault>>();
        if let Some(check) = &self.faults.check
            && let Err(error) = faults::run(check).await
        {
            history.flaws.push(format!("{error:#}"));
        }
        tally.builds = history.builds.len();
        tally.attempts = history.works.len();
        let consoles = history
            .builds
            .iter()
            .flat_map(|seen| seen.consoles.values());
        tally.console_bytes = consoles.map(|console| console.length).sum();
        tally.lost = history.builds.iter().map(lost).sum();
        Ok((history, tally))
    }
}

/// The claims of a build's tasks that were given up.
fn lost(seen: &Seen) -> usize {
    use distci_model::journal::What;
    let journal = seen.journal.iter();
    let is_lost = |what: &What| matches!(what, What::Lost { .. });
    journal
        .filter(|entry| entry.task.is_some() && is_lost(&entry.what))
        .count()
}
