//! A store copied into another: everything is there, and goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use distci_model::id::{BuildNumber, BuildRef, JobKey};
use distci_model::outcome::Outcome;
use distci_model::wire::BuildPhase;
use distci_store::coordination::simulator::Faults;
use distci_store::{Copied, Mending, MigrateError, PrepareError, Store, keys};

use crate::scene::{Scene, job, job_id};

async fn migrate(from: &Scene, to: &Store) -> Result<Copied, MigrateError> {
    from.store().migrate(to, from.now(), &|_| ()).await
}

/// A store with a finished build, one that runs, one that is asked to stop, one that waits.
async fn busy() -> Result<(Scene, Vec<BuildRef>)> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a", "b"])).await?;
    scene.set_job(&job("gone", &["a"])).await?;
    scene.store().remove_job(&job_id("gone")).await?;
    let mut builds = vec![scene.post("j", "finished").await?];
    scene.run_all(&Outcome::Success).await?;
    builds.push(scene.post("j", "runs").await?);
    let first = scene.next_task().await?;
    scene.complete(&first, Outcome::Success).await?;
    scene.next_task().await?;
    builds.push(scene.post("j", "cancelled").await?);
    scene.control().await?;
    scene.store().cancel_build(&builds[2], scene.now()).await?;
    builds.push(scene.post("j", "waits").await?);
    scene.store().drain(&"w*".parse()?, scene.now()).await?;
    Ok((scene, builds))
}

async fn clean(store: &Store) -> Result<()> {
    let checkup = store.fsck(Mending::Look, Duration::from_millis(1)).await?;
    ensure!(checkup.findings.is_empty(), "{checkup:?}");
    Ok(())
}

#[tokio::test]
async fn everything_is_copied_and_goes_on() -> Result<()> {
    for seed in 0..10 {
        let (from, builds) = busy().await?;
        let to = Scene::simulated(seed);
        to.set_faults(Faults::hostile());
        let copied = migrate(&from, &to.stores[1]).await?;
        to.set_faults(Faults::none());
        ensure!(
            (copied.jobs, copied.builds, copied.tickets) == (2, 3, 2),
            "{copied:?}"
        );
        clean(to.store()).await?;
        let meta = from.store().prepare(from.now()).await?;
        ensure!(to.store().prepare(to.now()).await? == meta);
        ensure!(to.store().drains().await? == from.store().drains().await?);
        for build in &builds {
            ensure!(to.view(build).await? == from.view(build).await?, "{build}");
        }
        let history = |scene: &Scene| {
            let store = scene.store().clone();
            async move { store.list_builds(&job_id("j"), None, 100).await }
        };
        ensure!(history(&from).await?.items == history(&to).await?.items);
        // The worker that held it is not there any more.
        for name in to.store().list_claims().await? {
            if let distci_model::ticket::IndexName::Claim(claim) = name {
                to.store()
                    .expire(&claim.key, claim.attempt, to.now())
                    .await?;
            }
        }
        to.run_all(&Outcome::Success).await?;
        for build in &builds {
            ensure!(
                to.view(build).await?.phase == BuildPhase::Finished,
                "{build}"
            );
        }
        let next = to.post("j", "after").await?;
        ensure!(next.number.get() == 5, "{next}");
        // A trigger that the source has answered is not done twice.
        ensure!(to.post("j", "waits").await? == builds[3]);
        to.run_all(&Outcome::Success).await?;
        clean(to.store()).await?;
        to.check_swept().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_off_copy_goes_on_and_nobody_starts_on_it() -> Result<()> {
    let (from, _) = busy().await?;
    let to = Scene::simulated(1);
    // Dropped in the middle, as a kill does, further on each time.
    let mut tries = 0_usize;
    loop {
        let mut polls = 0;
        let copy = migrate(&from, to.store());
        let copy = futures::future::poll_fn({
            let mut copy = Box::pin(copy);
            move |context| {
                polls += 1;
                if polls > 1 + tries {
                    return std::task::Poll::Ready(None);
                }
                copy.as_mut().poll(context).map(Some)
            }
        });
        match copy.await {
            Some(copied) => {
                copied?;
                break;
            }
            None if to.tree.get(&keys::meta()).await?.is_some() => {
                let refused = to.store().prepare(to.now()).await;
                ensure!(
                    matches!(refused, Err(PrepareError::Migrating)),
                    "{refused:?}"
                );
            }
            None => {}
        }
        tries += 1;
    }
    ensure!(tries > 0, "it was never broken off");
    clean(to.store()).await?;
    let again = migrate(&from, to.store()).await?;
    ensure!(again == Copied::default(), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn another_stores_place_is_refused() -> Result<()> {
    let (from, _) = busy().await?;
    let other = Scene::simulated(1);
    other.store().prepare(other.now()).await?;
    let refused = migrate(&from, other.store()).await.err();
    ensure!(
        matches!(refused, Some(MigrateError::Taken { .. })),
        "{refused:?}"
    );

    let strange = Scene::simulated(2);
    strange.set_job(&job("k", &["a"])).await?;
    let refused = migrate(&from, strange.store()).await.err();
    ensure!(
        matches!(refused, Some(MigrateError::Strange { .. })),
        "{refused:?}"
    );

    let bucket = Scene::simulated(3);
    let blob = keys::record(&JobKey::derive(&job_id("j"), 0), BuildNumber::FIRST);
    bucket.blobs.put(&blob, Bytes::from_static(b"x")).await?;
    let refused = migrate(&from, bucket.store())
        .await
        .err()
        .context("it was not refused")?;
    ensure!(refused.to_string().contains("record"), "{refused}");
    Ok(())
}
