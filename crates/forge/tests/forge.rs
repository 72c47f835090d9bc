//! The forges as their fakes take them.

use std::time::Duration;

use anyhow::{Context, Result};
use distci_components::{Dialect, FakeForge, Mood};
use distci_forge::{Credential, Forge, InvalidForge, Kind, Refusal, Said};
use distci_model::errand::CommitState;

const TOKEN: &str = "ghp_thistokenisnevershown";
const ALL: [(Kind, Dialect); 4] = [
    (Kind::Github, Dialect::Github),
    (Kind::Gitlab, Dialect::Gitlab),
    (Kind::Gitea, Dialect::Gitea),
    (Kind::Bitbucket, Dialect::Bitbucket),
];

fn said(state: CommitState) -> Said {
    Said {
        repository: "acme/app".to_owned(),
        sha: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        context: "distci/app".to_owned(),
        state,
        description: "ä".repeat(140),
        url: Some("https://ci.example.org/jobs/app/builds/1".to_owned()),
        check: None,
    }
}

fn forge(kind: Kind, fake: &FakeForge, token: &str) -> Result<Forge> {
    let credential = Credential::new(token.to_owned());
    Ok(Forge::new(
        kind,
        &fake.host(),
        Some(&fake.api()),
        &credential,
    )?)
}

#[tokio::test]
async fn every_forge_takes_every_state_in_its_own_words() -> Result<()> {
    use CommitState::{Error, Failure, Pending, Success};
    for (kind, dialect) in ALL {
        let fake = FakeForge::start(dialect, TOKEN, 0)?;
        let forge = forge(kind, &fake, TOKEN)?;
        for state in [Pending, Success, Failure, Error] {
            forge
                .tell(&said(state))
                .await
                .context(format!("{kind:?}"))?;
        }
        let words = fake.states("distci/app");
        let expected: &[&str] = match dialect {
            Dialect::Github | Dialect::Gitea => &["pending", "success", "failure", "error"],
            Dialect::Gitlab => &["pending", "success", "failed", "canceled"],
            Dialect::Bitbucket => &["INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"],
        };
        assert_eq!(words, expected);
        let told = fake.told().remove(0);
        assert_eq!(told.repository, "acme/app");
        assert_eq!(told.url, said(Pending).url);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_told_twice_is_taken_twice() -> Result<()> {
    for (kind, dialect) in ALL {
        let fake = FakeForge::start(dialect, TOKEN, 0)?;
        let forge = forge(kind, &fake, TOKEN)?;
        for _ in 0..2 {
            let said = Said {
                url: None,
                ..said(CommitState::Pending)
            };
            forge.tell(&said).await.context(format!("{kind:?}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_says_whether_it_will_pass() -> Result<()> {
    let fake = FakeForge::start(Dialect::Github, TOKEN, 0)?;
    let forge = forge(Kind::Github, &fake, TOKEN)?;
    for (mood, passes, after) in [
        (Mood::Status(500, None), true, None),
        (Mood::Status(502, None), true, None),
        (Mood::Status(429, Some(7)), true, Some(7)),
        (Mood::Status(403, Some(60)), true, Some(60)),
        (Mood::Status(403, None), false, None),
        (Mood::Status(401, None), false, None),
        (Mood::Status(404, None), false, None),
        (Mood::Status(422, None), false, None),
        // Whoever followed it would show the token elsewhere.
        (Mood::Status(302, None), false, None),
    ] {
        fake.next(mood);
        match forge.tell(&said(CommitState::Success)).await {
            Err(Refusal::Passing { after: asked, .. }) => {
                assert!(passes, "{mood:?}");
                assert_eq!(asked, after.map(Duration::from_secs), "{mood:?}");
            }
            Err(Refusal::Lasting { detail }) => {
                assert!(!passes, "{mood:?}");
                assert!(detail.contains("in a mood"), "{detail}");
            }
            Ok(()) => panic!("{mood:?} was taken for consent"),
        }
    }
    assert!(fake.told().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_token_is_never_shown() -> Result<()> {
    let fake = FakeForge::start(Dialect::Github, "another", 0)?;
    let forge = forge(Kind::Github, &fake, TOKEN)?;
    let refusal = forge.tell(&said(CommitState::Success)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Lasting { .. }), "{refusal:?}");
    drop(fake);
    let unreached = forge.tell(&said(CommitState::Success)).await.unwrap_err();
    assert!(
        matches!(unreached, Refusal::Passing { .. }),
        "{unreached:?}"
    );
    let credential = Credential::new(TOKEN.to_owned());
    let bad = Credential::new("line\nbreak".to_owned());
    let invalid = Forge::new(Kind::Github, "h", None, &bad).unwrap_err();
    assert!(matches!(invalid, InvalidForge::Token));
    let shown = format!("{refusal:?} {refusal} {unreached:?} {forge:?} {credential:?} {invalid:?}");
    assert!(!shown.contains("never"), "{shown}");
    for address in ["https://user:pw@host", "ftp://host", "host"] {
        assert!(Forge::new(Kind::Gitea, "h", Some(address), &credential).is_err());
    }
    Ok(())
}
