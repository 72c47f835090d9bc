//! A cluster at work: the frame of every test here.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use distci_components::CephPlan;

use crate::cluster::{Cluster, Plan};
use crate::jobs::{Job, SINGLE};
use crate::program::eventually;
use crate::report::Report;
use crate::verdict::judge;
use crate::workload::{Followed, Long, Pressure, Workload};

/// What workers do that do no build control.
pub(crate) const TASKS: &str =
    "--kind execute-shell --kind publish-artifacts --kind copy-artifacts";
/// What workers do that do nothing else.
pub(crate) const CONTROL: &str = "--kind build-control --slots 2";

/// Clients that measure how long nobody serves them.
const CLIENTS: usize = 6;

/// A cluster that is asked for builds all the time.
pub(crate) struct Scene {
    pub(crate) report: Report,
    pub(crate) workload: Arc<Workload>,
    pub(crate) cluster: Cluster,
    pressure: Pressure,
    followed: Vec<Followed>,
}

impl Scene {
    /// Starts what most tests hurt: two workers of any task beside build control, and a short and a
    /// long task for them.
    pub(crate) fn usual(theme: &'static str) -> Result<Self> {
        let plan = Plan {
            theme,
            ceph: CephPlan::default(),
            signed_urls: false,
        };
        let tasks = format!("{TASKS} --slots 6 --label any");
        let workers = [("control", CONTROL), ("first", &tasks), ("second", &tasks)];
        let jobs = vec![Job::long("short", "any", 10), Job::long("long", "any", 70)];
        Self::begin(&plan, &workers, jobs)
    }

    /// Starts everything; `workers` are names with their arguments.
    pub(crate) fn begin(plan: &Plan, workers: &[(&str, &str)], jobs: Vec<Job>) -> Result<Self> {
        let begun = Instant::now();
        let report = Report::of(plan.theme);
        let mut cluster = Cluster::start(plan)?;
        for (name, arguments) in workers {
            cluster.hire(name, arguments)?;
        }
        let workload = Workload::begin(cluster.api(), cluster.dir(), jobs)?;
        report.noted(&format!(
            "started in {:.1} s",
            begun.elapsed().as_secs_f32()
        ))?;
        Ok(Self {
            report,
            pressure: workload.pressure(),
            workload,
            cluster,
            followed: Vec::new(),
        })
    }

    /// Measures how long after `since` requests are served: by the slowest of several clients, of
    /// which some begin with the frontend that is hurt.
    pub(crate) fn served(&self, fault: &str, since: Instant, bound: &str) -> Result<()> {
        let clients = (0..CLIENTS).map(|_| self.cluster.client());
        let clients = clients.collect::<Result<Vec<_>>>()?;
        let asking = clients
            .iter()
            .map(|client| self.workload.served(client, since));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let served = runtime.block_on(futures::future::try_join_all(asking));
        let served = served.with_context(|| fault.to_owned())?;
        let slowest = served.into_iter().max().unwrap_or_default();
        self.report
            .measured(fault, "requests served", slowest, bound)
    }

    /// Measures how long after `since` a build that is asked for now has ended.
    pub(crate) fn built(&self, fault: &str, since: Instant, bound: &str) -> Result<()> {
        let number = self.workload.trigger(SINGLE)?;
        eventually("the end of a build", || {
            Ok(self.workload.build(SINGLE, number)?.finished)
        })
        .with_context(|| fault.to_owned())?;
        self.report
            .measured(fault, "build of one task", since.elapsed(), bound)
    }

    /// Measures how long after `since` a later attempt of a task runs.
    pub(crate) fn restarted(
        &self,
        fault: &str,
        long: &Long,
        since: Instant,
        bound: &str,
    ) -> Result<()> {
        let restarted = self.workload.restarted(long, since);
        let restarted = restarted.with_context(|| fault.to_owned())?;
        self.report
            .measured(fault, "attempt restarted", restarted, bound)
    }

    /// Waits for the end of a build whose task must have been left alone.
    pub(crate) fn unhurt(&mut self, long: Long) -> Result<()> {
        let name = format!("{}#{}", long.job, long.number);
        let saw = long.end()?;
        let attempts = saw.iter().map(|saw| saw.transcript.len()).max();
        ensure!(attempts == Some(1), "{name} took {attempts:?} attempts");
        self.followed.extend(saw);
        Ok(())
    }

    /// Waits for the end of a build whose task may have been restarted.
    pub(crate) fn ended(&mut self, long: Long) -> Result<()> {
        self.followed.extend(long.end()?);
        Ok(())
    }

    /// Everything is healed: judges it, and prints the report.
    pub(crate) fn end(mut self) -> Result<()> {
        let begun = Instant::now();
        self.pressure.end()?;
        let found = judge(&self.workload, &self.followed)?;
        self.report.noted(&found.to_string())?;
        self.cluster.require_running()?;
        self.cluster.require_sound()?;
        let judged = begun.elapsed().as_secs_f32();
        self.report.noted(&format!("judged in {judged:.1} s"))
    }
}

/// Waits until so long after `since`.
pub(crate) fn until(since: Instant, passed: Duration) {
    sleep(passed.saturating_sub(since.elapsed()));
}
