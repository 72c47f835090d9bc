//! Test reports that `publish-artifacts` finds in a workspace.

use distci_model::id::TicketKey;
use distci_model::outcome::{Failure, Outcome};
use distci_model::test_report::TestCounts;
use serde_json::{Value, json};

use crate::frontend::input;
use crate::{Scene, action, failure, shell};

/// Posts a task that publishes what `script` has left.
async fn publish(scene: &Scene, script: &str, params: &Value) -> TicketKey {
    let made = scene.done(shell(script)).await;
    let layers = vec![input("made", &made.layer.unwrap(), &[])];
    let publish = action(json!({"type": "publish-artifacts", "params": params}));
    scene.frontend.post(publish, 60, layers)
}

const MIXED: &str = "mkdir -p a/b
printf '<testsuite name=\"s\"><testcase name=\"good\" time=\"0.5\"/>\
<testcase name=\"bad\"><failure message=\"no\">line 7</failure></testcase></testsuite>' > a/TEST-1.xml
printf '1..2\\nok 1 - x\\nok 2 - y # SKIP no\\n' > a/b/t.tap";

#[tokio::test]
async fn reports_of_all_forms_become_one_and_failed_tests_fail_the_task() {
    let scene = Scene::new().await;
    let params =
        json!({"artifacts": ["a/*.xml"], "junit": ["**/TEST-*.xml"], "tap": ["a/**/*.tap"]});
    let ticket = publish(&scene, MIXED, &params).await;
    let result = scene.frontend.result(&ticket).await;
    let counts = TestCounts {
        passed: 2,
        failed: 1,
        errored: 0,
        skipped: 1,
    };
    assert_eq!(result.tests, Some(counts));
    assert_eq!(
        result.artifacts, 1,
        "what is published is published all the same"
    );
    let first = vec!["s::bad".to_owned()];
    let (failed, of) = (1, 4);
    assert_eq!(failure(&result), &Failure::Tests { failed, of, first });
    assert_eq!(
        result.outcome.to_string(),
        "failure: 1 of 4 tests failed: s::bad"
    );
    let report = scene.frontend.stored().tests[&ticket].clone();
    assert_eq!((report.counts, report.left_out), (counts, 0));
    assert_eq!(report.tests[0].message, "no");
    assert_eq!(report.tests[0].details, "line 7");
    let console = scene.frontend.console(&ticket);
    assert!(console.contains("test failed: s::bad\n"), "{console}");
    assert!(
        console.contains("tests: 2 passed, 1 failed, 1 skipped\n"),
        "{console}"
    );
    scene.close().await;
}

#[tokio::test]
async fn what_follows_is_the_jobs_to_say() {
    let scene = Scene::new().await;
    let params = json!({"junit": ["**/*.xml"], "failed_tests": "ignore"});
    let ticket = publish(&scene, MIXED, &params).await;
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(result.outcome, Outcome::Success);
    assert_eq!(result.tests.map(TestCounts::bad), Some(1));

    let broken = "printf '<testsuite name=\"s\">\\n<testcase name=\"a\"/>\\n' > cut.xml";
    let ticket = publish(&scene, broken, &json!({"junit": ["*.xml"]})).await;
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(
        result.outcome,
        Outcome::Success,
        "a broken report is told of only"
    );
    assert_eq!(result.tests.map(TestCounts::total), Some(1));
    let told = "broken test report: cut.xml:3: the report breaks off within 1 elements";
    let console = scene.frontend.console(&ticket);
    assert!(console.contains(told), "{console}");

    let params = json!({"junit": ["*.xml"], "broken_reports": "fail"});
    let ticket = publish(&scene, broken, &params).await;
    let result = scene.frontend.result(&ticket).await;
    let detail = "cut.xml:3: the report breaks off within 1 elements".to_owned();
    assert_eq!(failure(&result), &Failure::BrokenReport { detail });

    let ticket = publish(&scene, broken, &json!({"tap": ["*.tap"]})).await;
    let result = scene.frontend.result(&ticket).await;
    let pattern = "*.tap".to_owned();
    assert_eq!(failure(&result), &Failure::NoMatch { pattern });
    let ticket = publish(&scene, broken, &json!({"tap": ["*.tap"], "optional": true})).await;
    let result = scene.frontend.result(&ticket).await;
    assert_eq!((result.outcome, result.tests), (Outcome::Success, None));
    scene.close().await;
}

#[tokio::test]
async fn a_report_without_an_end_is_not_read() {
    let scene = Scene::new().await;
    let huge = "truncate -s 40M huge.xml; printf '<testsuite/>' > fine.xml";
    let ticket = publish(&scene, huge, &json!({"junit": ["*.xml"]})).await;
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(result.tests, Some(TestCounts::default()));
    let console = scene.frontend.console(&ticket);
    assert!(
        console.contains("huge.xml:1: the report has over 33554432 bytes"),
        "{console}"
    );
    scene.close().await;
}
