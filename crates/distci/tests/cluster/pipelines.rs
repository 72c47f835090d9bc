//! Machines die in the middle of a matrix, under a lock, between the cells and what joins them, and
//! as downstream builds are posted: every cell counts once, no lock is held by two or by the dead, and
//! every build has exactly one downstream build, with what it was told.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_client::new_request_id;
use distci_components::CephPlan;
use distci_model::build::{Cause, Downstream};
use distci_model::id::BuildRef;
use distci_model::outcome::Outcome;
use distci_model::wire::{
    BuildPhase, BuildSummary, BuildView, LockView, Page, REQUEST_ID_HEADER, TaskState,
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Plan};
use crate::http::Request;
use crate::program::{eventually, within};
use crate::scene::{CONTROL, TASKS};

/// How many builds run at once.
const BUILDS: u64 = 3;
const CELLS: usize = 6;
/// Attempts of the dead are given away after half a minute, perhaps more than once in a build.
const PATIENCE: Duration = Duration::from_mins(5);

/// The places of the workers, in the order in which they are hired.
const DECIDER: usize = 0;
const FIRST: usize = 1;
const SECOND: usize = 2;

#[test]
fn matrices_locks_and_downstream_builds_survive() -> Result<()> {
    let plan = Plan {
        theme: "pipelines",
        ceph: CephPlan::default(),
        signed_urls: false,
    };
    let mut cluster = Cluster::start(&plan)?;
    let tasks = format!("{TASKS} --slots 3");
    for (name, arguments) in [("control", CONTROL), ("first", &tasks), ("second", &tasks)] {
        cluster.hire(name, arguments)?;
    }
    let folder = cluster.dir().join("common");
    std::fs::create_dir(&folder)?;
    set_job(&cluster, &after())?;
    set_job(&cluster, &pipeline(&folder))?;
    for _ in 0..BUILDS {
        trigger(&cluster)?;
    }

    // In the middle of the matrix, with locks in hand.
    running(&cluster, "cell", "first")?;
    cluster.workers[FIRST].node.kill()?;
    cluster.frontends[0].node.kill()?;
    running(&cluster, "cell", "second")?;
    cluster.workers[FIRST].node.start()?;
    cluster.frontends[0].node.start()?;
    // As cells end, and what joins them is to be posted.
    ended(&cluster, "cell", 2)?;
    cluster.workers[DECIDER].node.kill()?;
    let leader = cluster.zookeeper.leader()?;
    cluster.zookeeper.kill(leader)?;
    cluster.workers[DECIDER].node.start()?;
    // Under the one lock that all builds want.
    let holder = running(&cluster, "deploy", "")?;
    let place = if holder == "first" { FIRST } else { SECOND };
    cluster.workers[place].node.kill()?;
    cluster.zookeeper.restart(leader)?;
    cluster.workers[place].node.start()?;
    // As the first of them ends, and posts its downstream build.
    within(PATIENCE, "the end of a build", || {
        let over = |build: &BuildView| build.finished.is_some();
        Ok(builds(&cluster)?.iter().any(over).then_some(()))
    })?;
    cluster.workers[DECIDER].node.kill()?;
    cluster.frontends[1].node.kill()?;
    cluster.workers[DECIDER].node.start()?;
    cluster.frontends[1].node.start()?;

    within(PATIENCE, "the end of all", || {
        let over = |build: &BuildView| build.phase == BuildPhase::Finished;
        Ok(builds(&cluster)?.iter().all(over).then_some(()))
    })?;
    cluster.wait_until_serving()?;
    every_task_counts_once(&cluster, &folder)?;
    each_has_one_downstream_build(&cluster)?;
    no_lock_is_left(&cluster)?;
    cluster.require_running()?;
    cluster.require_sound()
}

/// Its scripts write down that they ended, and fail where they are not alone though they must be. The
/// kernel takes such a lock from the dead.
fn pipeline(folder: &Path) -> Value {
    let folder = folder.display();
    let alone = |name: &str, seconds: u32| {
        format!(
            "exec 9>'{folder}/{name}'; flock -n 9 || {{ echo not alone; exit 9; }}; sleep {seconds}"
        )
    };
    let note = |name: &str| format!("echo $BUILD_NUMBER >> \"{folder}/{name}.ended\"");
    // Of two slots, whichever is free; a third must never be inside.
    let one_of_two = format!(
        "exec 9>'{folder}/a'; flock -n 9 || {{ exec 9>'{folder}/b'; flock -n 9 || \
         {{ echo too many; exit 9; }}; }}; sleep 3; {}",
        note("cell-$n")
    );
    let cells: Vec<usize> = (1..=CELLS).collect();
    json!({
        "job_id": "pipeline",
        "tasks": [
            { "type": "execute-shell", "name": "cell", "matrix": { "n": cells },
              "locks": [{ "name": "lab", "slots": 2 }], "params": { "script": one_of_two } },
            { "type": "execute-shell", "name": "join", "needs": ["cell"],
              "params": { "script": format!("echo TOTAL={CELLS} >> $DISTCI_OUTPUT; {}", note("join")) } },
            { "type": "execute-shell", "name": "deploy", "needs": ["join"], "locks": ["production"],
              "env": { "JOINED": "${tasks.join.TOTAL}" },
              "params": { "script": format!("[ $JOINED = {CELLS} ]; {}; {}", alone("one", 4), note("deploy")) } }
        ],
        "downstream_jobs": [{ "job": "after", "parameters": { "told": "by a pipeline" } }]
    })
}

