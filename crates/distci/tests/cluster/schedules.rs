//! A schedule comes every minute while frontends die, one after the other and then all at once.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_components::CephPlan;
use distci_model::Timestamp;
use distci_model::wire::{BuildSummary, Page};
use serde_json::json;

use crate::cluster::{Cluster, Plan};
use crate::http::Request;
use crate::program::eventually;
use crate::scene::{CONTROL, TASKS};

/// How often one frontend is killed, each in its turn,
const KILLS: usize = 14;
/// how long it is dead, and how long nobody is after that.
const DEAD: Duration = Duration::from_secs(4);
const ALIVE: Duration = Duration::from_secs(5);
/// How long all are dead: longer than from one moment to the next.
const ALL_DEAD: Duration = Duration::from_secs(70);
const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn each_moment_is_fired_once_whoever_dies() -> Result<()> {
    let plan = Plan {
        theme: "schedules",
        ceph: CephPlan::default(),
        signed_urls: false,
    };
    let mut cluster = Cluster::start(&plan)?;
    cluster.hire("control", CONTROL)?;
    cluster.hire("tasks", TASKS)?;
    let job = json!({
        "job_id": "minutely",
        "triggers": [{ "cron": "* * * * *", "catch_up": "all" }],
        "tasks": [{ "type": "execute-shell", "params": { "script": "true" } }],
    });
    let set = cluster
        .api()
        .ask(&Request::send("PUT", "/jobs/minutely", &job))?;
    ensure!(set.status == 201, "{}", set.status);
    for kill in 0..KILLS {
        let turn = kill % cluster.frontends.len();
        cluster.frontends[turn].node.kill()?;
        sleep(DEAD);
        cluster.frontends[turn].node.start()?;
        sleep(ALIVE);
    }
    cluster.wait_until_serving()?;
    let before = moments(&cluster)?;
    ensure!(before.len() >= 2, "{before:?}");
    for frontend in &mut cluster.frontends {
        frontend.node.kill()?;
    }
    sleep(ALL_DEAD);
    for frontend in &mut cluster.frontends {
        frontend.node.start()?;
    }
    cluster.wait_until_serving()?;
    // What was missed, and one more.
    let after = eventually("the moments that were missed", || {
        let after = moments(&cluster)?;
        Ok((after.len() >= before.len() + 2).then_some(after))
    })?;
    let is_minute = |two: &[Timestamp]| two[0] + MINUTE == two[1];
    ensure!(after.windows(2).all(is_minute), "one is missing: {after:?}");
    cluster.require_running()?;
    cluster.require_sound()
}

/// The moments that have been built, the first one first; each once.
fn moments(cluster: &Cluster) -> Result<Vec<Timestamp>> {
    let builds: Page<BuildSummary> = cluster.api().json("/jobs/minutely/builds?limit=100")?;
    let mut moments = BTreeSet::new();
    for build in builds.items {
        let told = build.cause.told().context("nothing scheduled it")?;
        let moment: Timestamp = told.fact("scheduled").context("no moment")?.parse()?;
        ensure!(build.created >= moment, "{moment} was fired early");
        ensure!(moments.insert(moment), "{moment} was fired twice");
    }
    Ok(moments.into_iter().collect())
}
