//! `git-checkout`, over repositories of every kind.

use std::path::{Path, PathBuf};
use std::process::Command;

use distci_model::config::Action;
use distci_model::outcome::{Failure, Outcome, TaskResult};
use serde_json::json;
use tempfile::TempDir;

use crate::frontend::input;
use crate::{Scene, action, failure, shell};

/// A repository with two commits on `main`, a branch, tags and a change that is no branch.
fn repository() -> (TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let script = "git init -q -b main; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b \
        GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n\
        echo one > f; git add f; git commit -qm one; git tag -a v1 -m v1\n\
        git switch -qc topic/x; echo topic > f; git commit -qam topic\n\
        echo change > f; git commit -qam change; git update-ref refs/pull/7/head HEAD\n\
        git reset -q --hard HEAD~; git switch -q main; echo two > f; git commit -qam two\n\
        git rev-parse v1^{commit} topic/x refs/pull/7/head main";
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let ids = String::from_utf8(output.stdout).unwrap();
    (folder, ids.lines().map(str::to_owned).collect())
}

fn checkout(repository: &Path, params: &serde_json::Value) -> Action {
    let mut all = json!({"repository": repository});
    all.as_object_mut()
        .unwrap()
        .extend(params.as_object().unwrap().clone());
    action(json!({"type": "git-checkout", "params": all}))
}

#[tokio::test]
async fn every_name_of_a_revision_is_understood() {
    let scene = Scene::new().await;
    let (repository, ids) = repository();
    let [v1, topic, pull, main] = [0, 1, 2, 3].map(|index| ids[index].clone());
    let cases = [
        ("HEAD", &main, Some("main"), Some("refs/heads/main")),
        ("main", &main, Some("main"), Some("refs/heads/main")),
        (
            "topic/x",
            &topic,
            Some("topic/x"),
            Some("refs/heads/topic/x"),
        ),
        (
            "refs/heads/topic/x",
            &topic,
            Some("topic/x"),
            Some("refs/heads/topic/x"),
        ),
        ("v1", &v1, None, Some("refs/tags/v1")),
        ("refs/pull/7/head", &pull, None, Some("refs/pull/7/head")),
        ("pull/7/head", &pull, None, Some("refs/pull/7/head")),
        (v1.as_str(), &v1, None, None),
        (&topic[..10], &topic, None, None),
    ];
    for depth in [json!({}), json!({"depth": 1})] {
        for (reference, commit, branch, full) in &cases {
            let mut params = depth.clone();
            params["ref"] = json!(reference);
            let result = scene.done(checkout(repository.path(), &params)).await;
            assert_eq!(result.outcome, Outcome::Success, "{reference} {depth}");
            let export = |name: &str| result.exports.get(name).map(String::as_str);
            assert_eq!(export("GIT_COMMIT"), Some(commit.as_str()), "{reference}");
            assert_eq!(
                (export("GIT_BRANCH"), export("DISTCI_REF")),
                (*branch, *full),
                "{reference}"
            );
        }
    }
    scene.close().await;
}

#[tokio::test]
async fn a_checkout_knows_its_origin_and_travels() {
    let scene = Scene::new().await;
    let (repository, _) = repository();
    let params = json!({"checkout-dir": "src/here", "ref": "topic/x"});
    let result = scene.done(checkout(repository.path(), &params)).await;
    let layers = vec![input("git", &result.layer.unwrap(), &[])];
    let script = format!(
        "cd src/here; test $(git remote get-url origin) = {}; test -z \"$(git status --porcelain)\"\n\
         test $(git rev-parse --abbrev-ref HEAD) = topic/x; git log --oneline | wc -l\n\
         test $(git rev-parse origin/main) != $(git rev-parse HEAD); git fsck --full\n\
         ! grep -rl worker/git .git",
        repository.path().display()
    );
    let ticket = scene.frontend.post(shell(&script), 60, layers);
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(
        result.outcome,
        Outcome::Success,
        "{}",
        scene.frontend.console(&ticket)
    );
    scene.close().await;
}

#[tokio::test]
async fn a_known_commit_needs_no_repository() {
    let scene = Scene::new().await;
    let (repository, ids) = repository();
    let first = scene.done(checkout(repository.path(), &json!({}))).await;
    assert_eq!(first.outcome, Outcome::Success);
    std::fs::rename(
        repository.path().join(".git"),
        repository.path().join("gone"),
    )
    .unwrap();
    let again = scene
        .done(checkout(repository.path(), &json!({"ref": ids[0]})))
        .await;
    assert_eq!(again.outcome, Outcome::Success);
    scene.close().await;
}

