//! GitHub's checks as its fake takes them: one check run for each build, told by an app.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_components::{CheckRun, Dialect, FakeApp, FakeForge, Mood};
use distci_forge::{App, AppKey, Clock, Credential, Forge, InvalidForge, Kind, Refusal, Said};
use distci_model::Timestamp;
use distci_model::errand::{Check, CheckEnd, CommitState, Conclusion};

const REPOSITORY: &str = "acme/app";
const SHA: &str = "0123456789abcdef0123456789abcdef01234567";
const PAGE: &str = "https://ci.example.org/jobs/app/builds/1";

/// The machine's clock, by which the fake goes, too.
#[expect(
    clippy::disallowed_methods,
    reason = "who gives claims their times is under test"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

fn an_hour_behind() -> Timestamp {
    now()
        .saturating_sub(Duration::from_hours(1))
        .unwrap_or(now())
}

fn an_hour_ahead() -> Timestamp {
    now()
        .saturating_add(Duration::from_hours(1))
        .unwrap_or(now())
}

fn a_little_ahead() -> Timestamp {
    now()
        .saturating_add(Duration::from_secs(45))
        .unwrap_or(now())
}

/// A GitHub with an app that is installed, and our side of it.
struct Scene {
    app: FakeApp,
    fake: FakeForge,
    forge: Forge,
}

impl Scene {
    fn new() -> Result<Self> {
        let app = FakeApp::new(4711)?;
        let fake = FakeForge::start_with_app(&app, 0)?;
        fake.install(REPOSITORY);
        let forge = forge(&fake, &app.pem()?, "4711", None, now)?;
        Ok(Self { app, fake, forge })
    }

    async fn tell(&self, check: Check) -> Result<(), Refusal> {
        self.forge.tell(&said(check)).await
    }

    fn run(&self) -> Result<CheckRun> {
        let [run] = <[CheckRun; 1]>::try_from(self.fake.check_runs())
            .map_err(|runs| anyhow::anyhow!("not one check run: {runs:?}"))?;
        Ok(run)
    }
}

fn forge(
    fake: &FakeForge,
    pem: &str,
    id: &str,
    installation: Option<u64>,
    clock: Clock,
) -> Result<Forge> {
    let app = App::new(id.to_owned(), AppKey::from_pem(pem)?, installation, clock);
    let credential = Credential::app(app);
    let api = fake.api();
    Ok(Forge::new(
        Kind::Github,
        &fake.host(),
        Some(&api),
        &credential,
    )?)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap_or_default()
}

fn pending(build: &str) -> Check {
    Check {
        id: build.to_owned(),
        began: at(0),
        end: None,
        summary: format!("{build} is under way"),
    }
}

fn ended(build: &str, conclusion: Conclusion) -> Check {
    Check {
        end: Some(CheckEnd {
            at: at(9),
            conclusion,
        }),
        summary: format!("{build} ended\n*unit* ended with exit code 1"),
        ..pending(build)
    }
}

fn said(check: Check) -> Said {
    let state = match check.end {
        None => CommitState::Pending,
        Some(_) => CommitState::Success,
    };
    Said {
        repository: REPOSITORY.to_owned(),
        sha: SHA.to_owned(),
        context: "distci/app".to_owned(),
        state,
        description: "build 1 says so".to_owned(),
        url: Some(PAGE.to_owned()),
        check: Some(check),
    }
}