fn after() -> Value {
    json!({
        "job_id": "after",
        "parameters": { "told": { "default": "nobody" } },
        "tasks": [{ "type": "execute-shell", "params": { "script": "echo $told" } }]
    })
}

fn set_job(cluster: &Cluster, job: &Value) -> Result<()> {
    let name = job["job_id"].as_str().context("no name")?;
    let set = Request::send("PUT", &format!("/jobs/{name}"), job);
    let answer = cluster.api().ask(&set)?;
    ensure!(answer.status == 201, "{name}: {}", answer.status);
    Ok(())
}

fn trigger(cluster: &Cluster) -> Result<()> {
    let key = new_request_id()?;
    let request = Request::send("POST", "/jobs/pipeline/builds", &json!({}));
    let request = request.with(REQUEST_ID_HEADER, key.as_str());
    let answer = cluster.api().ask(&request)?;
    ensure!(matches!(answer.status, 200 | 201), "{}", answer.status);
    Ok(())
}

fn builds(cluster: &Cluster) -> Result<Vec<BuildView>> {
    let api = cluster.api();
    (1..=BUILDS)
        .map(|number| api.json(&format!("/jobs/pipeline/builds/{number}")))
        .collect()
}

/// Waits until a task whose name begins so runs on a worker whose name begins so. Gives whose.
fn running(cluster: &Cluster, task: &str, on: &str) -> Result<String> {
    within(PATIENCE, &format!("{task} to run on {on:?}"), || {
        let builds = builds(cluster)?;
        let tasks = builds.iter().flat_map(|build| &build.tasks);
        let named = tasks.filter(|one| one.name.as_str().starts_with(task));
        let mut workers = named.filter_map(|one| match &one.state {
            TaskState::Running { worker, .. } => Some(worker.to_string()),
            _ => None,
        });
        Ok(workers.find(|worker| worker.starts_with(on)))
    })
}

/// Waits until so many tasks of one build whose names begin so have ended.
fn ended(cluster: &Cluster, task: &str, count: usize) -> Result<()> {
    within(PATIENCE, &format!("{count} of {task} to end"), || {
        let enough = builds(cluster)?.into_iter().any(|build| {
            let over = build.tasks.iter().filter(|one| {
                one.name.as_str().starts_with(task)
                    && matches!(one.state, TaskState::Finished { .. })
            });
            over.count() >= count
        });
        Ok(enough.then_some(()))
    })
}

/// A script whose result was lost with its worker may have run twice, but only one result counts, and
/// nobody whose worker lived was asked a second time.
fn every_task_counts_once(cluster: &Cluster, folder: &Path) -> Result<()> {
    for build in builds(cluster)? {
        let id = &build.build;
        ensure!(build.outcome == Some(Outcome::Success), "{id}: {build:?}");
        let mut results: BTreeMap<&str, usize> = BTreeMap::new();
        for task in &build.tasks {
            let TaskState::Finished { run } = &task.state else {
                anyhow::bail!("{id}: {} is {:?}", task.name, task.state);
            };
            *results.entry(task.name.as_str()).or_default() += 1;
            ensure!(
                run.attempt.get() <= 4,
                "{id}: {} took {}",
                task.name,
                run.attempt
            );
        }
        ensure!(results.len() == CELLS + 2, "{id}: {results:?}");
        ensure!(
            results.values().all(|count| *count == 1),
            "{id}: {results:?}"
        );
    }
    for task in (1..=CELLS)
        .map(|cell| format!("cell-{cell}"))
        .chain(["join".to_owned(), "deploy".to_owned()])
    {
        let told = std::fs::read_to_string(folder.join(format!("{task}.ended")))?;
        for number in 1..=BUILDS {
            let number = number.to_string();
            let ends = told.lines().filter(|line| *line == number);
            ensure!(
                ends.count() >= 1,
                "{task} of build {number} never ended: {told}"
            );
        }
    }
    Ok(())
}

fn each_has_one_downstream_build(cluster: &Cluster) -> Result<()> {
    let posted = eventually("the downstream builds to end", || {
        let page: Page<BuildSummary> = cluster.api().json("/jobs/after/builds?limit=100")?;
        let over = page.items.iter().all(|build| build.finished.is_some());
        Ok(over.then_some(page.items))
    })?;
    let mut causes: Vec<BuildRef> = Vec::new();
    for build in &posted {
        let Cause::Upstream { build: upstream } = &build.cause else {
            anyhow::bail!("{:?}", build.cause);
        };
        causes.push(upstream.clone());
    }
    causes.sort();
    let pipelines = builds(cluster)?;
    let expected: Vec<BuildRef> = pipelines.iter().map(|build| build.build.clone()).collect();
    ensure!(causes == expected, "{causes:?}");
    for build in &pipelines {
        let told = build.downstream.as_slice();
        ensure!(matches!(told, [Downstream::Triggered { .. }]), "{told:?}");
    }
    for number in 1..=BUILDS {
        let build: BuildView = cluster
            .api()
            .json(&format!("/jobs/after/builds/{number}"))?;
        ensure!(build.outcome == Some(Outcome::Success), "{build:?}");
        let told = build.parameters.get("told").map(String::as_str);
        ensure!(told == Some("by a pipeline"), "{told:?}");
    }
    Ok(())
}

fn no_lock_is_left(cluster: &Cluster) -> Result<()> {
    let locks: Page<LockView> = cluster.api().json("/locks")?;
    ensure!(locks.items.is_empty(), "{locks:?}");
    Ok(())
}
