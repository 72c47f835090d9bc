//! Jobs and triggers over HTTP.

use anyhow::Result;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use distci_model::id::BuildRef;
use distci_model::wire::{JobSummary, JobView, Page};
use serde_json::json;

use super::scene::{Answer, Scene, one_task};

async fn put(scene: &Scene, labels: &[&str], headers: &[(&str, &str)]) -> Result<Answer> {
    let body = one_task("j", labels).to_string();
    scene.send(Method::PUT, "/jobs/j", headers, body).await
}

#[tokio::test(start_paused = true)]
async fn a_job_changes_by_its_etag() -> Result<()> {
    let scene = Scene::new();
    put(&scene, &[], &[("if-match", "\"1\"")])
        .await?
        .problem(412)?;
    let made = put(&scene, &[], &[("if-none-match", "*")]).await?;
    assert_eq!(
        (made.status, made.header("etag")),
        (StatusCode::CREATED, "\"1\"")
    );
    put(&scene, &["a"], &[("if-none-match", "*")])
        .await?
        .problem(412)?;
    let stale = put(&scene, &["a"], &[("if-match", "\"7\"")])
        .await?
        .problem(412)?;
    assert!(stale.detail.contains("revision 1"), "{}", stale.detail);
    for _ in 0..2 {
        // The second is the first again, whose answer got lost.
        let changed = put(&scene, &["a"], &[("if-match", "\"1\"")]).await?;
        assert_eq!(
            (changed.status, changed.header("etag")),
            (StatusCode::OK, "\"2\"")
        );
    }
    for bad in [
        [("if-match", "x")],
        [("if-match", "")],
        [("if-none-match", "\"1\"")],
    ] {
        put(&scene, &["b"], &bad).await?.problem(400)?;
    }
    let both = [("if-match", "\"2\""), ("if-none-match", "*")];
    put(&scene, &["b"], &both).await?.problem(400)?;
    let read = scene.get("/jobs/j").await?;
    let view: JobView = read.json()?;
    assert_eq!((read.header("etag"), view.revision), ("\"2\"", 2));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_job_file_is_refused_with_line_and_path() -> Result<()> {
    let scene = Scene::new();
    let text = "{\n  \"job_id\": \"j\",\n  \"tasks\": [\n    {\"type\": \"execute-shel\",\n     \"params\": {\"script\": \"x\"}}\n  ]\n}";
    let answer = scene.send(Method::PUT, "/jobs/j", &[], text).await?;
    let problem = answer.problem(400)?;
    assert_eq!(problem.kind, "urn:distci:invalid-job");
    let first = serde_json::to_value(&problem.problems[0])?;
    assert_eq!(first["line"], json!(4), "{first}");
    assert!(first.to_string().contains("tasks[0]"), "{first}");
    let other = one_task("other", &[]).to_string();
    scene
        .send(Method::PUT, "/jobs/j", &[], other)
        .await?
        .problem(400)?;
    scene
        .send(Method::PUT, "/jobs/j", &[], "")
        .await?
        .problem(400)?;
    scene
        .send(Method::PUT, "/jobs/j", &[], vec![0xff, 0xfe])
        .await?
        .problem(400)?;
    scene.get("/jobs/j").await?.problem(404)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_trigger_with_a_key_is_answered_alike() -> Result<()> {
    let scene = Scene::new();
    put(&scene, &[], &[]).await?;
    let key = "0123456789abcdef0123456789abcdef";
    let trigger = async |path: &str, key: &str| {
        let headers = [("idempotency-key", key)];
        scene.send(Method::POST, path, &headers, "{}").await
    };
    let first = trigger("/jobs/j/builds", key).await?;
    let again = trigger("/jobs/j/builds", key).await?;
    assert_eq!(
        (first.status, again.status),
        (StatusCode::CREATED, StatusCode::OK)
    );
    assert_eq!(first.json::<BuildRef>()?, again.json::<BuildRef>()?);
    for bad in ["", "x", "0123456789ABCDEF0123456789ABCDEF", &"0".repeat(33)] {
        trigger("/jobs/j/builds", bad).await?.problem(400)?;
    }
    // Without a key each is a trigger of its own.
    scene.trigger("j").await?;
    scene.trigger("j").await?;
    let other = "f".repeat(32);
    let rerun = trigger("/jobs/j/builds/1/rerun", &other).await?;
    let again = trigger("/jobs/j/builds/1/rerun", &other).await?;
    assert_eq!(
        (rerun.status, again.status),
        (StatusCode::CREATED, StatusCode::OK)
    );
    assert_eq!(again.json::<BuildRef>()?.number.get(), 4);
    let unknown = json!({ "parameters": { "NO": "1" } });
    let problem = scene.post("/jobs/j/builds", &unknown).await?.problem(422)?;
    assert!(problem.detail.contains("NO"), "{}", problem.detail);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn jobs_are_listed_by_name_in_pages_and_without_the_removed() -> Result<()> {
    let scene = Scene::new();
    for job in ["c", "a", "b", "d"] {
        scene.put_job(&one_task(job, &[])).await?;
    }
    scene.trigger("b").await?;
    let gone = scene
        .send(Method::DELETE, "/jobs/c", &[], Body::empty())
        .await?;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let busy = scene
        .send(Method::DELETE, "/jobs/b", &[], Body::empty())
        .await?;
    busy.problem(422)?;
    let first: Page<JobSummary> = scene.get("/jobs?limit=2").await?.json()?;
    let names: Vec<_> = first.items.iter().map(|item| item.job.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(first.items[0].latest, None);
    assert_eq!(
        first.items[1]
            .latest
            .as_ref()
            .map(|build| build.number.get()),
        Some(1)
    );
    let rest = format!("/jobs?limit=2&cursor={}", first.next.unwrap_or_default());
    let rest: Page<JobSummary> = scene.get(&rest).await?.json()?;
    let names: Vec<_> = rest.items.iter().map(|item| item.job.as_str()).collect();
    assert_eq!((names, rest.next), (vec!["d"], None));
    Ok(())
}
