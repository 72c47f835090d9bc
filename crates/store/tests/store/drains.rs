//! Drain orders: each is there once, and no more of them than can be looked at.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_model::Timestamp;
use distci_model::drain::DrainOrder;
use distci_store::coordination::simulator::Faults;
use distci_store::{DrainNews, Mending, Store, StoreError};
use futures::future::try_join_all;

use crate::scene::Scene;

const DAY: Duration = Duration::from_hours(24);

async fn drain(scene: &Scene, pattern: &str, at: Timestamp) -> Result<DrainOrder> {
    Ok(scene.store().drain(&pattern.parse()?, at).await?)
}

async fn patterns(scene: &Scene) -> Result<Vec<String>> {
    let orders = scene.store().drains().await?;
    Ok(orders.iter().map(|one| one.pattern.to_string()).collect())
}

async fn clean(scene: &Scene) -> Result<()> {
    let moment = Duration::from_millis(1);
    let checkup = scene.store().fsck(Mending::Look, moment).await?;
    ensure!(checkup.findings.is_empty(), "{checkup:?}");
    Ok(())
}

#[tokio::test]
async fn a_later_order_takes_the_place_of_an_earlier_one() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    let begun = scene.now();
    let first = drain(&scene, "a*", begun).await?;
    drain(&scene, "b", begun + DAY).await?;
    ensure!(scene.store().drains().await?.first() == Some(&first));
    let later = drain(&scene, "a*", begun + 2 * DAY).await?;
    ensure!(later.at > first.at);
    // Who was there before, was there then.
    ensure!(drain(&scene, "a*", begun + DAY).await? == later);
    ensure!(patterns(&scene).await? == ["b", "a*"]);
    drain(&scene, "c", begun + 31 * DAY).await?;
    ensure!(patterns(&scene).await? == ["b", "a*", "c"], "30 days");
    drain(&scene, "d", begun + 33 * DAY).await?;
    ensure!(patterns(&scene).await? == ["c", "d"], "are over");
    clean(&scene).await
}

#[tokio::test]
async fn there_are_never_too_many() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    let begun = scene.now();
    for number in 0..1000 {
        drain(&scene, &format!("w{number}"), begun).await?;
    }
    let refused = scene.store().drain(&"w*".parse()?, begun).await;
    ensure!(
        matches!(&refused, Err(StoreError::Refused { detail }) if detail.contains("1000")),
        "{refused:?}"
    );
    // That is no order more.
    drain(&scene, "w7", begun + DAY).await?;
    // More are over than one commit takes away.
    for days in 40..52 {
        drain(&scene, "w*", begun + days * DAY).await?;
    }
    ensure!(patterns(&scene).await? == ["w*"]);
    clean(&scene).await
}

#[tokio::test]
async fn an_order_is_heard_by_all_and_outlives_lost_answers() -> Result<()> {
    for seed in 0..20 {
        let scene = Scene::simulated(seed);
        scene.store().prepare(scene.now()).await?;
        let mut watches: Vec<_> = scene.stores.iter().map(Store::watch_drains).collect();
        scene.set_faults(Faults::hostile());
        let at = scene.now();
        let pattern = "w-*".parse()?;
        let orders = scene.stores.iter().map(|store| store.drain(&pattern, at));
        let orders = try_join_all(orders).await?;
        scene.set_faults(Faults::none());
        ensure!(scene.store().drains().await? == orders[..1], "seed {seed}");
        for (watch, store) in watches.iter_mut().zip(&scene.stores) {
            let news = tokio::time::timeout(Duration::from_mins(1), watch.next()).await;
            match news?.context("the store is there")? {
                DrainNews::Given(order) => ensure!(order == orders[0], "seed {seed}"),
                DrainNews::Gap => {
                    store.catch_up().await?;
                    ensure!(store.drains().await? == orders[..1], "seed {seed}");
                }
                news @ DrainNews::Gone(_) => anyhow::bail!("seed {seed}: {news:?}"),
            }
        }
        clean(&scene).await?;
    }
    Ok(())
}
