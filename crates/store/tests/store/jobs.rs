//! Jobs: revisions, removal, and what a job that comes back does not remember.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use distci_model::id::{BuildRef, JobKey, RequestId};
use distci_model::outcome::Outcome;
use distci_model::rerun::Again;
use distci_store::{Expected, Posted, Put, StoreError, keys};
use futures::future::try_join_all;
use serde_json::json;

use crate::scene::{Scene, job, job_config, job_id};

fn is_stale<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Stale { .. }))
}

fn is_missing<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::NotFound { .. }))
}

#[tokio::test]
async fn a_job_changes_only_from_the_revision_that_is_expected() -> Result<()> {
    let scene = Scene::embedded()?;
    let store = scene.store();
    let (one, two) = (
        job_config(&job("j", &["a"]))?,
        job_config(&job("j", &["b"]))?,
    );
    assert!(
        is_stale(
            &store
                .set_job(&one, Expected::Revision(1), scene.now())
                .await
        ),
        "there is none"
    );
    let (view, put) = store.set_job(&one, Expected::Absent, scene.now()).await?;
    assert_eq!((view.revision, put), (1, Put::Created));
    assert!(is_stale(
        &store.set_job(&two, Expected::Absent, scene.now()).await
    ));
    assert!(is_stale(
        &store
            .set_job(&two, Expected::Revision(2), scene.now())
            .await
    ));
    let (view, put) = store
        .set_job(&two, Expected::Revision(1), scene.now())
        .await?;
    assert_eq!((view.revision, put), (2, Put::Updated));
    // The answer got lost and the request comes again.
    let (view, _) = store
        .set_job(&two, Expected::Revision(1), scene.now())
        .await?;
    assert_eq!(view.revision, 2);
    assert!(is_stale(
        &store
            .set_job(&one, Expected::Revision(1), scene.now())
            .await
    ));
    Ok(())
}

#[tokio::test]
async fn jobs_that_would_trigger_each_other_for_ever_are_refused() -> Result<()> {
    let scene = Scene::embedded()?;
    let set = async |name: &str, downstream: &[&str]| -> Result<Result<(), StoreError>> {
        let mut text = job(name, &["t"]);
        text["downstream_jobs"] = json!(downstream);
        let config = job_config(&text)?;
        let answer = scene
            .store()
            .set_job(&config, Expected::Any, scene.now())
            .await;
        Ok(answer.map(drop))
    };
    set("a", &["b", "d"]).await??;
    set("b", &["c"]).await??;
    // Two ways to one job are no round.
    set("d", &["c"]).await??;
    let refused = set("c", &["a"]).await?;
    let why = refused.err().map(|error| error.to_string());
    let rounds = [
        "c triggers a triggers d triggers c",
        "c triggers a triggers b triggers c",
    ];
    let named = |why: &String| rounds.iter().any(|round| why.contains(round));
    assert!(why.as_ref().is_some_and(named), "{why:?}");
    set("c", &[]).await??;
    Ok(())
}

#[tokio::test]
async fn of_many_changes_from_one_revision_one_wins() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    let configs: Vec<_> = (0..8)
        .map(|number| job_config(&job("j", &[&format!("t{number}")])))
        .collect::<Result<_>>()?;
    let store = scene.store();
    let changes = configs
        .iter()
        .map(|config| store.set_job(config, Expected::Revision(1), scene.now()));
    let answers = futures::future::join_all(changes).await;
    assert_eq!(answers.iter().filter(|change| change.is_ok()).count(), 1);
    assert_eq!(answers.iter().filter(|change| is_stale(change)).count(), 7);
    Ok(())
}

