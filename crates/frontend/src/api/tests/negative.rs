//! Ten thousand requests drawn from the API's own description: right ones, nearly right ones and
//! nonsense. None may be answered by a fault of ours, and each answer must be one that is described.

mod answers;
mod drawn;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::http::{Method, Request};
use distci_model::event::Source;
use distci_model::wire::Claim;
use fastrand::Rng;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};
use tower::ServiceExt;

use self::answers::Answers;
use self::drawn::{Drawing, Known, Operation};
use super::scene::{Scene, TOKEN, request};
use crate::api::openapi;
use crate::hooks::HookSecrets;

const REQUESTS: u64 = 10_000;
/// Requests change what is there, so a scene serves so many of them.
const EACH: u64 = 200;
/// What has not ended after so long is a stream. The clock is not a real one.
const LONG: Duration = Duration::from_mins(10);

#[tokio::test(start_paused = true)]
async fn whatever_is_asked_is_answered_as_described() -> Result<()> {
    let document = openapi();
    let operations = Operation::all(&document);
    let answers = Answers::of(&document)?;
    let mut wrong = Vec::new();
    let mut well = 0;
    for scene_seed in 0..REQUESTS / EACH {
        let (scene, known) = scene().await?;
        for number in 0..EACH {
            let seed = scene_seed * EACH + number;
            let mut drawing = Drawing::new(&document, &known, Rng::with_seed(seed));
            let operation = drawing.one_of(&operations);
            let asked = drawing.request(operation);
            let told = format!("seed {seed}: {asked:?}");
            let answer = ask(&scene, asked.into_http(TOKEN)?).await;
            let answer = answer.with_context(|| told.clone())?;
            well += u64::from(answer.status < 400);
            if let Err(why) = answers.check(operation, &answer) {
                let told: String = told.chars().take(1500).collect();
                wrong.push(format!("{why}\n  {told}"));
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} answers are wrong, such as\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    // Requests that are all refused at the door would try nothing.
    ensure!(well > REQUESTS / 5, "only {well} were answered well");
    Ok(())
}

/// An answer with as much of its body as came in time.
#[derive(Debug)]
struct Answer {
    status: u16,
    content_type: Option<String>,
    body: Vec<u8>,
}

async fn ask(scene: &Scene, request: Request<Body>) -> Result<Answer> {
    let asked = timeout(LONG, scene.router.clone().oneshot(request));
    let response = asked.await.context("no answer")??;
    let (parts, mut body) = response.into_parts();
    let content_type = parts.headers.get("content-type");
    let content_type = content_type.map(|value| value.to_str().map(str::to_owned));
    let mut bytes = Vec::new();
    // A stream has no end that one could wait for: its beginning is enough.
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
        }
    };
    let ended = timeout(LONG, reading).await.is_ok();
    let content_type = content_type.transpose()?;
    let streams = content_type.as_deref() == Some("text/event-stream");
    ensure!(ended || streams, "the body has no end");
    Ok(Answer {
        status: parts.status.as_u16(),
        content_type,
        body: bytes,
    })
}

/// A frontend with builds in every state, and the names of what is there.
async fn scene() -> Result<(Scene, Known)> {
    let mut secrets = HookSecrets::default();
    secrets.add(Source::Github, "a-secret-of-github-for-tests");
    let scene = Scene::hooked(secrets);
    let shell = |name: &str| json!({ "name": name, "type": "execute-shell", "params": { "script": "true" } });
    let job = json!({ "job_id": "j", "tasks": [shell("a"), shell("b")],
        "triggers": [{ "cron": "0 3 * * *" }] });
    let put = scene.put_job(&job).await?;
    ensure!(put.status.is_success(), "{put:?}");
    scene.trigger("j").await?;
    let done = scene.task().await?;
    scene.append(&done, 0, b"one\ntwo\n").await?;
    let path = format!("/tickets/{}/{}", done.ticket, done.attempt);
    scene
        .send(Method::PUT, &format!("{path}/artifacts/0"), &[], "text")
        .await?;
    let digest = blake3::hash(b"text").to_hex().to_string();
    let artifact =
        json!({ "path": "out/a.txt", "bytes": 4, "digest": digest, "content_type": "text/plain" });
    let manifest = json!({ "artifacts": [artifact] }).to_string();
    for (what, body) in [
        ("artifacts", &*manifest),
        ("summary", "# well"),
        ("layer", "layer"),
    ] {
        scene
            .send(Method::PUT, &format!("{path}/{what}"), &[], body.to_owned())
            .await?;
    }
    let result = json!({ "verdict": "success", "artifacts": 1 });
    scene.act(&done, "complete", &result).await?;
    let held = scene.task().await?;
    scene.append(&held, 0, b"three\n").await?;
    scene.trigger("j").await?;
    scene.control().await?;
    let hook = Request::post("/hooks/github/j").header("x-github-event", "push");
    scene.raw(hook.body(Body::from("{}"))?).await?;
    let webhooks: Value = scene
        .raw(request(Method::GET, "/webhooks", &[], Body::empty())?)
        .await?
        .json()?;
    let delivery = webhooks["items"][0]["id"].as_str().unwrap_or("none");
    Ok((scene, known(&done, &held, delivery)))
}

/// The names of what is in the scene.
fn known(done: &Claim, held: &Claim, delivery: &str) -> Known {
    let mut known = Known::default();
    for (name, values) in [
        ("job", "j k".to_owned()),
        ("build", "1 2 latest latest-success".to_owned()),
        ("task", "a b".to_owned()),
        ("attempt", "1 2".to_owned()),
        ("path", "out/a.txt out".to_owned()),
        ("index", "0 1".to_owned()),
        ("revision", "1 2".to_owned()),
        ("source", "github gitlab generic".to_owned()),
        ("ticket", format!("{} {}", done.ticket, held.ticket)),
        ("id", delivery.to_owned()),
        ("q", "one t.o".to_owned()),
        ("worker", "w c".to_owned()),
    ] {
        known.add(name, &values);
    }
    known
}
