//! Errands: one build for each commit that a poll finds, and the last word to each forge.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_model::build::Cause;
use distci_model::capability::{Capabilities, Kind};
use distci_model::errand::{CommitState, ErrandOrder, ErrandResult, MAX_FOUND, MAX_HEADS};
use distci_model::event::{Event, EventKind, Source};
use distci_model::id::{BuildRef, ClassId, TicketKey};
use distci_model::outcome::Outcome;
use distci_model::wire::{Claim, Work};
use distci_store::coordination::simulator::Faults;
use distci_store::{Claiming, Mending, StoreError, keys};
use serde_json::json;

use crate::scene::{Scene, exit, job, job_id, shell, worker};
use distci_store::coordination::simulator::Dice;

const MOMENT: Duration = Duration::from_millis(1);

fn sha(digit: char) -> String {
    digit.to_string().repeat(40)
}

fn branch(name: &str) -> String {
    format!("refs/heads/{name}")
}

fn heads(refs: &[(&str, char)]) -> ErrandResult {
    let refs = refs.iter();
    ErrandResult::Looked {
        heads: refs
            .map(|(name, digit)| (branch(name), sha(*digit)))
            .collect(),
    }
}

fn nothing(detail: &str) -> ErrandResult {
    ErrandResult::Nothing {
        detail: detail.to_owned(),
        after: None,
        hopeless: false,
    }
}

/// A job that is built for the commits of a repository at a forge, which hears of it.
fn polled(every: &str) -> serde_json::Value {
    let repository = "https://forge.example.org/Acme/app.git";
    json!({
        "job_id": "j",
        "tasks": [shell("a")],
        "status": {},
        "triggers": [{ "poll": every, "repository": repository, "refs": ["**"] }],
    })
}

/// Which errands.
#[derive(Clone, Copy)]
enum Which {
    Polls,
    Reports,
}

impl Scene {
    /// The next errand, claimed, be it due or not.
    async fn errand(&self, which: Which) -> Result<Option<Claim>> {
        for name in self.names(&keys::timers()).await? {
            let timer = keys::parse_due(&name).context("a strange timer")?;
            self.store().wake(&timer.key).await?;
        }
        let poll = Capabilities::task(Kind::GitCheckout, &[]).class();
        let wanted = |class: &ClassId| matches!(which, Which::Polls) == (class == &poll);
        self.claim(|entry| entry.key.ticket.is_errand() && wanted(&entry.class))
            .await
    }

    async fn end(&self, claim: &Claim, result: &ErrandResult) -> Result<()> {
        let (key, attempt) = (&claim.ticket, claim.attempt);
        let complete = self
            .store()
            .complete_errand(key, attempt, result, self.now());
        complete.await?;
        self.check_index().await
    }

    async fn look(&self, result: &ErrandResult) -> Result<()> {
        let claim = self.errand(Which::Polls).await?.context("no poll")?;
        self.end(&claim, result).await
    }

    /// What a report wants to be told, which it then is.
    async fn tell(&self) -> Result<Option<CommitState>> {
        let Some(claim) = self.errand(Which::Reports).await? else {
            return Ok(None);
        };
        let state = wanted(&claim)?;
        self.end(&claim, &ErrandResult::Told { state }).await?;
        Ok(Some(state))
    }

    /// The commits of the builds of `j`, in their order.
    async fn built(&self) -> Result<Vec<(String, String)>> {
        let page = self.store().list_builds(&job_id("j"), None, 256).await?;
        let told = page.items.iter().rev().map(|build| match &build.cause {
            Cause::Event { told } => Ok(told),
            cause => Err(anyhow::anyhow!("a build exists because of {cause:?}")),
        });
        let fact = |told: &Event, name: &str| told.fact(name).unwrap_or_default().to_owned();
        told.map(|told| told.map(|told| (fact(told, "ref"), fact(told, "sha"))))
            .collect()
    }

    async fn check(&self) -> Result<()> {
        self.check_index().await?;
        let checkup = self.store().fsck(Mending::Look, MOMENT).await?;
        ensure!(checkup.findings.is_empty(), "{checkup:?}");
        Ok(())
    }

