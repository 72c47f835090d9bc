//! Builds over HTTP: looked at, waited for, followed.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use distci_model::wire::{BuildPhase, BuildSummary, BuildView, Page};
use serde_json::json;
use tokio::time::Instant;

use super::scene::Scene;

const BUILD: &str = "/jobs/j/builds/1";

#[tokio::test(start_paused = true)]
async fn a_view_is_held_until_it_differs_from_what_was_seen() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let first = scene.get(BUILD).await?;
    let tag = first.header("etag").trim_matches('"').to_owned();
    assert_eq!(first.json::<BuildView>()?.phase, BuildPhase::Queued);
    // Another picture than the present one is answered at once.
    let start = Instant::now();
    scene.get(&format!("{BUILD}?wait=30&seen=other")).await?;
    assert_eq!(start.elapsed(), Duration::ZERO);
    let same = scene.get(&format!("{BUILD}?wait=4&seen={tag}")).await?;
    assert_eq!(
        (
            same.header("etag").trim_matches('"'),
            start.elapsed().as_secs()
        ),
        (&*tag, 4)
    );
    let work = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        scene.task().await
    };
    let (start, seen) = (Instant::now(), format!("{BUILD}?wait=30&seen={tag}"));
    let (changed, claim) = tokio::try_join!(scene.get(&seen), work)?;
    assert_ne!(changed.header("etag").trim_matches('"'), tag);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    scene.finish(&claim).await?;
    let over: BuildView = scene.get(BUILD).await?.json()?;
    assert_eq!(over.phase, BuildPhase::Finished);
    let state: BuildSummary = scene.get(&format!("{BUILD}/state")).await?.json()?;
    assert_eq!(state.outcome, over.outcome);
    let state: BuildSummary = scene
        .get("/jobs/j/builds/latest-success/state")
        .await?
        .json()?;
    assert_eq!(state.number.get(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_build_lead_to_its_end() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let work = async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        let claim = scene.task().await?;
        tokio::time::sleep(Duration::from_mins(1)).await;
        scene.finish(&claim).await
    };
    let path = format!("{BUILD}/events");
    let (events, ()) = tokio::try_join!(scene.get(&path), work)?;
    assert_eq!(events.status, StatusCode::OK);
    let text = String::from_utf8(events.body.to_vec())?;
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let views: Vec<BuildView> = data
        .map(|data| serde_json::from_str(data.trim_start()))
        .collect::<Result<_, _>>()?;
    let phases: Vec<_> = views.iter().map(|view| view.phase).collect();
    assert_eq!(phases.first(), Some(&BuildPhase::Queued));
    assert!(phases.contains(&BuildPhase::Running), "{phases:?}");
    let (last, rest) = phases.split_last().context("no views")?;
    assert_eq!(*last, BuildPhase::Finished);
    assert!(!rest.contains(&BuildPhase::Finished));
    let seen = views.windows(2).all(|two| two[0] != two[1]);
    assert!(seen, "the same view twice");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn two_hundred_readers_hear_of_the_end() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    let tag = scene
        .get(BUILD)
        .await?
        .header("etag")
        .trim_matches('"')
        .to_owned();
    let path = format!("{BUILD}?wait=30&seen={tag}");
    let readers = futures::future::try_join_all((0..200).map(|_| scene.get(&path)));
    let finish = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.finish(&claim).await
    };
    let start = Instant::now();
    let (answers, ()) = tokio::try_join!(readers, finish)?;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer.header("etag").trim_matches('"') != tag)
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn builds_are_listed_latest_first_in_pages() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    for _ in 0..4 {
        scene.trigger("j").await?;
    }
    let mut numbers = Vec::new();
    let mut path = "/jobs/j/builds?limit=2".to_owned();
    loop {
        let page: Page<BuildSummary> = scene.get(&path).await?.json()?;
        numbers.extend(page.items.iter().map(|item| item.number.get()));
        let Some(next) = page.next else { break };
        path = format!("/jobs/j/builds?limit=2&cursor={next}");
    }
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    for _ in 0..2 {
        let cancelled = scene.post("/jobs/j/builds/5/cancel", &json!({})).await?;
        assert_eq!(cancelled.status, StatusCode::ACCEPTED);
    }
    scene.control().await?;
    let view: BuildView = scene.get("/jobs/j/builds/5").await?.json()?;
    assert!(
        view.cancelled && view.phase == BuildPhase::Finished,
        "{view:?}"
    );
    scene
        .post("/jobs/j/builds/6/cancel", &json!({}))
        .await?
        .problem(404)?;
    Ok(())
}
