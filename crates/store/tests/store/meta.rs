//! What every store says of itself, and who is refused by it.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use distci_store::coordination::simulator::Faults;
use distci_store::coordination::{Expect, Life, NodePath, Op};
use distci_store::{PrepareError, keys};

use crate::scene::{Scene, job};

#[tokio::test]
async fn a_store_is_made_once() -> Result<()> {
    let scene = Scene::embedded()?;
    let made = scene.store().prepare(scene.now()).await?;
    let nodes = scene.dump().await?;
    // `/meta`, thirteen trees, and the shards of nine of them.
    ensure!(nodes.len() == 1 + 13 + 9 * 256, "{} nodes", nodes.len());
    ensure!(made.cluster.len() == 32, "{made:?}");
    let again = scene.store().prepare(scene.now()).await?;
    ensure!(again == made && scene.dump().await? == nodes, "{again:?}");
    Ok(())
}

#[tokio::test]
async fn a_store_of_before_is_completed() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    let build = scene.post("j", "r").await?;
    scene.store().prepare(scene.now()).await?;
    ensure!(scene.dump().await?.len() > 1285);
    ensure!(scene.view(&build).await?.build == build);
    scene.check_index().await
}

#[tokio::test]
async fn a_store_of_a_version_with_fewer_trees_is_completed() -> Result<()> {
    let scene = Scene::embedded()?;
    let made = scene.store().prepare(scene.now()).await?;
    let nodes = scene.dump().await?;
    let newer: Vec<_> = nodes
        .keys()
        .rev()
        .filter(|path| path.starts_with("/d") || path.starts_with("/t"))
        .collect();
    for path in newer {
        let (path, expect) = (NodePath::parse(path)?, Expect::Any);
        scene.tree.commit(vec![Op::Delete { path, expect }]).await?;
    }
    ensure!(scene.store().list_timers().await?.is_empty());
    ensure!(scene.store().prepare(scene.now()).await? == made);
    ensure!(scene.dump().await?.len() == nodes.len());
    Ok(())
}

#[tokio::test]
async fn three_at_once_make_one_store() -> Result<()> {
    for seed in 0..50 {
        let scene = Scene::simulated(seed);
        scene.set_faults(Faults::hostile());
        let prepare = scene.stores.iter().map(|store| store.prepare(scene.now()));
        let made = futures::future::try_join_all(prepare)
            .await
            .with_context(|| format!("seed {seed}"))?;
        ensure!(
            made.iter().all(|meta| *meta == made[0]),
            "seed {seed}: {made:?}"
        );
        scene.set_faults(Faults::none());
        ensure!(scene.dump().await?.len() == 1 + 13 + 9 * 256, "seed {seed}");
    }
    Ok(())
}

async fn with_meta(text: &'static str) -> Result<PrepareError> {
    let scene = Scene::embedded()?;
    let create = Op::Create {
        path: keys::meta(),
        data: Bytes::from_static(text.as_bytes()),
        life: Life::Durable,
    };
    scene.tree.commit(vec![create]).await?;
    let refused = scene.store().prepare(scene.now()).await.err();
    ensure!(scene.dump().await?.len() == 1, "something was made");
    refused.context("it was not refused")
}

#[tokio::test]
async fn a_store_that_must_not_be_used_is_refused_untouched() -> Result<()> {
    let newer = with_meta(r#"{"schema":2,"cluster":{"of":"another form"}}"#).await?;
    ensure!(
        newer.to_string()
            == "this store was written by a newer version of DistCI (schema 2; this is 1): \
                upgrade distci",
        "{newer}"
    );
    let half = r#"{"schema":1,"cluster":"c","created":"2026-01-01T00:00:00Z","migrating":"d"}"#;
    let half = with_meta(half).await?;
    ensure!(matches!(half, PrepareError::Migrating), "{half}");
    let nonsense = with_meta("nonsense").await?;
    ensure!(matches!(nonsense, PrepareError::Store(_)), "{nonsense}");
    Ok(())
}
