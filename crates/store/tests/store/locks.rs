//! Locks, concurrency and priorities, seen from outside: who works while who else does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use distci_model::build::Downstream;
use distci_model::config::JobConfig;
use distci_model::id::{Attempt, BuildRef, LockKey, RequestId, TicketKey};
use distci_model::lock::Slot;
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::wire::{BuildPhase, Claim, CommitReply, TaskState, Work};
use distci_store::coordination::simulator::Faults;
use distci_store::{Claiming, Posted, Store, StoreError, keys};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::scene::{Scene, decision, exit, job, job_config, job_id, shell, worker};
use distci_store::coordination::simulator::Dice;

/// A job of one task that holds these locks.
fn locked(name: &str, locks: &Value) -> Value {
    let mut job = job(name, &["a"]);
    job["tasks"][0]["locks"] = locks.clone();
    job
}

/// A job of one task of which so many builds may run at once.
fn limited(name: &str, limit: u16, when_full: &str) -> Value {
    let mut job = job(name, &["a"]);
    job["concurrency"] = json!({ "limit": limit, "when_full": when_full });
    job
}

/// Tries to claim a ticket for a worker of its own.
async fn try_claim(scene: &Scene, key: &TicketKey, name: &str) -> Result<Claiming> {
    let (request, name) = (RequestId::derive(name), worker(name));
    let claiming = scene.store().claim(key, &name, &request, scene.now());
    Ok(claiming.await?)
}

/// The task tickets that are queued, the first first.
async fn queued_tasks(scene: &Scene) -> Result<Vec<TicketKey>> {
    let mut queue = scene.queue().await?;
    queue.sort();
    let tasks = queue.into_iter().map(|entry| entry.key);
    Ok(tasks.filter(|key| !key.ticket.is_control()).collect())
}

fn slot(lock: &str, slot: u16) -> Slot {
    let lock = LockKey::of_task(lock);
    Slot { lock, slot }
}

#[tokio::test]
async fn a_lock_is_held_from_the_claim_to_its_end_whatever_the_end() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&locked("j", &json!(["deploy"]))).await?;
    for number in 0..4 {
        scene.post("j", &number.to_string()).await?;
    }
    scene.control().await?;
    let node = keys::slot(&slot("deploy", 0));
    for end in ["complete", "release", "expire", "cancel"] {
        let tasks = queued_tasks(&scene).await?;
        let Claiming::Claimed(claim) = try_claim(&scene, &tasks[0], end).await? else {
            anyhow::bail!("{end}: the lock is not free");
        };
        ensure!(scene.tree.get(&node).await?.is_some(), "{end}");
        let before = scene.dump().await?;
        for other in &tasks[1..] {
            let Claiming::Blocked(blocked) = try_claim(&scene, other, "late").await? else {
                anyhow::bail!("{end}: two hold the lock");
            };
            assert_eq!(blocked.name, "deploy");
        }
        ensure!(scene.dump().await? == before, "to be refused was a write");
        scene.check_index().await?;
        let (key, attempt, at) = (&claim.ticket, claim.attempt, scene.now());
        match end {
            "complete" => scene.complete(&claim, Outcome::Success).await?,
            "release" => scene.store().release(key, attempt, at).await?,
            "expire" => scene.store().expire(key, attempt, at).await?,
            _ => {
                let facts = scene.store().ticket_facts(key).await?.context("a ticket")?;
                let build = facts.about.build().context("a build")?;
                scene.store().cancel_build(build, at).await?;
                scene.control().await?;
                ensure!(
                    scene.tree.get(&node).await?.is_some(),
                    "given up by who works"
                );
                scene.store().release(key, attempt, at).await?;
            }
        }
        ensure!(scene.tree.get(&node).await?.is_none(), "{end}: leaked");
    }
    scene.run_all(&Outcome::Success).await?;
    scene.check_swept().await
}

#[tokio::test]
async fn locks_are_taken_all_or_none() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&locked("one", &json!(["b"]))).await?;
    scene.set_job(&locked("both", &json!(["a", "b"]))).await?;
    scene.post("one", "1").await?;
    let held = scene.next_task().await?;
    scene.post("both", "2").await?;
    scene.control().await?;
    let tasks = queued_tasks(&scene).await?;
    let claiming = try_claim(&scene, &tasks[0], "w").await?;
    ensure!(
        matches!(&claiming, Claiming::Blocked(it) if it.name == "b"),
        "{claiming:?}"
    );
    let free = keys::slot(&slot("a", 0));
    ensure!(scene.tree.get(&free).await?.is_none(), "it holds and waits");
    scene.complete(&held, exit(1)).await?;
    let claiming = try_claim(&scene, &tasks[0], "w").await?;
    ensure!(matches!(claiming, Claiming::Claimed(_)), "{claiming:?}");
    ensure!(scene.tree.get(&free).await?.is_some());
    scene.check_index().await
}

