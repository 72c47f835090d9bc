//! The ensemble loses its leader, and its quorum.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::report::{BACK, SERVED};
use crate::scene::{Scene, until};

/// How long the leader hangs, and how long there is no quorum.
const LONG: Duration = Duration::from_mins(1);

#[test]
fn the_ensemble_comes_and_goes() -> Result<()> {
    let mut scene = Scene::usual("zookeeper")?;
    the_leader_is_killed(&mut scene)?;
    the_leader_hangs(&mut scene)?;
    the_quorum_is_lost(&mut scene)?;
    scene.end()
}

fn the_leader_is_killed(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("short")?;
    let leader = scene.cluster.zookeeper.leader()?;
    let burst = scene.workload.burst();
    scene.cluster.zookeeper.kill(leader)?;
    scene.served("kill -9 of the ZooKeeper leader", Instant::now(), SERVED)?;
    burst.end()?;
    scene.unhurt(long)?;
    scene.cluster.zookeeper.restart(leader)
}

fn the_leader_hangs(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("long")?;
    let leader = scene.cluster.zookeeper.leader()?;
    let burst = scene.workload.burst();
    scene.cluster.zookeeper.pause(leader)?;
    let paused = Instant::now();
    scene.served("SIGSTOP of the ZooKeeper leader", paused, BACK)?;
    burst.end()?;
    until(paused, LONG);
    scene.cluster.zookeeper.resume(leader)?;
    scene.served("the same server, resumed after 60 s", Instant::now(), BACK)?;
    scene.unhurt(long)?;
    scene.cluster.zookeeper.wait_until_serving()
}

fn the_quorum_is_lost(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("long")?;
    let leader = scene.cluster.zookeeper.leader()?;
    let other = (leader + 1) % scene.cluster.zookeeper.servers();
    let burst = scene.workload.burst();
    for server in [leader, other] {
        scene.cluster.zookeeper.kill(server)?;
    }
    let lost = Instant::now();
    until(lost, LONG);
    scene.cluster.zookeeper.restart_all()?;
    scene.served("no quorum for 60 s, from its return", Instant::now(), BACK)?;
    burst.end()?;
    // Without a quorum nobody could take the claim away, and its end was waited for.
    scene.unhurt(long)
}
