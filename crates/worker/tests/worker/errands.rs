//! Errands: looks at real repositories, and what a forge is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use distci_components::{Dialect, FakeForge, Mood};
use distci_forge::{Credential, Forge, Kind};
use distci_model::capability::Kind as TaskKind;
use distci_model::errand::{CommitState, ErrandOrder, ErrandResult};
use distci_model::wire::{Standing, Work};

use crate::Scene;
use crate::frontend::Report;

const TOKEN: &str = "glpat-thistokenisnevershown";

/// A repository with two branches and a tag with a note of its own.
fn repository(folder: &Path) -> Vec<String> {
    let script = "git init -q -b trunk; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b \
        GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n\
        echo one > f; git add f; git commit -qm one; git tag -a v1 -m v1\n\
        git switch -qc release/1; echo two > f; git commit -qam two; git switch -q trunk\n\
        git rev-parse trunk release/1";
    let mut shell = Command::new("sh");
    let output = shell.args(["-ec", script]).current_dir(folder).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let ids = String::from_utf8(output.stdout).unwrap();
    ids.lines().map(str::to_owned).collect()
}

fn poll(repository: &str, refs: &[&str]) -> ErrandOrder {
    ErrandOrder::Poll {
        repository: repository.to_owned(),
        refs: refs.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn heads(refs: &[(&str, &String)]) -> ErrandResult {
    let refs = refs.iter();
    let heads: BTreeMap<String, String> = refs
        .map(|(name, sha)| ((*name).to_owned(), (*sha).clone()))
        .collect();
    ErrandResult::Looked { heads }
}

#[tokio::test]
async fn a_look_finds_the_refs_that_fit() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let ids = repository(folder.path());
    let (trunk, release) = (&ids[0], &ids[1]);
    let path = folder.path().to_str().unwrap();
    for address in [path.to_owned(), format!("file://{path}")] {
        for (refs, expected) in [
            (&[][..], heads(&[("refs/heads/trunk", trunk)])),
            (&["trunk"], heads(&[("refs/heads/trunk", trunk)])),
            // The commit, not the note about it.
            (&["v*"], heads(&[("refs/tags/v1", trunk)])),
            (
                &["*"],
                heads(&[("refs/heads/trunk", trunk), ("refs/tags/v1", trunk)]),
            ),
            (
                &["**", "!v*"],
                heads(&[
                    ("refs/heads/release/1", release),
                    ("refs/heads/trunk", trunk),
                ]),
            ),
            (&["nowhere"], heads(&[])),
        ] {
            let looked = scene.frontend.errand(poll(&address, refs)).await;
            assert_eq!(looked, expected, "{address} {refs:?}");
        }
    }
    scene.close().await;
}

#[tokio::test]
async fn a_look_that_fails_says_why_and_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, "http://me:hunter2secret@127.0.0.1\n").unwrap();
    let scene = Scene::with(|settings| settings.git_credentials = Some(credentials)).await;
    let gone = folder.path().join("hunter2secret");
    let many = folder.path().join("many");
    std::fs::create_dir(&many).unwrap();
    repository(&many);
    let script = "for i in $(seq 300); do git update-ref refs/heads/b$i HEAD; done";
    let mut shell = Command::new("sh");
    assert!(
        shell
            .args(["-ec", script])
            .current_dir(&many)
            .status()
            .unwrap()
            .success()
    );
    for (address, refs, said) in [
        (
            gone.to_str().unwrap(),
            &[][..],
            "does not appear to be a git",
        ),
        ("http://127.0.0.1:9/a/b", &[], "127.0.0.1"),
        ("https://me:pw@host/a", &[], "holds credentials"),
        (many.to_str().unwrap(), &["b*"], "300 refs fit"),
    ] {
        let looked = scene.frontend.errand(poll(address, refs)).await;
        let ErrandResult::Nothing { detail, .. } = looked else {
            panic!("{address}: {looked:?}");
        };
        assert!(detail.contains(said), "{detail}");
        assert!(!detail.contains("hunter2secret"), "{detail}");
    }
    scene.close().await;
}

fn report(fake: &FakeForge, state: CommitState) -> ErrandOrder {
    ErrandOrder::Report {
        repository: format!("{}/acme/deep/app", fake.host()),
        sha: "1".repeat(40),
        context: "distci/app".to_owned(),
        state,
        description: "build 1 is under way".to_owned(),
        url: Some("https://ci.example.org/jobs/app/builds/1".to_owned()),
        check: None,
    }
}

async fn scene_of(fake: &FakeForge) -> Scene {
    let credential = Credential::new(TOKEN.to_owned());
    let forge = Forge::new(Kind::Gitlab, &fake.host(), Some(&fake.api()), &credential).unwrap();
    let host = fake.host().parse().unwrap();
    Scene::with(|settings| {
        settings.kinds = vec![TaskKind::CommitStatus];
        settings.forges = BTreeMap::from([(host, forge)]);
    })
    .await
}

#[tokio::test]
async fn a_forge_is_told_and_its_refusals_are_reported() {
    let fake = FakeForge::start(Dialect::Gitlab, TOKEN, 0).unwrap();
    let scene = scene_of(&fake).await;
    for state in [
        CommitState::Pending,
        CommitState::Pending,
        CommitState::Success,
    ] {
        let told = scene.frontend.errand(report(&fake, state)).await;
        assert_eq!(told, ErrandResult::Told { state });
    }
    assert_eq!(fake.states("distci/app"), ["pending", "success"]);
    assert_eq!(fake.told()[0].repository, "acme/deep/app");
    for (mood, expected) in [
        (Mood::Status(500, None), (None, false)),
        (Mood::Status(429, Some(30)), (Some(30), false)),
        (Mood::Status(401, None), (None, true)),
    ] {
        fake.next(mood);
        let told = scene
            .frontend
            .errand(report(&fake, CommitState::Error))
            .await;
        let ErrandResult::Nothing {
            detail,
            after,
            hopeless,
        } = told
        else {
            panic!("{told:?}");
        };
        assert_eq!((after, hopeless), expected, "{detail}");
        assert!(!detail.contains(TOKEN), "{detail}");
    }
    scene.close().await;
}

#[tokio::test]
async fn whoever_has_to_stop_gives_back_what_no_forge_answers() {
    let fake = FakeForge::start(Dialect::Gitlab, TOKEN, 0).unwrap();
    fake.set_mood(Mood::Hanging);
    let scene = scene_of(&fake).await;
    let order = Box::new(report(&fake, CommitState::Success));
    let held = scene.frontend.post_work(Work::Errand { order });
    scene
        .frontend
        .until(|_| (fake.asked() > 0).then_some(()))
        .await;
    // One that is somebody else's by now is dropped without a word.
    let order = Box::new(report(&fake, CommitState::Success));
    let lost = scene.frontend.post_work(Work::Errand { order });
    scene.frontend.tell(&lost, Standing::Lost);
    scene.stop.cancel();
    let report = scene.frontend.report(&held).await;
    assert!(matches!(report, Report::Released), "{report:?}");
    assert!(scene.frontend.stored().errands.is_empty());
}
