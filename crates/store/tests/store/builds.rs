//! Builds: cancelling, and who may decide.

use anyhow::{Context, Result};
use distci_model::build::Event;
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::ticket::TicketState;
use distci_model::wire::{Claim, CommitReply, ControlOrder, TaskState, Work};
use distci_store::{Claiming, StoreError};
use serde_json::json;

use crate::scene::{Scene, decision, exit, job, worker};

async fn control_claim(scene: &Scene) -> Result<(Claim, ControlOrder)> {
    let claim = scene.claim(|entry| entry.key.ticket.is_control()).await?;
    let claim = claim.context("no control ticket is queued")?;
    match &claim.work {
        Work::Control { order } => {
            let order = (**order).clone();
            Ok((claim, order))
        }
        Work::Task { .. } | Work::Errand { .. } => anyhow::bail!("no control ticket"),
    }
}

fn cancelled(view: &distci_model::wire::BuildView) -> Vec<bool> {
    let is_cancelled = |state: &TaskState| match state {
        TaskState::Finished { run } => run.result.outcome.is_cancelled(),
        TaskState::Skipped { why } => *why == distci_model::build::Skip::Cancelled,
        TaskState::Waiting | TaskState::Queued { .. } | TaskState::Running { .. } => false,
    };
    view.tasks
        .iter()
        .map(|task| is_cancelled(&task.state))
        .collect()
}

#[tokio::test]
async fn a_cancel_stops_what_runs_and_what_waits_and_keeps_what_ended() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = job("j", &["done", "running", "queued", "waiting"]);
    config["tasks"][1]["needs"] = json!(["done"]);
    config["tasks"][2]["needs"] = json!(["done"]);
    config["tasks"][3]["when"] = json!("always");
    config["downstream_jobs"] = json!(["j2"]);
    scene.set_job(&config).await?;
    let build = scene.post("j", "r").await?;
    let done = scene.next_task().await?;
    scene.complete(&done, Outcome::Success).await?;
    let running = scene.next_task().await?;
    for _ in 0..2 {
        scene.store().cancel_build(&build, scene.now()).await?;
    }
    assert!(scene.view(&build).await?.cancelled);
    scene.control().await?;
    let ticket = scene
        .store()
        .ticket(&running.ticket)
        .await?
        .context("gone")?;
    assert!(matches!(ticket.state, TicketState::Claimed(claimed) if claimed.cancel));
    assert_eq!(
        scene.queue().await?,
        [],
        "a cancelled build has something to do"
    );
    scene.check_index().await?;
    // Its holder is silent: nobody runs it again.
    scene
        .store()
        .expire(&running.ticket, running.attempt, scene.now())
        .await?;
    scene.control().await?;
    let view = scene.view(&build).await?;
    assert!(
        view.outcome.as_ref().is_some_and(Outcome::is_cancelled),
        "{:?}",
        view.outcome
    );
    assert_eq!(cancelled(&view), [false, true, true, true]);
    assert_eq!(view.downstream, []);
    scene.store().cancel_build(&build, scene.now()).await?;
    scene.check_swept().await
}

#[tokio::test]
async fn a_zombie_in_control_neither_commits_nor_cancels() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    let build = scene.post("j", "r").await?;
    scene.control().await?;
    scene.store().cancel_build(&build, scene.now()).await?;
    let (zombie, order) = control_claim(&scene).await?;
    let late = decision(&order);
    assert_eq!(late.decision.cancel.len(), 1, "the decision stops the task");
    scene
        .store()
        .expire(&zombie.ticket, zombie.attempt, scene.now())
        .await?;
    let refused = scene
        .store()
        .commit(&zombie.ticket, zombie.attempt, &late, scene.now())
        .await;
    assert!(
        matches!(refused, Err(StoreError::AttemptOver { .. })),
        "{refused:?}"
    );
    let queue = scene.queue().await?;
    assert_eq!(queue.len(), 2, "the zombie stopped a task: {queue:?}");
    scene.control().await?;
    assert_eq!(cancelled(&scene.view(&build).await?), [true]);
    Ok(())
}

#[tokio::test]
async fn a_decision_without_the_latest_news_is_not_committed() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    let build = scene.post("j", "r").await?;
    let task = scene.next_task().await?;
    scene.store().cancel_build(&build, scene.now()).await?;
    let (holder, order) = control_claim(&scene).await?;
    let (store, request) = (scene.store(), decision(&order));
    // The task ends between the decision and its commit.
    scene.complete(&task, exit(1)).await?;
    let commit = store
        .commit(&holder.ticket, holder.attempt, &request, scene.now())
        .await?;
    let CommitReply::Again { order } = commit else {
        anyhow::bail!("it parked over news");
    };
    let is_news = |event: &&Event| !matches!(event, Event::Clock { .. });
    assert_eq!(order.events.iter().filter(is_news).count(), 2);
    let request = decision(&order);
    for _ in 0..2 {
        let commit = store
            .commit(&holder.ticket, holder.attempt, &request, scene.now())
            .await?;
        assert_eq!(
            commit,
            CommitReply::Over,
            "and a repetition is answered alike"
        );
    }
    assert_eq!(scene.view(&build).await?.outcome, Some(exit_of("a")));
    Ok(())
}

fn exit_of(task: &str) -> Outcome {
    Outcome::Failure {
        reason: distci_model::outcome::Failure::Tasks {
            failed: vec![task.to_owned()],
        },
    }
}

#[tokio::test]
async fn control_tickets_are_not_completed_and_tasks_not_committed() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    scene.post("j", "r").await?;
    let (control, order) = control_claim(&scene).await?;
    let (store, result) = (scene.store(), TaskResult::of(Outcome::Success));
    let at = scene.now();
    let wrong = store
        .complete(&control.ticket, control.attempt, &result, at)
        .await;
    assert!(
        matches!(wrong, Err(StoreError::Refused { .. })),
        "{wrong:?}"
    );
    let request = decision(&order);
    store
        .commit(&control.ticket, control.attempt, &request, at)
        .await?;
    let task = scene.next_task().await?;
    let wrong = store.commit(&task.ticket, task.attempt, &request, at).await;
    assert!(
        matches!(wrong, Err(StoreError::Refused { .. })),
        "{wrong:?}"
    );
    let request = distci_model::id::RequestId::derive("another");
    let taken = store
        .claim(&task.ticket, &worker("w2"), &request, at)
        .await?;
    assert!(matches!(taken, Claiming::Taken));
    Ok(())
}