    async fn errands(&self) -> Result<usize> {
        Ok(self.names(&keys::errands()).await?.len())
    }
}

fn wanted(claim: &Claim) -> Result<CommitState> {
    match &claim.work {
        Work::Errand { order } => match **order {
            ErrandOrder::Report { state, .. } => Ok(state),
            ErrandOrder::Poll { .. } => anyhow::bail!("a poll"),
        },
        Work::Task { .. } | Work::Control { .. } => anyhow::bail!("no errand"),
    }
}

#[tokio::test]
async fn a_commit_that_is_found_is_built_once() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&polled("5m")).await?;
    scene.check().await?;
    // What was there before the job is not news.
    scene.look(&heads(&[("main", '1')])).await?;
    assert_eq!(scene.built().await?, []);
    scene.look(&heads(&[("main", '2'), ("new", '3')])).await?;
    let both = [(branch("main"), sha('2')), (branch("new"), sha('3'))];
    assert_eq!(scene.built().await?, both);
    for again in [
        &[("main", '2'), ("new", '3')][..],
        &[("main", '2')],
        // A branch that comes back where it was, and one that goes back: both were built.
        &[("main", '2'), ("new", '3')],
    ] {
        scene.look(&heads(again)).await?;
        assert_eq!(scene.built().await?, both);
    }
    let build = scene.view(&"j#1".parse()?).await?;
    let told = build.cause.told().context("no event")?;
    assert_eq!((told.kind, told.source), (EventKind::Poll, Source::Own));
    assert_eq!(told.fact("before"), Some(sha('1').as_str()));
    assert_eq!(told.fact("repository"), Some("forge.example.org/acme/app"));
    assert_eq!(told.fact("branch"), Some("main"));
    scene.check().await
}

#[tokio::test]
async fn an_end_that_no_worker_takes_is_given_up_after_a_week() -> Result<()> {
    let scene = Scene::embedded()?;
    let job = job_id("j");
    scene.set_job(&polled("5m")).await?;
    let told = Event {
        source: Source::Github,
        kind: EventKind::Push,
        delivery: None,
        facts: BTreeMap::from([
            (
                "repository".to_owned(),
                "forge.example.org/acme/app".to_owned(),
            ),
            ("sha".to_owned(), sha('1')),
        ]),
        paths: None,
        labels: Vec::new(),
    };
    let (store, now) = (scene.store(), scene.now());
    ensure!(store.report_skipped(&job, &told, "no file", now).await?);
    let before = scene.errands().await?;
    let entries = scene.names(&keys::queue()).await?;
    let queued = entries.iter().filter_map(|name| keys::parse_queue(name));
    let reports: Vec<_> = queued
        .filter(|entry| entry.key.ticket.is_errand())
        .collect();
    let hour = Duration::from_hours(1);
    let (week, less) = (
        now.saturating_add(168 * hour)?,
        now.saturating_add(167 * hour)?,
    );
    let mut forsaken = 0;
    for entry in &reports {
        ensure!(!store.forsake_report(&entry.key, less).await?);
        forsaken += usize::from(store.forsake_report(&entry.key, week).await?);
        ensure!(!store.forsake_report(&entry.key, week).await?);
    }
    // The poll beside it stays.
    assert_eq!((forsaken, scene.errands().await?), (1, before - 1));
    scene.check().await
}

#[tokio::test]
async fn a_look_that_fails_is_shown_and_comes_again() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&polled("5m")).await?;
    scene.look(&heads(&[("main", '1')])).await?;
    scene.look(&nothing("no route to host")).await?;
    let [poll] = <[_; 1]>::try_from(scene.store().polls(&job_id("j")).await?).unwrap();
    assert_eq!(
        poll.setback.context("nothing shown")?.detail,
        "no route to host"
    );
    assert!(poll.next.is_some() && poll.looked.is_some());
    assert_eq!(poll.heads, BTreeMap::from([(branch("main"), sha('1'))]));
    // What came meanwhile is found.
    scene.look(&heads(&[("main", '2')])).await?;
    assert_eq!(scene.built().await?, [(branch("main"), sha('2'))]);
    let poll = scene.store().polls(&job_id("j")).await?.remove(0);
    assert_eq!((poll.setback, poll.every.as_str()), (None, "5m"));
    Ok(())
}

