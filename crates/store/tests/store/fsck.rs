//! Damage of every kind, made by hand: what a check finds, what it mends, and that a store in use
//! is clean.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use distci_model::id::{BuildKey, BuildNumber, BuildRef, JobKey, LockKey, TicketKey};
use distci_model::lock::Slot;
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildPhase, Claim};
use distci_store::coordination::simulator::Faults;
use distci_store::coordination::{Expect, Life, NodePath, Op};
use distci_store::{Checkup, Flaw, Mending, keys};

use crate::scene::{Scene, job, job_id};

const MOMENT: Duration = Duration::from_millis(1);

fn create(path: NodePath, data: &'static [u8]) -> Op {
    let data = Bytes::from_static(data);
    let life = Life::Durable;
    Op::Create { path, data, life }
}

fn delete(path: NodePath) -> Op {
    let expect = Expect::Any;
    Op::Delete { path, expect }
}

fn set(path: NodePath, data: Bytes) -> Op {
    let expect = Expect::Any;
    Op::Set { path, data, expect }
}

async fn fsck(scene: &Scene, mending: Mending) -> Result<Checkup> {
    Ok(scene.store().fsck(mending, MOMENT).await?)
}

fn flaws(checkup: &Checkup) -> Vec<Flaw> {
    checkup
        .findings
        .iter()
        .map(|finding| finding.flaw)
        .collect()
}

/// A prepared store with a build whose first task is done and whose second waits.
async fn busy() -> Result<(Scene, BuildRef, BuildKey)> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    scene.set_job(&job("j", &["a", "b"])).await?;
    let build = scene.post("j", "r").await?;
    let first = scene.next_task().await?;
    scene.complete(&first, Outcome::Success).await?;
    scene.control().await?;
    let key = BuildKey::derive(&JobKey::derive(&job_id("j"), 0), build.number);
    Ok((scene, build, key))
}

/// The only name in the queue.
async fn queued(scene: &Scene) -> Result<NodePath> {
    let name = scene.queue().await?.pop().context("nothing is queued")?;
    Ok(keys::index(&distci_model::ticket::IndexName::Queue(name)))
}

/// A repair leaves nothing wrong, and the build finishes.
async fn mends(scene: &Scene, build: &BuildRef, flaw: Flaw) -> Result<()> {
    let before = scene.dump().await?;
    let looked = fsck(scene, Mending::Look).await?;
    ensure!(flaws(&looked) == [flaw], "{looked:?}");
    ensure!(looked.findings[0].remedy().is_some(), "{looked:?}");
    ensure!(scene.dump().await? == before, "looking changed something");
    let mended = fsck(scene, Mending::Repair).await?;
    ensure!(
        mended.findings.is_empty() && mended.repaired == looked.findings,
        "{mended:?}"
    );
    finishes(scene, build).await
}

async fn finishes(scene: &Scene, build: &BuildRef) -> Result<()> {
    scene.run_all(&Outcome::Success).await?;
    let view = scene.view(build).await?;
    ensure!(view.phase == BuildPhase::Finished, "{view:?}");
    let clean = fsck(scene, Mending::Look).await?;
    ensure!(clean.findings.is_empty(), "{clean:?}");
    scene.check_swept().await
}

/// What cannot be mended is found, and left as it is.
async fn stays(scene: &Scene, expected: &[Flaw]) -> Result<()> {
    let before = scene.dump().await?;
    let checkup = fsck(scene, Mending::Repair).await?;
    ensure!(flaws(&checkup) == expected, "{checkup:?}");
    ensure!(checkup.repaired.is_empty(), "{checkup:?}");
    ensure!(scene.dump().await? == before, "a record was changed");
    Ok(())
}

#[tokio::test]
async fn a_healthy_store_is_clean() -> Result<()> {
    let (scene, build, _) = busy().await?;
    let checkup = fsck(&scene, Mending::Look).await?;
    ensure!(checkup.findings.is_empty(), "{checkup:?}");
    let checked = checkup.checked;
    ensure!(
        (checked.jobs, checked.builds, checked.tickets, checked.names) == (1, 1, 1, 1),
        "{checked:?}"
    );
    finishes(&scene, &build).await?;
    ensure!(fsck(&scene, Mending::Look).await?.checked.records == 1);
    Ok(())
}