#[tokio::test]
async fn a_job_that_comes_back_begins_anew() -> Result<()> {
    let scene = Scene::embedded()?;
    let (store, id) = (scene.store(), job_id("j"));
    assert!(is_missing(&store.remove_job(&id).await));
    scene.set_job(&job("j", &["a"])).await?;
    let first = scene.post("j", "r").await?;
    let refused = store.remove_job(&id).await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "a build is active"
    );
    let old = scene.next_task().await?;
    store
        .append_console(&old.ticket, old.attempt, 0, "old".into())
        .await?;
    scene.complete(&old, Outcome::Success).await?;
    scene.control().await?;
    store.remove_job(&id).await?;
    store.remove_job(&id).await?;
    for gone in [
        store.build(&first).await.is_err(),
        store.job(&id).await.is_err(),
    ] {
        assert!(gone);
    }
    assert!(is_missing(&store.list_builds(&id, None, 9).await));
    let late = store
        .complete(&old.ticket, old.attempt, &old_result(), scene.now())
        .await;
    assert!(matches!(late, Err(StoreError::Gone)));

    scene.set_job(&job("j", &["a"])).await?;
    assert_eq!(store.job(&id).await?.revision, 1);
    assert!(
        is_missing(&store.build(&first).await),
        "a build of the former job"
    );
    assert!(is_missing(
        &store.latest_build(&id, distci_store::Which::Any).await
    ));
    // The same request of the former life is a new one.
    let again = scene.post("j", "r").await?;
    assert_eq!(again.number.get(), 1);
    let new = scene.next_task().await?;
    assert_ne!(new.ticket, old.ticket);
    let home = store.console(&again, &"a".parse()?, None).await?;
    assert_eq!(store.read_console(&home, 0, 9).await?.length, 0);
    Ok(())
}

fn old_result() -> distci_model::outcome::TaskResult {
    distci_model::outcome::TaskResult::of(Outcome::Success)
}

#[tokio::test]
async fn parameters_are_resolved_or_refused_by_name() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = job("j", &["a"]);
    config["parameters"] = json!({
        "MUST": {}, "MAY": { "default": "x" }, "ONE": { "default": "a", "choices": ["a", "b"] },
    });
    scene.set_job(&config).await?;
    let post = async |given: &[(&str, &str)]| {
        let given: BTreeMap<_, _> = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let request = RequestId::derive(&format!("{given:?}"));
        scene
            .store()
            .post_build(&job_id("j"), &request, &given, scene.now())
            .await
    };
    let bad: [(&[(&str, &str)], &str); 3] = [
        (&[], "MUST"),
        (&[("MUST", "1"), ("MAYBE", "2")], "MAYBE"),
        (&[("MUST", "1"), ("ONE", "c")], "ONE"),
    ];
    for (given, named) in bad {
        match post(given).await {
            Err(StoreError::Refused { detail }) => assert!(detail.contains(named), "{detail}"),
            other => anyhow::bail!("{given:?}: {other:?}"),
        }
    }
    let good = post(&[("MUST", "1"), ("ONE", "b")])
        .await?
        .build()
        .context("skipped")?;
    assert_eq!(good.number.get(), 1, "what was refused took a number");
    let values = scene.view(&good).await?.parameters;
    let values: Vec<_> = values.values().map(String::as_str).collect();
    assert_eq!(values, ["x", "1", "b"]);
    Ok(())
}

#[tokio::test]
async fn sixteen_triggers_at_once_make_builds_1_to_16() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    let names: Vec<_> = (0..16).map(|number| format!("r{number}")).collect();
    let posts = try_join_all(names.iter().map(|name| scene.post("j", name))).await?;
    let numbers: BTreeSet<_> = posts.iter().map(|build| build.number.get()).collect();
    assert_eq!(numbers, (1..=16).collect());
    for (name, build) in names.iter().zip(&posts) {
        assert_eq!(scene.post("j", name).await?, *build);
    }
    scene.check_index().await
}

