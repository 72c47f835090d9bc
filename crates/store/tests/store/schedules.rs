//! Schedules: who fires how often, whatever is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_model::Timestamp;
use distci_model::build::Cause;
use distci_model::event::EventKind;
use distci_model::id::BuildRef;
use distci_model::outcome::Outcome;
use distci_store::coordination::simulator::Faults;
use distci_store::{Expected, Fired, Mending, TimetableNews};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::scene::{Scene, job, job_config, job_id};

fn scheduled(crons: &[&str]) -> Value {
    let mut config = job("j", &["a"]);
    let triggers: Vec<_> = crons.iter().map(|cron| json!({ "cron": cron })).collect();
    config["triggers"] = json!(triggers);
    config
}

async fn marks(scene: &Scene) -> Result<Vec<(String, Timestamp)>> {
    let table = scene.store().timetable(&job_id("j")).await?;
    let planned = table.map(|table| table.schedules).unwrap_or_default();
    let marks = planned
        .into_iter()
        .map(|planned| (planned.mark, planned.last));
    Ok(marks.collect())
}

async fn only_mark(scene: &Scene) -> Result<(String, Timestamp)> {
    let mut marks = marks(scene).await?;
    ensure!(marks.len() == 1, "{marks:?}");
    marks.pop().context("it has one")
}

async fn fire(scene: &Scene, mark: &str, due: Timestamp) -> Result<Fired> {
    let (job, at) = (job_id("j"), scene.now());
    Ok(scene.store().fire(&job, mark, due, at).await?)
}

async fn builds(scene: &Scene) -> Result<usize> {
    let builds = scene.store().list_builds(&job_id("j"), None, 500).await?;
    Ok(builds.items.len())
}

fn later(moment: Timestamp, minutes: u64) -> Timestamp {
    moment + Duration::from_mins(minutes)
}

async fn clean(scene: &Scene) -> Result<()> {
    let moment = Duration::from_millis(1);
    let checkup = scene.store().fsck(Mending::Look, moment).await?;
    ensure!(checkup.findings.is_empty(), "{checkup:?}");
    Ok(())
}

#[tokio::test]
async fn a_moment_is_fired_once_and_none_before_it_after_it() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    scene.set_job(&scheduled(&["0 * * * *"])).await?;
    let (mark, set) = only_mark(&scene).await?;
    let (job, store) = (job_id("j"), scene.store());
    let fire = |due| store.fire(&job, &mark, due, scene.now());
    ensure!(fire(set).await? == Fired::Before, "it was set then");
    let Fired::Posted(build) = fire(later(set, 10)).await? else {
        anyhow::bail!("it is not fired");
    };
    for due in [later(set, 10), later(set, 9), set] {
        ensure!(fire(due).await? == Fired::Before);
    }
    ensure!(matches!(fire(later(set, 11)).await?, Fired::Posted(_)));
    ensure!(only_mark(&scene).await?.1 == later(set, 11));
    ensure!(builds(&scene).await? == 2);
    let view = scene.view(&build).await?;
    let Cause::Event { told } = &view.cause else {
        anyhow::bail!("{:?}", view.cause);
    };
    ensure!(told.kind == EventKind::Schedule);
    ensure!(told.fact("scheduled") == Some(later(set, 10).to_string().as_str()));
    clean(&scene).await?;
    scene.run_all(&Outcome::Success).await?;
    ensure!(
        store
            .fire(&job, "nonsense", later(set, 99), scene.now())
            .await?
            == Fired::Gone
    );
    clean(&scene).await
}

/// All frontends fire all moments at once, each several times, and answers get lost.
async fn many_at_once(scene: &Scene) -> Result<()> {
    let (mark, set) = only_mark(scene).await?;
    let (job, moments) = (job_id("j"), 12);
    let each = scene.stores.iter().cycle().take(6).map(|store| {
        let (job, mark) = (&job, &mark);
        async move {
            let mut posted = Vec::new();
            for minutes in 1..=moments {
                let due = later(set, minutes);
                match store.fire(job, mark, due, scene.now()).await? {
                    Fired::Posted(build) => posted.push(build),
                    Fired::Before => {}
                    other => anyhow::bail!("{other:?}"),
                }
                tokio::task::yield_now().await;
            }
            Ok(posted)
        }
    });
    let told: Vec<BuildRef> = try_join_all(each).await?.concat();
    scene.set_faults(Faults::none());
    let distinct: BTreeSet<_> = told.iter().map(|build| build.number).collect();
    ensure!(distinct.len() == told.len(), "two were told of one build");
    let mut moments_built = BTreeSet::new();
    for number in 1..=moments {
        let number = distci_model::id::BuildNumber::new(number).context("a number")?;
        let build = BuildRef {
            job: job.clone(),
            number,
        };
        let view = scene.view(&build).await?;
        let told = view.cause.told().context("an event")?;
        let moment = told.fact("scheduled").context("a moment")?.to_owned();
        ensure!(moments_built.insert(moment), "fired twice: {told:?}");
    }
    let built = u64::try_from(builds(scene).await?)?;
    ensure!(built == moments, "{built} builds of {moments} moments");
    clean(scene).await
}