#[tokio::test]
async fn a_lost_name_is_entered() -> Result<()> {
    let (scene, build, _) = busy().await?;
    let name = queued(&scene).await?;
    scene.tree.commit(vec![delete(name)]).await?;
    mends(&scene, &build, Flaw::NameMissing).await
}

#[tokio::test]
async fn a_lost_claim_marker_is_entered() -> Result<()> {
    let (scene, build, _) = busy().await?;
    let claim = scene.next_task().await?;
    let shards = scene.tree.list(&keys::claims()).await?;
    for shard in shards {
        let dir = keys::claims().join(&shard);
        for name in scene.tree.list(&dir).await? {
            scene.tree.commit(vec![delete(dir.join(&name))]).await?;
        }
    }
    let looked = fsck(&scene, Mending::Repair).await?;
    ensure!(
        looked.findings.is_empty() && looked.repaired.len() == 1,
        "{looked:?}"
    );
    scene.complete(&claim, Outcome::Success).await?;
    finishes(&scene, &build).await
}

#[tokio::test]
async fn a_name_of_nothing_is_removed() -> Result<()> {
    let (scene, build, _) = busy().await?;
    let name = queued(&scene).await?;
    // The same ticket at a version that it never had, in the same place.
    let wrong = name.parent().context("a name is in a shard")?;
    let wrong = wrong.join(&format!("{}9", name.name()));
    scene.tree.commit(vec![create(wrong, b"")]).await?;
    mends(&scene, &build, Flaw::NameWrong).await
}

#[tokio::test]
async fn names_that_nobody_writes_are_removed() -> Result<()> {
    let (scene, build, _) = busy().await?;
    let path = keys::queue().join("00").join("nonsense");
    scene.tree.commit(vec![create(path, b"")]).await?;
    mends(&scene, &build, Flaw::NameWrong).await
}

#[tokio::test]
async fn a_build_that_sleeps_over_a_result_is_woken() -> Result<()> {
    let (scene, build, key) = busy().await?;
    let anchor = keys::build(&key);
    let parked = scene.tree.get(&anchor).await?.context("a build")?.data;
    let claim = scene.next_task().await?;
    scene.complete(&claim, Outcome::Success).await?;
    // As it was before it was rung.
    let name = queued(&scene).await?;
    scene
        .tree
        .commit(vec![delete(name), set(anchor, parked)])
        .await?;
    mends(&scene, &build, Flaw::AsleepOverNews).await
}

