//! Whole builds of random jobs, done by workers that repeat every request, crash, come back from the
//! dead and are given up while healthy, over a store that loses answers. Afterwards everything must
//! be as if nothing of that had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use distci_checker::history::{History, Post, Seen};
use distci_checker::{Law, predict};
use distci_model::build::{Cause, Checkpoint, Downstream, Progress};
use distci_model::config::{JobConfig, WhenFull};
use distci_model::id::{Attempt, BuildNumber, BuildRef, JobId, RequestId, TicketKey, WorkerName};
use distci_model::outcome::{Fault, Outcome, TaskResult};
use distci_model::wire::{BuildPhase, BuildView, Claim, CommitReply, TaskState, Work};
use distci_store::coordination::simulator::Faults;
use distci_store::{Claiming, Store, StoreError, keys};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::scene::{Scene, decision, exit, job_config, job_id, shell, worker};
use distci_store::coordination::simulator::Dice;

const JOBS: usize = 3;
const REQUESTS: usize = 2;
const WORKERS: usize = 4;
/// One less than what the law allows: no task may end because it was lost too often.
const LOSSES: u32 = 2;
/// Looks at an empty index with builds that are not archived, before a wake-up counts as lost.
const PATIENCE: usize = 500;

/// What the workers remember of what they were told.
#[derive(Default)]
struct Ledger {
    claims: BTreeMap<(TicketKey, Attempt), RequestId>,
    accepted: BTreeMap<TicketKey, Attempt>,
    /// Attempts whose result found its build archived: an earlier try, whose answer was lost, may
    /// have been accepted.
    late: BTreeSet<(TicketKey, Attempt)>,
    dead: BTreeSet<(TicketKey, Attempt)>,
    zombies: Vec<(TicketKey, Attempt, TaskResult)>,
    losses: BTreeMap<TicketKey, u32>,
    posted: BTreeMap<RequestId, BuildRef>,
    cancelled: BTreeSet<BuildRef>,
}

impl Ledger {
    /// Whether a ticket may be lost once more.
    fn may_lose(&mut self, key: &TicketKey) -> bool {
        let losses = self.losses.entry(key.clone()).or_default();
        let may = key.ticket.is_control() || *losses < LOSSES;
        *losses += u32::from(may);
        may
    }
}

struct World {
    seed: u64,
    faults: Faults,
    scene: Scene,
    configs: Vec<JobConfig>,
    ledger: Mutex<Ledger>,
    posting: AtomicUsize,
    over: AtomicBool,
}

