//! Events: who waits for them, that each is built once, and what is kept of those that nobody wants.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use distci_model::Timestamp;
use distci_model::config::Unwanted;
use distci_model::event::{Event, EventKind, Source};
use distci_model::id::{DeliveryId, RequestId};
use distci_model::wire::{WebhookAnswer, WebhookDelivery};
use distci_store::coordination::simulator::Faults;
use distci_store::coordination::{Expect, Life, Op};
use distci_store::{EventPost, Flaw, Mending, Offered, Posted, StoreError, keys};
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};

use crate::scene::{Scene, job, job_id};

const REPOSITORY: &str = "github.com/acme/app";

fn watching(name: &str, repositories: &[&str]) -> Value {
    let mut config = job(name, &["t"]);
    let trigger = |repository: &&str| json!({ "on": "push", "repository": repository });
    config["triggers"] = repositories.iter().map(trigger).collect();
    config
}

fn push(delivery: &str) -> Event {
    let facts = [("repository", REPOSITORY), ("sha", "abc")];
    Event {
        source: Source::Github,
        kind: EventKind::Push,
        delivery: Some(delivery.to_owned()),
        facts: facts.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        paths: None,
        labels: Vec::new(),
    }
}

async fn watchers(scene: &Scene, repository: &str) -> Result<Vec<String>> {
    scene.store().catch_up().await?;
    let jobs = scene.store().jobs_watching(repository).await?;
    Ok(jobs.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn a_job_is_named_under_what_it_watches_now() -> Result<()> {
    for seed in 0..20 {
        let scene = Scene::simulated(seed);
        scene.store().prepare(scene.now()).await?;
        scene.set_faults(Faults::hostile());
        scene
            .set_job(&watching("a", &["https://github.com/Acme/App.git"]))
            .await?;
        scene
            .set_job(&watching("b", &[REPOSITORY, "github.com/acme/other"]))
            .await?;
        scene.set_job(&job("c", &["t"])).await?;
        for store in &scene.stores {
            store.catch_up().await?;
            let jobs = store.jobs_watching(REPOSITORY).await?;
            ensure!(jobs == [job_id("a"), job_id("b")], "{jobs:?}");
        }
        scene.set_job(&watching("a", &[])).await?;
        scene.store().remove_job(&job_id("b")).await?;
        scene.set_faults(Faults::none());
        ensure!(watchers(&scene, REPOSITORY).await?.is_empty());
        ensure!(watchers(&scene, "github.com/acme/other").await?.is_empty());
        scene.set_job(&watching("b", &[REPOSITORY])).await?;
        ensure!(watchers(&scene, REPOSITORY).await? == ["b"]);
    }
    Ok(())
}

#[tokio::test]
async fn one_delivery_is_one_build_at_whichever_frontend_it_comes() -> Result<()> {
    for seed in 0..20 {
        let scene = Scene::simulated(seed);
        scene.set_job(&watching("a", &[REPOSITORY])).await?;
        scene.set_faults(Faults::hostile());
        let (id, now) = (job_id("a"), scene.now());
        let (one, two) = (push("1"), push("2"));
        let tellings = scene
            .stores
            .iter()
            .flat_map(|store| [&one, &two, &one].map(|event| store.offer_event(&id, event, now)));
        let offers = try_join_all(tellings).await?;
        scene.set_faults(Faults::none());
        let mut fresh = 0;
        let mut numbers = BTreeMap::new();
        for (index, offered) in offers.iter().enumerate() {
            let Offered::Posted(Posted::Build { build, fresh: made }) = offered else {
                anyhow::bail!("{offered:?}");
            };
            fresh += u32::from(*made);
            let of_two = index % 3 == 1;
            let number = numbers.entry(of_two).or_insert(build.number);
            ensure!(*number == build.number, "{offers:?}");
        }
        // An answer may have been lost, so that its own post looked like somebody else's.
        ensure!(fresh <= 2 && numbers.len() == 2, "{offers:?}");
        let builds = scene.store().list_builds(&id, None, 10).await?.items;
        ensure!(builds.len() == 2, "{builds:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_nearest_reason_is_told() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = job("a", &["t"]);
    config["triggers"] = json!([
        { "on": "tag", "repository": REPOSITORY },
        { "on": "push", "repository": REPOSITORY, "refs": ["main"], "paths": ["x"] },
        { "on": "push", "repository": "github.com/acme/other" },
    ]);
    scene.set_job(&config).await?;
    let mut event = push("1");
    event
        .facts
        .insert("ref".to_owned(), "refs/heads/main".to_owned());
    event.paths = Some(vec!["y".to_owned()]);
    let offered = scene
        .store()
        .offer_event(&job_id("a"), &event, scene.now())
        .await?;
    assert_eq!(offered, Offered::Unwanted(Unwanted::Path));
    Ok(())
}

#[tokio::test]
async fn values_of_a_trigger_must_fit_the_job() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = job("a", &["t"]);
    config["parameters"] = json!({ "COMMIT": {}, "KIND": { "choices": ["x"], "default": "x" } });
    scene.set_job(&config).await?;
    let post = async |name: &str, text: &str| {
        let post = EventPost {
            request: RequestId::derive(text),
            parameters: [(name.to_owned(), text.to_owned())].into(),
            told: push("1"),
            at: scene.now(),
        };
        scene.store().post_event_build(&job_id("a"), post).await
    };
    for (name, text) in [("COMMIT", "${event.pr}"), ("KIND", "y"), ("OTHER", "z")] {
        let refused = post(name, text).await;
        ensure!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{refused:?}"
        );
    }
    let posted = post("COMMIT", "at ${event.sha}").await?;
    let view = scene.view(&posted.build().context("skipped")?).await?;
    assert_eq!(view.parameters["COMMIT"], "at abc");
    assert_eq!(view.cause.told(), Some(&push("1")));
    Ok(())
}

#[tokio::test]
async fn names_of_watchers_are_checked_and_mended() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    scene.set_job(&watching("a", &[REPOSITORY])).await?;
    let mark = keys::repository_mark(REPOSITORY);
    let fsck = async |mending| scene.store().fsck(mending, std::time::Duration::ZERO).await;
    ensure!(fsck(Mending::Look).await?.findings.is_empty());
    let damage = [
        Op::Delete {
            path: keys::watcher(&mark, &job_id("a")),
            expect: Expect::Any,
        },
        Op::Create {
            path: keys::watcher(&mark, &job_id("b")),
            data: Bytes::new(),
            life: Life::Durable,
        },
    ];
    scene.tree.commit(damage.into()).await?;
    let found = fsck(Mending::Look).await?;
    let flaws: Vec<Flaw> = found.findings.iter().map(|finding| finding.flaw).collect();
    ensure!(
        flaws.contains(&Flaw::NameMissing) && flaws.contains(&Flaw::NameWrong),
        "{found:?}"
    );
    let mended = fsck(Mending::Repair).await?;
    ensure!(mended.findings.is_empty(), "{mended:?}");
    ensure!(watchers(&scene, REPOSITORY).await? == ["a"]);
    Ok(())
}

#[tokio::test]
async fn watchers_move_with_their_store() -> Result<()> {
    let (from, to) = (Scene::embedded()?, Scene::simulated(1));
    from.store().prepare(from.now()).await?;
    from.set_job(&watching("a", &[REPOSITORY])).await?;
    from.store()
        .migrate(to.store(), from.now(), &|_| ())
        .await?;
    ensure!(watchers(&to, REPOSITORY).await? == ["a"]);
    Ok(())
}

fn delivery(at: Timestamp, name: &str) -> WebhookDelivery {
    WebhookDelivery {
        id: DeliveryId::derive(at, name),
        received: at,
        source: Source::Github,
        event: "push".to_owned(),
        delivery: name.to_owned(),
        job: None,
        token_sha256: None,
        told: Some(push(name)),
        bytes: 4,
        answer: WebhookAnswer {
            detail: "no build".to_owned(),
            builds: Vec::new(),
            passed_over: Vec::new(),
            kept: None,
        },
    }
}

fn moment(text: &str) -> Result<Timestamp> {
    Ok(text.parse()?)
}

#[tokio::test]
async fn deliveries_are_kept_for_thirty_days() -> Result<()> {
    let scene = Scene::embedded()?;
    let store = scene.store();
    let keep = async |at: &str, name: &str| -> Result<DeliveryId> {
        let kept = store.keep_delivery(delivery(moment(at)?, name), Bytes::from(name.to_owned()));
        kept.await?.context("it is not kept")
    };
    let list = async |now: &str| -> Result<Vec<String>> {
        let (mut names, mut before) = (Vec::new(), None);
        loop {
            let page = store
                .list_deliveries(before.as_ref(), 2, moment(now)?)
                .await?;
            names.extend(page.items.into_iter().map(|delivery| delivery.delivery));
            match page.next {
                Some(next) => before = Some(next.parse()?),
                None => return Ok(names),
            }
        }
    };
    let first = keep("2026-01-31T23:59:59Z", "one").await?;
    keep("2026-02-01T00:00:01Z", "two").await?;
    keep("2026-02-01T12:00:00Z", "three").await?;
    let again = keep("2026-02-01T13:00:00Z", "two").await?;
    assert_eq!(
        again.as_str().get(..15),
        Some("20260201T000001"),
        "it is the same"
    );
    keep("2026-02-02T00:00:00Z", "four").await?;
    assert_eq!(
        list("2026-02-02T01:00:00Z").await?,
        ["four", "three", "two", "one"]
    );
    let (head, body) = store.delivery(&first).await?;
    assert_eq!((head.delivery.as_str(), &*body), ("one", &b"one"[..]));
    assert_eq!(
        list("2026-03-02T00:00:00Z").await?,
        ["four", "three", "two", "one"]
    );
    // The day that has just become too old goes.
    assert_eq!(
        list("2026-03-03T00:00:00Z").await?,
        ["four", "three", "two"]
    );
    assert!(store.delivery(&first).await.is_err());
    assert_eq!(list("2027-03-03T00:00:00Z").await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_delivery_that_is_kept_twice_at_once_is_kept() -> Result<()> {
    let scene = Scene::simulated(3);
    let at = moment("2026-02-01T00:00:00Z")?;
    let keeps = scene.stores.iter().map(|store| {
        let body = Bytes::from_static(b"body");
        store.keep_delivery(delivery(at, "one"), body)
    });
    for kept in join_all(keeps).await {
        ensure!(kept?.is_some());
    }
    let page = scene.store().list_deliveries(None, 10, at).await?;
    assert_eq!(page.items.len(), 1);
    Ok(())
}