#[tokio::test]
async fn many_commits_are_built_a_few_at_a_time() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&polled("5m")).await?;
    scene.look(&heads(&[])).await?;
    let names: Vec<String> = (0..MAX_FOUND + 3).map(|n| format!("b{n:02}")).collect();
    let refs: Vec<_> = names.iter().map(|name| (name.as_str(), '4')).collect();
    scene.look(&heads(&refs)).await?;
    assert_eq!(scene.built().await?.len(), MAX_FOUND);
    // Queued at once, without waiting for its time.
    let queue = scene.queue().await?;
    assert!(queue.iter().any(|entry| entry.key.ticket.is_errand()));
    scene.look(&heads(&refs)).await?;
    assert_eq!(scene.built().await?.len(), names.len());

    let many: Vec<String> = (0..=MAX_HEADS).map(|n| format!("c{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), '5')).collect();
    let refused = scene.look(&heads(&many)).await.unwrap_err();
    assert!(refused.to_string().contains("256"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_poll_lives_as_long_as_its_trigger() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&polled("5m")).await?;
    scene.look(&heads(&[("main", '1')])).await?;
    // Another interval is the same poll.
    scene.set_job(&polled("1h")).await?;
    scene.look(&heads(&[("main", '1')])).await?;
    let poll = scene.store().polls(&job_id("j")).await?.remove(0);
    assert_eq!((poll.every.as_str(), poll.heads.len()), ("1h", 1));
    // Without its trigger it is gone, even from the hands of who holds it.
    let held = scene.errand(Which::Polls).await?.context("no poll")?;
    scene.set_job(&job("j", &["a"])).await?;
    assert_eq!(scene.errands().await?, 0);
    let late = scene
        .end(&held, &heads(&[("main", '2')]))
        .await
        .unwrap_err();
    assert!(
        matches!(late.downcast_ref(), Some(StoreError::Gone)),
        "{late:?}"
    );
    // One that comes again is another, and begins anew.
    scene.set_job(&polled("5m")).await?;
    let anew = scene.errand(Which::Polls).await?.context("no poll")?;
    assert_ne!(anew.ticket, held.ticket);
    scene.end(&anew, &heads(&[("main", '3')])).await?;
    assert_eq!(scene.built().await?, []);
    scene.check().await?;
    scene.store().remove_job(&job_id("j")).await?;
    assert_eq!(scene.errands().await?, 0);
    scene.check().await
}

#[tokio::test]
async fn a_parameter_that_an_event_cannot_fill_is_shown() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = polled("5m");
    config["parameters"] = json!({ "TAG": { "default": "none" } });
    config["triggers"][0]["parameters"] = json!({ "TAG": "${event.tag}" });
    scene.set_job(&config).await?;
    scene.look(&heads(&[])).await?;
    scene.look(&heads(&[("main", '1')])).await?;
    assert_eq!(scene.built().await?, []);
    let poll = scene.store().polls(&job_id("j")).await?.remove(0);
    let setback = poll.setback.context("nothing shown")?;
    assert!(setback.detail.contains("tag"), "{setback:?}");
    let tag = ErrandResult::Looked {
        heads: [("refs/tags/v1".to_owned(), sha('2'))].into(),
    };
    scene.look(&tag).await?;
    assert_eq!(scene.view(&"j#1".parse()?).await?.parameters["TAG"], "v1");
    Ok(())
}

#[tokio::test]
async fn a_forge_hears_the_beginning_and_the_end_of_a_build() -> Result<()> {
    for (outcome, last) in [
        (Outcome::Success, CommitState::Success),
        (exit(3), CommitState::Failure),
    ] {
        let scene = Scene::embedded()?;
        scene.set_job(&polled("5m")).await?;
        scene.look(&heads(&[])).await?;
        scene.look(&heads(&[("main", '1')])).await?;
        assert_eq!(scene.tell().await?, Some(CommitState::Pending));
        assert_eq!(scene.tell().await?, None);
        scene.run_all(&outcome).await?;
        let build: BuildRef = "j#1".parse()?;
        let report = scene.store().report(&build).await?.context("no report")?;
        assert_eq!(
            (report.wanted, report.told),
            (last, Some(CommitState::Pending))
        );
        assert_eq!(report.context, "distci/j");
        assert_eq!(scene.tell().await?, Some(last));
        assert_eq!(scene.store().report(&build).await?, None);
        assert_eq!(scene.errands().await?, 1);
        scene.check().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_build_that_ends_while_its_forge_is_told_is_told_again() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&polled("5m")).await?;
    scene.look(&heads(&[])).await?;
    scene.look(&heads(&[("main", '1')])).await?;
    let held = scene.errand(Which::Reports).await?.context("no report")?;
    let state = wanted(&held)?;
    scene
        .store()
        .cancel_build(&"j#1".parse()?, scene.now())
        .await?;
    scene.run_all(&Outcome::Success).await?;
    let told = ErrandResult::Told { state };
    scene.end(&held, &told).await?;
    // Heard twice, it changes nothing.
    scene.end(&held, &told).await?;
    // Nobody knows how the code is.
    assert_eq!(scene.tell().await?, Some(CommitState::Error));
    assert_eq!(scene.tell().await?, None);
    scene.check().await
}

#[tokio::test]
async fn a_skip_is_told_unless_the_commit_was_built() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&polled("5m")).await?;
    scene.look(&heads(&[])).await?;
    scene.look(&heads(&[("main", '1')])).await?;
    let push = |digit: char| Event {
        source: Source::Github,
        kind: EventKind::Push,
        delivery: None,
        facts: [
            ("repository", "forge.example.org/acme/app"),
            ("ref", "refs/heads/other"),
            ("sha", &sha(digit)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        paths: None,
        labels: Vec::new(),
    };
    let (store, id, at) = (scene.store(), job_id("j"), scene.now());
    let why = "no watched file changed";
    assert!(!store.report_skipped(&id, &push('1'), why, at).await?);
    assert_eq!(scene.tell().await?, Some(CommitState::Pending));
    for _ in 0..2 {
        assert!(store.report_skipped(&id, &push('2'), why, at).await?);
    }
    assert_eq!(scene.tell().await?, Some(CommitState::Success));
    assert_eq!(scene.tell().await?, None);
    scene.check().await
}

/// Errands on a store that loses answers, lags behind and moves slowly, through three frontends.
#[tokio::test]
async fn nothing_is_built_twice_and_no_last_word_is_lost() -> Result<()> {
    for seed in 0..60 {
        hostile(seed).await.context(format!("seed {seed}"))?;
    }
    Ok(())
}

async fn hostile(seed: u64) -> Result<()> {
    let (scene, mut dice) = (Scene::simulated(seed), Dice::new(seed));
    scene.set_job(&polled("5m")).await?;
    scene.look(&heads(&[("main", '0')])).await?;
    let mut told: BTreeMap<String, Vec<CommitState>> = BTreeMap::new();
    for round in ['1', '2', '3'] {
        let found = heads(&[("main", round), ("next", round)]);
        // Some look and die, or answer through two frontends at once.
        for _ in 0..6 {
            scene.set_faults(Faults::none());
            let Some(claim) = scene.errand(Which::Polls).await? else {
                break;
            };
            scene.set_faults(Faults::hostile());
            if dice.chance(30) {
                lose(&scene, &claim, &mut dice).await?;
            } else {
                finish(&scene, &claim, &found, &mut dice).await?;
                break;
            }
        }
        scene.set_faults(Faults::none());
        if dice.chance(60) {
            report_some(&scene, &mut told, &mut dice).await?;
        }
        scene.run_all(&Outcome::Success).await?;
    }
    scene.look(&heads(&[("main", '3'), ("next", '3')])).await?;
    scene.run_all(&Outcome::Success).await?;
    while scene.names(&keys::errands()).await?.len() > 1 {
        report_some(&scene, &mut told, &mut dice).await?;
    }
    let built = scene.built().await?;
    let mut once = built.clone();
    once.sort();
    once.dedup();
    ensure!(once.len() == built.len(), "built twice: {built:?}");
    ensure!(
        built.contains(&(branch("main"), sha('3'))),
        "never built: {built:?}"
    );
    ensure!(told.len() == built.len(), "{told:?}");
    for states in told.values() {
        let last = states
            .iter()
            .rposition(|state| *state == CommitState::Pending);
        ensure!(states.last() == Some(&CommitState::Success), "{states:?}");
        ensure!(
            last.is_none_or(|last| last + 1 < states.len()),
            "{states:?}"
        );
    }
    scene.check().await
}

/// The holder dies, which some frontend notices.
async fn lose(scene: &Scene, claim: &Claim, dice: &mut Dice) -> Result<()> {
    let store = &scene.stores[dice.below(3)];
    match store
        .expire(&claim.ticket, claim.attempt, scene.now())
        .await
    {
        Ok(()) | Err(StoreError::AttemptOver { .. } | StoreError::Gone) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn finish(
    scene: &Scene,
    claim: &Claim,
    result: &ErrandResult,
    dice: &mut Dice,
) -> Result<()> {
    let (key, attempt) = (&claim.ticket, claim.attempt);
    let by = [&scene.stores[dice.below(3)], &scene.stores[dice.below(3)]];
    let both = by.map(|store| store.complete_errand(key, attempt, result, scene.now()));
    for done in futures::future::join_all(both).await {
        match done {
            Ok(()) | Err(StoreError::AttemptOver { .. } | StoreError::Gone) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Tells what is due, mostly; what was told counts whether or not its completion is heard.
async fn report_some(
    scene: &Scene,
    told: &mut BTreeMap<String, Vec<CommitState>>,
    dice: &mut Dice,
) -> Result<()> {
    for _ in 0..8 {
        scene.set_faults(Faults::none());
        let Some(claim) = scene.errand(Which::Reports).await? else {
            break;
        };
        scene.set_faults(Faults::hostile());
        let state = wanted(&claim)?;
        match dice.below(4) {
            0 => finish(scene, &claim, &nothing("down"), dice).await?,
            1 => {
                told.entry(claim.ticket.to_string())
                    .or_default()
                    .push(state);
                lose(scene, &claim, dice).await?;
            }
            _ => {
                told.entry(claim.ticket.to_string())
                    .or_default()
                    .push(state);
                finish(scene, &claim, &ErrandResult::Told { state }, dice).await?;
            }
        }
    }
    scene.set_faults(Faults::none());
    Ok(())
}

#[tokio::test]
async fn an_errand_that_is_lost_waits_and_is_never_given_up() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&polled("5m")).await?;
    for _ in 0..10 {
        let claim = scene.errand(Which::Polls).await?.context("given up")?;
        let (key, attempt) = (&claim.ticket, claim.attempt);
        scene.store().expire(key, attempt, scene.now()).await?;
        assert_eq!(scene.names(&keys::timers()).await?.len(), 1);
        let late = scene.end(&claim, &heads(&[])).await.unwrap_err();
        let over = matches!(late.downcast_ref(), Some(StoreError::AttemptOver { .. }));
        assert!(over, "{late:?}");
    }
    // It leaves nothing behind.
    let claim = scene.errand(Which::Polls).await?.context("given up")?;
    let append = scene
        .store()
        .append_console(&claim.ticket, claim.attempt, 0, "x".into());
    assert!(matches!(append.await, Err(StoreError::Refused { .. })));
    let task = TicketKey::control(claim.ticket.build.clone());
    let (name, request) = (worker("w"), Dice::new(1).request());
    let none = scene.store().claim(&task, &name, &request, scene.now());
    assert!(matches!(none.await?, Claiming::Taken));
    Ok(())
}
