//! What a list of jobs costs the store, and that it is true: on every kind of store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{Method, StatusCode};
use distci_components::shared;
use distci_model::wire::{BuildPhase, JobSummary, Page};
use distci_store::Store;
use distci_store::blobs::Blobs;
use distci_store::coordination::Coordination;
use distci_store::coordination::embedded::Embedded;
use distci_store::coordination::zookeeper::{Identity, Settings, ZooKeeper};
use tempfile::TempDir;

use super::counted::Counted;
use super::pages::Browser;
use super::scene::{Scene, clock, one_task};
use crate::hooks::HookSecrets;

/// Jobs of a test: more than one page shows.
const JOBS: usize = 130;

fn embedded(dir: &TempDir) -> Result<Arc<Counted>> {
    Ok(Counted::new(Embedded::open(dir.path(), clock())?))
}

/// A session on a real server, below a chroot that is named as the folder is.
async fn zookeeper(dir: &TempDir) -> Result<Arc<Counted>> {
    let hosts = tokio::task::spawn_blocking(shared::zookeeper).await??;
    let name = dir.path().file_name().and_then(|name| name.to_str());
    let name = name.context("no name")?.trim_start_matches('.');
    let session = ZooKeeper::connect(Settings {
        hosts,
        chroot: format!("/distci-test/jobs-{name}"),
        session_timeout: Duration::from_secs(8),
        identity: Identity::Anonymous,
        tls: None,
    });
    Ok(Counted::new(session.await?))
}

fn scene(tree: &Arc<Counted>, blobs: &Blobs) -> Scene {
    let store = Store::new(Arc::clone(tree) as Arc<dyn Coordination>, blobs.clone());
    Scene::over(store, HookSecrets::default())
}

async fn listed(scene: &Scene) -> Result<Vec<JobSummary>> {
    let answer = scene.get("/jobs?limit=500").await?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    Ok(answer.json::<Page<JobSummary>>()?.items)
}

/// How the latest build of the first job stands, as the list says.
async fn phase(scene: &Scene) -> Result<Option<BuildPhase>> {
    let jobs = listed(scene).await?;
    let latest = jobs.first().and_then(|job| job.latest.as_ref());
    Ok(latest.map(|build| build.phase))
}

async fn a_list_costs_what_has_changed(tree: Arc<Counted>) -> Result<()> {
    let scene = scene(&tree, &Blobs::memory());
    for number in 0..JOBS {
        scene
            .put_job(&one_task(&format!("j{number:03}"), &[]))
            .await?;
    }
    // Classes are learned once.
    scene.trigger("j001").await?;
    scene.control().await?;
    let browser = Browser::signed_in(&scene).await?;
    let first = browser.page("/").await?;
    assert!(first.contains("j099") && !first.contains("j100"), "{first}");
    tree.reads();
    for path in ["/", "/?q=J09", "/"] {
        browser.page(path).await?;
    }
    assert_eq!(tree.reads(), (0, 0), "nothing has changed");
    browser.page("/?after=j099").await?;
    let (gets, lists) = tree.reads();
    assert_eq!(
        (gets, lists),
        (2 * (JOBS - 100), 0),
        "two reads a job, once"
    );

    scene.trigger("j000").await?;
    tree.reads();
    assert_eq!(phase(&scene).await?, Some(BuildPhase::Queued));
    let (gets, lists) = tree.reads();
    assert!(
        gets <= 4 && lists == 0,
        "{gets} and {lists} reads for one job"
    );
    assert_eq!(phase(&scene).await?, Some(BuildPhase::Queued));
    assert_eq!(tree.reads(), (0, 0));
    Ok(())
}

async fn a_list_is_true(tree: Arc<Counted>) -> Result<()> {
    let scene = scene(&tree, &Blobs::memory());
    assert!(listed(&scene).await?.is_empty());
    scene.put_job(&one_task("j", &[])).await?;
    assert_eq!(phase(&scene).await?, None);
    for _ in 0..3 {
        scene.trigger("j").await?;
        assert_eq!(phase(&scene).await?, Some(BuildPhase::Queued));
        let claim = scene.task().await?;
        assert_eq!(phase(&scene).await?, Some(BuildPhase::Running));
        scene.finish(&claim).await?;
        assert_eq!(phase(&scene).await?, Some(BuildPhase::Finished));
    }
    scene.put_job(&one_task("j", &["other"])).await?;
    assert_eq!(listed(&scene).await?[0].revision, 2);
    let removed = scene.send(Method::DELETE, "/jobs/j", &[], Body::empty());
    assert_eq!(removed.await?.status, StatusCode::NO_CONTENT);
    assert!(listed(&scene).await?.is_empty());
    let page = Browser::signed_in(&scene).await?.page("/").await?;
    assert!(!page.contains("/jobs/j\""), "{page}");
    scene.put_job(&one_task("j", &[])).await?;
    assert_eq!(phase(&scene).await?, None, "it is a new one");
    Ok(())
}

#[tokio::test]
async fn a_list_over_the_embedded_store_costs_what_has_changed() -> Result<()> {
    a_list_costs_what_has_changed(embedded(&tempfile::tempdir()?)?).await
}

#[tokio::test]
async fn a_list_over_zookeeper_costs_what_has_changed() -> Result<()> {
    a_list_costs_what_has_changed(zookeeper(&tempfile::tempdir()?).await?).await
}

#[tokio::test]
async fn a_list_over_the_embedded_store_is_true() -> Result<()> {
    a_list_is_true(embedded(&tempfile::tempdir()?)?).await
}

#[tokio::test]
async fn a_list_over_zookeeper_is_true() -> Result<()> {
    a_list_is_true(zookeeper(&tempfile::tempdir()?).await?).await
}

/// What is done at one frontend another lists as soon as its session has heard of it.
#[tokio::test]
async fn a_list_at_another_frontend_is_true() -> Result<()> {
    let (dir, blobs) = (tempfile::tempdir()?, Blobs::memory());
    let (one, two) = (zookeeper(&dir).await?, zookeeper(&dir).await?);
    let (here, there) = (scene(&one, &blobs), scene(&two, &blobs));
    assert!(listed(&there).await?.is_empty());
    here.put_job(&one_task("j", &[])).await?;
    for round in 0..10 {
        here.trigger("j").await?;
        two.catch_up().await?;
        assert_eq!(phase(&there).await?, Some(BuildPhase::Queued), "{round}");
        let claim = here.task().await?;
        two.catch_up().await?;
        assert_eq!(phase(&there).await?, Some(BuildPhase::Running), "{round}");
        here.finish(&claim).await?;
        two.catch_up().await?;
        assert_eq!(phase(&there).await?, Some(BuildPhase::Finished), "{round}");
    }
    Ok(())
}