#[tokio::test]
async fn a_build_that_sleeps_over_its_cancellation_is_woken() -> Result<()> {
    let (scene, build, key) = busy().await?;
    let flag = create(keys::cancel_flag(&key), br#""2026-01-01T00:00:00Z""#);
    scene.tree.commit(vec![flag]).await?;
    mends(&scene, &build, Flaw::AsleepOverNews).await
}

#[tokio::test]
async fn a_build_without_a_mailbox_gets_one() -> Result<()> {
    let (scene, build, key) = busy().await?;
    scene.tree.commit(vec![delete(keys::mailbox(&key))]).await?;
    mends(&scene, &build, Flaw::MailboxMissing).await
}

#[tokio::test]
async fn a_class_that_nobody_knows_is_written_down() -> Result<()> {
    let (scene, build, _) = busy().await?;
    let class = scene
        .queue()
        .await?
        .pop()
        .context("nothing is queued")?
        .class;
    scene.tree.commit(vec![delete(keys::class(&class))]).await?;
    mends(&scene, &build, Flaw::ClassUnknown).await
}

#[tokio::test]
async fn a_ticket_that_is_gone_is_told() -> Result<()> {
    let (scene, _, _) = busy().await?;
    let entry = scene.queue().await?.pop().context("nothing is queued")?;
    let name = queued(&scene).await?;
    let gone = vec![delete(name), delete(keys::anchor(&entry.key))];
    scene.tree.commit(gone).await?;
    stays(&scene, &[Flaw::TicketMissing]).await
}

#[tokio::test]
async fn a_ticket_that_its_build_does_not_know_is_told() -> Result<()> {
    let (scene, _, key) = busy().await?;
    let entry = scene.queue().await?.pop().context("nothing is queued")?;
    let record = scene.tree.get(&keys::anchor(&entry.key)).await?;
    let record = String::from_utf8(record.context("a ticket")?.data.to_vec())?;
    let record = record.replace(r#""state":"queued""#, r#""state":"parked""#);
    let orphan = TicketKey {
        build: key,
        ticket: "cccccccccccccccc".parse()?,
    };
    let data = record.into();
    let (path, life) = (keys::anchor(&orphan), Life::Durable);
    scene
        .tree
        .commit(vec![Op::Create { path, data, life }])
        .await?;
    stays(&scene, &[Flaw::TicketOrphaned]).await
}

#[tokio::test]
async fn what_cannot_be_read_is_told() -> Result<()> {
    let (scene, _, key) = busy().await?;
    let (queue, entry) = (queued(&scene).await?, scene.queue().await?.pop());
    let anchor = keys::anchor(&entry.context("nothing is queued")?.key);
    scene
        .tree
        .commit(vec![delete(queue), set(anchor, Bytes::from_static(b"?"))])
        .await?;
    stays(&scene, &[Flaw::Unreadable]).await?;
    let name = keys::build(&key).join("what");
    scene.tree.commit(vec![create(name, b"")]).await?;
    scene
        .tree
        .commit(vec![create(NodePath::root().join("zz"), b"")])
        .await?;
    let found = flaws(&fsck(&scene, Mending::Look).await?);
    ensure!(
        found
            .iter()
            .filter(|flaw| **flaw == Flaw::NodeUnknown)
            .count()
            == 2,
        "{found:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_number_that_leads_nowhere_is_told() -> Result<()> {
    let (scene, build, key) = busy().await?;
    finishes(&scene, &build).await?;
    let job = JobKey::derive(&job_id("j"), 0);
    scene
        .blobs
        .delete_prefix(&keys::record(&job, BuildNumber::FIRST))
        .await
        .ok();
    let record = keys::record(&job, BuildNumber::FIRST);
    // A prefix that is the key itself deletes nothing; the folder above does.
    let above = record.as_str().rsplit_once('/').context("a key")?.0;
    let above = distci_store::blobs::BlobKey::parse(above)?;
    scene.blobs.delete_prefix(&above).await?;
    stays(&scene, &[Flaw::BuildMissing]).await?;
    ensure!(scene.tree.get(&keys::build(&key)).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_build_beyond_the_next_number_is_told() -> Result<()> {
    let (scene, _, _) = busy().await?;
    let numbers = keys::numbers(&job_id("j"));
    let record = scene.tree.get(&numbers).await?.context("numbers")?.data;
    let record = String::from_utf8(record.to_vec())?.replace(r#""next":2"#, r#""next":1"#);
    scene.tree.commit(vec![set(numbers, record.into())]).await?;
    stays(&scene, &[Flaw::BuildUnknown]).await
}

#[tokio::test]
async fn bytes_that_are_gone_are_told() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    scene.set_job(&job("j", &["a", "b"])).await?;
    scene.post("j", "r").await?;
    let claim = scene.next_task().await?;
    let mut result = distci_model::outcome::TaskResult::of(Outcome::Success);
    result.console_bytes = 7;
    let complete = scene
        .store()
        .complete(&claim.ticket, claim.attempt, &result, scene.now());
    complete.await?;
    stays(&scene, &[Flaw::BlobMissing]).await
}

/// A check beside everything that may happen, on a store that lags, loses and repeats.
#[tokio::test]
async fn a_store_in_use_is_clean() -> Result<()> {
    for seed in 0..20 {
        let scene = Scene::simulated(seed);
        scene.store().prepare(scene.now()).await?;
        scene.set_job(&job("j", &["a", "b", "c"])).await?;
        let faults = Faults {
            expiry: Faults::none().expiry,
            ..Faults::hostile()
        };
        scene.set_faults(faults);
        let work = async {
            for build in 0..4 {
                scene.post("j", &format!("{seed} {build}")).await?;
                scene.run_all(&Outcome::Success).await?;
            }
            anyhow::Ok(())
        };
        let other = scene.stores.last().context("a second session")?;
        let check = async {
            for _ in 0..4 {
                let checkup = other.fsck(Mending::Repair, MOMENT).await?;
                ensure!(checkup.findings.is_empty(), "seed {seed}: {checkup:?}");
                ensure!(checkup.repaired.is_empty(), "seed {seed}: {checkup:?}");
            }
            Ok(())
        };
        futures::future::try_join(Box::pin(work), Box::pin(check)).await?;
    }
    Ok(())
}

/// A prepared store with a build that holds a slot of its job, and whose task holds a lock; and the
/// claim of that task.
async fn locked() -> Result<(Scene, BuildRef, Claim)> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    let mut file = job("j", &["a"]);
    file["tasks"][0]["locks"] = serde_json::json!(["deploy"]);
    file["concurrency"] = serde_json::json!({});
    scene.set_job(&file).await?;
    let build = scene.post("j", "r").await?;
    let claim = scene.next_task().await?;
    Ok((scene, build, claim))
}

fn deploy(slot: u16) -> NodePath {
    let lock = LockKey::of_task("deploy");
    keys::slot(&Slot { lock, slot })
}

#[tokio::test]
async fn slots_that_are_held_are_no_finding() -> Result<()> {
    let (scene, _, _) = locked().await?;
    let clean = fsck(&scene, Mending::Look).await?;
    ensure!(
        clean.findings.is_empty() && clean.checked.slots == 2,
        "{clean:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_slot_that_is_missing_is_entered_while_it_is_held() -> Result<()> {
    let (scene, build, claim) = locked().await?;
    scene.tree.commit(vec![delete(deploy(0))]).await?;
    let looked = fsck(&scene, Mending::Look).await?;
    ensure!(flaws(&looked) == [Flaw::SlotMissing], "{looked:?}");
    let mended = fsck(&scene, Mending::Repair).await?;
    ensure!(mended.findings.is_empty(), "{mended:?}");
    scene.check_index().await?;
    scene.complete(&claim, Outcome::Success).await?;
    finishes(&scene, &build).await
}

#[tokio::test]
async fn slots_whose_holders_are_gone_or_do_not_know_of_them_are_freed() -> Result<()> {
    let (scene, build, claim) = locked().await?;
    let held = scene.tree.get(&deploy(0)).await?.context("a slot")?.data;
    let nobody = String::from_utf8(held.to_vec())?;
    let nobody = nobody.replace(
        &claim.ticket.to_string(),
        "aaaaaaaaaaaaaaab.bbbbbbbbbbbbbbbb",
    );
    let life = Life::Durable;
    let leak = |slot, data| Op::Create {
        path: deploy(slot),
        data,
        life,
    };
    let leaks = vec![leak(1, held), leak(2, nobody.into())];
    scene.tree.commit(leaks).await?;
    let looked = fsck(&scene, Mending::Look).await?;
    ensure!(flaws(&looked) == [Flaw::SlotLeaked; 2], "{looked:?}");
    // Of two checks at once each may leave to the other what it finds.
    futures::try_join!(fsck(&scene, Mending::Repair), fsck(&scene, Mending::Repair))?;
    let clean = fsck(&scene, Mending::Look).await?;
    ensure!(clean.findings.is_empty(), "{clean:?}");
    ensure!(scene.tree.get(&deploy(0)).await?.is_some(), "freed in use");
    scene.check_index().await?;
    scene.complete(&claim, Outcome::Success).await?;
    finishes(&scene, &build).await
}

#[tokio::test]
async fn a_slot_that_another_ticket_has_is_told() -> Result<()> {
    let (scene, _, claim) = locked().await?;
    let held = scene.tree.get(&deploy(0)).await?.context("a slot")?.data;
    let control = TicketKey::control(claim.ticket.build.clone());
    let other = String::from_utf8(held.to_vec())?;
    let other = other.replace(&claim.ticket.to_string(), &control.to_string());
    scene
        .tree
        .commit(vec![set(deploy(0), other.into())])
        .await?;
    let found = flaws(&fsck(&scene, Mending::Look).await?);
    ensure!(found == [Flaw::SlotMissing, Flaw::SlotLeaked], "{found:?}");
    // What the build does not list is freed, and then it is the task's again.
    fsck(&scene, Mending::Repair).await?;
    let left = fsck(&scene, Mending::Repair).await?;
    ensure!(left.findings.is_empty(), "{left:?}");
    scene.check_index().await
}

#[tokio::test]
async fn what_is_no_slot_is_told() -> Result<()> {
    let (scene, _, _) = locked().await?;
    let strange = keys::locks().join("00").join("what");
    scene.tree.commit(vec![create(strange, b"")]).await?;
    scene.tree.commit(vec![create(deploy(7), b"?")]).await?;
    let mut found = flaws(&fsck(&scene, Mending::Repair).await?);
    found.sort_unstable();
    ensure!(found == [Flaw::Unreadable, Flaw::NodeUnknown], "{found:?}");
    Ok(())
}
