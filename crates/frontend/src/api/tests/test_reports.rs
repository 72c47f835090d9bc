//! Test reports over HTTP: stored, listed with what failed first, followed over builds.

use anyhow::Result;
use axum::http::{Method, StatusCode};
use distci_model::test_report::{TestHistoryView, TestsView};
use serde_json::{Value, json};

use super::scene::Scene;

/// A build whose task has reported these tests: name, outcome, milliseconds.
async fn tested(scene: &Scene, tests: &[(&str, &str, u64)]) -> Result<()> {
    let claim = scene.task().await?;
    let mut counts = json!({ "passed": 0, "failed": 0, "errored": 0, "skipped": 0 });
    for (_, outcome, _) in tests {
        counts[outcome] = json!(counts[outcome].as_u64().unwrap_or_default() + 1);
    }
    let test = |(name, outcome, ms): &(&str, &str, u64)| json!({ "suite": "s", "name": name, "outcome": outcome, "duration_ms": ms });
    let listed: Vec<Value> = tests.iter().map(test).collect();
    let report = json!({ "counts": counts, "tests": listed });
    let path = format!("/tickets/{}/{}/tests", claim.ticket, claim.attempt);
    let answer = scene
        .send(Method::PUT, &path, &[], report.to_string())
        .await?;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    let result = json!({ "verdict": "success", "tests": counts });
    let answer = scene.act(&claim, "complete", &result).await?;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    scene.control().await
}

async fn names(scene: &Scene, query: &str) -> Result<(Vec<String>, Option<String>)> {
    let view: TestsView = scene
        .get(&format!("/jobs/j/builds/1/tests{query}"))
        .await?
        .json()?;
    assert_eq!(view.counts.total(), 5);
    let names = view.items.into_iter().map(|view| view.test.name);
    Ok((names.collect(), view.next))
}

#[tokio::test(start_paused = true)]
async fn what_failed_comes_first_then_what_was_slow() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let tests = [
        ("quick", "passed", 1),
        ("slow", "passed", 900),
        ("off", "skipped", 2000),
        ("broken", "failed", 5),
        ("dead", "errored", 7),
    ];
    tested(&scene, &tests).await?;
    let all = names(&scene, "").await?;
    assert_eq!(all.0, ["dead", "broken", "slow", "quick", "off"]);
    assert_eq!(all.1, None);
    let first = names(&scene, "?limit=2").await?;
    assert_eq!(
        first,
        (vec!["dead".into(), "broken".into()], Some("2".into()))
    );
    assert_eq!(
        names(&scene, "?limit=2&cursor=4").await?,
        (vec!["off".into()], None)
    );
    assert_eq!(names(&scene, "?cursor=99").await?, (Vec::new(), None));
    assert_eq!(names(&scene, "?failed=true").await?.0.len(), 2);
    assert_eq!(names(&scene, "?task=b").await?.0.len(), 0);
    let seen = scene.get("/jobs/j/builds/1").await?.json::<Value>()?;
    let counts = &seen["tasks"][0]["run"]["result"]["tests"];
    assert_eq!(
        counts["passed"], 2,
        "the build's own view has the counts: {seen}"
    );
    for (query, status) in [("?cursor=x", 400), ("?history=x", 400), ("?failed=2", 400)] {
        let path = format!("/jobs/j/builds/1/tests{query}");
        scene.get(&path).await?.problem(status)?;
    }
    scene.get("/jobs/j/builds/2/tests").await?.problem(404)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_test_has_a_history() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    tested(&scene, &[("x", "passed", 1)]).await?;
    for end in ["failed", "passed", "failed", "passed"] {
        scene.trigger("j").await?;
        tested(&scene, &[("x", end, 1)]).await?;
    }
    let history = async |query: &str| {
        let answer = scene.get(&format!("/jobs/j/tests?{query}")).await?;
        answer.json::<TestHistoryView>()
    };
    let all = history("name=x").await?;
    assert_eq!(all.tests[0].runs.len(), 5);
    let why = all.tests[0].flaky.map(|flaky| flaky.to_string());
    assert_eq!(why.as_deref(), Some("changed 4 times in 5 builds"));
    let part = history("name=s::x&builds=2").await?;
    assert_eq!((part.builds, part.next.as_deref()), (2, Some("4")));
    let rest = history("name=s::x&builds=2&cursor=4").await?;
    assert_eq!(rest.tests[0].runs[0].build.get(), 3);
    assert!(history("name=y").await?.tests.is_empty());
    let marked: TestsView = scene
        .get("/jobs/j/builds/5/tests?history=10")
        .await?
        .json()?;
    assert!(marked.items[0].flaky.is_some());
    scene.get("/jobs/j/tests").await?.problem(400)?;
    scene.get("/jobs/k/tests?name=x").await?.problem(404)?;
    Ok(())
}
