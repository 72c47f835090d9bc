//! Locks over HTTP: who waits is told for whom, and goes on as soon as he can.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use distci_model::wire::{Claim, LockView, Page, QueueView, Triggered};
use distci_store::blobs::Blobs;
use distci_store::coordination::simulator::{Faults, Simulator};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::scene::{Scene, claim_request, clock, one_task, shell};

fn locked(job: &str, lock: &str) -> Value {
    let mut job = one_task(job, &[]);
    job["tasks"][0]["locks"] = json!([lock]);
    job
}

fn wish(wait: u64) -> Value {
    claim_request("w", &shell(&[]), wait)
}

/// Two jobs with one lock, the claim of the first build's task, and the second build queued.
async fn held(scene: &Scene) -> Result<Claim> {
    for job in ["x", "y"] {
        scene.put_job(&locked(job, "deploy")).await?;
    }
    scene.trigger("x").await?;
    let claim = scene.task().await?;
    scene.trigger("y").await?;
    scene.control().await?;
    Ok(claim)
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_waits_for_a_lock_is_told_with_who_has_it() -> Result<()> {
    let scene = Scene::new();
    let claim = held(&scene).await?;
    let none = scene.post("/claims", &wish(0)).await?;
    assert_eq!(none.status, StatusCode::NO_CONTENT);
    let queue: Page<QueueView> = scene.get("/queue").await?.json()?;
    let blocked = queue.items[0].blocked.as_ref().context("not blocked")?;
    assert_eq!(blocked.lock, "deploy");
    let holders: Vec<_> = blocked.held_by.iter().map(ToString::to_string).collect();
    assert_eq!(holders, ["x#1"]);
    let locks: Page<LockView> = scene.get("/locks").await?.json()?;
    let [lock] = locks.items.as_slice() else {
        anyhow::bail!("{locks:?}");
    };
    assert_eq!((lock.name.as_str(), lock.taken), ("deploy", 1));
    assert_eq!(lock.held[0].ticket, claim.ticket);
    assert_eq!(lock.waiting[0].build.to_string(), "y#1");
    scene.finish(&claim).await?;
    let queue: Page<QueueView> = scene.get("/queue").await?.json()?;
    ensure!(queue.items[0].blocked.is_none(), "{queue:?}");
    let locks: Page<LockView> = scene.get("/locks").await?.json()?;
    ensure!(locks.items.is_empty(), "{locks:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn pages_of_locks_hold_each_once() -> Result<()> {
    let scene = Scene::new();
    for number in 0..5 {
        let name = format!("lock {number}");
        scene.put_job(&locked(&format!("j{number}"), &name)).await?;
        scene.trigger(&format!("j{number}")).await?;
        scene.task().await?;
    }
    let (mut names, mut path) = (Vec::new(), "/locks?limit=2".to_owned());
    loop {
        let page: Page<LockView> = scene.get(&path).await?.json()?;
        names.extend(page.items.into_iter().map(|lock| lock.name));
        let Some(next) = page.next else { break };
        path = format!("/locks?limit=2&cursor={next}");
    }
    names.sort_unstable();
    assert_eq!(names, ["lock 0", "lock 1", "lock 2", "lock 3", "lock 4"]);
    scene.get("/locks?cursor=what").await?.problem(400)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_given_back_wakes_who_waits_at_any_frontend() -> Result<()> {
    let simulator = Simulator::new(7, Faults::none(), clock());
    let blobs = Blobs::memory();
    let frontends = [(); 2].map(|()| Scene::beside(simulator.session(), blobs.clone()));
    let [here, there] = &frontends;
    sleep(Duration::from_secs(1)).await;
    let claim = held(here).await?;
    let start = Instant::now();
    let request = wish(30);
    let release = async {
        sleep(Duration::from_secs(5)).await;
        here.finish(&claim).await
    };
    let (answer, ()) = tokio::try_join!(there.post("/claims", &request), release)?;
    let woken: Claim = answer.json()?;
    ensure!(woken.ticket != claim.ticket, "{woken:?}");
    // Not after the ten seconds in which it is tried without news.
    ensure!(
        start.elapsed() < Duration::from_secs(7),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_lock_holds_up_nobody() -> Result<()> {
    let scene = Scene::new();
    held(&scene).await?;
    scene.build("z").await?;
    let claim: Claim = scene.task().await?;
    let facts = scene.app.store.ticket_facts(&claim.ticket).await?;
    let about = facts.context("a ticket")?.about;
    let build = about.build().context("a build")?;
    assert_eq!(build.to_string(), "z#1");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_skipped_build_is_no_error() -> Result<()> {
    let scene = Scene::new();
    let mut job = one_task("j", &[]);
    job["concurrency"] = json!({ "when_full": "skip" });
    scene.put_job(&job).await?;
    scene.trigger("j").await?;
    let answer = scene.post("/jobs/j/builds", &json!({})).await?;
    assert_eq!(answer.status, StatusCode::OK);
    let told: Value = answer.json()?;
    assert_eq!(told, json!({ "skipped": { "job": "j", "number": 1 } }));
    let Triggered::Skipped { skipped } = answer.json()? else {
        anyhow::bail!("{told}");
    };
    assert_eq!(skipped.to_string(), "j#1");
    Ok(())
}
