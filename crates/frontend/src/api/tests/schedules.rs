//! Schedules as frontends fire them: each moment once, in time and never early, whoever dies.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_model::Timestamp;
use distci_model::wire::{BuildView, ScheduleView};
use distci_store::coordination::simulator::{Faults, PerMille};
use serde_json::{Value, json};

use super::scene::one_task;
use super::timers::Cluster;

fn scheduled(job: &str, cron: &str, catch_up: &str) -> Value {
    let mut config = one_task(job, &[]);
    config["triggers"] = json!([{ "cron": cron, "catch_up": catch_up }]);
    config
}

impl Cluster {
    async fn set(&self, cron: &str, catch_up: &str) -> Result<()> {
        let config = scheduled("j", cron, catch_up);
        let put = self.frontends[0].put_job(&config).await?;
        ensure!(put.status.is_success(), "{put:?}");
        self.pass(Duration::from_secs(1)).await;
        Ok(())
    }

    /// The moments that have been built, and how late each was.
    async fn built(&self) -> Result<Vec<(Timestamp, Duration)>> {
        let store = &self.frontends[0].app.store;
        let listed = store.list_builds(&"j".parse()?, None, 500).await?;
        let mut built = Vec::new();
        for summary in listed.items.iter().rev() {
            let path = format!("/jobs/j/builds/{}", summary.number);
            let view: BuildView = self.frontends[0].get(&path).await?.json()?;
            let told = view.cause.told().context("no event")?;
            let moment: Timestamp = told.fact("scheduled").context("no moment")?.parse()?;
            ensure!(view.created >= moment, "{moment} was fired early");
            built.push((moment, view.created.duration_since(moment).unsigned_abs()));
        }
        let distinct: BTreeSet<_> = built.iter().map(|(moment, _)| *moment).collect();
        ensure!(
            distinct.len() == built.len(),
            "a moment was built twice: {built:?}"
        );
        Ok(built)
    }

    /// Every frontend is gone for a while, then one is there again.
    async fn all_down(&mut self, time: Duration) {
        self.frontends.clear();
        tokio::time::sleep(time).await;
        self.join();
        self.pass(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_moment_is_fired_once_in_time() -> Result<()> {
    let lagging = Faults {
        lag: PerMille(300),
        ..Faults::none()
    };
    for faults in [Faults::none(), lagging] {
        let cluster = Cluster::of(3, faults).await?;
        cluster.set("* * * * *", "last").await?;
        cluster.pass(Duration::from_mins(20)).await;
        let built = cluster.built().await?;
        ensure!((19..=21).contains(&built.len()), "{built:?}");
        ensure!(
            built
                .windows(2)
                .all(|two| two[0].0 + Duration::from_mins(1) == two[1].0)
        );
        ensure!(
            built.iter().all(|(_, late)| *late < Duration::from_secs(3)),
            "{built:?}"
        );
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn moments_outlive_broken_connections_and_lost_answers() -> Result<()> {
    let cluster = Cluster::of(3, Faults::none()).await?;
    cluster.set("* * * * *", "all").await?;
    cluster.simulator.set_faults(Faults {
        missed_events: PerMille(200),
        lost_before: PerMille(200),
        lost_after: PerMille(200),
        ..Faults::none()
    });
    cluster.pass(Duration::from_mins(6)).await;
    cluster.simulator.set_faults(Faults::none());
    cluster.pass(Duration::from_mins(2)).await;
    let built = cluster.built().await?;
    ensure!((7..=9).contains(&built.len()), "{} {built:?}", built.len());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_others_fire_for_a_dead_frontend() -> Result<()> {
    let mut cluster = Cluster::of(3, Faults::none()).await?;
    cluster.set("*/5 * * * *", "last").await?;
    cluster.frontends.truncate(1);
    cluster.pass(Duration::from_mins(16)).await;
    let built = cluster.built().await?;
    ensure!((3..=4).contains(&built.len()), "{built:?}");
    ensure!(
        built
            .iter()
            .all(|(_, late)| *late < Duration::from_secs(10)),
        "{built:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_all_missed_is_caught_up_with_as_asked() -> Result<()> {
    for (catch_up, down, expected) in [
        ("none", 45, 0),
        ("last", 45, 1),
        ("all", 45, 5),
        ("last", 300, 1),
    ] {
        let mut cluster = Cluster::of(2, Faults::none()).await?;
        // The clock begins at 08:00: the last moment missed is at 08:43, or at 12:53.
        cluster.set("3/10 * * * *", catch_up).await?;
        cluster.all_down(Duration::from_mins(down)).await;
        let built = cluster.built().await?;
        ensure!(built.len() == expected, "{catch_up}: {built:?}");
        cluster.all_down(Duration::from_mins(1)).await;
        ensure!(
            cluster.built().await?.len() == expected,
            "again after a restart"
        );
    }
    let mut cluster = Cluster::of(1, Faults::none()).await?;
    cluster.set("30 8 * * *", "last").await?;
    cluster.all_down(Duration::from_hours(3)).await;
    ensure!(
        cluster.built().await?.is_empty(),
        "that was over an hour ago"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_fires_nothing_again() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    cluster.set("* * * * *", "all").await?;
    cluster.pass(Duration::from_mins(5)).await;
    let before = cluster.built().await?.len();
    cluster.clock.step(-180_000);
    cluster.pass(Duration::from_mins(6)).await;
    // Three minutes come again, and are not built again.
    let after = cluster.built().await?.len();
    ensure!(
        (before + 2..=before + 4).contains(&after),
        "{before} {after}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_schedule_is_for_times_after_it_was_set() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    cluster.set("0 0 1 1 *", "all").await?;
    cluster.pass(Duration::from_mins(10)).await;
    cluster.set("* * * * *", "all").await?;
    cluster.pass(Duration::from_mins(2)).await;
    ensure!(cluster.built().await?.len() <= 3);
    cluster.set("0 0 1 1 *", "all").await?;
    let before = cluster.built().await?.len();
    cluster.pass(Duration::from_mins(5)).await;
    ensure!(
        cluster.built().await?.len() == before,
        "it is not there any more"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_job_tells_when_its_schedules_come() -> Result<()> {
    let cluster = Cluster::of(1, Faults::none()).await?;
    cluster.set("0 12 * * *", "none").await?;
    let frontend = &cluster.frontends[0];
    let views: Vec<ScheduleView> = frontend.get("/jobs/j/schedules?count=2").await?.json()?;
    let [view] = views.as_slice() else {
        anyhow::bail!("{views:?}");
    };
    ensure!(
        view.cron == "0 12 * * *" && view.timezone == "UTC",
        "{view:?}"
    );
    let next: Vec<_> = view.next.iter().map(ToString::to_string).collect();
    ensure!(
        next == ["2027-01-15T12:00:00Z", "2027-01-16T12:00:00Z"],
        "{next:?}"
    );
    frontend.get("/jobs/ghost/schedules").await?.problem(404)?;
    frontend.build("plain").await?;
    let none: Vec<ScheduleView> = frontend.get("/jobs/plain/schedules").await?.json()?;
    ensure!(none.is_empty());
    Ok(())
}
