//! `job-file`, over a real repository.

use std::process::Command;

use distci_model::config::JobConfig;
use distci_model::outcome::{Failure, Outcome};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Scene, failure};

/// A repository whose first commit has another file than its last, and odd ones besides.
fn repository() -> (TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"git init -q -b main; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b \
        GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        echo '{"tasks": [{"type": "execute-shell", "params": {"script": "old"}}]}' > .distci.json
        git add -A; git commit -qm one
        mkdir ci 'odd "[ä]*'
        echo '{"include": ["ci/a.json"]}' > .distci.json
        echo '{"include": ["../odd \"[ä]*/b.json"], "env": {"A": "1"}}' > ci/a.json
        echo '{"tasks": [{"type": "execute-shell", "params": {"script": "new"}}]}' > 'odd "[ä]*/b.json'
        echo '{"include": ["ci/../../x.json"]}' > out.json
        echo '{"include": ["linked/a.json"]}' > through.json
        ln -s ci linked; ln -s ci/a.json link.json; printf '"\377"' > latin.json
        head -c 524289 /dev/zero > large.json
        git add -A; git commit -qm two; git rev-parse HEAD~ HEAD"#;
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let ids = String::from_utf8(output.stdout).unwrap();
    (folder, ids.lines().map(str::to_owned).collect())
}

fn job(repository: &TempDir, more: &Value) -> JobConfig {
    let mut file = json!({ "repository": repository.path() });
    let more = more.as_object().unwrap().clone();
    file.as_object_mut().unwrap().extend(more);
    let job = json!({ "job_id": "job", "job_file": file });
    JobConfig::parse(&job.to_string()).unwrap()
}

#[tokio::test]
async fn the_file_of_a_commit_is_read_with_what_it_includes() {
    let scene = Scene::new().await;
    let (repository, ids) = repository();
    for (reference, commit, script) in [
        ("HEAD", &ids[1], "new"),
        ("main", &ids[1], "new"),
        (&ids[0], &ids[0], "old"),
        (&ids[1], &ids[1], "new"),
    ] {
        let job = job(&repository, &json!({ "ref": reference }));
        let ticket = scene.frontend.post_reading(&job);
        let result = scene.frontend.result(&ticket).await;
        assert_eq!(result.outcome, Outcome::Success, "{reference}");
        assert_eq!(&result.outputs["commit"], commit);
        assert!(result.layer.is_none());
        let stored = scene.frontend.stored();
        let text = String::from_utf8(stored.artifacts["job.json"].1.to_vec()).unwrap();
        assert!(text.contains(script) && !text.contains("include"), "{text}");
    }
    scene.close().await;
}

#[tokio::test]
async fn nothing_outside_of_the_commit_is_read() {
    let scene = Scene::new().await;
    let (repository, _) = repository();
    for (path, said) in [
        ("none.json", "none.json is not in the commit"),
        ("ci", "ci is no regular file"),
        ("link.json", "link.json is a symbolic link"),
        ("latin.json", "latin.json is not UTF-8"),
        ("large.json", "has 524289 bytes; the limit is 524288"),
        ("linked/a.json", "is not in the commit"),
        (
            "through.json",
            "through.json:1:14: include[0]: linked/a.json is not in the commit",
        ),
        ("out.json", "out.json:1:14: include[0]: leaves the folder"),
    ] {
        let ticket = scene
            .frontend
            .post_reading(&job(&repository, &json!({ "path": path })));
        let result = scene.frontend.result(&ticket).await;
        let Failure::Configuration { detail } = failure(&result) else {
            panic!("{path}: {:?}", result.outcome);
        };
        assert!(detail.contains(said), "{path}: {detail}");
        let console = scene.frontend.console(&ticket);
        assert!(console.contains(said), "{path}: {console}");
    }
    scene.close().await;
}
