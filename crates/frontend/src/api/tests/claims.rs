//! Claims and beats: held requests, and who is woken by what.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{Method, StatusCode};
use distci_model::id::TaskName;
use distci_model::pool::DemandReply;
use distci_model::wire::{BeatReply, Claim, Page, QueueView, Standing, WorkerView};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::scene::{Answer, Scene, claim_again, claim_request, control, one_task, request, shell};

/// Runs both; gives how long the first was held by the paused clock.
async fn held<A>(one: impl Future<Output = Result<Answer>>, other: A) -> Result<(Answer, Duration)>
where
    A: Future<Output = Result<()>>,
{
    let start = Instant::now();
    let one = async { Ok::<_, anyhow::Error>((one.await?, start.elapsed())) };
    let (held, ()) = tokio::try_join!(one, other)?;
    Ok(held)
}

async fn after(wait: u64) {
    tokio::time::sleep(Duration::from_secs(wait)).await;
}

#[tokio::test(start_paused = true)]
async fn a_held_claim_is_woken_by_a_post() -> Result<()> {
    let scene = Scene::new();
    scene.put_job(&one_task("j", &[])).await?;
    let body = claim_request("c", &control(), 30);
    let trigger = async {
        after(5).await;
        scene.trigger("j").await
    };
    let (answer, time) = held(scene.post("/claims", &body), trigger).await?;
    let claim: Claim = answer.json()?;
    assert!(claim.ticket.ticket.is_control());
    assert_eq!((claim.attempt.get(), claim.lease), (1, 15));
    assert_eq!(time.as_secs(), 5);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_held_no_longer_than_it_asks_and_never_over_the_limit() -> Result<()> {
    let scene = Scene::new();
    for (wait, seconds) in [(0, 0), (7, 7), (u64::MAX, 30)] {
        let body = claim_request("w", &shell(&[]), wait);
        let (answer, time) = held(scene.post("/claims", &body), async { Ok(()) }).await?;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(time.as_secs(), seconds);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_ticket_waits_for_a_worker_with_its_labels() -> Result<()> {
    let scene = Scene::new();
    scene.put_job(&one_task("j", &["linux", "arm64"])).await?;
    scene.trigger("j").await?;
    scene.control().await?;
    for offers in [shell(&[]), shell(&["linux"]), control()] {
        let answer = scene
            .post("/claims", &claim_request("w", &offers, 1))
            .await?;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{offers:?}");
    }
    let queue: Page<QueueView> = scene.get("/queue").await?.json()?;
    assert_eq!(queue.items.len(), 1);
    let waiting = &queue.items[0];
    assert_eq!(
        (waiting.about.words().0.as_str(), waiting.workers),
        ("j#1", 0)
    );
    assert_eq!(waiting.about.task().map(TaskName::as_str), Some("a"));
    let demand: Value = scene.get("/demand").await?.json()?;
    assert_eq!(
        (&demand[0]["queued"], &demand[0]["workers"]),
        (&json!(1), &json!(0))
    );
    let more = shell(&["arm64", "linux", "extra"]);
    let answer = scene.post("/claims", &claim_request("w", &more, 1)).await?;
    assert_eq!(answer.status, StatusCode::OK);
    let queue: Page<QueueView> = scene.get("/queue").await?.json()?;
    assert_eq!(queue.items, []);
    let workers: Vec<WorkerView> = scene.get("/workers").await?.json()?;
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].claims[0].about.words().0, "j#1");
    Ok(())
}

/// What a pool is told that asks for workers of these sessions, and knows an answer already.
async fn wanted(scene: &Scene, sessions: &[&str], known: Option<&str>) -> Result<DemandReply> {
    let workers = sessions
        .iter()
        .map(|session| json!({ "worker": "w", "session": session }));
    let workers: Vec<Value> = workers.collect();
    let request = json!({ "workers": workers, "known": known, "wait": 20 });
    scene.post("/demand", &request).await?.json()
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_told_what_is_wanted_and_who_of_its_own_is_busy() -> Result<()> {
    let scene = Scene::new();
    let begun = Instant::now();
    let nothing = wanted(&scene, &[], None).await?;
    assert_eq!((nothing.demand.len(), nothing.busy.len()), (0, 0));
    let still = wanted(&scene, &[], Some(&nothing.tag)).await?;
    assert_eq!(still, nothing);
    assert_eq!(begun.elapsed().as_secs(), 20);

    scene.put_job(&one_task("j", &["linux"])).await?;
    scene.trigger("j").await?;
    scene.control().await?;
    let asked = Instant::now();
    let one = wanted(&scene, &[], Some(&nothing.tag)).await?;
    assert_eq!((one.demand.len(), one.demand[0].queued), (1, 1));
    assert_eq!(asked.elapsed().as_secs(), 0, "news are not waited for");

    let request = claim_request("w", &shell(&["linux"]), 1);
    let session = request["request"].as_str().unwrap_or_default()[..8].to_owned();
    let answer = scene.post("/claims", &request).await?;
    assert_eq!(answer.status, StatusCode::OK);
    let busy = wanted(&scene, &["00000000", &session], Some(&one.tag)).await?;
    assert_eq!(busy.busy, ["w".parse()?]);
    assert_eq!(busy.demand, []);
    let others = wanted(&scene, &["00000000"], None).await?;
    assert_eq!(others.busy, [], "another run of that name");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_up_takes_nothing_with_it() -> Result<()> {
    let scene = Scene::new();
    scene.put_job(&one_task("j", &[])).await?;
    let body = claim_request("gone", &control(), 30).to_string();
    let gone = scene
        .router
        .clone()
        .oneshot(request(Method::POST, "/claims", &[], body)?);
    // The connection breaks while the request is held.
    assert!(timeout(Duration::from_secs(1), gone).await.is_err());
    let trigger = async {
        after(3).await;
        scene.trigger("j").await
    };
    let next = claim_request("next", &control(), 30);
    let (answer, time) = held(scene.post("/claims", &next), trigger).await?;
    assert_eq!((answer.status, time.as_secs()), (StatusCode::OK, 3));
    let workers: Vec<WorkerView> = scene.get("/workers").await?.json()?;
    let names: Vec<_> = workers.iter().map(|view| view.worker.as_str()).collect();
    assert_eq!(names, ["next"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_same_request_finds_the_same_claim_while_it_is_held() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    scene.build("k").await?;
    scene.control().await?;
    let body = claim_again("once", "w", &shell(&[]), 1);
    let first: Claim = scene.post("/claims", &body).await?.json()?;
    for _ in 0..3 {
        let again: Claim = scene.post("/claims", &body).await?.json()?;
        assert_eq!(again, first);
    }
    scene.finish(&first).await?;
    let other: Claim = scene.post("/claims", &body).await?.json()?;
    assert_ne!(other.ticket, first.ticket, "a finished claim came back");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_worker_gets_a_ticket_of_its_own() -> Result<()> {
    let scene = Scene::new();
    for number in 0..8 {
        scene.build(&format!("j{number}")).await?;
    }
    scene.control().await?;
    let claims = (0..9).map(|number| {
        let body = claim_request(&format!("w{number}"), &shell(&[]), 2);
        let scene = &scene;
        async move { scene.post("/claims", &body).await }
    });
    let answers = futures::future::try_join_all(claims).await?;
    let mut tickets = Vec::new();
    for answer in answers
        .iter()
        .filter(|answer| answer.status == StatusCode::OK)
    {
        tickets.push(answer.json::<Claim>()?.ticket);
    }
    tickets.sort();
    tickets.dedup();
    assert_eq!(tickets.len(), 8);
    Ok(())
}

fn beat(claim: &Claim, standing: &str, wait: u64) -> Value {
    let held = json!({ "ticket": claim.ticket, "attempt": claim.attempt, "standing": standing });
    json!({ "worker": "w", "session": "00000000", "held": [held], "wait": wait })
}

#[tokio::test(start_paused = true)]
async fn a_held_beat_is_answered_early_by_a_cancel_and_by_a_loss() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    let quiet = beat(&claim, "held", 9);
    let (answer, time) = held(scene.post("/beats", &quiet), async { Ok(()) }).await?;
    let reply: BeatReply = answer.json()?;
    assert_eq!((reply.standings, time.as_secs()), (vec![Standing::Held], 9));

    let cancel = async {
        after(2).await;
        let answer = scene.post("/jobs/j/builds/1/cancel", &json!({})).await?;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        scene.control().await
    };
    let (answer, time) = held(scene.post("/beats", &quiet), cancel).await?;
    let reply: BeatReply = answer.json()?;
    assert_eq!(
        (reply.standings, time.as_secs()),
        (vec![Standing::Cancel], 2)
    );

    let release = async {
        after(2).await;
        let answer = scene.act(&claim, "release", &json!({})).await?;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        Ok(())
    };
    let known = beat(&claim, "cancel", 9);
    let (answer, time) = held(scene.post("/beats", &known), release).await?;
    let reply: BeatReply = answer.json()?;
    assert_eq!((reply.standings, time.as_secs()), (vec![Standing::Lost], 2));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_beat_is_held_well_below_the_lease() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    let body = beat(&claim, "held", 30);
    let (_, time) = held(scene.post("/beats", &body), async { Ok(()) }).await?;
    assert!(time.as_secs() * 2 < claim.lease, "held for {time:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_late_finish_is_refused_and_a_repeated_one_is_not() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let first = scene.task().await?;
    let released = scene.act(&first, "release", &json!({})).await?;
    assert_eq!(released.status, StatusCode::NO_CONTENT);
    let second = scene.task().await?;
    assert_eq!(
        (&second.ticket, second.attempt),
        (&first.ticket, first.attempt.next())
    );
    let success = json!({ "verdict": "success" });
    for act in ["complete", "release"] {
        let problem = scene.act(&first, act, &success).await?.problem(409)?;
        assert_eq!(problem.kind, "urn:distci:attempt-over");
    }
    scene.append(&first, 0, b"late").await?.problem(409)?;
    for _ in 0..2 {
        let answer = scene.act(&second, "complete", &success).await?;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    let other = json!({ "verdict": "failure", "reason": { "code": "exit", "exit": 1 } });
    scene.act(&second, "complete", &other).await?.problem(409)?;
    scene.control().await?;
    scene
        .act(&second, "complete", &success)
        .await?
        .problem(410)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_duties_of_tickets_are_not_mixed_up() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let answer = scene
        .post("/claims", &claim_request("c", &control(), 1))
        .await?;
    let claim: Claim = answer.json()?;
    let success = json!({ "verdict": "success" });
    scene
        .act(&claim, "complete", &success)
        .await?
        .problem(422)?;
    scene
        .act(&claim, "commit", &json!({}))
        .await?
        .problem(400)?;
    let released = scene.act(&claim, "release", &json!({})).await?;
    assert_eq!(released.status, StatusCode::NO_CONTENT);
    scene.control().await?;
    scene.task().await.context("the task goes on")?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_what_is_held_at_once() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    let stop = async {
        after(1).await;
        scene.stop.cancel();
        Ok(())
    };
    let waiting = claim_request("w", &shell(&[]), 30);
    let beating = beat(&claim, "held", 30);
    let console = "/jobs/j/builds/1/console?task=a&offset=0&wait=30";
    let live = [("accept", "text/event-stream")];
    let get = |path, headers| scene.send(Method::GET, path, headers, Body::empty());
    let state = get("/jobs/j/builds/1", &[]).await?;
    let seen = format!(
        "/jobs/j/builds/1?wait=30&seen={}",
        state.header("etag").trim_matches('"')
    );
    let start = Instant::now();
    let (claimed, beaten, read, followed, events, viewed, ()) = tokio::try_join!(
        scene.post("/claims", &waiting),
        scene.post("/beats", &beating),
        get(console, &[]),
        get(console, &live),
        get("/jobs/j/builds/1/events", &[]),
        get(&seen, &[]),
        stop
    )?;
    assert_eq!(
        start.elapsed().as_secs(),
        1,
        "something waited for its own time"
    );
    assert_eq!(claimed.status, StatusCode::NO_CONTENT);
    for answer in [beaten, read, followed, events, viewed] {
        assert_eq!(answer.status, StatusCode::OK);
    }
    let ready = axum::http::Request::get("/readyz").body(Body::empty())?;
    let problem = scene.raw(ready).await?;
    assert_eq!(problem.header("retry-after"), "1");
    problem.problem(503)?;
    Ok(())
}