#[tokio::test]
async fn many_frontends_post_one_build_for_each_moment() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    scene.set_job(&scheduled(&["* * * * *"])).await?;
    many_at_once(&scene).await?;
    for seed in 0..40 {
        let scene = Scene::simulated(seed);
        scene.store().prepare(scene.now()).await?;
        scene.set_job(&scheduled(&["* * * * *"])).await?;
        scene
            .simulator
            .as_ref()
            .context("it is simulated")?
            .settle();
        scene.set_faults(Faults::hostile());
        let run = many_at_once(&scene).await;
        run.with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_schedule_keeps_what_it_fired_as_long_as_it_is_written() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.set_job(&scheduled(&["0 1 * * *"])).await?;
    let (mark, set) = only_mark(&scene).await?;
    let due = later(set, 60);
    fire(&scene, &mark, due).await?;
    scene
        .set_job(&scheduled(&["0 2 * * *", "0 1 * * *"]))
        .await?;
    let now = marks(&scene).await?;
    ensure!(now[1] == (mark.clone(), due), "{now:?}");
    ensure!(
        now[0].0 != mark && now[0].1 > set && now[0].1 < due,
        "{now:?}"
    );
    scene.set_job(&scheduled(&[])).await?;
    ensure!(marks(&scene).await?.is_empty());
    let gone = fire(&scene, &mark, later(due, 1));
    ensure!(gone.await? == Fired::Gone);
    scene.set_job(&scheduled(&["0 1 * * *"])).await?;
    ensure!(
        only_mark(&scene).await?.1 < due,
        "what is set anew begins anew"
    );
    Ok(())
}

#[tokio::test]
async fn a_job_that_was_removed_has_no_schedules() -> Result<()> {
    let scene = Scene::embedded()?;
    scene.store().prepare(scene.now()).await?;
    scene.set_job(&scheduled(&["0 1 * * *"])).await?;
    let mut news = scene.store().watch_timetables();
    let (mark, set) = only_mark(&scene).await?;
    scene.store().remove_job(&job_id("j")).await?;
    ensure!(news.next().await == Some(TimetableNews::Changed(job_id("j"))));
    ensure!(scene.store().timetables().await?.is_empty());
    let gone = fire(&scene, &mark, later(set, 60));
    ensure!(gone.await? == Fired::Gone);
    clean(&scene).await?;
    scene.set_job(&scheduled(&["0 1 * * *"])).await?;
    ensure!(only_mark(&scene).await?.1 > set);
    clean(&scene).await
}

#[tokio::test]
async fn a_moment_whose_build_is_refused_is_over_with() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = scheduled(&[]);
    config["parameters"] = json!({ "when": { "choices": ["x"] } });
    config["triggers"] = json!([{
        "cron": "0 * * * *", "parameters": { "when": "${event.scheduled}" },
    }]);
    // Whoever checked it may have known another rule.
    let config = job_config(&config)?;
    scene
        .store()
        .set_job(&config, Expected::Any, scene.now())
        .await?;
    let (mark, set) = only_mark(&scene).await?;
    let fire = || {
        scene
            .store()
            .fire(&config.job_id, &mark, later(set, 5), scene.now())
    };
    let Fired::Refused(why) = fire().await? else {
        anyhow::bail!("it is not refused");
    };
    ensure!(why.contains("\"when\" is one of x"), "{why}");
    ensure!(fire().await? == Fired::Before && builds(&scene).await? == 0);
    Ok(())
}

#[tokio::test]
async fn a_trigger_gives_the_parameters() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = scheduled(&[]);
    config["parameters"] = json!({ "when": {}, "kind": { "default": "small" } });
    config["triggers"] = json!([{
        "cron": "0 * * * *",
        "parameters": { "when": "at ${event.scheduled}", "kind": "large" },
    }]);
    scene.set_job(&config).await?;
    let (mark, set) = only_mark(&scene).await?;
    let fired = fire(&scene, &mark, later(set, 5));
    let Fired::Posted(build) = fired.await? else {
        anyhow::bail!("it is not fired");
    };
    let view = scene.view(&build).await?;
    ensure!(view.parameters["when"] == format!("at {}", later(set, 5)));
    ensure!(view.parameters["kind"] == "large");
    Ok(())
}

#[tokio::test]
async fn schedules_are_copied_with_what_they_fired() -> Result<()> {
    let (from, to) = (Scene::embedded()?, Scene::embedded()?);
    from.store().prepare(from.now()).await?;
    from.set_job(&scheduled(&["0 1 * * *"])).await?;
    let (mark, set) = only_mark(&from).await?;
    let due = later(set, 60);
    fire(&from, &mark, due).await?;
    from.store().migrate(to.store(), to.now(), &|_| {}).await?;
    ensure!(only_mark(&to).await? == (mark.clone(), due));
    let again = fire(&to, &mark, due);
    ensure!(again.await? == Fired::Before);
    clean(&to).await
}