#[tokio::test]
async fn a_rerun_takes_the_parameters_and_the_request_of_its_own() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = job("j", &["a"]);
    config["parameters"] = json!({ "P": {} });
    scene.set_job(&config).await?;
    let given = BTreeMap::from([("P".to_owned(), "v".to_owned())]);
    let (store, id) = (scene.store(), job_id("j"));
    let first = store
        .post_build(&id, &RequestId::derive("1"), &given, scene.now())
        .await?
        .build()
        .context("skipped")?;
    scene.run_all(&Outcome::Success).await?;
    let request = RequestId::derive("2");
    let again = store
        .rerun_build(&first, &Again::All, &request, scene.now())
        .await?
        .build()
        .context("skipped")?;
    assert_eq!(scene.view(&again).await?.parameters, given);
    let repeated = store
        .rerun_build(&first, &Again::All, &request, scene.now())
        .await?;
    let earlier = Posted::Build {
        build: again,
        fresh: false,
    };
    assert_eq!(repeated, earlier);
    let never = BuildRef {
        job: id,
        number: first.number.next().next(),
    };
    assert!(is_missing(
        &store
            .rerun_build(&never, &Again::All, &request, scene.now())
            .await
    ));
    Ok(())
}

#[tokio::test]
async fn revisions_are_listed_as_they_were_taken() -> Result<()> {
    let scene = Scene::embedded()?;
    let store = scene.store();
    let id = job_id("j");
    let text = |n: u32| job_config(&job("j", &[&format!("t{n}")]));
    for n in 1..=120 {
        let (one, other) = (text(n)?, text(n + 1000)?);
        let expected = match n {
            1 => Expected::Absent,
            n => Expected::Revision(n - 1),
        };
        // The loser of a race leaves its configuration behind, which no list may name.
        let set = |config| store.set_job(config, expected, scene.now());
        let (one, other) = tokio::join!(set(&one), set(&other));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.revisions(&id, before, 7).await?;
        seen.extend(page.items);
        match page.next {
            Some(next) => before = Some(next.parse()?),
            None => break,
        }
    }
    let numbers: Vec<u32> = seen.iter().map(|seen| seen.revision).collect();
    assert_eq!(numbers, (1..=120).rev().collect::<Vec<_>>());
    assert!(seen.is_sorted_by(|later, earlier| later.since > earlier.since));
    let hashes: BTreeSet<_> = seen.iter().map(|seen| &seen.hash).collect();
    assert_eq!(hashes.len(), 120);
    for one in &seen {
        let view = store.revision(&id, one.revision).await?;
        let names = [text(one.revision)?, text(one.revision + 1000)?];
        assert!(names.contains(&view.configuration), "{}", one.revision);
    }
    assert_eq!(store.revision(&id, 120).await?, store.job(&id).await?);
    assert!(is_missing(&store.revision(&id, 0).await));
    assert!(is_missing(&store.revision(&id, 121).await));
    Ok(())
}

#[tokio::test]
async fn of_a_revision_that_nobody_noted_only_what_is_certain_is_told() -> Result<()> {
    let scene = Scene::embedded()?;
    let store = scene.store();
    let id = job_id("j");
    for name in ["a", "b", "c", "d"] {
        let config = job_config(&job("j", &[name]))?;
        store.set_job(&config, Expected::Any, scene.now()).await?;
    }
    // As a store of before lists were kept has it.
    let key = JobKey::derive(&id, 0);
    let third = store.revisions(&id, Some(4), 1).await?.items;
    let list = serde_json::to_vec(&third)?;
    scene.blobs.put(&keys::before(&key, 4), list.into()).await?;
    for unknown in [2, 3] {
        scene
            .blobs
            .put(&keys::before(&key, unknown), "[]".into())
            .await?;
    }
    let listed = store.revisions(&id, None, 10).await?;
    let numbers: Vec<u32> = listed.items.iter().map(|seen| seen.revision).collect();
    assert_eq!((numbers, listed.next), (vec![4, 3], None));
    assert_eq!(
        store.revision(&id, 1).await?.configuration,
        job_config(&job("j", &["a"]))?
    );
    let foreign = keys::config(&key, 1, "0");
    scene.blobs.put(&foreign, "{}".into()).await?;
    assert!(
        is_missing(&store.revision(&id, 1).await),
        "one of two was guessed"
    );
    store.remove_job(&id).await?;
    store
        .set_job(&job_config(&job("j", &["z"]))?, Expected::Any, scene.now())
        .await?;
    assert_eq!(store.revisions(&id, None, 10).await?.items.len(), 1);
    Ok(())
}
