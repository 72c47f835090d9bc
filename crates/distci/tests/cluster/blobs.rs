//! Ceph loses a store, a gateway, and everything.

use std::time::{Duration, Instant};

use anyhow::Result;
use distci_components::{CephPlan, ObjectStore};

use crate::cluster::Plan;
use crate::jobs::Job;
use crate::report::{PAUSES, SERVED};
use crate::scene::{CONTROL, Scene, TASKS, until};

/// How long one daemon is away.
const SHORT: Duration = Duration::from_secs(15);
/// How long there are no blobs at all.
const LONG: Duration = Duration::from_mins(1);

#[test]
fn ceph_comes_and_goes() -> Result<()> {
    let plan = Plan {
        theme: "ceph",
        ceph: CephPlan {
            osds: 3,
            store: ObjectStore::BlueStore,
            gateways: 2,
            ..CephPlan::default()
        },
        signed_urls: true,
    };
    let tasks = format!("{TASKS} --slots 6 --label any");
    let workers = [("control", CONTROL), ("first", &tasks), ("second", &tasks)];
    let jobs = vec![Job::long("short", "any", 20), Job::long("long", "any", 70)];
    let mut scene = Scene::begin(&plan, &workers, jobs)?;
    one_dies(&mut scene, "osd.1", "kill -9 of one OSD of three")?;
    one_dies(&mut scene, "rgw.1", "kill -9 of one gateway of two")?;
    all_of_it_dies(&mut scene)?;
    scene.end()
}

fn one_dies(scene: &mut Scene, daemon: &str, fault: &str) -> Result<()> {
    let long = scene.workload.long("short")?;
    scene.cluster.ceph.kill(daemon)?;
    let killed = Instant::now();
    scene.built(fault, killed, SERVED)?;
    until(killed, SHORT);
    scene.cluster.ceph.restart(daemon)?;
    scene.unhurt(long)?;
    scene.cluster.ceph.check()
}

fn all_of_it_dies(scene: &mut Scene) -> Result<()> {
    let long = scene.workload.long("long")?;
    let burst = scene.workload.burst();
    scene.cluster.ceph.kill_all()?;
    until(Instant::now(), LONG);
    scene.cluster.ceph.restart_all()?;
    scene.built("no Ceph for 60 s, from its return", Instant::now(), PAUSES)?;
    burst.end()?;
    // What the script printed meanwhile waited on the worker's disk.
    scene.unhurt(long)
}
