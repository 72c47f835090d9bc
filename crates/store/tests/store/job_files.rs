//! Builds that read their tasks from a file: what was read is laid once, and only if the job lets it.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use distci_model::build::Progress;
use distci_model::id::BuildRef;
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::wire::{
    Artifact, ArtifactManifest, BuildPhase, Claim, CommitReply, ControlOrder, Work,
};
use distci_store::StoreError;
use serde_json::json;

use crate::scene::{Scene, decision, shell};

const READ: &str = r#"{"tasks": [{"type": "execute-shell", "name": "one", "params": {"script": "true"}},
    {"type": "execute-shell", "name": "two", "params": {"script": "true"}}]}"#;

async fn begin(scene: &Scene) -> Result<(BuildRef, Claim)> {
    let job = json!({ "job_id": "j", "job_file": { "repository": "r", "labels": ["linux"] } });
    scene.set_job(&job).await?;
    let build = scene.post("j", "r").await?;
    Ok((build, scene.next_task().await?))
}

/// Hands back what was read, under this name.
async fn hand_back(scene: &Scene, claim: &Claim, (name, text): (&str, &str)) -> Result<()> {
    let (store, key, attempt) = (scene.store(), &claim.ticket, claim.attempt);
    let artifact = Artifact {
        path: name.into(),
        bytes: text.len() as u64,
        digest: "ab".repeat(32),
        content_type: "application/json".into(),
    };
    let manifest = ArtifactManifest {
        artifacts: vec![artifact],
    };
    let bytes = futures::stream::iter([Ok(Bytes::from(text.to_owned()))]);
    store.put_artifact(key, attempt, 0, bytes).await?;
    store.put_artifact_manifest(key, attempt, &manifest).await?;
    let result = TaskResult {
        artifacts: 1,
        ..TaskResult::of(Outcome::Success)
    };
    Ok(store.complete(key, attempt, &result, scene.now()).await?)
}

async fn control(scene: &Scene) -> Result<(Claim, ControlOrder)> {
    let claim = scene.claim(|entry| entry.key.ticket.is_control()).await?;
    let claim = claim.context("no build asks for a decision")?;
    let Work::Control { order } = &claim.work else {
        anyhow::bail!("a control ticket asks for a task");
    };
    let order = (**order).clone();
    Ok((claim, order))
}

fn names(view: &distci_model::wire::BuildView) -> Vec<&str> {
    view.tasks.iter().map(|task| task.name.as_str()).collect()
}

#[tokio::test]
async fn what_was_read_is_laid_once_whoever_dies() -> Result<()> {
    for scene in [Scene::embedded()?, Scene::simulated(7)] {
        let (build, claim) = begin(&scene).await?;
        let (store, now) = (scene.store(), || scene.now());
        ensure!(names(&scene.view(&build).await?) == ["job-file"]);
        hand_back(&scene, &claim, ("job.json", READ)).await?;
        // The first dies with the order in its hands: what it saw is stored, and nobody refers to it.
        let (first, order) = control(&scene).await?;
        ensure!(order.config.tasks.len() == 3, "{order:?}");
        store.release(&first.ticket, first.attempt, now()).await?;
        ensure!(names(&scene.view(&build).await?) == ["job-file"]);
        // The second commits, twice.
        let (second, again) = control(&scene).await?;
        ensure!(again.build.config == order.build.config);
        let request = decision(&again);
        for store in &scene.stores {
            let commit = store.commit(&second.ticket, second.attempt, &request, now());
            ensure!(commit.await? == CommitReply::Over);
        }
        // The first comes back, late.
        let request = decision(&order);
        let late = store.commit(&first.ticket, first.attempt, &request, now());
        match late.await {
            Err(StoreError::AttemptOver { .. }) | Ok(CommitReply::Over) => {}
            other => anyhow::bail!("{other:?}"),
        }
        let view = scene.view(&build).await?;
        ensure!(names(&view) == ["job-file", "one", "two"], "{view:?}");
        scene.run_all(&Outcome::Success).await?;
        let view = scene.view(&build).await?;
        ensure!(view.outcome == Some(Outcome::Success), "{view:?}");
        scene.check_swept().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_word_of_a_worker_is_not_enough() -> Result<()> {
    let greedy = READ.replace(
        r#""script": "true""#,
        r#""script": "true", "nodelabels": ["big"]"#,
    );
    let triggers = READ.replace(
        "\"tasks\"",
        "\"triggers\": [{\"cron\": \"@daily\"}], \"tasks\"",
    );
    let include = READ.replace("\"tasks\"", "\"include\": [\"more.json\"], \"tasks\"");
    for (name, text, said) in [
        (
            "job.json",
            greedy.as_str(),
            "the job does not allow \"big\"",
        ),
        ("job.json", &triggers, "only the stored job has this key"),
        ("job.json", &include, "not resolved"),
        ("job.json", "{", "job.json:1:"),
        ("other.json", READ, "handed back no job.json"),
    ] {
        let scene = Scene::embedded()?;
        let (build, claim) = begin(&scene).await?;
        hand_back(&scene, &claim, (name, text)).await?;
        scene.control().await?;
        let view = scene.view(&build).await?;
        ensure!(
            view.phase == BuildPhase::Finished && view.tasks.len() == 1,
            "{view:?}"
        );
        let state = serde_json::to_string(&view.tasks[0].state)?;
        let said = serde_json::to_string(said)?;
        ensure!(state.contains(said.trim_matches('"')), "{said}: {state}");
    }
    let scene = Scene::embedded()?;
    let (build, claim) = begin(&scene).await?;
    scene.complete(&claim, Outcome::Success).await?;
    scene.control().await?;
    let view = scene.view(&build).await?;
    ensure!(view.outcome.is_some_and(|outcome| !outcome.is_success()));
    Ok(())
}

#[tokio::test]
async fn a_decision_on_other_tasks_is_made_anew() -> Result<()> {
    let scene = Scene::embedded()?;
    let (_, claim) = begin(&scene).await?;
    hand_back(&scene, &claim, ("job.json", READ)).await?;
    let (control, order) = control(&scene).await?;
    for tasks in [1, 2, 4] {
        let mut request = decision(&order);
        request.decision.post.clear();
        request
            .decision
            .checkpoint
            .tasks
            .resize(tasks, Progress::Waiting);
        let store = scene.store();
        let commit = store.commit(&control.ticket, control.attempt, &request, scene.now());
        let CommitReply::Again { order: next } = commit.await? else {
            anyhow::bail!("it was committed");
        };
        ensure!(next.build == order.build, "{next:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_job_that_changes_meanwhile_is_judged_as_it_was() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, claim) = begin(&scene).await?;
    scene
        .set_job(&json!({ "job_id": "j", "tasks": [shell("other")] }))
        .await?;
    let linux = READ.replace(
        r#""script": "true""#,
        r#""script": "true", "nodelabels": ["linux"]"#,
    );
    hand_back(&scene, &claim, ("job.json", &linux)).await?;
    scene.run_all(&Outcome::Success).await?;
    let view = scene.view(&build).await?;
    ensure!(names(&view) == ["job-file", "one", "two"], "{view:?}");
    ensure!(view.outcome == Some(Outcome::Success), "{view:?}");
    Ok(())
}
