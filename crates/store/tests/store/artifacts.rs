//! Layers, artifacts and summaries: fenced by attempt, seen once their task has ended.

use anyhow::Result;
use bytes::Bytes;
use distci_model::id::{BuildRef, TicketKey};
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::wire::{Artifact, ArtifactManifest, Claim};
use distci_store::{LayerOf, StoreError};
use futures::TryStreamExt;

use crate::scene::{Scene, job};

fn artifact(path: &str, content: &str) -> Artifact {
    Artifact {
        path: path.into(),
        bytes: content.len() as u64,
        digest: "ab".repeat(32),
        content_type: "text/plain".into(),
    }
}

fn upload(content: &str) -> impl distci_store::Upload + use<> {
    let pieces: Vec<_> = content
        .bytes()
        .map(|byte| Ok(Bytes::from(vec![byte])))
        .collect();
    futures::stream::iter(pieces)
}

async fn publish(
    scene: &Scene,
    claim: &Claim,
    path: &str,
    content: &str,
) -> Result<(), StoreError> {
    let (store, key, attempt) = (scene.store(), &claim.ticket, claim.attempt);
    let manifest = ArtifactManifest {
        artifacts: vec![artifact(path, content)],
    };
    store.put_artifact(key, attempt, 0, upload(content)).await?;
    store.put_artifact_manifest(key, attempt, &manifest).await?;
    store.put_summary(key, attempt, "said".into()).await
}

async fn content(scene: &Scene, build: &BuildRef, path: &str, from: u64) -> Result<String> {
    let found = scene.store().artifact(build, path).await?;
    let (_, pieces) = scene.store().open_artifact(&found, from).await?;
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    Ok(String::from_utf8(pieces.concat())?)
}

#[tokio::test]
async fn artifacts_are_seen_when_their_task_has_ended_and_stay() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a", "b"])).await?;
    let build = scene.post("j", "r").await?;
    let claim = scene.next_task().await?;
    publish(&scene, &claim, "out/x", "first").await?;
    assert_eq!(scene.store().artifacts(&build).await?, []);
    let result = TaskResult {
        artifacts: 1,
        ..TaskResult::of(Outcome::Success)
    };
    let (store, at) = (scene.store(), scene.now());
    store
        .complete(&claim.ticket, claim.attempt, &result, at)
        .await?;
    let second = scene.next_task().await?;
    assert_eq!(content(&scene, &build, "out/x", 0).await?, "first");
    // A later task publishes the same path: the last one counts.
    publish(&scene, &second, "out/x", "second").await?;
    store
        .complete(&second.ticket, second.attempt, &result, scene.now())
        .await?;
    scene.control().await?;
    assert_eq!(store.artifacts(&build).await?.len(), 2);
    let counting = store.stored_artifacts(&build).await?;
    let counting: Vec<_> = counting.iter().map(|one| &one.artifact.path).collect();
    assert_eq!(counting, ["out/x"]);
    assert_eq!(content(&scene, &build, "out/x", 0).await?, "second");
    assert_eq!(content(&scene, &build, "out/x", 5).await?, "d");
    assert_eq!(content(&scene, &build, "out/x", 99).await?, "");
    assert!(content(&scene, &build, "out", 0).await.is_err());
    assert_eq!(store.summary(&build, "a").await?, Some("said".into()));
    let none = store.summary(&build, "c").await;
    assert!(matches!(none, Err(StoreError::NotFound { .. })));
    Ok(())
}

#[tokio::test]
async fn a_zombie_stores_nothing_that_anybody_sees() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    let build = scene.post("j", "r").await?;
    let zombie = scene.next_task().await?;
    publish(&scene, &zombie, "x", "zombie").await?;
    scene
        .store()
        .put_layer(&zombie.ticket, zombie.attempt, upload("zombie"))
        .await?;
    scene
        .store()
        .expire(&zombie.ticket, zombie.attempt, scene.now())
        .await?;
    let (store, key) = (scene.store(), &zombie.ticket);
    let refused = [
        publish(&scene, &zombie, "x", "late").await,
        store
            .put_layer(key, zombie.attempt, upload("late"))
            .await
            .map(drop),
        store.put_summary(key, zombie.attempt, "late".into()).await,
        store
            .put_artifact_manifest(key, zombie.attempt, &ArtifactManifest::default())
            .await,
    ];
    for refused in refused {
        assert!(
            matches!(refused, Err(StoreError::AttemptOver { .. })),
            "{refused:?}"
        );
    }
    let claim = scene.next_task().await?;
    let of = |key: &TicketKey, attempt| LayerOf {
        key: key.clone(),
        attempt,
        build: None,
    };
    let missing = store.layer(&of(key, claim.attempt)).await.map(drop);
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "the zombie's layer"
    );
    scene.complete(&claim, Outcome::Success).await?;
    scene.control().await?;
    assert_eq!(store.artifacts(&build).await?, []);
    assert_eq!(store.summary(&build, "a").await?, None);
    Ok(())
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    scene.post("j", "r").await?;
    let claim = scene.next_task().await?;
    let broken = [Ok("half".into()), Err(std::io::Error::other("gone"))];
    let store = scene.store();
    let cut = store
        .put_layer(&claim.ticket, claim.attempt, futures::stream::iter(broken))
        .await;
    assert!(matches!(cut, Err(StoreError::Interrupted(_))), "{cut:?}");
    let of = LayerOf {
        key: claim.ticket.clone(),
        attempt: claim.attempt,
        build: None,
    };
    let missing = store.layer(&of).await.map(drop);
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    let far = store
        .put_artifact(&claim.ticket, claim.attempt, 10_000, upload("x"))
        .await;
    assert!(matches!(far, Err(StoreError::Refused { .. })));
    assert_eq!(
        store
            .put_layer(&claim.ticket, claim.attempt, upload(""))
            .await?,
        0
    );
    Ok(())
}