#[tokio::test]
async fn holders_are_told() -> Result<()> {
    let scene = Scene::embedded()?;
    let lock = json!([{ "name": "licence", "slots": 2 }]);
    scene.set_job(&locked("j", &lock)).await?;
    for request in ["1", "2", "3"] {
        scene.post("j", request).await?;
    }
    let (first, second) = (scene.next_task().await?, scene.next_task().await?);
    let lock = LockKey::of_task("licence");
    assert_eq!(
        scene.store().locks().await?,
        BTreeMap::from([(lock.clone(), 2)])
    );
    let held = scene.store().lock_holders(&lock, 10).await?;
    let told: Vec<_> = held.iter().map(|held| (held.slot, &held.ticket)).collect();
    assert_eq!(told, [(0, &first.ticket), (1, &second.ticket)]);
    assert_eq!(held[0].name, "licence");
    // The lowest free slot comes first.
    scene.complete(&first, Outcome::Success).await?;
    let third = scene.next_task().await?;
    let held = scene.store().lock_holders(&lock, 10).await?;
    assert_eq!(held[0].ticket, third.ticket);
    Ok(())
}

#[tokio::test]
async fn tasks_have_the_priority_of_task_or_job_and_never_that_of_control() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut urgent = shell("urgent");
    urgent["priority"] = json!(1);
    for (name, priority, expected) in [("plain", None, [1, 5]), ("late", Some(9), [1, 9])] {
        let mut file = json!({ "job_id": name, "tasks": [urgent, shell("other")] });
        file["tasks"][1]["needs"] = json!([]);
        if let Some(priority) = priority {
            file["priority"] = json!(priority);
        }
        scene.set_job(&file).await?;
        scene.post(name, name).await?;
        let control = scene.queue().await?.pop().context("nothing is queued")?;
        assert_eq!(control.priority.get(), 0);
        scene.control().await?;
        let queue = scene.queue().await?;
        let mut priorities: Vec<_> = queue.iter().map(|entry| entry.priority.get()).collect();
        priorities.sort_unstable();
        assert_eq!(priorities, expected, "{name}");
        scene.run_all(&Outcome::Success).await?;
    }
    Ok(())
}

#[tokio::test]
async fn builds_beyond_the_limit_wait_for_the_end_of_one() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&limited("j", 1, "queue")).await?;
    let (first, second) = (scene.post("j", "1").await?, scene.post("j", "2").await?);
    let claim = scene.next_task().await?;
    ensure!(scene.next_task().await.is_err(), "both run");
    scene.check_index().await?;
    let before = scene.view(&second).await?;
    ensure!(before.phase == BuildPhase::Queued, "{before:?}");
    scene.complete(&claim, Outcome::Success).await?;
    let claim = scene.next_task().await?;
    ensure!(scene.view(&first).await?.phase == BuildPhase::Finished);
    scene.complete(&claim, Outcome::Success).await?;
    scene.run_all(&Outcome::Success).await?;
    ensure!(scene.view(&second).await?.outcome == Some(Outcome::Success));
    scene.check_swept().await
}

#[tokio::test]
async fn a_waiting_build_that_is_cancelled_waits_no_longer() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&limited("j", 1, "queue")).await?;
    scene.post("j", "1").await?;
    let second = scene.post("j", "2").await?;
    let claim = scene.next_task().await?;
    let names = scene.queue().await?;
    scene.store().cancel_build(&second, scene.now()).await?;
    ensure!(scene.queue().await? != names, "it is not offered anew");
    scene.control().await?;
    let view = scene.view(&second).await?;
    ensure!(
        view.phase == BuildPhase::Finished && view.cancelled,
        "{view:?}"
    );
    scene.complete(&claim, Outcome::Success).await?;
    scene.run_all(&Outcome::Success).await?;
    scene.check_swept().await
}

