//! Workers die, hang and are cut off in the middle of a task, or of a decision.

use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use distci_components::CephPlan;

use crate::cluster::{Plan, Worker};
use crate::jobs::{Job, SINGLE};
use crate::processes::processes_with;
use crate::program::eventually;
use crate::report::{BACK, DECIDED, RESTARTED};
use crate::scene::{CONTROL, Scene, TASKS, until};
use crate::workload::Long;

/// How long a worker hangs, or is cut off for long: its attempt is given away meanwhile.
const LONG: Duration = Duration::from_mins(1);
/// How long one is cut off briefly: well below the lease of half a minute.
const BRIEF: Duration = Duration::from_secs(12);

/// The places of the workers, in the order in which they are hired.
const DECIDER: usize = 0;
const KILLED: usize = 2;
const PAUSED: usize = 3;
const CUT: usize = 4;
const BRIEFLY: usize = 5;

#[test]
fn workers_come_and_go() -> Result<()> {
    let plan = Plan {
        theme: "workers",
        ceph: CephPlan::default(),
        signed_urls: false,
    };
    let with = |label: &str| format!("{TASKS} --slots 3 --label {label}");
    let workers = [
        ("control", CONTROL),
        ("other-control", CONTROL),
        ("killed", &with("killed")),
        ("paused", &with("paused")),
        ("cut", &with("cut")),
        ("briefly-cut", &with("brief")),
    ];
    let jobs = vec![
        Job::long("killed", "killed", 5).hanging_first(),
        Job::long("paused", "paused", 5).hanging_first(),
        Job::long("cut", "cut", 5).hanging_first(),
        Job::long("brief", "brief", 25),
    ];
    let mut scene = Scene::begin(&plan, &workers, jobs)?;
    workers_are_lost(&mut scene)?;
    build_control_hangs(&mut scene)?;
    build_control_is_killed(&mut scene)?;
    scene.end()
}

fn worker(scene: &mut Scene, place: usize) -> Result<&mut Worker> {
    let workers = &mut scene.cluster.workers;
    workers.get_mut(place).context("no such worker")
}

fn workers_are_lost(scene: &mut Scene) -> Result<()> {
    let killed = scene.workload.long("killed")?;
    let paused = scene.workload.long("paused")?;
    let cut = scene.workload.long("cut")?;
    let brief = scene.workload.long("brief")?;
    // From now on there is somebody else for every task.
    let labels = "--label killed --label paused --label cut --label brief";
    let spare = format!("{TASKS} --slots 8 {labels}");
    scene.cluster.hire("spare", &spare)?;

    worker(scene, BRIEFLY)?.to_frontends.cut();
    worker(scene, CUT)?.to_frontends.cut();
    worker(scene, PAUSED)?.node.pause()?;
    let since = worker(scene, KILLED)?.node.kill()?;
    script_is_gone(scene, &killed, "kill -9 of a worker in mid-task", since)?;
    until(since, BRIEF);
    worker(scene, BRIEFLY)?.to_frontends.heal();
    attempts_are_restarted(
        scene,
        &[
            ("kill -9 of a worker in mid-task", &killed),
            ("SIGSTOP of a worker in mid-task", &paused),
            ("a worker cut off from every frontend", &cut),
        ],
        since,
    )?;
    scene.unhurt(brief)?;
    until(since, LONG);
    for long in [&paused, &cut] {
        let key = scene.workload.attempt_key(long, 1)?;
        let runs = !processes_with(&key)?.is_empty();
        ensure!(runs, "{}: nobody could have told it", long.job);
    }
    worker(scene, PAUSED)?.node.resume()?;
    worker(scene, CUT)?.to_frontends.heal();
    let since = Instant::now();
    script_is_gone(scene, &paused, "a worker wakes after 60 s", since)?;
    script_is_gone(scene, &cut, "a worker is heard again after 60 s", since)?;
    worker(scene, KILLED)?.node.start()?;
    for long in [killed, paused, cut] {
        scene.ended(long)?;
    }
    Ok(())
}

/// Waits until nothing is left of what the first attempt has started.
fn script_is_gone(scene: &Scene, long: &Long, fault: &str, since: Instant) -> Result<()> {
    let key = scene.workload.attempt_key(long, 1)?;
    eventually("the end of a lost attempt's processes", || {
        Ok(processes_with(&key)?.is_empty().then_some(()))
    })
    .with_context(|| fault.to_owned())?;
    let took = since.elapsed();
    scene.report.measured(fault, "script ended", took, BACK)
}

/// Measures all of them at the same time.
fn attempts_are_restarted(scene: &Scene, faults: &[(&str, &Long)], since: Instant) -> Result<()> {
    let workload = &scene.workload;
    let took = scope(|scope| {
        let watching: Vec<_> = faults
            .iter()
            .map(|(_, long)| scope.spawn(|| workload.restarted(long, since)))
            .collect();
        let joined = watching
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|took| took.map_err(|_| anyhow!("a watcher panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    for ((fault, _), took) in faults.iter().zip(took) {
        let what = "attempt restarted";
        scene.report.measured(fault, what, took, RESTARTED)?;
    }
    Ok(())
}

fn build_control_hangs(scene: &mut Scene) -> Result<()> {
    let burst = scene.workload.burst_of(1);
    let paused = worker(scene, DECIDER)?.node.pause()?;
    all_end(scene, &burst.end()?, "SIGSTOP of build control", paused)?;
    until(paused, LONG);
    worker(scene, DECIDER)?.node.resume()
}

fn build_control_is_killed(scene: &mut Scene) -> Result<()> {
    let burst = scene.workload.burst_of(1);
    let killed = worker(scene, DECIDER)?.node.kill()?;
    all_end(scene, &burst.end()?, "kill -9 of build control", killed)?;
    worker(scene, DECIDER)?.node.start()
}

fn all_end(scene: &Scene, builds: &[u64], fault: &str, since: Instant) -> Result<()> {
    for build in builds {
        eventually("the end of a build", || {
            let build = scene.workload.build(SINGLE, *build)?;
            Ok(build.finished)
        })
        .with_context(|| fault.to_owned())?;
    }
    let took = since.elapsed();
    scene.report.measured(fault, "builds go on", took, DECIDED)
}
