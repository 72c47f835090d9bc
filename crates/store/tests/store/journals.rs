//! What is told of a build agrees with what happened in it.

use anyhow::{Context, Result, ensure};
use distci_checker::journal::wrongs;
use distci_model::id::TicketKey;
use distci_model::journal::Entry;
use distci_model::outcome::{Fault, Outcome};
use distci_model::wire::BuildView;
use serde_json::json;

use crate::scene::{Scene, exit, job, shell};

/// What is told of a finished build agrees with what is seen of it.
fn check(view: &BuildView, journal: &[Entry]) -> Result<()> {
    let wrongs = wrongs(view, journal);
    ensure!(wrongs.is_empty(), "{}: {wrongs:#?}", view.build);
    Ok(())
}

fn lines(journal: &[Entry]) -> Vec<String> {
    let line = |entry: &Entry| match &entry.task {
        Some(task) => format!("{task} {}", entry.what),
        None => entry.what.to_string(),
    };
    journal.iter().map(line).collect()
}

fn full_disk() -> Outcome {
    Outcome::Fault {
        reason: Fault::DiskFull {
            detail: "/tmp".to_owned(),
        },
    }
}

#[tokio::test]
async fn every_attempt_of_a_task_is_told_also_of_those_that_came_to_nothing() -> Result<()> {
    let scene = Scene::embedded()?;
    let (mut first, mut then) = (shell("first"), shell("then"));
    first["retry"] = json!({"max": 1, "backoff": "1s"});
    then["needs"] = json!(["first"]);
    then["when"] = json!("on_failure");
    let config =
        json!({"configuration-version": "2013-02-26", "job_id": "j", "tasks": [first, then]});
    scene.set_job(&config).await?;
    let build = scene.post("j", "1").await?;
    let lost = scene.next_task().await?;
    let at = scene.now();
    scene.store().expire(&lost.ticket, lost.attempt, at).await?;
    let released = scene.next_task().await?;
    let (key, attempt) = (&released.ticket, released.attempt);
    scene.store().release(key, attempt, scene.now()).await?;
    let full = scene.next_task().await?;
    scene.complete(&full, full_disk()).await?;
    let failed = scene.next_task().await?;
    scene.complete(&failed, exit(1)).await?;
    scene.control().await?;
    // The clock goes on whenever it is looked at.
    for _ in 0..1100 {
        scene.now();
    }
    let control = TicketKey::control(failed.ticket.build.clone());
    scene.store().wake(&control).await?;
    let live = lines(&scene.store().journal(&build).await?);
    ensure!(
        live.iter()
            .any(|line| line == "first attempt 2 handed back by w"),
        "{live:#?}"
    );
    scene.run_all(&exit(2)).await?;
    let journal = scene.store().journal(&build).await?;
    check(&scene.view(&build).await?, &journal)?;
    let told: Vec<String> = lines(&journal)
        .into_iter()
        .filter(|line| line.starts_with("first ") && !line.contains("queued"))
        .map(|line| line.split(" after ").next().unwrap_or_default().to_owned())
        .collect();
    let expected = [
        "first attempt 1 claimed by w",
        "first attempt 1 lost: w was not heard of",
        "first attempt 2 claimed by w",
        "first attempt 2 handed back by w",
        "first attempt 3 claimed by w",
    ];
    ensure!(told[..5] == expected, "{told:#?}");
    ensure!(told[5].starts_with("first attempt 3 ended: "), "{told:#?}");
    ensure!(told[5].ends_with("; it is tried again"), "{told:#?}");
    ensure!(
        told.last()
            .is_some_and(|line| line.contains("exit") && !line.contains("again")),
        "{told:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn lost_decisions_are_told_also_if_the_last_was_among_them() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    let build = scene.post("j", "1").await?;
    let task = scene.next_task().await?;
    scene.complete(&task, Outcome::Success).await?;
    let lost = scene.claim(|entry| entry.key.ticket.is_control()).await?;
    let lost = lost.context("nothing to decide")?;
    let at = scene.now();
    scene.store().expire(&lost.ticket, lost.attempt, at).await?;
    scene.control().await?;
    let journal = scene.store().journal(&build).await?;
    check(&scene.view(&build).await?, &journal)?;
    let told = lines(&journal);
    ensure!(
        told.iter()
            .any(|line| line.ends_with("lost: w was not heard of")),
        "{told:#?}"
    );
    scene.check_swept().await
}