#[tokio::test]
async fn groups_do_not_count_together() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut job = limited("j", 1, "queue");
    job["concurrency"]["group"] = json!("to ${TO}");
    job["parameters"] = json!({ "TO": {} });
    scene.set_job(&job).await?;
    for (request, to) in [("1", "a"), ("2", "b"), ("3", "a")] {
        let given = BTreeMap::from([("TO".to_owned(), to.to_owned())]);
        let request = RequestId::derive(request);
        let (job, at) = (job_id("j"), scene.now());
        scene.store().post_build(&job, &request, &given, at).await?;
    }
    scene.next_task().await?;
    scene.next_task().await?;
    ensure!(scene.next_task().await.is_err(), "two run in one group");
    Ok(())
}

#[tokio::test]
async fn a_skipped_build_is_not_made_and_downstream_says_so() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&limited("j", 1, "skip")).await?;
    let mut up = job("up", &["a"]);
    up["downstream_jobs"] = json!(["j"]);
    scene.set_job(&up).await?;
    let first = scene.post("j", "1").await?;
    let (id, request, none) = (job_id("j"), RequestId::derive("2"), BTreeMap::new());
    let post = || scene.store().post_build(&id, &request, &none, scene.now());
    let before = scene.dump().await?;
    let holder = first.clone();
    assert_eq!(post().await?, Posted::Skipped { holder });
    ensure!(scene.dump().await? == before, "something was made");
    // The one that runs is found, not skipped.
    let again = scene.post("j", "1").await?;
    assert_eq!(again, first);
    let upstream = scene.post("up", "u").await?;
    scene.control().await?;
    let tasks = queued_tasks(&scene).await?;
    for key in tasks {
        let facts = scene
            .store()
            .ticket_facts(&key)
            .await?
            .context("a ticket")?;
        if facts.about.build() == Some(&upstream) {
            let Claiming::Claimed(claim) = try_claim(&scene, &key, "w").await? else {
                anyhow::bail!("not claimed");
            };
            scene.complete(&claim, Outcome::Success).await?;
        }
    }
    scene.control().await?;
    let downstream = scene.view(&upstream).await?.downstream;
    let [Downstream::Refused { why, .. }] = downstream.as_slice() else {
        anyhow::bail!("{downstream:?}");
    };
    ensure!(why.contains("skipped") && why.contains("j#1"), "{why}");
    scene.run_all(&Outcome::Success).await?;
    ensure!(matches!(post().await?, Posted::Build { fresh: true, .. }));
    scene.run_all(&Outcome::Success).await?;
    scene.check_swept().await
}

#[tokio::test]
async fn the_newest_builds_run_and_older_ones_say_what_superseded_them() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&limited("j", 1, "cancel_older")).await?;
    let first = scene.post("j", "1").await?;
    let claim = scene.next_task().await?;
    let second = scene.post("j", "2").await?;
    let third = scene.post("j", "3").await?;
    scene.control().await?;
    // It is asked to stop, and holds its place until it has.
    let view = scene.view(&first).await?;
    ensure!(view.cancelled && view.outcome.is_none(), "{view:?}");
    assert_eq!(view.cancelled_by.as_deref(), Some("superseded by j#2"));
    let view = scene.view(&second).await?;
    ensure!(view.phase == BuildPhase::Finished, "{view:?}");
    assert_eq!(view.cancelled_by.as_deref(), Some("superseded by j#3"));
    ensure!(scene.view(&third).await?.phase == BuildPhase::Queued);
    let at = scene.now();
    let (key, attempt) = (&claim.ticket, claim.attempt);
    scene.store().release(key, attempt, at).await?;
    scene.run_all(&Outcome::Success).await?;
    ensure!(
        scene
            .view(&first)
            .await?
            .outcome
            .is_some_and(|it| it.is_cancelled())
    );
    ensure!(scene.view(&third).await?.outcome == Some(Outcome::Success));
    scene.check_swept().await
}

/// Posts `posts` builds of a job at once, each through any frontend.
async fn race(scene: &Scene, job: &str, posts: u32) -> Result<Vec<Posted>> {
    let (id, none) = (job_id(job), BTreeMap::new());
    let post = |number: u32| {
        let request = RequestId::derive(&format!("race {number}"));
        let store = scene.stores[number as usize % scene.stores.len()].clone();
        let (id, none) = (&id, &none);
        async move { store.post_build(id, &request, none, scene.now()).await }
    };
    Ok(try_join_all((0..posts).map(post)).await?)
}

fn scenes() -> Result<Vec<Scene>> {
    let simulated = (0..30).map(|seed| {
        let scene = Scene::simulated(seed);
        scene.set_faults(Faults::hostile());
        scene
    });
    let mut scenes: Vec<_> = simulated.collect();
    scenes.push(Scene::embedded()?);
    Ok(scenes)
}

