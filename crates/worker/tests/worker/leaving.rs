//! A worker that leaves: when it is stopped or asked to, after one ticket, when there is nothing to do.

use std::time::Duration;

use distci_model::capability::Kind;
use distci_model::outcome::Outcome;

use crate::Scene;
use crate::frontend::{Report, Stored};

#[tokio::test]
async fn a_worker_that_stops_gives_back_what_it_holds() {
    let mut scene = Scene::new().await;
    let ticket = scene.shell("echo ready; sleep 1000");
    scene.said(&ticket, "ready").await;
    scene.stop.cancel();
    assert!(matches!(
        scene.frontend.report(&ticket).await,
        Report::Released
    ));
    scene.left().await;
}

#[tokio::test]
async fn a_worker_for_one_ticket_leaves_after_it() {
    let mut scene = Scene::with(|settings| {
        settings.once = true;
        settings.slots = 4;
        settings.kinds = Kind::of_workers().collect();
    })
    .await;
    let ticket = scene.shell("true");
    scene.frontend.result(&ticket).await;
    scene.left().await;
    // It was over before it would have been worth a beat.
    assert_eq!(scene.frontend.stored().beats, 0);
}

#[tokio::test]
async fn an_idle_worker_leaves_and_one_at_work_is_not_idle() {
    let mut scene = Scene::with(|settings| {
        settings.idle = Some(Duration::from_secs(1));
        settings.slots = 4;
        settings.kinds = Kind::of_workers().collect();
    })
    .await;
    let ticket = scene.shell("sleep 2");
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(result.outcome, Outcome::Success);
    scene.left().await;
}

#[tokio::test]
async fn what_is_claimed_while_an_idle_worker_leaves_is_given_back() {
    let mut scene = Scene::with(|settings| settings.idle = Some(Duration::from_secs(1))).await;
    scene.frontend.stored().mute = true;
    let ticket = scene.shell("true");
    // The claim is made, and the worker never hears of it.
    let muted = |stored: &Stored| stored.muted.clone();
    assert_eq!(scene.frontend.until(muted).await, ticket);
    scene.frontend.stored().mute = false;
    let report = scene.frontend.report(&ticket).await;
    assert!(matches!(report, Report::Released));
    scene.left().await;
}

#[tokio::test]
async fn a_worker_that_is_asked_to_leave_finishes_what_it_holds() {
    let mut scene = Scene::with(|settings| {
        settings.slots = 3;
        settings.kinds = Kind::of_workers().collect();
    })
    .await;
    let go = scene.folder.path().join("go");
    let script = format!(
        "echo ready\nwhile ! [ -e {} ]; do sleep 0.02; done",
        go.display()
    );
    let (one, other) = (scene.shell(&script), scene.shell(&script));
    scene.said(&one, "ready").await;
    scene.said(&other, "ready").await;
    // The free slot is told, and all know.
    scene.frontend.drain();
    let late = scene.shell("true");
    std::fs::write(&go, "").unwrap();
    for ticket in [&one, &other] {
        let result = scene.frontend.result(ticket).await;
        assert_eq!(result.outcome, Outcome::Success);
    }
    scene.left().await;
    assert!(!scene.frontend.stored().reports.contains_key(&late));
}

#[tokio::test]
async fn what_was_claimed_for_a_worker_that_is_asked_to_leave_is_not_lost() {
    let mut scene = Scene::with(|settings| settings.slots = 2).await;
    scene.frontend.stored().mute = true;
    let ticket = scene.shell("true");
    scene.frontend.until(|stored| stored.muted.clone()).await;
    scene.frontend.stored().mute = false;
    // The other slot is told; this one asks for what its request has brought.
    scene.frontend.drain();
    assert!(matches!(
        scene.frontend.report(&ticket).await,
        Report::Released
    ));
    scene.left().await;
}
