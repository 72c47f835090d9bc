//! Random jobs, of which it is known how they must end.
//!
//! Owns what each task does: a pure function of the seed and its name. Never asks anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use distci_model::config::{JobConfig, WhenFull};
use distci_model::id::{JobId, TaskName};
use distci_model::outcome::{Failure, Outcome, TaskResult, Verdict};
use distci_store::coordination::simulator::Dice;
use serde_json::{Value, json};

/// How many jobs clients and others ask for, the one with a schedule apart.
const JOBS: usize = 4;
/// The job that has a schedule.
pub(crate) const CRON: &str = "cron";

/// The jobs of a run.
pub(crate) struct Jobs {
    seed: u64,
    configs: BTreeMap<JobId, JobConfig>,
    /// What each ends with if nobody interferes.
    ends: BTreeMap<JobId, Verdict>,
}

/// What a task does.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    pub(crate) outcome: Outcome,
    /// What it writes, with a pause before each piece.
    pub(crate) pieces: Vec<(Duration, String)>,
    /// How long it takes after the last piece.
    pub(crate) rest: Duration,
}

impl Jobs {
    /// The jobs that follow from `seed`.
    ///
    /// # Errors
    /// A job of ours is not one.
    pub(crate) fn of(seed: u64) -> Result<Self> {
        let mut dice = Dice::new(seed ^ 0x0b5);
        let mut written: Vec<Value> = (0..JOBS).map(|it| random_job(it, &mut dice)).collect();
        written.push(cron_job(&mut dice));
        let mut jobs = Self {
            seed,
            configs: BTreeMap::new(),
            ends: BTreeMap::new(),
        };
        for job in written {
            let config = parse(&job)?;
            let result = |task: &str| TaskResult::of(outcome(seed, task));
            let (_, end) = distci_checker::predict(&config, result);
            jobs.ends.insert(config.job_id.clone(), end.verdict());
            jobs.configs.insert(config.job_id.clone(), config);
        }
        Ok(jobs)
    }

    pub(crate) fn configs(&self) -> &BTreeMap<JobId, JobConfig> {
        &self.configs
    }

    /// Those that clients ask for.
    pub(crate) fn asked_for(&self) -> Vec<JobId> {
        let ids = self.configs.keys();
        ids.filter(|id| id.as_str() != CRON).cloned().collect()
    }

    /// The job with a schedule, without it.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn without_schedule(&self) -> Result<JobConfig> {
        let cron = self.configs.values();
        let mut cron = cron.filter(|config| config.job_id.as_str() == CRON);
        let config = cron
            .next()
            .ok_or_else(|| anyhow!("no job has a schedule"))?;
        Ok(JobConfig {
            triggers: Vec::new(),
            ..config.clone()
        })
    }

    /// How a build of a job must end, if nobody cancels it.
    pub(crate) fn must(&self, job: &JobId) -> Option<Verdict> {
        self.ends.get(job).copied()
    }

    /// Whether others end builds of a job by asking for one.
    pub(crate) fn is_superseded(&self, job: &JobId) -> bool {
        let config = self.configs.get(job);
        let full = config.and_then(|config| config.concurrency.as_ref());
        full.is_some_and(|full| full.when_full == WhenFull::CancelOlder)
    }

    /// The tasks of a build of a job.
    pub(crate) fn tasks(&self, job: &JobId) -> Vec<TaskName> {
        let flat = self.configs.get(job).map(JobConfig::flat);
        let tasks = flat.into_iter().flat_map(|config| config.tasks);
        tasks.map(|task| task.name).collect()
    }

    /// The locks of a task, each with how many may hold it.
    pub(crate) fn locks(&self, job: &JobId, task: &TaskName) -> BTreeMap<String, u32> {
        let flat = self.configs.get(job).map(JobConfig::flat);
        let tasks = flat.into_iter().flat_map(|config| config.tasks);
        let mut tasks = tasks.filter(|known| known.name == *task);
        let locks = tasks.next().map(|task| task.locks).unwrap_or_default();
        let locks = locks.iter();
        locks
            .map(|lock| (lock.name.clone(), u32::from(lock.slots)))
            .collect()
    }

    /// What a task does in one attempt.
    pub(crate) fn deed(&self, task: &TaskName, dice: &mut Dice) -> Deed {
        let long = dice.chance(15);
        let moment = if long { 12_000 } else { 900 };
        let pieces = (0..dice.below(5)).map(|piece| {
            let pause = Duration::from_millis(dice.below(moment) as u64);
            (pause, format!("{task} says {piece} {}\n", dice.draw()))
        });
        Deed {
            outcome: outcome(self.seed, task.as_str()),
            pieces: pieces.collect(),
            rest: Duration::from_millis(dice.below(moment) as u64),
        }
    }
}

/// How a task ends, whoever does it.
fn outcome(seed: u64, task: &str) -> Outcome {
    let sum = task
        .bytes()
        .fold(seed, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    if Dice::new(sum).chance(80) {
        return Outcome::Success;
    }
    Outcome::Failure {
        reason: Failure::Exit { exit: 3 },
    }
}

fn parse(job: &Value) -> Result<JobConfig> {
    JobConfig::parse(&job.to_string()).map_err(|problems| anyhow!("{problems:?}"))
}

fn random_job(number: usize, dice: &mut Dice) -> Value {
    let name = |task: usize| format!("t{number}-{task}");
    let mut tasks = Vec::new();
    for task in 0..=dice.below(6) {
        let needs: Vec<_> = (0..task).filter(|_| dice.chance(40)).map(name).collect();
        tasks.push(random_task(&name(task), &needs, dice));
    }
    let mut downstream: Vec<_> = (number + 1..JOBS).map(|job| format!("j{job}")).collect();
    downstream.retain(|_| dice.chance(50));
    if dice.chance(15) {
        downstream.push("ghost".to_owned());
    }
    let mut job =
        json!({ "job_id": format!("j{number}"), "tasks": tasks, "downstream_jobs": downstream });
    if dice.chance(40) {
        let when_full = dice.pick(&["queue", "queue", "skip", "cancel_older"]);
        job["concurrency"] = json!({ "limit": 1 + dice.below(2), "when_full": when_full });
    }
    job
}

fn random_task(name: &str, needs: &[String], dice: &mut Dice) -> Value {
    let mut task = json!({
        "name": name, "type": "execute-shell", "needs": needs,
        "params": { "script": "true" },
        "allow_failure": dice.chance(20),
        "when": dice.pick(&["on_success", "on_success", "always", "on_failure"]),
    });
    let locks = ["one", "two", "three"].into_iter().zip(1..);
    let needed = locks.filter(|_| dice.chance(20));
    let needed: Vec<_> = needed
        .map(|(name, slots)| json!({ "name": name, "slots": slots }))
        .collect();
    task["locks"] = json!(needed);
    if dice.chance(30) {
        task["priority"] = json!(1 + dice.below(9));
    }
    if dice.chance(20) {
        task["matrix"] = json!({ "m": [1, 2] });
    }
    if dice.chance(20) {
        task["retry"] = json!(1);
    }
    task
}

fn cron_job(dice: &mut Dice) -> Value {
    let task = random_task("tick", &[], dice);
    let trigger = json!({ "cron": "* * * * *", "catch_up": "all" });
    json!({ "job_id": CRON, "tasks": [task], "triggers": [trigger] })
}