#[tokio::test]
async fn of_racing_posts_as_many_as_there_is_room_for_make_builds() -> Result<()> {
    for (seed, scene) in scenes()?.into_iter().enumerate() {
        scene.set_job(&limited("j", 2, "skip")).await?;
        let posted = race(&scene, "j", 6).await?;
        scene.set_faults(Faults::none());
        let made: BTreeSet<_> = posted.iter().cloned().filter_map(Posted::build).collect();
        ensure!(made.len() == 2, "seed {seed}: {posted:?}");
        for skipped in &posted {
            if let Posted::Skipped { holder } = skipped {
                ensure!(made.contains(holder), "seed {seed}: {posted:?}");
            }
        }
        scene.check_index().await?;
        scene.run_all(&Outcome::Success).await?;
        scene.check_swept().await?;
    }
    Ok(())
}

#[tokio::test]
async fn of_racing_posts_the_newest_are_not_cancelled() -> Result<()> {
    for (seed, scene) in scenes()?.into_iter().enumerate() {
        scene.set_job(&limited("j", 2, "cancel_older")).await?;
        let posted = race(&scene, "j", 6).await?;
        scene.set_faults(Faults::none());
        scene.check_index().await?;
        for build in posted.into_iter().filter_map(Posted::build) {
            let (view, number) = (scene.view(&build).await?, build.number.get());
            ensure!(view.cancelled == (number <= 4), "seed {seed}: {view:?}");
            let by = format!("superseded by j#{}", number + 2);
            let by = (number <= 4).then_some(by);
            ensure!(view.cancelled_by == by, "seed {seed}: {view:?}");
        }
        scene.run_all(&Outcome::Success).await?;
        scene.check_swept().await?;
    }
    Ok(())
}

/// Jobs that need the same locks in every order, and workers that die with them in hand.
struct Yard {
    scene: Scene,
    configs: BTreeMap<String, JobConfig>,
    state: Mutex<State>,
    over: AtomicBool,
}

/// What an onlooker sees.
#[derive(Default)]
struct State {
    /// Who works while holding a lock.
    holders: BTreeMap<String, usize>,
    /// Builds of jobs that are limited, with their tasks that are worked on.
    working: BTreeMap<BuildRef, usize>,
    dead: Vec<(TicketKey, Attempt)>,
}

