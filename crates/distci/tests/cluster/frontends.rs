//! Frontends die, hang and lose the store; and everything dies at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::{Frontend, Worker};
use crate::http::Request;
use crate::program::eventually;
use crate::report::{BACK, RESTARTED, SERVED};
use crate::scene::{Scene, until};

/// How long a frontend hangs.
const HANGING: Duration = Duration::from_mins(1);
/// How long a frontend has no store: longer than its session.
const CUT: Duration = Duration::from_secs(20);

#[test]
fn frontends_come_and_go() -> Result<()> {
    let mut scene = Scene::usual("frontends")?;
    a_frontend_is_killed(&mut scene)?;
    a_frontend_hangs(&mut scene)?;
    a_frontend_is_cut_off_from_zookeeper(&mut scene)?;
    a_frontend_is_cut_off_from_the_blobs(&mut scene)?;
    everything_is_killed(&mut scene)?;
    scene.end()
}

fn frontend(scene: &mut Scene, number: usize) -> Result<&mut Frontend> {
    let frontends = &mut scene.cluster.frontends;
    frontends.get_mut(number).context("no such frontend")
}

fn a_frontend_is_killed(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("short")?;
    let burst = scene.workload.burst();
    let killed = frontend(scene, 0)?.node.kill()?;
    scene.served("kill -9 of a frontend", killed, SERVED)?;
    burst.end()?;
    scene.unhurt(long)?;
    frontend(scene, 0)?.node.start()?;
    scene.cluster.wait_until_serving()
}

fn a_frontend_hangs(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("long")?;
    // What it has in its hands is asked for elsewhere, and done by it when it wakes, much too late.
    let burst = scene.workload.burst();
    let paused = frontend(scene, 1)?.node.pause()?;
    scene.served("SIGSTOP of a frontend", paused, SERVED)?;
    burst.end()?;
    until(paused, HANGING);
    frontend(scene, 1)?.node.resume()?;
    let resumed = Instant::now();
    scene.cluster.wait_until_serving()?;
    scene.report.measured(
        "the same frontend, resumed after 60 s",
        "serves again",
        resumed.elapsed(),
        BACK,
    )?;
    scene.unhurt(long)
}

fn a_frontend_is_cut_off_from_zookeeper(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("short")?;
    let burst = scene.workload.burst();
    frontend(scene, 2)?.to_zookeeper.cut();
    let cut = Instant::now();
    scene.served("a frontend cut off from ZooKeeper", cut, SERVED)?;
    burst.end()?;
    let api = scene.cluster.api();
    eventually("the frontend to say that it has no store", || {
        let answer = api.once(2, &Request::ready(), Duration::from_secs(30))?;
        Ok((answer.status == 503).then_some(()))
    })?;
    scene.unhurt(long)?;
    until(cut, CUT);
    frontend(scene, 2)?.to_zookeeper.heal();
    let healed = Instant::now();
    scene.cluster.wait_until_serving()?;
    scene.report.measured(
        "the same frontend, healed after 20 s",
        "serves again",
        healed.elapsed(),
        BACK,
    )
}

fn a_frontend_is_cut_off_from_the_blobs(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("short")?;
    frontend(scene, 0)?.to_s3.cut();
    frontend(scene, 1)?.to_s3.refuse();
    let cut = Instant::now();
    scene.served("two frontends cut off from S3", cut, SERVED)?;
    until(cut, CUT);
    for number in [0, 1] {
        frontend(scene, number)?.to_s3.heal();
    }
    scene.cluster.wait_until_serving()?;
    scene.unhurt(long)
}

fn everything_is_killed(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("short")?;
    let burst = scene.workload.burst();
    let frontends = |frontend: &mut Frontend| frontend.node.kill().map(drop);
    scene.cluster.frontends.iter_mut().try_for_each(frontends)?;
    let workers = |worker: &mut Worker| worker.node.kill().map(drop);
    scene.cluster.workers.iter_mut().try_for_each(workers)?;
    // Longer than a moment, so that nothing is left on its way.
    sleep(Duration::from_secs(2));
    let started = Instant::now();
    let frontends = |frontend: &mut Frontend| frontend.node.start();
    scene.cluster.frontends.iter_mut().try_for_each(frontends)?;
    let workers = |worker: &mut Worker| worker.node.start();
    scene.cluster.workers.iter_mut().try_for_each(workers)?;
    scene.served("every process killed and started again", started, SERVED)?;
    scene.restarted(
        "every process killed and started again",
        &long,
        started,
        RESTARTED,
    )?;
    burst.end()?;
    scene.ended(long)
}
