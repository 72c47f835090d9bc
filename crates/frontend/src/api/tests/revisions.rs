//! The revisions of a job: over HTTP, as a page, and restored.

use anyhow::Result;
use axum::http::{Method, StatusCode};
use distci_model::revision::RevisionView;
use distci_model::wire::{JobView, Page};

use super::pages::Browser;
use super::scene::{Scene, one_task};

/// A job of three revisions, which differ in their labels, with a build of the first and the third.
async fn changed(scene: &Scene) -> Result<()> {
    for labels in [&["one"], &["two"], &["three"]] {
        let body = one_task("j", labels).to_string();
        let answer = scene.send(Method::PUT, "/jobs/j", &[], body).await?;
        assert!(answer.status.is_success(), "{answer:?}");
        if labels != &["two"] {
            scene.trigger("j").await?;
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn revisions_are_listed_and_each_is_there() -> Result<()> {
    let scene = Scene::new();
    changed(&scene).await?;
    let first: Page<RevisionView> = scene.get("/jobs/j/revisions?limit=2").await?.json()?;
    let numbers: Vec<u32> = first.items.iter().map(|item| item.revision).collect();
    assert_eq!((numbers, first.next.as_deref()), (vec![3, 2], Some("2")));
    assert!(first.items.iter().all(|item| item.since.is_some()));
    let rest = "/jobs/j/revisions?limit=2&cursor=2";
    let rest: Page<RevisionView> = scene.get(rest).await?.json()?;
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let second: JobView = scene.get("/jobs/j/revisions/2").await?.json()?;
    let text = serde_json::to_string(&second.configuration)?;
    assert!(second.revision == 2 && text.contains("two"), "{text}");
    for missing in [0, 4] {
        let path = format!("/jobs/j/revisions/{missing}");
        scene.get(&path).await?.problem(404)?;
    }
    scene.get("/jobs/other/revisions").await?.problem(404)?;
    scene
        .get("/jobs/j/revisions?cursor=x")
        .await?
        .problem(400)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_a_revision_changed_is_shown_and_undone() -> Result<()> {
    let scene = Scene::new();
    changed(&scene).await?;
    let browser = Browser::signed_in(&scene).await?;
    let job = browser.page("/jobs/j").await?;
    assert!(job.contains("href=\"/jobs/j/revisions\""), "{job}");
    let build = browser.page("/jobs/j/builds/2").await?;
    assert!(build.contains("/jobs/j/revisions?of=3&#38;against=1"));
    assert!(build.contains("changed since #1, which had 1"));
    assert!(
        !browser
            .page("/jobs/j/builds/1")
            .await?
            .contains("changed since")
    );
    let both = browser.page("/jobs/j/revisions?of=3&against=1").await?;
    assert!(both.contains(">+1<") && both.contains(">−1<"), "{both}");
    assert!(both.contains("three") && both.contains("one"), "{both}");
    let first = browser.page("/jobs/j/revisions?of=1").await?;
    assert!(first.contains("the first") && first.contains("<td>+</td>"));
    let none = browser.page("/jobs/j/revisions?of=9").await?;
    assert!(none.contains("What revision 9 said is not known"));
    let later = browser.page("/jobs/j/revisions?before=2").await?;
    assert!(later.contains("Latest revisions") && !later.contains("of=3"));

    let edit = browser.page("/jobs/j/edit?revision=1").await?;
    assert!(edit.contains("one") && edit.contains("name=\"revision\" value=\"3\""));
    let missing = browser.get("/jobs/j/edit?revision=7").await?;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let text = one_task("j", &["one"]).to_string();
    let fields = [("text", text.as_str()), ("revision", "3")];
    let saved = browser.submit("/jobs/j/edit", &fields).await?;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{saved:?}");
    let same = browser.page("/jobs/j/revisions?of=4&against=1").await?;
    assert!(same.contains("The two say the same."), "{same}");
    Ok(())
}
