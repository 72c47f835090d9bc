//! What workers and users may send without harm to anybody else: nothing that was accepted may keep
//! a build from ending.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use distci_model::build::Downstream;
use distci_model::id::RequestId;
use distci_model::outcome::{Failure, LayerRef, Outcome, TaskResult};
use distci_model::wire::{Artifact, ArtifactManifest, BuildPhase, Claim, MAX_SUMMARY, TaskState};
use distci_store::StoreError;
use serde_json::json;

use crate::scene::{Scene, job, job_id, shell};
use distci_store::coordination::simulator::Dice;

/// Text that does not compress.
fn noise(dice: &mut Dice, bytes: usize) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    (0..bytes)
        .map(|_| char::from(letters[dice.below(letters.len())]))
        .collect()
}

fn wide(name: &str, tasks: usize) -> serde_json::Value {
    let task = |task| {
        let mut written = shell(&format!("{task:03}-{}", "x".repeat(60)));
        written["needs"] = json!([]);
        written
    };
    json!({ "job_id": name, "tasks": (0..tasks).map(task).collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_build_whose_tasks_report_too_much_ends_and_says_so() -> Result<()> {
    let scene = Scene::simulated(1);
    scene.set_job(&wide("j", 32)).await?;
    let build = scene.post("j", "r").await?;
    let mut dice = Dice::new(1);
    scene.control().await?;
    while let Some(claim) = scene.claim(|entry| !entry.key.ticket.is_control()).await? {
        let mut result = TaskResult::of(Outcome::Success);
        result
            .exports
            .insert("NOISE".into(), noise(&mut dice, 8000));
        let at = scene.now();
        scene
            .store()
            .complete(&claim.ticket, claim.attempt, &result, at)
            .await?;
    }
    scene.control().await?;
    let view = scene.view(&build).await?;
    assert_eq!(view.phase, BuildPhase::Finished);
    let ended = |task: &distci_model::wire::TaskView| match &task.state {
        TaskState::Finished { run } => run.result.outcome.clone(),
        state => unreachable!("{state:?}"),
    };
    let outcomes: Vec<_> = view.tasks.iter().map(ended).collect();
    let good = outcomes
        .iter()
        .filter(|outcome| outcome.is_success())
        .count();
    assert_eq!(good, 4, "32 KiB hold four times 8000 bytes");
    let limited = outcomes.iter().filter(|outcome| {
        matches!(
            outcome,
            Outcome::Failure {
                reason: Failure::LimitExceeded { .. }
            }
        )
    });
    assert_eq!(limited.count(), 28);
    scene.check_swept().await
}

fn with_parameters(name: &str, downstream: &[String]) -> serde_json::Value {
    let mut config = job(name, &["a"]);
    let parameters: BTreeMap<_, _> = (0..64)
        .map(|number| (format!("P{number}"), json!({ "default": "" })))
        .collect();
    config["parameters"] = json!(parameters);
    config["downstream_jobs"] = json!(downstream);
    config
}

#[tokio::test]
async fn parameters_have_a_limit_and_travel_downstream_however_many_jobs_there_are() -> Result<()> {
    let scene = Scene::simulated(1);
    let names: Vec<_> = (0..8).map(|number| format!("down{number}")).collect();
    for name in &names {
        scene.set_job(&with_parameters(name, &[])).await?;
    }
    scene.set_job(&with_parameters("up", &names)).await?;
    let mut dice = Dice::new(1);
    let mut given: BTreeMap<_, _> = (0..64)
        .map(|number| (format!("P{number}"), noise(&mut dice, 256)))
        .collect();
    let (up, request) = (job_id("up"), RequestId::derive("r"));
    let post = scene.store().post_build(&up, &request, &given, scene.now());
    let build = post.await?.build().context("skipped")?;
    scene.run_all(&Outcome::Success).await?;
    let downstream = scene.view(&build).await?.downstream;
    assert_eq!(downstream.len(), 8);
    for made in downstream {
        let Downstream::Triggered { build } = made else {
            anyhow::bail!("{made:?}");
        };
        assert_eq!(scene.view(&build).await?.parameters, given);
    }
    given.insert("P0".into(), "x".repeat(257));
    let request = RequestId::derive("s");
    let refused = scene
        .store()
        .post_build(&up, &request, &given, scene.now())
        .await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_result_too_large_for_a_commit_is_refused_as_such() -> Result<()> {
    let (scene, claim) = claimed().await?;
    let mut dice = Dice::new(1);
    let mut result = TaskResult::of(Outcome::Success);
    result.exports.insert("X".into(), noise(&mut dice, 300_000));
    let refused = complete(&scene, &claim, &result).await;
    assert!(
        matches!(refused, Err(StoreError::TooLarge { .. })),
        "{refused:?}"
    );
    Ok(())
}

async fn claimed() -> Result<(Scene, Claim)> {
    let scene = Scene::simulated(1);
    scene.set_job(&job("j", &["a"])).await?;
    scene.post("j", "r").await?;
    let claim = scene.next_task().await?;
    Ok((scene, claim))
}

async fn complete(scene: &Scene, claim: &Claim, result: &TaskResult) -> Result<(), StoreError> {
    let at = scene.now();
    scene
        .store()
        .complete(&claim.ticket, claim.attempt, result, at)
        .await
}

#[tokio::test]
async fn a_result_refers_only_to_what_its_own_attempt_stored() -> Result<()> {
    let (scene, claim) = claimed().await?;
    let layer = LayerRef {
        ticket: claim.ticket.ticket.clone(),
        attempt: claim.attempt,
        build: None,
        bytes: 3,
    };
    let good = TaskResult {
        layer: Some(layer.clone()),
        ..TaskResult::of(Outcome::Success)
    };
    let foreign = LayerRef {
        attempt: claim.attempt.next(),
        build: None,
        ..layer
    };
    let foreign = TaskResult {
        layer: Some(foreign),
        ..good.clone()
    };
    let phantom = TaskResult {
        artifacts: 1,
        ..TaskResult::of(Outcome::Success)
    };
    // None is stored yet.
    for bad in [&good, &foreign, &phantom] {
        let refused = complete(&scene, &claim, bad).await;
        assert!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{refused:?}"
        );
    }
    let bytes = futures::stream::iter([Ok("abc".into())]);
    scene
        .store()
        .put_layer(&claim.ticket, claim.attempt, bytes)
        .await?;
    let refused = complete(&scene, &claim, &foreign).await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    complete(&scene, &claim, &good).await?;
    complete(&scene, &claim, &good)
        .await
        .context("a repetition")
}

#[tokio::test]
async fn a_manifest_names_plain_paths_once_with_digests_and_types() -> Result<()> {
    let (scene, claim) = claimed().await?;
    let good = Artifact {
        path: "out/a b.txt".into(),
        bytes: 1,
        digest: "0".repeat(64),
        content_type: "text/plain; charset=utf-8".into(),
    };
    let put = async |artifacts: Vec<Artifact>| {
        let manifest = ArtifactManifest { artifacts };
        let store = scene.store();
        store
            .put_artifact_manifest(&claim.ticket, claim.attempt, &manifest)
            .await
    };
    for path in [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/",
        "a\0b",
    ] {
        let bad = Artifact {
            path: path.into(),
            ..good.clone()
        };
        let refused = put(vec![bad]).await;
        assert!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{path:?} was accepted"
        );
    }
    let digest = Artifact {
        digest: "x\r\nSet-Cookie: a".into(),
        ..good.clone()
    };
    let media = Artifact {
        content_type: "a\nb".into(),
        ..good.clone()
    };
    for bad in [vec![digest], vec![media], vec![good.clone(), good.clone()]] {
        assert!(matches!(put(bad).await, Err(StoreError::Refused { .. })));
    }
    put(vec![good]).await?;
    let long = vec![b'x'; MAX_SUMMARY + 1].into();
    let refused = scene
        .store()
        .put_summary(&claim.ticket, claim.attempt, long)
        .await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    Ok(())
}
