//! Test reports: fenced by attempt, seen with their build, and followed over builds.

use anyhow::Result;
use distci_model::id::BuildRef;
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::test_report::flaky::Flaky;
use distci_model::test_report::{MAX_TESTS, Test, TestOutcome, TestReport};
use distci_model::wire::Claim;
use distci_store::{Lately, StoreError};

use crate::scene::{Scene, job, job_id};

fn report(tests: &[(&str, TestOutcome)]) -> TestReport {
    let mut report = TestReport::default();
    for (name, outcome) in tests {
        report.counts.add(*outcome);
        report.tests.push(Test::of("s", *name, *outcome));
    }
    report
}

/// Completes a task that has checked out this commit, with this report.
async fn complete(scene: &Scene, claim: &Claim, commit: &str, report: &TestReport) -> Result<()> {
    let (store, key, attempt) = (scene.store(), &claim.ticket, claim.attempt);
    store.put_tests(key, attempt, report).await?;
    let mut result = TaskResult::of(Outcome::Success);
    result.tests = Some(report.counts);
    let commit = ("GIT_COMMIT".to_owned(), commit.to_owned());
    result.exports.extend([commit]);
    Ok(store.complete(key, attempt, &result, scene.now()).await?)
}

async fn build(scene: &Scene, request: &str, commit: &str, end: TestOutcome) -> Result<BuildRef> {
    let build = scene.post("j", request).await?;
    let claim = scene.next_task().await?;
    let report = report(&[("steady", TestOutcome::Passed), ("moody", end)]);
    complete(scene, &claim, commit, &report).await?;
    scene.control().await?;
    Ok(build)
}

#[tokio::test]
async fn a_report_is_seen_with_its_build_and_only_under_the_claim_stored() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    let build = scene.post("j", "r").await?;
    let claim = scene.next_task().await?;
    let (store, key) = (scene.store(), &claim.ticket);
    let told = report(&[("x", TestOutcome::Failed)]);
    let mut phantom = TaskResult::of(Outcome::Success);
    phantom.tests = Some(told.counts);
    let refused = store
        .complete(key, claim.attempt, &phantom, scene.now())
        .await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    let mut many = report(&[]);
    many.tests = vec![Test::of("", "x", TestOutcome::Passed); MAX_TESTS + 1];
    let refused = store.put_tests(key, claim.attempt, &many).await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    complete(&scene, &claim, "c", &told).await?;
    let late = store.put_tests(key, claim.attempt, &told).await;
    assert!(
        matches!(late, Err(StoreError::AttemptOver { .. })),
        "{late:?}"
    );
    scene.control().await?;
    let tests = store.build_tests(&build).await?;
    assert_eq!((tests.counts, tests.left_out), (told.counts, 0));
    assert_eq!(tests.tests[0].test, told.tests[0]);
    let nobody = BuildRef {
        number: build.number.next(),
        ..build
    };
    let missing = store.build_tests(&nobody).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    Ok(())
}

#[tokio::test]
async fn a_test_is_followed_over_builds_and_flaky_if_nothing_changed() -> Result<()> {
    use TestOutcome::{Failed, Passed};
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    build(&scene, "1", "one", Passed).await?;
    build(&scene, "2", "two", Passed).await?;
    let last = build(&scene, "3", "two", Failed).await?;
    let store = scene.store();
    let lately = |builds| Lately {
        before: None,
        builds,
    };
    let all = store
        .test_history(&job_id("j"), "s::moody", None, lately(10))
        .await?;
    assert_eq!((all.builds, all.next.as_deref()), (3, None));
    let [moody] = all.tests.as_slice() else {
        anyhow::bail!("{all:?}");
    };
    let ends: Vec<_> = moody
        .runs
        .iter()
        .map(|run| (run.build.get(), run.outcome))
        .collect();
    assert_eq!(ends, [(3, Failed), (2, Passed), (1, Passed)]);
    assert_eq!(moody.runs[0].commit.as_deref(), Some("two"));
    assert!(
        matches!(moody.flaky, Some(Flaky::SameInputs { .. })),
        "{moody:?}"
    );
    let steady = store
        .test_history(&job_id("j"), "steady", None, lately(10))
        .await?;
    assert_eq!(steady.tests[0].flaky, None);
    let part = store
        .test_history(&job_id("j"), "moody", None, lately(1))
        .await?;
    assert_eq!(
        (part.tests[0].runs.len(), part.next.as_deref()),
        (1, Some("3"))
    );
    let other = "b".parse()?;
    let none = store
        .test_history(&job_id("j"), "moody", Some(&other), lately(10))
        .await?;
    assert!(none.tests.is_empty());
    let mut tests = store.build_tests(&last).await?.tests;
    store.mark_flaky(&last, 10, &mut tests).await?;
    let flaky: Vec<_> = tests.iter().map(|view| view.flaky.is_some()).collect();
    assert_eq!(flaky, [false, true]);
    // What comes later does not change what was known then.
    let first = BuildRef {
        number: distci_model::id::BuildNumber::FIRST,
        ..last
    };
    let mut tests = store.build_tests(&first).await?.tests;
    store.mark_flaky(&first, 10, &mut tests).await?;
    assert!(tests.iter().all(|view| view.flaky.is_none()));
    Ok(())
}

#[tokio::test]
async fn what_was_built_of_nobody_knows_what_is_not_compared() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&job("j", &["a"])).await?;
    for (request, end) in [("1", TestOutcome::Passed), ("2", TestOutcome::Failed)] {
        scene.post("j", request).await?;
        let claim = scene.next_task().await?;
        let report = report(&[("x", end)]);
        let (store, key) = (scene.store(), &claim.ticket);
        store.put_tests(key, claim.attempt, &report).await?;
        let mut result = TaskResult::of(Outcome::Success);
        result.tests = Some(report.counts);
        store
            .complete(key, claim.attempt, &result, scene.now())
            .await?;
        scene.control().await?;
    }
    let lately = Lately {
        before: None,
        builds: 10,
    };
    let history = scene
        .store()
        .test_history(&job_id("j"), "x", None, lately)
        .await?;
    assert_eq!(
        (history.tests[0].runs.len(), history.tests[0].flaky),
        (2, None)
    );
    Ok(())
}