fn detail(told: Result<(), Refusal>) -> Result<String> {
    match told {
        Err(Refusal::Lasting { detail }) => Ok(detail),
        other => anyhow::bail!("no lasting refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_build_has_one_check_run_from_its_beginning_to_its_end() -> Result<()> {
    let scene = Scene::new()?;
    scene.tell(pending("app#1")).await?;
    let begun = scene.run()?;
    assert_eq!(begun.status, "in_progress");
    assert_eq!(begun.started_at.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert_eq!((begun.conclusion, begun.completed_at), (None, None));
    scene.tell(ended("app#1", Conclusion::Failure)).await?;
    let run = scene.run()?;
    assert_eq!(run.name, "distci/app");
    assert_eq!((run.head_sha.as_str(), run.app), (SHA, 4711));
    assert_eq!(run.external_id, "app#1");
    assert_eq!(run.status, "completed");
    assert_eq!(run.conclusion.as_deref(), Some("failure"));
    assert_eq!(run.started_at, begun.started_at);
    assert_eq!(run.completed_at.as_deref(), Some("2023-11-14T22:13:29Z"));
    assert_eq!(run.details_url.as_deref(), Some(PAGE));
    assert_eq!(run.title, "build 1 says so");
    let summary = "app\\#1 ended  \n\\*unit\\* ended with exit code 1";
    assert_eq!(run.summary, summary);
    // All of it with one token.
    assert_eq!(scene.fake.drawn(), 1);
    Ok(())
}

#[tokio::test]
async fn every_end_has_its_conclusion() -> Result<()> {
    let scene = Scene::new()?;
    let ends = [
        (Conclusion::Success, "success"),
        (Conclusion::Failure, "failure"),
        (Conclusion::TimedOut, "timed_out"),
        (Conclusion::Cancelled, "cancelled"),
        (Conclusion::Fault, "action_required"),
        (Conclusion::Skipped, "skipped"),
    ];
    for (number, (conclusion, _)) in ends.iter().enumerate() {
        scene
            .tell(ended(&format!("app#{number}"), *conclusion))
            .await?;
    }
    let runs = scene.fake.check_runs();
    let words: Vec<_> = runs
        .iter()
        .filter_map(|run| run.conclusion.as_deref())
        .collect();
    assert_eq!(words, ends.map(|(_, word)| word));
    Ok(())
}

#[tokio::test]
async fn what_is_late_or_repeated_makes_and_opens_nothing() -> Result<()> {
    let scene = Scene::new()?;
    scene.tell(ended("app#1", Conclusion::Success)).await?;
    scene.tell(pending("app#1")).await?;
    let run = scene.run()?;
    assert_eq!((run.status.as_str(), run.changes), ("completed", 0));
    scene.tell(ended("app#1", Conclusion::Success)).await?;
    assert_eq!(scene.run()?.conclusion.as_deref(), Some("success"));
    // What runs it again is another build, and its check run is the latest.
    scene.tell(pending("app#2")).await?;
    let runs = scene.fake.check_runs();
    let states: Vec<_> = runs.iter().map(|run| run.status.as_str()).collect();
    assert_eq!(states, ["completed", "in_progress"]);
    Ok(())
}

#[tokio::test]
async fn a_crash_after_the_check_run_was_made_makes_no_second() -> Result<()> {
    let scene = Scene::new()?;
    // Where it is installed, its token, what there is: then it is made, and nobody hears of it.
    for mood in [Mood::Fine, Mood::Fine, Mood::Fine, Mood::Mute] {
        scene.fake.next(mood);
    }
    let cut = scene.tell(pending("app#1")).await;
    assert!(matches!(cut, Err(Refusal::Passing { .. })), "{cut:?}");
    let made = scene.run()?;
    // Another worker, who knows nothing of the first.
    let (fake, pem) = (&scene.fake, scene.app.pem_pkcs8()?);
    let other = forge(fake, &pem, &scene.app.client_id, None, now)?;
    other.tell(&said(pending("app#1"))).await?;
    other
        .tell(&said(ended("app#1", Conclusion::Success)))
        .await?;
    let run = scene.run()?;
    assert_eq!((run.id, run.status.as_str()), (made.id, "completed"));
    Ok(())
}

#[tokio::test]
async fn a_check_run_is_found_among_many_and_those_of_others_are_left_alone() -> Result<()> {
    let scene = Scene::new()?;
    let of = |app, name: &str, external: &str| CheckRun {
        app,
        repository: REPOSITORY.to_owned(),
        head_sha: SHA.to_owned(),
        name: name.to_owned(),
        external_id: external.to_owned(),
        status: "in_progress".to_owned(),
        ..CheckRun::default()
    };
    scene.fake.add_check_run(of(4711, "distci/app", "app#1"));
    scene.fake.add_check_run(of(12, "distci/app", "app#1"));
    scene.fake.add_check_run(of(4711, "another", "app#1"));
    for number in 2..150 {
        let external = format!("app#{number}");
        scene.fake.add_check_run(of(4711, "distci/app", &external));
    }
    let count = scene.fake.check_runs().len();
    scene.tell(ended("app#1", Conclusion::Success)).await?;
    let runs = scene.fake.check_runs();
    assert_eq!(runs.len(), count);
    let changed = runs.iter().filter(|run| run.changes > 0);
    assert_eq!(changed.map(|run| run.id).collect::<Vec<_>>(), [1]);
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_over_is_drawn_anew_once() -> Result<()> {
    let scene = Scene::new()?;
    scene.tell(pending("app#1")).await?;
    scene.fake.expire_tokens();
    scene.tell(ended("app#1", Conclusion::Success)).await?;
    assert_eq!(scene.run()?.status, "completed");
    assert_eq!(scene.fake.drawn(), 2);
    // One that is never taken is not drawn for ever.
    for mood in [
        Mood::Status(401, None),
        Mood::Fine,
        Mood::Fine,
        Mood::Status(401, None),
    ] {
        scene.fake.next(mood);
    }
    let refused = detail(scene.tell(ended("app#1", Conclusion::Success)).await)?;
    ensure!(refused.contains("401"), "{refused}");
    assert_eq!(scene.fake.drawn(), 3);
    // By a clock that is ahead, each token seems to be over at once: it is shown all the same.
    let ahead = forge(&scene.fake, &scene.app.pem()?, "4711", None, a_little_ahead)?;
    ahead
        .tell(&said(ended("app#1", Conclusion::Success)))
        .await?;
    Ok(())
}

#[tokio::test]
async fn whoever_has_to_mend_something_is_told_what() -> Result<()> {
    let scene = Scene::new()?;
    let (fake, pem) = (&scene.fake, scene.app.pem()?);
    let check = || said(pending("app#1"));
    let stranger = FakeApp::new(4711)?.pem()?;
    for (forge, words) in [
        (forge(fake, &stranger, "4711", None, now)?, "compare both"),
        (forge(fake, &pem, "4711", None, an_hour_behind)?, "clock"),
        (forge(fake, &pem, "4711", None, an_hour_ahead)?, "clock"),
        (
            forge(fake, &pem, "815", None, now)?,
            "Integration not found",
        ),
        (
            forge(fake, &pem, "4711", Some(1), now)?,
            "no installation 1",
        ),
    ] {
        let refused = detail(forge.tell(&check()).await)?;
        ensure!(refused.contains(words), "{refused}");
        ensure!(!refused.contains("never"), "{refused}");
    }
    let elsewhere = Said {
        repository: "acme/other".to_owned(),
        ..check()
    };
    let refused = detail(scene.forge.tell(&elsewhere).await)?;
    ensure!(refused.contains("not installed at acme/other"), "{refused}");
    let installation = fake.install("acme/more");
    let more = forge(fake, &pem, "4711", Some(installation), now)?;
    let refused = detail(more.tell(&check()).await)?;
    ensure!(
        refused.contains("may not write checks of acme/app"),
        "{refused}"
    );
    fake.permit_checks(false);
    let refused = detail(scene.tell(pending("app#1")).await)?;
    ensure!(refused.contains("may not write checks"), "{refused}");
    fake.permit_checks(true);
    let nowhere = Said {
        sha: "main".to_owned(),
        ..check()
    };
    let refused = detail(scene.forge.tell(&nowhere).await)?;
    ensure!(refused.contains("422"), "{refused}");
    ensure!(fake.check_runs().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_forge_that_asks_to_be_left_alone_is() -> Result<()> {
    let scene = Scene::new()?;
    for before in 0..4 {
        for _ in 0..before {
            scene.fake.next(Mood::Fine);
        }
        scene.fake.next(Mood::Status(403, Some(60)));
        // Each in a process of its own, which asks for everything anew.
        let fresh = forge(&scene.fake, &scene.app.pem()?, "4711", None, now)?;
        match fresh.tell(&said(pending("app#1"))).await {
            Err(Refusal::Passing { after, .. }) => {
                assert_eq!(after, Some(Duration::from_mins(1)));
            }
            other => anyhow::bail!("{before}: {other:?}"),
        }
    }
    scene.fake.next(Mood::Spent(600));
    match scene.tell(pending("app#1")).await {
        Err(Refusal::Passing { after, detail }) => {
            let after = after.context("no time")?.as_secs();
            ensure!((590..=600).contains(&after), "{after}");
            ensure!(detail.contains("rate limit"), "{detail}");
        }
        other => anyhow::bail!("{other:?}"),
    }
    scene.fake.next(Mood::Status(502, None));
    let trouble = scene.tell(pending("app#1")).await;
    ensure!(matches!(trouble, Err(Refusal::Passing { after: None, .. })));
    ensure!(scene.fake.check_runs().is_empty());
    scene.tell(pending("app#1")).await.map_err(Into::into)
}

#[tokio::test]
async fn neither_key_nor_token_is_ever_shown() -> Result<()> {
    let scene = Scene::new()?;
    scene.tell(pending("app#1")).await?;
    let pem = scene.app.pem()?;
    let app = App::new("4711".to_owned(), AppKey::from_pem(&pem)?, Some(7), now);
    let credential = Credential::app(app.clone());
    let shown = format!("{:?} {app:?} {credential:?}", scene.forge);
    let line = pem.lines().nth(1).context("no key")?;
    ensure!(!shown.contains("ghs_") && !shown.contains(line), "{shown}");
    for kind in [Kind::Gitlab, Kind::Gitea, Kind::Bitbucket] {
        let none = Forge::new(kind, "h", None, &credential);
        ensure!(matches!(none, Err(InvalidForge::NoApps { .. })), "{none:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_report_of_an_older_program_is_left_for_a_newer_one() -> Result<()> {
    let scene = Scene::new()?;
    let old = Said {
        check: None,
        ..said(pending("app#1"))
    };
    let told = scene.forge.tell(&old).await;
    ensure!(matches!(told, Err(Refusal::Passing { .. })), "{told:?}");
    // Who has a token tells statuses as ever.
    let fake = FakeForge::start(Dialect::Github, "token", 0)?;
    let credential = Credential::new("token".to_owned());
    let api = fake.api();
    let forge = Forge::new(Kind::Github, &fake.host(), Some(&api), &credential)?;
    forge.tell(&said(pending("app#1"))).await?;
    assert_eq!(fake.states("distci/app"), ["pending"]);
    Ok(())
}
