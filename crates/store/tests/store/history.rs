//! Listings of more builds than a job's node remembers, and than one page holds.

use std::pin::pin;

use anyhow::{Context, Result, ensure};
use distci_model::id::{BuildNumber, BuildRef, JobKey};
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildPhase, CommitReply, Work};
use distci_store::coordination::simulator::{Faults, PerMille};
use distci_store::{StoreError, Which, keys};
use futures::poll;

use crate::scene::{Scene, decision, exit, job, job_id};

async fn listed(scene: &Scene, page: usize) -> Result<Vec<(u64, BuildPhase)>> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let listed = scene
            .store()
            .list_builds(&job_id("j"), before, page)
            .await?;
        all.extend(
            listed
                .items
                .iter()
                .map(|item| (item.number.get(), item.phase)),
        );
        let Some(next) = listed.next else {
            return Ok(all);
        };
        before = next.parse().ok().and_then(BuildNumber::new);
        assert!(before.is_some(), "{next:?} is no cursor");
    }
}

fn finished(numbers: std::ops::RangeInclusive<u64>) -> Vec<(u64, BuildPhase)> {
    numbers
        .rev()
        .map(|number| (number, BuildPhase::Finished))
        .collect()
}

#[tokio::test]
async fn every_build_is_listed_once_whatever_the_page() -> Result<()> {
    let scene = Scene::simulated(1);
    scene.set_job(&job("j", &["a"])).await?;
    assert_eq!(listed(&scene, 7).await?, []);
    for number in 0..40 {
        scene.post("j", &number.to_string()).await?;
        // One stays active among those that are archived.
        if number != 20 {
            let claim = newest(&scene).await?;
            scene.complete(&claim, Outcome::Success).await?;
            scene.control().await?;
        }
    }
    let mut expected = finished(1..=40);
    // Its task is posted and nobody has claimed it.
    expected[40 - 21].1 = BuildPhase::Queued;
    for page in [1, 7, 16, 100] {
        assert_eq!(listed(&scene, page).await?, expected, "pages of {page}");
    }
    newest(&scene).await?;
    expected[40 - 21].1 = BuildPhase::Running;
    assert_eq!(listed(&scene, 7).await?, expected);
    Ok(())
}

/// The task of the build that was posted last.
async fn newest(scene: &Scene) -> Result<distci_model::wire::Claim> {
    scene.control().await?;
    let last = scene
        .queue()
        .await?
        .into_iter()
        .map(|entry| entry.stamp)
        .max();
    let claim = scene.claim(|entry| Some(entry.stamp) == last).await?;
    claim.ok_or_else(|| anyhow::anyhow!("nothing is queued"))
}

#[tokio::test]
async fn a_full_page_is_written_once_and_read_back() -> Result<()> {
    let scene = Scene::simulated(1);
    scene.set_job(&job("j", &["a"])).await?;
    for number in 0..275_u32 {
        scene.post("j", &number.to_string()).await?;
        let outcome = if number == 3 {
            Outcome::Success
        } else {
            exit(1)
        };
        scene.run_all(&outcome).await?;
    }
    let page = keys::history_page(&JobKey::derive(&job_id("j"), 0), 0);
    assert_eq!(scene.blobs.head(&page).await?, None);
    assert_eq!(listed(&scene, 100).await?, finished(1..=275));
    let written = scene.blobs.get(&page, 1 << 20).await?;
    assert!(written.is_some(), "a page of archived builds was not kept");
    // What the page says counts from now on: no record of it is read again.
    let record = keys::record(&JobKey::derive(&job_id("j"), 0), BuildNumber::FIRST);
    scene.blobs.delete_prefix(&record).await?;
    assert_eq!(listed(&scene, 100).await?, finished(1..=275));
    Ok(())
}

#[tokio::test]
async fn the_latest_success_is_found_behind_any_number_of_failures() -> Result<()> {
    let scene = Scene::simulated(1);
    scene.set_job(&job("j", &["a"])).await?;
    let (store, id) = (scene.store(), job_id("j"));
    let none = store.latest_build(&id, Which::Any).await;
    assert!(matches!(none, Err(StoreError::NotFound { .. })));
    for number in 0..40 {
        scene.post("j", &number.to_string()).await?;
        let outcome = if number == 2 {
            Outcome::Success
        } else {
            exit(1)
        };
        scene.run_all(&outcome).await?;
    }
    let active = scene.post("j", "active").await?;
    assert_eq!(store.latest_build(&id, Which::Any).await?, active);
    let success = store.latest_build(&id, Which::Successful).await?;
    let expected = BuildRef {
        job: id,
        number: BuildNumber::FIRST.next().next(),
    };
    assert_eq!(success, expected);
    Ok(())
}

#[tokio::test]
async fn a_build_that_ends_while_it_is_listed_is_not_left_out() -> Result<()> {
    for polls in [0, 40, 60, 80, 200] {
        let scene = Scene::simulated(1);
        scene.set_job(&job("j", &["a"])).await?;
        let mut slow = None;
        for number in 0..80 {
            scene.post("j", &number.to_string()).await?;
            let claim = scene.next_task().await?;
            if number == 20 {
                slow = Some(claim);
                continue;
            }
            scene.complete(&claim, Outcome::Success).await?;
            scene.control().await?;
        }
        let slow = slow.context("none is slow")?;
        scene.complete(&slow, Outcome::Success).await?;
        let control = scene.claim(|entry| entry.key.ticket.is_control()).await?;
        let control = control.context("nothing to decide")?;
        let Work::Control { order } = &control.work else {
            anyhow::bail!("a control ticket asks for a task");
        };
        // Every read lets others go first sixteen times: so many polls are some reads.
        scene.set_faults(Faults {
            delay: PerMille(1000),
            ..Faults::none()
        });
        let mut listing = pin!(listed(&scene, 100));
        for _ in 0..polls {
            ensure!(poll!(listing.as_mut()).is_pending(), "listed too soon");
        }
        scene.set_faults(Faults::none());
        let (ticket, attempt, last) = (&control.ticket, control.attempt, decision(order));
        let end = scene.store().commit(ticket, attempt, &last, scene.now());
        assert!(matches!(end.await?, CommitReply::Over));
        let numbers: Vec<u64> = listing.await?.iter().map(|(number, _)| *number).collect();
        let expected: Vec<u64> = (1..=80).rev().collect();
        assert_eq!(numbers, expected, "after {polls} polls");
    }
    Ok(())
}
