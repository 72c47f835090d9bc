//! Drain orders: who is asked to leave, when, and by whom.

use std::time::Duration;

use anyhow::Result;
use axum::http::StatusCode;
use distci_model::drain::DrainOrder;
use distci_model::wire::{Claim, WorkerView};
use distci_store::blobs::Blobs;
use distci_store::coordination::simulator::{Faults, Simulator};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::scene::{Answer, Scene, claim_again, claim_request, clock, shell};

/// A claim request of a worker of this age.
fn aged(worker: &str, age: u64, wait: u64) -> Value {
    with_age(claim_request(worker, &shell(&[]), wait), age)
}

fn with_age(mut request: Value, age: u64) -> Value {
    request["age_ms"] = json!(age);
    request
}

async fn drain(scene: &Scene, pattern: &str) -> Result<DrainOrder> {
    let body = json!({ "pattern": pattern });
    let answer = scene.post("/workers/drain", &body).await?;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.json()
}

fn is_asked_to_leave(answer: &Answer) -> Result<()> {
    assert_eq!(answer.problem(410)?.kind, "urn:distci:draining");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_was_there_is_asked_to_leave_and_nobody_else() -> Result<()> {
    let scene = Scene::new();
    let order = drain(&scene, "build-*").await?;
    assert_eq!(order.pattern.as_str(), "build-*");
    let answer = scene.post("/claims", &aged("build-1", 60_000, 0)).await?;
    is_asked_to_leave(&answer)?;
    for other in [
        aged("test-1", 60_000, 0),
        // It began after the order.
        aged("build-1", 0, 0),
        // It would not understand.
        claim_request("build-1", &shell(&[]), 0),
    ] {
        let answer = scene.post("/claims", &other).await?;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{other}");
    }
    let answer = scene.post("/claims", &aged("build-1", u64::MAX, 0)).await?;
    is_asked_to_leave(&answer)
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_at_once_at_every_frontend() -> Result<()> {
    let simulator = Simulator::new(1, Faults::none(), clock());
    let blobs = Blobs::memory();
    let beside = || Scene::beside(simulator.session(), blobs.clone());
    let (here, there) = (beside(), beside());
    here.app.store.prepare(here.app.now()).await?;
    let begun = Instant::now();
    let order = async {
        sleep(Duration::from_secs(5)).await;
        drain(&here, "w?").await?;
        anyhow::Ok(())
    };
    let (w1, w2, w3) = (
        aged("w1", 1000, 25),
        aged("w2", 1000, 25),
        aged("w10", 1000, 25),
    );
    let told = async |scene: &Scene, request: &Value| {
        let answer = scene.post("/claims", request).await?;
        anyhow::Ok((answer, begun.elapsed().as_secs()))
    };
    let (w1, w2, w3, ()) = tokio::try_join!(
        told(&here, &w1),
        told(&there, &w2),
        told(&there, &w3),
        order
    )?;
    for (answer, after) in [w1, w2] {
        is_asked_to_leave(&answer)?;
        assert_eq!(after, 5);
    }
    assert_eq!((w3.0.status, w3.1), (StatusCode::NO_CONTENT, 25));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_made_is_told_before_the_order() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    scene.control().await?;
    let request = with_age(claim_again("r", "w", &shell(&[]), 30), 60_000);
    let claim: Claim = scene.post("/claims", &request).await?.json()?;
    let listed = async || {
        let workers: Vec<WorkerView> = scene.get("/workers").await?.json()?;
        let of_it = workers.into_iter().find(|view| view.worker.as_str() == "w");
        anyhow::Ok(of_it.map(|view| view.draining))
    };
    assert_eq!(listed().await?, Some(false));
    drain(&scene, "*").await?;
    assert_eq!(listed().await?, Some(true));
    // The answer was lost, and the same question finds it.
    let again: Claim = scene.post("/claims", &request).await?.json()?;
    assert_eq!(again.ticket, claim.ticket);
    scene.finish(&claim).await?;
    is_asked_to_leave(&scene.post("/claims", &request).await?)?;
    assert_eq!(listed().await?, None);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_no_pattern_is_refused() -> Result<()> {
    let scene = Scene::new();
    for bad in ["", "a/b", "[a]", "a b"] {
        let answer = scene
            .post("/workers/drain", &json!({ "pattern": bad }))
            .await?;
        assert!(answer.problem(400)?.detail.contains("pattern"), "{bad:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn orders_that_stand_are_told_newest_first() -> Result<()> {
    let scene = Scene::new();
    let first = drain(&scene, "old-*").await?;
    sleep(Duration::from_secs(1)).await;
    let then = drain(&scene, "new-*").await?;
    let told: Vec<DrainOrder> = scene.get("/workers/drain").await?.json()?;
    assert_eq!(told, [then, first]);
    Ok(())
}