#[tokio::test]
async fn a_damaged_mirror_is_replaced() {
    let scene = Scene::new().await;
    let (repository, _) = repository();
    scene.done(checkout(repository.path(), &json!({}))).await;
    let mirror = scene.mirror();
    std::fs::write(mirror.join("refs/heads/main.lock"), "").unwrap();
    for objects in std::fs::read_dir(mirror.join("objects")).unwrap() {
        std::fs::remove_dir_all(objects.unwrap().path()).unwrap();
    }
    let again = scene.done(checkout(repository.path(), &json!({}))).await;
    assert_eq!(again.outcome, Outcome::Success);
    scene.close().await;
}

#[tokio::test]
async fn a_git_that_was_killed_keeps_nobody_out() {
    let scene = Scene::new().await;
    let (repository, _) = repository();
    scene.done(checkout(repository.path(), &json!({}))).await;
    let mirror = scene.mirror();
    let locks = [
        "shallow.lock",
        "packed-refs.lock",
        "objects/maintenance.lock",
    ];
    for lock in locks {
        std::fs::write(mirror.join(lock), "").unwrap();
    }
    let again = scene.done(checkout(repository.path(), &json!({}))).await;
    assert_eq!(again.outcome, Outcome::Success);
    for lock in locks {
        assert!(!mirror.join(lock).exists(), "{lock} was left");
    }
    scene.close().await;
}

#[tokio::test]
async fn a_parameter_cannot_bring_credentials() {
    let scene = Scene::new().await;
    let address = Path::new("http://me:swordfish@127.0.0.1:1/r.git");
    let ticket = scene
        .frontend
        .post(checkout(address, &json!({})), 60, vec![]);
    let result = scene.frontend.result(&ticket).await;
    assert!(matches!(failure(&result), Failure::Configuration { .. }));
    assert!(!scene.frontend.console(&ticket).contains("swordfish"));
    scene.close().await;
}

#[tokio::test]
async fn a_moved_branch_is_followed() {
    let scene = Scene::new().await;
    let (repository, ids) = repository();
    let before = scene
        .done(checkout(repository.path(), &json!({"ref": "main"})))
        .await;
    let script = "git -c user.name=a -c user.email=a@b commit -qm three --allow-empty; \
        git branch -D topic/x; git branch topic; git rev-parse main";
    let moved = Command::new("sh")
        .args(["-ec", script])
        .current_dir(&repository)
        .output()
        .unwrap();
    assert!(moved.status.success());
    let after = scene
        .done(checkout(repository.path(), &json!({"ref": "main"})))
        .await;
    assert_eq!(before.exports["GIT_COMMIT"], ids[3]);
    assert_ne!(after.exports["GIT_COMMIT"], ids[3]);
    // A directory of branches that has become a branch is not in the way.
    let topic = scene
        .done(checkout(repository.path(), &json!({"ref": "topic"})))
        .await;
    assert_eq!(topic.exports["GIT_COMMIT"], after.exports["GIT_COMMIT"]);
    scene.close().await;
}

#[tokio::test]
async fn submodules_come_along() {
    let scene = Scene::new().await;
    let ((inner, _), (outer, _)) = (repository(), repository());
    let script = format!(
        "git -c protocol.file.allow=always submodule --quiet add {} sub\n\
         git -c user.name=a -c user.email=a@b commit -qm sub",
        inner.path().display()
    );
    assert!(
        Command::new("sh")
            .args(["-ec", &script])
            .current_dir(&outer)
            .status()
            .unwrap()
            .success()
    );
    let result = scene
        .done(checkout(outer.path(), &json!({"submodules": true})))
        .await;
    let layers = vec![input("git", &result.layer.unwrap(), &[])];
    let look = scene
        .frontend
        .post(shell("test $(cat sub/f) = two"), 60, layers);
    assert_eq!(scene.frontend.result(&look).await.outcome, Outcome::Success);
    scene.close().await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let scene = Scene::new().await;
    let (repository, _) = repository();
    let detail = |result: TaskResult| match failure(&result) {
        Failure::Checkout { detail } => detail.clone(),
        other => panic!("{other}"),
    };
    let no_ref = scene
        .done(checkout(repository.path(), &json!({"ref": "nope"})))
        .await;
    assert!(detail(no_ref).ends_with("has no branch, tag or ref \"nope\""));
    let nowhere = PathBuf::from("/no/such/repository");
    let nowhere = scene.done(checkout(&nowhere, &json!({}))).await;
    assert!(detail(nowhere).contains("/no/such/repository"));
    let commit = scene
        .done(checkout(repository.path(), &json!({"ref": "0".repeat(40)})))
        .await;
    assert!(matches!(failure(&commit), Failure::Checkout { .. }));
    scene.close().await;
}
