//! Tickets that are parked until a time: their names, and what wakes them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_model::Timestamp;
use distci_model::decide::Next;
use distci_model::id::{BuildRef, TicketKey};
use distci_model::outcome::Outcome;
use distci_model::ticket::{DueName, IndexName, Stamp, TicketState};
use distci_model::wire::{CommitReply, CommitRequest, Work};
use distci_store::coordination::simulator::Faults;
use distci_store::coordination::{Expect, Life, Op};
use distci_store::{Flaw, Mending, keys};

use crate::scene::{Scene, decision, job};

const MOMENT: Duration = Duration::from_millis(1);

fn due() -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

/// A build that has posted its first task and waits for a time, or for news.
async fn parked(scene: &Scene) -> Result<(BuildRef, TicketKey)> {
    scene.store().prepare(scene.now()).await?;
    scene.set_job(&job("j", &["a"])).await?;
    let build = scene.post("j", "r").await?;
    let claim = scene.claim(|entry| entry.key.ticket.is_control()).await?;
    let claim = claim.context("the build is queued")?;
    let Work::Control { order } = &claim.work else {
        anyhow::bail!("a control ticket asks for a task");
    };
    let mut request: CommitRequest = decision(order);
    let until = Some(due());
    request.decision.next = Next::Park { until };
    // Sent twice, as after a lost answer.
    for _ in 0..2 {
        let store = scene.store();
        let commit = store.commit(&claim.ticket, claim.attempt, &request, scene.now());
        ensure!(matches!(commit.await?, CommitReply::Over));
    }
    Ok((build, claim.ticket))
}

async fn timers(scene: &Scene) -> Result<Vec<DueName>> {
    let names = scene.store().list_timers().await?.into_iter();
    let timers = names.filter_map(|name| match name {
        IndexName::Due(timer) => Some(timer),
        IndexName::Queue(_) | IndexName::Claim(_) => None,
    });
    Ok(timers.collect())
}

async fn is_queued(scene: &Scene, key: &TicketKey) -> Result<bool> {
    let ticket = scene.store().ticket(key).await?.context("it is gone")?;
    Ok(ticket.state == TicketState::Queued)
}

#[tokio::test]
async fn a_timer_is_a_name_until_it_is_woken() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, key) = parked(&scene).await?;
    let found = timers(&scene).await?;
    let [timer] = found.as_slice() else {
        anyhow::bail!("one timer, not {found:?}");
    };
    ensure!(
        (timer.due, &timer.key) == (Stamp::at(due()), &key),
        "{timer:?}"
    );
    scene.check_index().await?;
    for _ in 0..2 {
        scene.store().wake(&key).await?;
        ensure!(is_queued(&scene, &key).await?);
        ensure!(timers(&scene).await?.is_empty());
    }
    scene.check_index().await?;
    scene.run_all(&Outcome::Success).await?;
    ensure!(scene.view(&build).await?.finished.is_some());
    scene.store().wake(&key).await?;
    scene.check_swept().await
}

#[tokio::test]
async fn news_wake_who_waits_for_a_time() -> Result<()> {
    let scene = Scene::embedded()?;
    let (_, key) = parked(&scene).await?;
    let task = scene.claim(|entry| !entry.key.ticket.is_control()).await?;
    let task = task.context("the task is queued")?;
    scene.complete(&task, Outcome::Success).await?;
    ensure!(is_queued(&scene, &key).await? && timers(&scene).await?.is_empty());
    scene.run_all(&Outcome::Success).await?;
    scene.check_swept().await
}

#[tokio::test]
async fn many_wake_one_ticket_once() -> Result<()> {
    for seed in 0..50 {
        let scene = Scene::simulated(seed);
        let (_, key) = parked(&scene).await?;
        let version = |scene: &Scene| {
            let (tree, path) = (scene.tree.clone(), keys::anchor(&key));
            async move { anyhow::Ok(tree.get(&path).await?.context("no anchor")?.version) }
        };
        let before = version(&scene).await?;
        scene
            .simulator
            .as_ref()
            .context("it is simulated")?
            .settle();
        scene.set_faults(Faults::hostile());
        let wakes = scene.stores.iter().map(|store| store.wake(&key));
        futures::future::try_join_all(wakes).await?;
        scene.set_faults(Faults::none());
        ensure!(is_queued(&scene, &key).await?, "seed {seed}");
        ensure!(version(&scene).await? == before.next(), "seed {seed}");
        scene.check_index().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_timer_is_entered_and_a_strange_one_removed() -> Result<()> {
    let scene = Scene::embedded()?;
    let (_, key) = parked(&scene).await?;
    let timer = timers(&scene).await?.pop().context("a timer")?;
    let strange = DueName {
        version: timer.version + 7,
        ..timer.clone()
    };
    let path = |timer: &DueName| keys::index(&IndexName::Due(timer.clone()));
    let swap = vec![
        Op::Delete {
            path: path(&timer),
            expect: Expect::Any,
        },
        Op::Create {
            path: path(&strange),
            data: bytes::Bytes::new(),
            life: Life::Durable,
        },
    ];
    scene.tree.commit(swap).await?;
    let mended = scene.store().fsck(Mending::Repair, MOMENT).await?;
    let flaws: Vec<_> = mended.repaired.iter().map(|found| found.flaw).collect();
    ensure!(
        flaws.len() == 2 && flaws.contains(&Flaw::NameMissing) && flaws.contains(&Flaw::NameWrong),
        "{mended:?}"
    );
    ensure!(mended.findings.is_empty(), "{mended:?}");
    ensure!(timers(&scene).await? == [timer] && !is_queued(&scene, &key).await?);
    scene.check_index().await
}

#[tokio::test]
async fn a_timer_is_copied() -> Result<()> {
    let (from, to) = (Scene::embedded()?, Scene::embedded()?);
    let (_, key) = parked(&from).await?;
    from.store().migrate(to.store(), to.now(), &|_| {}).await?;
    let found = timers(&to).await?;
    ensure!(
        matches!(&found[..], [timer] if timer.key == key && timer.due == Stamp::at(due())),
        "{found:?}"
    );
    to.check_index().await
}

#[test]
fn no_timer_is_before_its_time() {
    let until = due() + Duration::from_nanos(1);
    assert_eq!(
        Stamp::not_before(until).millis(),
        Stamp::at(due()).millis() + 1
    );
    assert_eq!(Stamp::not_before(due()), Stamp::at(due()));
}

#[test]
fn what_was_written_before_there_were_timers_reads() -> Result<()> {
    let state: TicketState = serde_json::from_str(r#"{"state":"parked"}"#)?;
    ensure!(state == TicketState::Parked { until: None });
    ensure!(serde_json::to_string(&state)? == r#"{"state":"parked"}"#);
    let next: Next = serde_json::from_str(r#"{"next":"park"}"#)?;
    ensure!(next == Next::Park { until: None });
    Ok(())
}
