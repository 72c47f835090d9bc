//! Answers, single tasks that are cancelled, and builds that go on where another ended.

use anyhow::{Context, Result};
use distci_model::build::{Answer, Skip};
use distci_model::id::{BuildRef, RequestId, TaskName};
use distci_model::outcome::{Failure, Outcome};
use distci_model::rerun::Again;
use distci_model::wire::{BuildPhase, TaskState};
use distci_store::StoreError;
use serde_json::{Value, json};

use crate::scene::{Scene, exit, job, shell};

#[expect(clippy::unwrap_used, reason = "a name written in a test is a name")]
fn task(name: &str) -> TaskName {
    name.parse().unwrap()
}

fn asking(name: &str) -> Value {
    let ask = json!({"type": "approve", "name": "ask", "params": {"message": "deploy?"}});
    json!({ "job_id": name, "tasks": [shell("a"), ask, shell("b")] })
}

fn answer(scene: &Scene, approved: bool) -> Answer {
    Answer {
        approved,
        comment: "because".to_owned(),
        at: scene.now(),
    }
}

async fn asked(scene: &Scene) -> Result<BuildRef> {
    scene.set_job(&asking("j")).await?;
    let build = scene.post("j", "1").await?;
    let (ask, yes) = (task("ask"), answer(scene, true));
    let early = scene.store().answer_task(&build, &ask, &yes).await;
    assert!(
        matches!(early, Err(StoreError::Refused { .. })),
        "{early:?}"
    );
    scene.run_all(&Outcome::Success).await?;
    let view = scene.view(&build).await?;
    assert!(
        matches!(view.tasks[1].state, TaskState::Asking { .. }),
        "{view:?}"
    );
    assert_eq!(view.phase, BuildPhase::Running);
    Ok(build)
}

#[tokio::test]
async fn an_approved_build_goes_on_once() -> Result<()> {
    let scene = Scene::embedded()?;
    let build = asked(&scene).await?;
    let (store, ask) = (scene.store(), task("ask"));
    store
        .answer_task(&build, &ask, &answer(&scene, true))
        .await?;
    store
        .answer_task(&build, &ask, &answer(&scene, true))
        .await?;
    let other = store
        .answer_task(&build, &ask, &answer(&scene, false))
        .await;
    assert!(
        matches!(other, Err(StoreError::Refused { .. })),
        "{other:?}"
    );
    scene.run_all(&Outcome::Success).await?;
    let view = scene.view(&build).await?;
    assert_eq!(view.outcome, Some(Outcome::Success));
    let late = store.answer_task(&build, &ask, &answer(&scene, true)).await;
    assert!(matches!(late, Err(StoreError::Refused { .. })), "{late:?}");
    let unknown = store
        .answer_task(&build, &task("x"), &answer(&scene, true))
        .await;
    assert!(
        matches!(unknown, Err(StoreError::NotFound { .. })),
        "{unknown:?}"
    );
    scene.check_swept().await
}

#[tokio::test]
async fn a_rejected_build_fails_and_says_why() -> Result<()> {
    let scene = Scene::embedded()?;
    let build = asked(&scene).await?;
    let answer = answer(&scene, false);
    scene
        .store()
        .answer_task(&build, &task("ask"), &answer)
        .await?;
    scene.run_all(&Outcome::Success).await?;
    let view = scene.view(&build).await?;
    let TaskState::Finished { run } = &view.tasks[1].state else {
        panic!("{view:?}");
    };
    let detail = "because".to_owned();
    let reason = Failure::Rejected { detail };
    assert_eq!(run.result.outcome, Outcome::Failure { reason });
    let failed = Skip::Failed { task: "ask".into() };
    assert!(matches!(&view.tasks[2].state, TaskState::Skipped { why } if *why == failed));
    Ok(())
}

#[tokio::test]
async fn one_task_is_stopped_and_the_others_go_on() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = job("j", &["a", "b"]);
    config["tasks"][1]["needs"] = json!([]);
    scene.set_job(&config).await?;
    let build = scene.post("j", "1").await?;
    let claim = scene.next_task().await?;
    let stopped = scene.view(&build).await?.tasks[1].name.clone();
    scene
        .store()
        .stop_task(&build, &stopped, scene.now())
        .await?;
    scene
        .store()
        .stop_task(&build, &stopped, scene.now())
        .await?;
    scene.complete(&claim, Outcome::Success).await?;
    scene.run_all(&Outcome::Success).await?;
    let view = scene.view(&build).await?;
    let failed = vec![stopped.to_string()];
    let reason = Failure::Tasks { failed };
    assert_eq!(view.outcome, Some(Outcome::Failure { reason }));
    let late = scene.store().stop_task(&build, &stopped, scene.now()).await;
    assert!(late.is_ok(), "after the end nothing changes");
    scene.check_swept().await
}

#[tokio::test]
async fn a_build_goes_on_where_another_failed() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a", "b", "c"])).await?;
    let first = scene.post("j", "1").await?;
    let claim = scene.next_task().await?;
    scene.complete(&claim, Outcome::Success).await?;
    scene.run_all(&exit(3)).await?;
    let store = scene.store();
    let request = RequestId::derive("2");
    let rerun = |again: Again| {
        let (store, request, at) = (store.clone(), request.clone(), scene.now());
        let first = first.clone();
        async move {
            let posted = store.rerun_build(&first, &again, &request, at).await?;
            posted.build().context("skipped")
        }
    };
    let second = rerun(Again::Failed).await?;
    assert_eq!(rerun(Again::Failed).await?, second, "asked for once");
    let view = scene.view(&second).await?;
    let TaskState::Finished { run } = &view.tasks[0].state else {
        panic!("{view:?}");
    };
    assert_eq!(run.build, Some(first.number));
    scene.run_all(&Outcome::Success).await?;
    let view = scene.view(&second).await?;
    assert_eq!(view.outcome, Some(Outcome::Success));
    let nothing = store
        .rerun_build(
            &second,
            &Again::Failed,
            &RequestId::derive("3"),
            scene.now(),
        )
        .await;
    assert!(
        matches!(nothing, Err(StoreError::Refused { .. })),
        "{nothing:?}"
    );
    scene.check_swept().await
}
