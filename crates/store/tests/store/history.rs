//! Listings of more builds than a job's node remembers, and than one page holds.

use anyhow::Result;
use distci_model::id::{BuildNumber, BuildRef, JobKey};
use distci_model::outcome::Outcome;
use distci_model::wire::BuildPhase;
use distci_store::{StoreError, Which, keys};

use crate::scene::{Scene, exit, job, job_id};

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
    expected[40 - 21].1 = BuildPhase::Running;
    for page in [1, 7, 16, 100] {
        assert_eq!(listed(&scene, page).await?, expected, "pages of {page}");
    }
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