/// How a task ends, whoever does it.
fn result(seed: u64, task: &str) -> TaskResult {
    let sum = task
        .bytes()
        .fold(seed, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    TaskResult::of(if Dice::new(sum).chance(80) {
        Outcome::Success
    } else {
        exit(3)
    })
}

fn random_job(number: usize, dice: &mut Dice) -> Value {
    let name = |task: usize| format!("t{number}-{task}");
    let tasks = (0..=dice.below(6)).map(|task| {
        let needs: Vec<_> = (0..task).filter(|_| dice.chance(40)).map(name).collect();
        let mut written = shell(&name(task));
        written["needs"] = json!(needs);
        written["allow_failure"] = json!(dice.chance(20));
        written["when"] = json!(dice.pick(&["on_success", "on_success", "always", "on_failure"]));
        let locks = ["one", "two", "three"].into_iter().zip(1..);
        let needed = locks.filter(|_| dice.chance(20));
        let needed: Vec<_> = needed
            .map(|(name, slots)| json!({ "name": name, "slots": slots }))
            .collect();
        written["locks"] = json!(needed);
        if dice.chance(30) {
            written["priority"] = json!(1 + dice.below(9));
        }
        if dice.chance(20) {
            written["matrix"] = json!({ "m": [1, 2] });
        }
        if dice.chance(30) {
            written["retry"] = json!(1 + dice.below(2));
        }
        written
    });
    let tasks: Vec<_> = tasks.collect();
    let mut downstream: Vec<_> = (number + 1..JOBS).map(|job| format!("j{job}")).collect();
    downstream.retain(|_| dice.chance(60));
    if dice.chance(20) {
        downstream.push("ghost".to_owned());
    }
    let mut job =
        json!({ "job_id": format!("j{number}"), "tasks": tasks, "downstream_jobs": downstream });
    if dice.chance(50) {
        let when_full = dice.pick(&["queue", "skip", "cancel_older"]);
        job["concurrency"] = json!({ "limit": 1 + dice.below(2), "when_full": when_full });
    }
    job
}

impl World {
    async fn new(seed: u64, scene: Scene) -> Result<Self> {
        let mut dice = Dice::new(seed);
        let mut configs = Vec::new();
        for number in 0..JOBS {
            let config = job_config(&random_job(number, &mut dice))?;
            scene.set_job(&serde_json::to_value(&config)?).await?;
            configs.push(config);
        }
        let hostile = [
            Faults::hostile(),
            Faults {
                lag: Faults::none().lag,
                ..Faults::hostile()
            },
        ];
        let faults = hostile[dice.below(hostile.len())];
        scene.set_faults(faults);
        Ok(Self {
            seed,
            faults,
            scene,
            configs,
            ledger: Mutex::default(),
            posting: AtomicUsize::new(JOBS * REQUESTS),
            over: AtomicBool::new(false),
        })
    }

    async fn run(&self) -> Result<()> {
        let mut dice = Dice::new(self.seed ^ 0x5eed);
        let canceller = dice.chance(25);
        let mut posts = Vec::new();
        for config in &self.configs {
            for _ in 0..REQUESTS {
                posts.push(self.post(&config.job_id, dice.split()));
            }
        }
        let workers = (0..WORKERS).map(|number| {
            let name = worker(&format!("w{number}"));
            self.work(name, dice.split())
        });
        let (posts, workers) = (try_join_all(posts), try_join_all(workers));
        let cancel = self.cancel_some(canceller, dice.split());
        let (watch, read) = (self.watch_over(dice.split()), self.read(dice.split()));
        futures::try_join!(posts, workers, cancel, watch, read)?;
        self.scene.set_faults(Faults::none());
        self.check().await
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn any_store(&self, dice: &mut Dice) -> &Store {
        &self.scene.stores[dice.below(self.scene.stores.len())]
    }

    /// Posts one build, by one request that is sent several times to several frontends.
    async fn post(&self, job: &JobId, mut dice: Dice) -> Result<()> {
        let (request, given) = (dice.request(), BTreeMap::new());
        for _ in 0..=dice.below(3) {
            let store = self.any_store(&mut dice);
            let posted = store.post_build(job, &request, &given, self.scene.now());
            // Skipped: another try may find room.
            let Some(build) = posted.await.context("post")?.build() else {
                continue;
            };
            let known = self.ledger().posted.insert(request.clone(), build.clone());
            ensure!(
                known.is_none_or(|known| known == build),
                "one request, two builds"
            );
        }
        self.posting.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    async fn cancel_some(&self, wanted: bool, mut dice: Dice) -> Result<()> {
        while wanted && !self.is_over() {
            let posted: Vec<_> = self.ledger().posted.values().cloned().collect();
            if let Some(build) = dice.pick(&posted).filter(|_| dice.clone().chance(5)) {
                self.ledger().cancelled.insert(build.clone());
                let cancelled = self
                    .any_store(&mut dice)
                    .cancel_build(build, self.scene.now());
                // A frontend that lags may not know the build yet.
                match cancelled.await {
                    Ok(()) | Err(StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(error).context("cancel"),
                }
            }
            dice.draw();
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Looks at builds while they run: what was seen of a task never goes back.
    async fn read(&self, mut dice: Dice) -> Result<()> {
        let mut seen = BTreeMap::new();
        while !self.is_over() {
            let posted: Vec<_> = self.ledger().posted.values().cloned().collect();
            if let Some(build) = dice.pick(&posted) {
                match self.scene.store().build(build).await {
                    Ok(view) => {
                        for task in &view.tasks {
                            let id = (build.clone(), task.name.clone());
                            let now = rank(&task.state);
                            let before = seen.insert(id, now).unwrap_or(now);
                            ensure!(before <= now, "{build}: {task:?} after {before}");
                        }
                    }
                    // This frontend may not have heard of it yet.
                    Err(StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(error).context("read"),
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Ends the run when all builds are archived, and fails it when one sleeps for ever.
    async fn watch_over(&self, mut dice: Dice) -> Result<()> {
        let mut idle = 0;
        let mut empty = 0;
        while empty < 3 {
            for _ in 0..32 {
                tokio::task::yield_now().await;
            }
            self.scene.set_faults(Faults::none());
            let active = self.scene.names(&keys::builds()).await?;
            let queued = self.scene.names(&keys::queue()).await?;
            let claimed = self.scene.names(&keys::claims()).await?;
            if self.scene.simulator.is_some() && dice.chance(20) {
                self.scene.check_index().await?;
            }
            self.scene.set_faults(self.faults);
            let posted = self.posting.load(Ordering::Relaxed) == 0;
            empty = if posted && active.is_empty() {
                empty + 1
            } else {
                0
            };
            idle = if queued.is_empty() && claimed.is_empty() {
                idle + 1
            } else {
                0
            };
            ensure!(
                idle < PATIENCE || active.is_empty(),
                "nobody wakes {active:?}"
            );
        }
        self.over.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn work(&self, name: WorkerName, mut dice: Dice) -> Result<()> {
        while !self.is_over() {
            match dice.below(10) {
                0 | 1 => self.reap(&mut dice).await?,
                2 => self.haunt(&mut dice).await?,
                _ => self.claim_one(&name, &mut dice).await?,
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Gives up a claim whose holder has died, and now and then one of a healthy holder.
    async fn reap(&self, dice: &mut Dice) -> Result<()> {
        let names = self.scene.names(&keys::claims()).await?;
        let Some(claim) = dice.pick(&names).and_then(|name| keys::parse_claim(name)) else {
            return Ok(());
        };
        let id = (claim.key, claim.attempt);
        let is_dead = self.ledger().dead.contains(&id);
        if is_dead || dice.chance(5) && self.ledger().may_lose(&id.0) {
            let expired = self.any_store(dice).expire(&id.0, id.1, self.scene.now());
            over_or(expired.await).context("expire")?;
        }
        Ok(())
    }

    /// Finishes late what was long given up.
    async fn haunt(&self, dice: &mut Dice) -> Result<()> {
        let zombies = self.ledger().zombies.clone();
        let Some((key, attempt, result)) = dice.pick(&zombies) else {
            return Ok(());
        };
        let store = self.any_store(dice);
        let late = store
            .complete(key, *attempt, result, self.scene.now())
            .await;
        if over_or(late).context("late complete")? {
            self.accept(key, *attempt)?;
        }
        Ok(())
    }

    /// Notes an accepted result: one attempt at most has one.
    fn accept(&self, key: &TicketKey, attempt: Attempt) -> Result<()> {
        let known = self.ledger().accepted.insert(key.clone(), attempt);
        let same = known.is_none_or(|known| known == attempt);
        ensure!(
            same,
            "{key}: results of {known:?} and {attempt} were both accepted"
        );
        Ok(())
    }

    async fn claim_one(&self, name: &WorkerName, dice: &mut Dice) -> Result<()> {
        let queue = self.scene.queue().await?;
        let Some(entry) = dice.pick(&queue) else {
            return Ok(());
        };
        // A frontend of its own for each claim: its reads do not lag behind the claim.
        let (store, request) = (self.any_store(dice).clone(), dice.request());
        let mut held = None;
        for _ in 0..=usize::from(dice.chance(20)) {
            let claiming = store.claim(&entry.key, name, &request, self.scene.now());
            if let Claiming::Claimed(claim) = claiming.await.context("claim")? {
                let id = (claim.ticket.clone(), claim.attempt);
                let mut ledger = self.ledger();
                if let Some(before) = held.replace(claim).map(|claim| claim.attempt) {
                    // Lost in between, the same request may have made a second claim.
                    ensure!(before <= id.1, "{}: attempt {before} came back", id.0);
                }
                let known = ledger.claims.insert(id.clone(), request.clone());
                ensure!(
                    known.is_none_or(|known| known == request),
                    "{id:?} has two holders"
                );
            }
        }
        match held {
            Some(claim) => self.do_one(&store, *claim, dice).await,
            None => Ok(()),
        }
    }

    async fn do_one(&self, store: &Store, claim: Claim, dice: &mut Dice) -> Result<()> {
        let (key, attempt) = (claim.ticket.clone(), claim.attempt);
        let crashes = dice.chance(10) && self.ledger().may_lose(&key);
        if crashes {
            self.ledger().dead.insert((key.clone(), attempt));
        }
        match claim.work {
            Work::Control { .. } if crashes => Ok(()),
            Work::Control { order } => {
                let mut order = order;
                loop {
                    let request = decision(&order);
                    if dice.chance(20) {
                        // A duplicate through another frontend, whose answer nobody waits for.
                        let other = self.any_store(dice);
                        over_or(
                            other
                                .commit(&key, attempt, &request, self.scene.now())
                                .await,
                        )?;
                    }
                    let commit = store.commit(&key, attempt, &request, self.scene.now());
                    match commit.await {
                        Ok(CommitReply::Again { order: next }) => order = next,
                        Ok(CommitReply::Over)
                        | Err(StoreError::AttemptOver { .. } | StoreError::Gone) => {
                            return Ok(());
                        }
                        Err(error) => return Err(error).context("commit"),
                    }
                }
            }
            Work::Errand { .. } => anyhow::bail!("nobody asked for an errand"),
            Work::Task { order } => {
                let result = result(self.seed, order.task.as_str());
                if crashes {
                    self.ledger().zombies.push((key, attempt, result));
                    return Ok(());
                }
                self.end(store, (key, attempt), result, dice).await
            }
        }
    }

    /// Ends a task's claim, mostly by completing it.
    async fn end(
        &self,
        store: &Store,
        (key, attempt): (TicketKey, Attempt),
        result: TaskResult,
        dice: &mut Dice,
    ) -> Result<()> {
        let at = self.scene.now();
        if dice.chance(5) {
            over_or(store.release(&key, attempt, at).await).context("release")?;
            let again = store.release(&key, attempt, at).await;
            ensure!(!over_or(again)?, "released twice");
            return Ok(());
        }
        if dice.chance(5) && self.ledger().may_lose(&key) {
            let fault = Outcome::Fault {
                reason: Fault::WorkerStopped,
            };
            let fault = TaskResult::of(fault);
            over_or(store.complete(&key, attempt, &fault, at).await).context("fault")?;
            return Ok(());
        }
        for _ in 0..=dice.below(3) {
            let completed = store.complete(&key, attempt, &result, at).await;
            if matches!(completed, Err(StoreError::Gone)) {
                self.ledger().late.insert((key.clone(), attempt));
            }
            if over_or(completed).context("complete")? {
                self.accept(&key, attempt)?;
            }
        }
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.scene.check_index().await?;
        self.scene.check_swept().await?;
        let mut views = BTreeMap::new();
        for config in &self.configs {
            self.check_numbers(config, &mut views).await?;
        }
        let posted = self.ledger().posted.clone();
        let builds: BTreeSet<_> = posted.values().collect();
        ensure!(builds.len() == posted.len(), "two requests share a build");
        ensure!(!builds.is_empty(), "everything was skipped");
        let manual = views.values().filter(|view| view.cause == Cause::Manual);
        ensure!(
            manual.count() == builds.len(),
            "builds that nobody asked for"
        );
        for view in views.values() {
            self.check_build(view, &views)?;
        }
        self.check_history(&views).await?;
        let named = views.values().flat_map(|view| &view.downstream);
        let triggered = named
            .filter(|it| matches!(it, Downstream::Triggered { .. }))
            .count();
        let caused = views
            .values()
            .filter(|view| view.cause != Cause::Manual)
            .count();
        ensure!(
            triggered == caused,
            "{triggered} triggers made {caused} builds"
        );
        Ok(())
    }

    /// The history as clients saw it, held against the laws that every cluster is held against.
    async fn check_history(&self, views: &BTreeMap<BuildRef, BuildView>) -> Result<()> {
        let posted = self.ledger().posted.clone();
        let post = |(request, build): (RequestId, BuildRef)| Post {
            request,
            job: build.job.clone(),
            answers: vec![build],
            must: None,
        };
        let mut history = History {
            posts: posted.into_iter().map(post).collect(),
            downstream: self.configs.iter().map(|job| job.job_id.clone()).collect(),
            ..History::default()
        };
        for (build, view) in views {
            history.builds.push(Seen {
                view: view.clone(),
                journal: self.scene.store().journal(build).await?,
                consoles: BTreeMap::new(),
            });
        }
        // What tasks do is checked above: these have no consoles and no files of their own.
        let verdict = distci_checker::check(&history);
        let broken = verdict.breaches.iter();
        let broken: Vec<_> = broken
            .filter(|breach| breach.law != Law::ResultsAreTrue)
            .collect();
        ensure!(broken.is_empty(), "{broken:#?}");
        Ok(())
    }

    /// Numbers are dense, and every build of them is finished.
    async fn check_numbers(
        &self,
        config: &JobConfig,
        views: &mut BTreeMap<BuildRef, BuildView>,
    ) -> Result<()> {
        let listed = self
            .scene
            .store()
            .list_builds(&config.job_id, None, 500)
            .await?;
        let numbers: Vec<_> = listed.items.iter().map(|item| item.number.get()).collect();
        let dense: Vec<u64> = (1..=numbers.len() as u64).rev().collect();
        ensure!(numbers == dense, "{}: {numbers:?}", config.job_id);
        for item in &listed.items {
            let build = BuildRef {
                job: config.job_id.clone(),
                number: item.number,
            };
            let view = self.scene.view(&build).await?;
            ensure!(
                view.phase == BuildPhase::Finished,
                "{build} is {:?}",
                view.phase
            );
            ensure!(
                view.outcome == item.outcome,
                "{build}: record and list differ"
            );
            views.insert(build, view);
        }
        let beyond = BuildNumber::new(numbers.len() as u64 + 1).context("numbers begin at 1")?;
        let beyond = BuildRef {
            job: config.job_id.clone(),
            number: beyond,
        };
        let missing = self.scene.store().build(&beyond).await;
        ensure!(
            matches!(missing, Err(StoreError::NotFound { .. })),
            "{beyond} is there"
        );
        Ok(())
    }

    fn check_build(&self, view: &BuildView, views: &BTreeMap<BuildRef, BuildView>) -> Result<()> {
        let build = &view.build;
        let config = self
            .configs
            .iter()
            .find(|config| config.job_id == build.job);
        let config = config.context("unknown job")?;
        let (checkpoint, outcome) = predict(config, |task| result(self.seed, task));
        let ended = view.outcome.as_ref().context("no outcome")?;
        let newest = when_full(config) == Some(WhenFull::CancelOlder);
        let why = view.cancelled_by.as_deref();
        ensure!(newest || why.is_none(), "{build}: {why:?}");
        // A decision that was lost after it had stopped the tasks leaves no reason but theirs.
        let asked = self.ledger().cancelled.contains(build) || newest;
        if !(asked && ended.is_cancelled()) {
            ensure!(*ended == outcome, "{build}: {ended} is not {outcome}");
            self.check_tasks(view, &checkpoint)?;
        }
        let downstream = config.downstream_jobs.iter().map(|next| &next.job);
        let wanted: Vec<&JobId> = downstream.filter(|_| ended.is_success()).collect();
        ensure!(
            view.downstream.len() == wanted.len(),
            "{build}: {:?}",
            view.downstream
        );
        for (downstream, wanted) in view.downstream.iter().zip(wanted) {
            let cause = Cause::Upstream {
                build: build.clone(),
            };
            match downstream {
                Downstream::Triggered { build: made } => {
                    let made = views.get(made).context("a trigger without its build")?;
                    ensure!(made.cause == cause && made.build.job == *wanted, "{build}");
                }
                Downstream::Refused { job, why } => {
                    let of = self.configs.iter().find(|config| config.job_id == *job);
                    let skips = of.and_then(when_full) == Some(WhenFull::Skip);
                    let skipped = skips && why.starts_with("skipped");
                    ensure!(skipped || *job == job_id("ghost"), "{job}: {why}");
                }
            }
        }
        Ok(())
    }

    fn check_tasks(&self, view: &BuildView, checkpoint: &Checkpoint) -> Result<()> {
        let ledger = self.ledger();
        for (task, progress) in view.tasks.iter().zip(&checkpoint.tasks) {
            let at = format!("{} {}", view.build, task.name);
            match (&task.state, progress) {
                (TaskState::Skipped { why }, Progress::Skipped { why: law }) => {
                    ensure!(why == law, "{at}: {why}");
                }
                (TaskState::Finished { run }, Progress::Finished(law)) => {
                    ensure!(run.result == law.result, "{at}: {:?}", run.result);
                    let of = |key: &TicketKey| key.ticket == run.ticket;
                    let attempts = ledger.claims.keys().filter(|(key, _)| of(key));
                    let last = attempts.map(|(_, attempt)| *attempt).max();
                    ensure!(
                        last == Some(run.attempt),
                        "{at}: {last:?} is not {}",
                        run.attempt
                    );
                    let accepted = ledger.accepted.iter().find(|(key, _)| of(key));
                    let accepted = accepted.map(|(_, attempt)| *attempt);
                    let is_last =
                        |(key, attempt): &&(TicketKey, Attempt)| of(key) && *attempt == run.attempt;
                    let late = ledger
                        .late
                        .iter()
                        .find(is_last)
                        .map(|(_, attempt)| *attempt);
                    ensure!(
                        accepted.or(late) == last,
                        "{at}: {accepted:?} was told that it had finished"
                    );
                }
                (state, law) => anyhow::bail!("{at}: {state:?} is not {law:?}"),
            }
        }
        Ok(())
    }
}

fn when_full(config: &JobConfig) -> Option<WhenFull> {
    config.concurrency.as_ref().map(|it| it.when_full)
}

/// How far a task is. A claim may be given up, so queued and running are one.
fn rank(state: &TaskState) -> u8 {
    match state {
        TaskState::Waiting => 0,
        TaskState::Queued { .. }
        | TaskState::Running { .. }
        | TaskState::Backoff { .. }
        | TaskState::Asking { .. } => 1,
        TaskState::Skipped { .. } | TaskState::Finished { .. } => 2,
    }
}

/// Whether it was done; that the attempt is over is no error here.
fn over_or<T>(done: Result<T, StoreError>) -> Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(StoreError::AttemptOver { .. } | StoreError::Gone) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn simulate(seeds: std::ops::Range<u64>) -> Result<()> {
    for seed in seeds {
        let world = World::new(seed, Scene::simulated(seed)).await?;
        world.run().await.with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn hostile_faults_change_no_verdict_1() -> Result<()> {
    simulate(0..50).await
}

#[tokio::test]
async fn hostile_faults_change_no_verdict_2() -> Result<()> {
    simulate(50..100).await
}

#[tokio::test]
async fn hostile_faults_change_no_verdict_3() -> Result<()> {
    simulate(100..150).await
}

#[tokio::test]
async fn hostile_faults_change_no_verdict_4() -> Result<()> {
    simulate(150..200).await
}

#[tokio::test]
async fn crashes_and_duplicates_change_no_verdict_over_the_embedded_store() -> Result<()> {
    for seed in 1000..1003 {
        let world = World::new(seed, Scene::embedded()?).await?;
        world.run().await.with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}