impl Yard {
    async fn new(scene: Scene) -> Result<Self> {
        let mut configs = BTreeMap::new();
        for (name, locks) in [
            ("ab", json!(["a", { "name": "b", "slots": 2 }])),
            ("reverse", json!([{ "name": "b", "slots": 2 }, "a"])),
            ("b", json!([{ "name": "b", "slots": 2 }])),
            ("abc", json!(["c", { "name": "b", "slots": 2 }, "a"])),
        ] {
            let mut free = shell("free");
            free["needs"] = json!([]);
            let mut file = job(name, &["a", "free"]);
            file["tasks"][0]["locks"] = locks;
            file["tasks"][1] = free;
            if name == "b" {
                file["concurrency"] = json!({ "limit": 2 });
            }
            scene.set_job(&file).await?;
            configs.insert(name.to_owned(), job_config(&file)?);
        }
        for round in 0..3 {
            for name in configs.keys() {
                scene.post(name, &format!("{name} {round}")).await?;
            }
        }
        scene.set_faults(Faults::hostile());
        Ok(Self {
            scene,
            configs,
            state: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task is begun, or left off, as an onlooker sees it.
    fn count(&self, build: &BuildRef, task: &str, begins: bool) -> Result<()> {
        let config = &self.configs[build.job.as_str()];
        let task = config.tasks.iter().find(|it| it.name.as_str() == task);
        let mut state = self.state();
        let change = |count: &mut usize| {
            *count = if begins { *count + 1 } else { *count - 1 };
            *count
        };
        for lock in &task.context("a task")?.locks {
            let holders = change(state.holders.entry(lock.name.clone()).or_default());
            ensure!(
                holders <= usize::from(lock.slots),
                "{holders} hold {lock:?}"
            );
        }
        if let Some(concurrency) = &config.concurrency {
            change(state.working.entry(build.clone()).or_default());
            state.working.retain(|_, tasks| *tasks > 0);
            let builds = state.working.len();
            ensure!(builds <= usize::from(concurrency.limit), "{builds} at once");
        }
        Ok(())
    }

    async fn work(&self, number: usize, mut dice: Dice) -> Result<()> {
        let name = worker(&format!("w{number}"));
        let stores = &self.scene.stores;
        while !self.over.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
            let store = &stores[dice.below(stores.len())];
            let dead = self.state().dead.pop();
            if let Some((key, attempt)) = dead {
                match store.expire(&key, attempt, self.scene.now()).await {
                    Ok(()) | Err(StoreError::AttemptOver { .. } | StoreError::Gone) => {}
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            let queue = self.scene.queue().await?;
            let Some(entry) = dice.pick(&queue) else {
                continue;
            };
            let (request, at) = (dice.request(), self.scene.now());
            let claiming = store.claim(&entry.key, &name, &request, at).await?;
            if let Claiming::Claimed(claim) = claiming {
                self.act(store, *claim, &mut dice).await?;
            }
        }
        Ok(())
    }

    async fn act(&self, store: &Store, claim: Claim, dice: &mut Dice) -> Result<()> {
        let (key, attempt) = (claim.ticket, claim.attempt);
        let dies = dice.chance(15);
        match claim.work {
            Work::Errand { .. } => anyhow::bail!("no job here has errands"),
            Work::Control { .. } if dies => {}
            Work::Control { mut order } => loop {
                let request = decision(&order);
                let commit = store.commit(&key, attempt, &request, self.scene.now());
                match commit.await {
                    Ok(CommitReply::Again { order: next }) => order = next,
                    Ok(CommitReply::Over)
                    | Err(StoreError::AttemptOver { .. } | StoreError::Gone) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            },
            Work::Task { order } => {
                self.count(&order.build, order.task.as_str(), true)?;
                for _ in 0..dice.below(20) {
                    tokio::task::yield_now().await;
                }
                self.count(&order.build, order.task.as_str(), false)?;
                let at = self.scene.now();
                // Two losses of a task are too many for some, and then it is a fault: also an end.
                if !dies {
                    let result = TaskResult::of(Outcome::Success);
                    match store.complete(&key, attempt, &result, at).await {
                        Ok(()) | Err(StoreError::Gone) => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        self.state().dead.push((key, attempt));
        Ok(())
    }

    async fn watch(&self) -> Result<()> {
        loop {
            for _ in 0..64 {
                tokio::task::yield_now().await;
            }
            self.scene.set_faults(Faults::none());
            let active = self.scene.names(&keys::builds()).await?;
            if self.scene.simulator.is_some() {
                self.scene.check_index().await?;
            }
            self.scene.set_faults(Faults::hostile());
            if active.is_empty() {
                self.over.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
    }

    async fn run(&self, dice: &mut Dice) -> Result<()> {
        let workers = (0..6).map(|number| self.work(number, dice.split()));
        futures::try_join!(try_join_all(workers), self.watch())?;
        self.scene.set_faults(Faults::none());
        self.scene.check_swept().await
    }
}

#[tokio::test]
async fn never_do_more_work_than_a_lock_has_slots_and_all_end() -> Result<()> {
    let mut scenes: Vec<_> = (0..40).map(Scene::simulated).collect();
    scenes.push(Scene::embedded()?);
    for (seed, scene) in scenes.into_iter().enumerate() {
        let yard = Yard::new(scene).await?;
        let mut dice = Dice::new(seed as u64);
        let run = tokio::time::timeout(std::time::Duration::from_mins(1), yard.run(&mut dice));
        let run = run
            .await
            .with_context(|| format!("seed {seed}: nothing moves"))?;
        run.with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_migrated_store_holds_the_same_slots() -> Result<()> {
    let (scene, target) = (Scene::embedded()?, Scene::embedded()?);
    scene.set_job(&locked("j", &json!(["a"]))).await?;
    scene.set_job(&limited("k", 1, "skip")).await?;
    let (build, other) = (scene.post("j", "1").await?, scene.post("k", "1").await?);
    let claim = scene.next_task().await?;
    let at = scene.now();
    scene.store().migrate(target.store(), at, &|_| {}).await?;
    target.check_index().await?;
    assert_eq!(
        scene.names(&keys::locks()).await?,
        target.names(&keys::locks()).await?
    );
    let view = target.view(&build).await?;
    let running = |state: &TaskState| matches!(state, TaskState::Running { .. });
    if view.tasks.iter().any(|task| running(&task.state)) {
        target.complete(&claim, Outcome::Success).await?;
    }
    target.run_all(&Outcome::Success).await?;
    for build in [build, other] {
        ensure!(target.view(&build).await?.phase == BuildPhase::Finished);
    }
    target.check_swept().await
}
