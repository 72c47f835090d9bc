//! Webhooks at the door: who is let in, what becomes of it, what is kept.

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{Method, Request};
use data_encoding::HEXLOWER;
use distci_model::event::Source;
use distci_model::id::DeliveryId;
use distci_model::wire::{BuildView, Page, WebhookAnswer, WebhookDelivery, WebhookView};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::scene::{Answer, Scene, one_task};
use crate::hooks::HookSecrets;

const SECRET: &str = "it-is-a-secret";

fn scene() -> Scene {
    let mut secrets = HookSecrets::default();
    for source in Source::FORGES {
        secrets.add(source, &format!("an-older-one\n\n{SECRET}\n"));
    }
    Scene::hooked(secrets)
}

fn sign(secret: &str, body: &[u8]) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    hmac.update(body);
    format!("sha256={}", HEXLOWER.encode(&hmac.finalize().into_bytes()))
}

/// Posts without the API's token.
async fn post(
    scene: &Scene,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Result<Answer> {
    let request = Request::builder().method(Method::POST).uri(path);
    let with = |request: http::request::Builder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    let request = headers.iter().fold(request, with).body(body.into())?;
    scene.raw(request).await
}

/// A delivery of GitHub, signed.
async fn github(scene: &Scene, event: &str, delivery: &str, body: &Value) -> Result<Answer> {
    let (body, path) = (body.to_string(), "/hooks/github");
    let signature = sign(SECRET, body.as_bytes());
    let headers = [
        ("x-github-event", event),
        ("x-github-delivery", delivery),
        ("x-hub-signature-256", signature.as_str()),
    ];
    post(scene, path, &headers, body).await
}

fn push(branch: &str) -> Value {
    json!({
        "ref": format!("refs/heads/{branch}"),
        "before": "a".repeat(40), "after": "b".repeat(40),
        "commits": [{ "id": "b", "added": [], "removed": [], "modified": ["src/a"] }],
        "head_commit": { "message": "Fix" },
        "repository": { "id": 1, "html_url": "https://github.com/acme/app" },
    })
}

/// A job with this trigger.
fn job(name: &str, trigger: &Value) -> Value {
    let mut job = one_task(name, &[]);
    job["parameters"] = json!({ "COMMIT": { "default": "none" } });
    job["triggers"] = json!([trigger]);
    job
}

fn on_push(refs: &[&str]) -> Value {
    let parameters = json!({ "COMMIT": "${event.sha}" });
    json!({ "on": "push", "repository": "git@github.com:Acme/App", "refs": refs,
        "parameters": parameters })
}

async fn set(scene: &Scene, job: &Value) -> Result<()> {
    let answer = scene.put_job(job).await?;
    assert!(answer.status.is_success(), "{answer:?}");
    Ok(())
}

fn builds(answer: &Answer) -> Result<Vec<(String, bool)>> {
    let answer: WebhookAnswer = answer.json()?;
    let builds = answer.builds.iter();
    Ok(builds
        .map(|build| (build.build.to_string(), build.fresh))
        .collect())
}

async fn kept(scene: &Scene) -> Result<Vec<WebhookDelivery>> {
    let page: Page<WebhookDelivery> = scene.get("/webhooks").await?.json()?;
    assert_eq!(page.next, None);
    Ok(page.items)
}

#[tokio::test(start_paused = true)]
async fn a_signed_push_posts_builds_and_a_redelivery_finds_them() -> Result<()> {
    let scene = scene();
    set(&scene, &job("a", &on_push(&["main"]))).await?;
    set(&scene, &job("b", &on_push(&[]))).await?;
    set(&scene, &job("c", &on_push(&["v*"]))).await?;
    let answer = github(&scene, "push", "1", &push("main")).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let both = |fresh| vec![("a#1".to_owned(), fresh), ("b#1".to_owned(), fresh)];
    assert_eq!(builds(&answer)?, both(true));
    let told: WebhookAnswer = answer.json()?;
    assert_eq!(told.passed_over[0].job.as_str(), "c");
    assert_eq!(told.passed_over[0].why, "its refs do not fit");
    let again = github(&scene, "push", "1", &push("main")).await?;
    assert_eq!((again.status.as_u16(), builds(&again)?), (200, both(false)));
    let next = github(&scene, "push", "2", &push("main")).await?;
    assert_eq!(builds(&next)?[0].0, "a#2");
    assert_eq!(kept(&scene).await?, [], "everything had a build");
    let build: BuildView = scene.get("/jobs/a/builds/1").await?.json()?;
    assert_eq!(build.parameters["COMMIT"], "b".repeat(40));
    assert_eq!(build.cause.event(), "push");
    // What tasks see of it.
    let claim = scene.task().await?;
    let claim = serde_json::to_value(&claim)?;
    let env = &claim["work"]["order"]["env"];
    let env = if env.is_null() {
        &claim["work"]["env"]
    } else {
        env
    };
    assert_eq!(env["DISTCI_EVENT"], "push", "{claim}");
    assert_eq!(env["DISTCI_REF"], "refs/heads/main");
    assert_eq!(env["DISTCI_SHA"], "b".repeat(40));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_is_not_believed_leaves_nothing_behind() -> Result<()> {
    let scene = scene();
    set(&scene, &job("a", &on_push(&[]))).await?;
    let body = push("main").to_string();
    let wrong = sign("another", body.as_bytes());
    let of_other = sign(SECRET, b"another body");
    for signature in [
        None,
        Some(""),
        Some("sha256=00"),
        Some(&wrong),
        Some(&of_other),
    ] {
        let event = ("x-github-event", "push");
        let signed = signature.map(|signature| ("x-hub-signature-256", signature));
        let headers: Vec<_> = [Some(event), signed].into_iter().flatten().collect();
        let answer = post(&scene, "/hooks/github", &headers, body.clone()).await?;
        let problem = answer.problem(401)?;
        assert!(!format!("{problem:?}").contains(SECRET));
    }
    for path in [
        "/hooks/gitlab",
        "/hooks/gitea",
        "/hooks/bitbucket",
        "/hooks/github/a",
    ] {
        post(&scene, path, &[], body.clone()).await?.problem(401)?;
    }
    assert_eq!(kept(&scene).await?, []);
    let answer = scene.get("/jobs/a/builds").await?;
    assert_eq!(answer.json::<Value>()?["items"], json!([]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_a_secret_there_is_no_door() -> Result<()> {
    let scene = Scene::new();
    let answer = github(&scene, "push", "1", &push("main")).await?;
    let problem = answer.problem(404)?;
    assert!(problem.detail.contains("github-secret-file"), "{problem:?}");
    for path in [
        "/hooks/sourceforge",
        "/hooks/generic",
        "/hooks/own",
        "/hooks/own/j",
    ] {
        post(&scene, path, &[], "").await?.problem(404)?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_starts_nothing_is_answered_and_what_cannot_be_read_is_refused() -> Result<()> {
    let scene = scene();
    let pong = github(&scene, "ping", "1", &json!({ "zen": "x" })).await?;
    assert_eq!(pong.status, 200);
    for event in ["issue_comment", "created_tomorrow", "create"] {
        let answer = github(&scene, event, "2", &json!({})).await?;
        assert_eq!(answer.status, 202, "{event}");
    }
    assert_eq!(
        kept(&scene).await?,
        [],
        "none of it could ever start a build"
    );
    let signed = async |body: String, kind: &str| {
        let signature = sign(SECRET, body.as_bytes());
        let headers = [
            ("x-github-event", "push"),
            ("x-hub-signature-256", signature.as_str()),
            ("content-type", kind),
        ];
        post(&scene, "/hooks/github", &headers, body).await
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for bad in [String::new(), "{".to_owned(), deep, "\"text\"".to_owned()] {
        signed(bad, "application/json").await?.problem(400)?;
    }
    let form = "application/x-www-form-urlencoded";
    signed("a=b".to_owned(), form).await?.problem(400)?;
    let payload = "payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D";
    assert_eq!(signed(payload.to_owned(), form).await?.status, 202);
    // Signed, but nobody says what it is.
    let signature = sign(SECRET, b"{}");
    let headers = [("x-hub-signature-256", signature.as_str())];
    post(&scene, "/hooks/github", &headers, "{}")
        .await?
        .problem(400)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_not_read_to_its_end() -> Result<()> {
    let scene = scene();
    let limit = 25 * 1024 * 1024;
    let mut body = vec![b' '; limit + 1];
    let headers = |length: &'static str| {
        let signature = "sha256=0000000000000000000000000000000000000000000000000000000000000000";
        let mut list = vec![
            ("x-github-event", "push"),
            ("x-hub-signature-256", signature),
        ];
        list.extend((!length.is_empty()).then_some(("content-length", length)));
        list
    };
    let announced = headers("26214401");
    post(&scene, "/hooks/github", &announced, "")
        .await?
        .problem(413)?;
    post(&scene, "/hooks/github", &headers(""), body.clone())
        .await?
        .problem(413)?;
    body.truncate(limit);
    post(&scene, "/hooks/github", &headers(""), body)
        .await?
        .problem(401)?;
    // A sender that does not go on is not waited for.
    let slow = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    post(&scene, "/hooks/github", &headers(""), slow)
        .await?
        .problem(408)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_no_job_wanted_is_kept_and_can_be_replayed() -> Result<()> {
    let scene = scene();
    let body = push("main");
    let answer = github(&scene, "push", "1", &body).await?;
    assert_eq!(answer.status, 202);
    let told: WebhookAnswer = answer.json()?;
    let id: DeliveryId = told.kept.context("it is not kept")?;
    // Delivered again, it is the same one.
    let again: WebhookAnswer = github(&scene, "push", "1", &body).await?.json()?;
    assert_eq!(again.kept.as_ref(), Some(&id));
    github(&scene, "push", "2", &push("next")).await?;
    let list = kept(&scene).await?;
    assert_eq!(list.len(), 2);
    assert_eq!(list[0].delivery, "2", "latest first");
    assert_eq!(list[1].id, id);
    let page: Page<WebhookDelivery> = scene.get("/webhooks?limit=1").await?.json()?;
    let next = page.next.context("there is a second page")?;
    let rest = format!("/webhooks?limit=1&cursor={next}");
    let rest: Page<WebhookDelivery> = scene.get(&rest).await?.json()?;
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let view: WebhookView = scene.get(&format!("/webhooks/{id}")).await?.json()?;
    assert_eq!(view.body, body.to_string());
    assert!(
        !format!("{view:?}").contains("sha256="),
        "no signature is kept"
    );
    // Now a job wants it.
    set(&scene, &job("a", &on_push(&["main"]))).await?;
    let replay = format!("/webhooks/{id}/replay");
    let answer = scene.post(&replay, &json!({})).await?;
    assert_eq!(builds(&answer)?, [("a#1".to_owned(), true)]);
    let answer = scene.post(&replay, &json!({})).await?;
    assert_eq!(builds(&answer)?, [("a#1".to_owned(), false)]);
    let noted = kept(&scene).await?;
    assert_eq!(noted[1].answer.builds.len(), 1);
    for missing in [
        "20260101T000000000-0123456789abcdef",
        "20260101T000000000-0123456789abcdee",
    ] {
        scene
            .get(&format!("/webhooks/{missing}"))
            .await?
            .problem(404)?;
    }
    scene.get("/webhooks/x").await?.problem(400)?;
    scene.get("/webhooks?cursor=x").await?.problem(400)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_job_is_found_as_long_as_it_watches() -> Result<()> {
    let scene = scene();
    let count = async |delivery: &str| -> Result<usize> {
        Ok(builds(&github(&scene, "push", delivery, &push("main")).await?)?.len())
    };
    set(&scene, &job("a", &on_push(&[]))).await?;
    assert_eq!(count("1").await?, 1);
    let mut other = on_push(&[]);
    other["repository"] = "github.com/acme/other".into();
    set(&scene, &job("a", &other)).await?;
    assert_eq!(count("2").await?, 0);
    let mut both = job("a", &other);
    both["triggers"] = json!([other, on_push(&[])]);
    set(&scene, &both).await?;
    assert_eq!(count("3").await?, 1);
    set(&scene, &one_task("a", &[])).await?;
    assert_eq!(count("4").await?, 0);
    set(&scene, &job("b", &on_push(&[]))).await?;
    scene
        .send(Method::DELETE, "/jobs/b", &[], Body::empty())
        .await?;
    assert_eq!(count("5").await?, 0);
    set(&scene, &job("b", &on_push(&[]))).await?;
    assert_eq!(count("6").await?, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_is_of_one_job() -> Result<()> {
    let scene = scene();
    for name in ["a", "b"] {
        set(&scene, &job(name, &on_push(&[]))).await?;
    }
    let body = push("main").to_string();
    let signature = sign("an-older-one", body.as_bytes());
    let headers = [
        ("x-github-event", "push"),
        ("x-hub-signature-256", signature.as_str()),
    ];
    let answer = post(&scene, "/hooks/github/b", &headers, body.clone()).await?;
    assert_eq!(builds(&answer)?, [("b#1".to_owned(), true)]);
    let answer = post(&scene, "/hooks/github/none", &headers, body).await?;
    assert_eq!(answer.status, 202);
    let told: WebhookAnswer = answer.json()?;
    assert!(told.passed_over[0].why.contains("no job"), "{told:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_forge_hears_of_what_is_filtered_out_and_of_nothing_else() -> Result<()> {
    let scene = scene();
    let mut trigger = on_push(&["main"]);
    trigger["paths"] = json!(["docs/**"]);
    let mut silent = job("silent", &trigger);
    let mut telling = job("telling", &trigger);
    telling["status"] = json!({});
    silent["description"] = json!("tells forges nothing");
    set(&scene, &silent).await?;
    set(&scene, &telling).await?;
    github(&scene, "push", "1", &push("next")).await?;
    let queue: Page<Value> = scene.get("/queue").await?.json()?;
    assert_eq!(queue.items, Vec::<Value>::new(), "the ref does not fit");
    github(&scene, "push", "2", &push("main")).await?;
    // The board hears of it in its own time.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let queue: Page<Value> = scene.get("/queue").await?.json()?;
    let of = |key: &str| {
        queue
            .items
            .iter()
            .map(|item| item[key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("errand"), ["report"]);
    assert_eq!(of("job"), ["telling"]);
    Ok(())
}

/// Somebody asks for a check of a commit again.
fn rerequested(check: &str, sha: &str) -> Value {
    json!({
        "action": "rerequested",
        "check_run": { "head_sha": sha, "external_id": check, "name": "distci/a",
            "check_suite": { "head_branch": "main" } },
        "repository": { "id": 1, "html_url": "https://github.com/acme/app" },
    })
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_asked_for_again_runs_its_build_again() -> Result<()> {
    let scene = scene();
    for name in ["a", "b"] {
        set(&scene, &job(name, &on_push(&[]))).await?;
    }
    let sha = "b".repeat(40);
    github(&scene, "push", "1", &push("main")).await?;
    let again = rerequested("a#1", &sha);
    let answer = github(&scene, "check_run", "2", &again).await?;
    assert_eq!(builds(&answer)?, [("a#2".to_owned(), true)]);
    let answer = github(&scene, "check_run", "2", &again).await?;
    assert_eq!(builds(&answer)?, [("a#2".to_owned(), false)]);
    let build: BuildView = scene.get("/jobs/a/builds/2").await?.json()?;
    let told = build.cause.told().context("no event")?;
    assert_eq!(told.fact("sha"), Some(sha.as_str()));
    assert_eq!(build.parameters.get("COMMIT"), Some(&sha));
    // That of the second build, too.
    let answer = github(&scene, "check_run", "3", &rerequested("a#2", &sha)).await?;
    assert_eq!(builds(&answer)?, [("a#3".to_owned(), true)]);
    // What is no build of that commit is offered as ever, and these jobs want pushes only.
    let elsewhere = "c".repeat(40);
    for (delivery, check, sha) in [
        ("4", "a#1", elsewhere.as_str()),
        ("5", "a#99", &sha),
        ("6", "none#1", &sha),
        ("7", "a skipped", &sha),
        ("8", "", &sha),
    ] {
        let body = rerequested(check, sha);
        let answer = github(&scene, "check_run", delivery, &body).await?;
        assert_eq!(answer.status, 202, "{check}");
    }
    let suite = json!({ "action": "rerequested",
        "check_suite": { "head_sha": sha, "head_branch": "main" },
        "repository": { "html_url": "https://github.com/acme/app" } });
    assert_eq!(
        github(&scene, "check_suite", "9", &suite).await?.status,
        202
    );
    // An endpoint of one job starts nothing of another.
    let (body, path) = (rerequested("a#1", &sha).to_string(), "/hooks/github/b");
    let signature = sign(SECRET, body.as_bytes());
    let headers = [
        ("x-github-event", "check_run"),
        ("x-hub-signature-256", signature.as_str()),
    ];
    assert_eq!(post(&scene, path, &headers, body).await?.status, 202);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_does_not_fit_its_job_says_so() -> Result<()> {
    let scene = scene();
    let mut trigger = on_push(&[]);
    trigger["parameters"]["COMMIT"] = "${event.pr}".into();
    set(&scene, &job("a", &trigger)).await?;
    let answer = github(&scene, "push", "1", &push("main")).await?;
    assert_eq!(answer.status, 202);
    let told: WebhookAnswer = answer.json()?;
    assert!(
        told.passed_over[0].why.contains("${event.pr} has no value"),
        "{told:?}"
    );
    assert_eq!(kept(&scene).await?[0].answer.passed_over, told.passed_over);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn forks_and_deletions_are_taken_by_who_asks_for_them() -> Result<()> {
    let scene = scene();
    let of = "github.com/acme/app";
    let on = |on: &str, forks: bool| json!({ "on": on, "repository": of, "forks": forks });
    set(&scene, &job("careful", &on("pull_request", false))).await?;
    set(&scene, &job("open", &on("pull_request", true))).await?;
    set(&scene, &job("sweep", &on("delete", false))).await?;
    let end = |id: u64| json!({ "ref": "main", "sha": "c", "repo": { "id": id } });
    let pull = json!({ "action": "opened",
        "pull_request": { "number": 7, "head": end(2), "base": end(1) },
        "repository": { "html_url": "https://github.com/acme/app" } });
    let answer = github(&scene, "pull_request", "1", &pull).await?;
    assert_eq!(builds(&answer)?, [("open#1".to_owned(), true)]);
    let mut gone = push("main");
    gone["deleted"] = true.into();
    gone["after"] = "0".repeat(40).into();
    let answer = github(&scene, "push", "2", &gone).await?;
    assert_eq!(builds(&answer)?, [("sweep#1".to_owned(), true)]);
    Ok(())
}

/// A trigger that the token `open sesame` opens.
fn on_call() -> Value {
    let hash = HEXLOWER.encode(&Sha256::digest(b"open sesame"));
    let parameters = json!({ "COMMIT": "${event.body.commit.id}" });
    json!({ "on": "webhook", "token_sha256": hash, "parameters": parameters })
}

const TOKEN: (&str, &str) = ("x-distci-token", "open sesame");

async fn call(scene: &Scene, job: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    post(
        scene,
        &format!("/hooks/generic/{job}"),
        headers,
        body.to_owned(),
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn a_generic_webhook_is_opened_by_its_token() -> Result<()> {
    let scene = scene();
    set(&scene, &job("a", &on_call())).await?;
    set(&scene, &one_task("closed", &[])).await?;
    let body = json!({ "commit": { "id": "abc" } }).to_string();
    let wrong = ("x-distci-token", "x");
    let answers = [
        call(&scene, "a", &[], &body).await?.problem(401)?.detail,
        call(&scene, "a", &[wrong], &body)
            .await?
            .problem(401)?
            .detail,
        call(&scene, "closed", &[TOKEN], &body)
            .await?
            .problem(401)?
            .detail,
        call(&scene, "none", &[TOKEN], &body)
            .await?
            .problem(401)?
            .detail,
    ];
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    let answer = call(&scene, "a", &[TOKEN], &body).await?;
    assert_eq!(builds(&answer)?, [("a#1".to_owned(), true)]);
    let bearer = ("authorization", "Bearer open sesame");
    // Each call is one of its own, unless it has a key.
    let answer = call(&scene, "a", &[bearer], &body).await?;
    assert_eq!(builds(&answer)?, [("a#2".to_owned(), true)]);
    let key = ("idempotency-key", "k");
    for fresh in [true, false] {
        let answer = call(&scene, "a", &[bearer, key], &body).await?;
        assert_eq!(builds(&answer)?, [("a#3".to_owned(), fresh)]);
    }
    let build: BuildView = scene.get("/jobs/a/builds/1").await?.json()?;
    assert_eq!(build.parameters["COMMIT"], "abc");
    call(&scene, "a", &[TOKEN], "{").await?.problem(400)?;
    let large = " ".repeat(1024 * 1024 + 1);
    call(&scene, "a", &[TOKEN], &large).await?.problem(413)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_could_have_no_build_is_replayed_without_its_token() -> Result<()> {
    let scene = scene();
    set(&scene, &job("a", &on_call())).await?;
    // Nothing that the parameter needs.
    let answer = call(&scene, "a", &[TOKEN], "").await?;
    assert_eq!(answer.status, 202);
    let [delivery] = &kept(&scene).await?[..] else {
        anyhow::bail!("it is not kept");
    };
    assert!(!serde_json::to_string(delivery)?.contains("sesame"));
    let mut trigger = on_call();
    trigger["parameters"] = json!({});
    set(&scene, &job("a", &trigger)).await?;
    let replay = format!("/webhooks/{}/replay", delivery.id);
    let answer = scene.post(&replay, &json!({})).await?;
    assert_eq!(builds(&answer)?, [("a#1".to_owned(), true)]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_event_that_tells_much_still_fits_into_a_build() -> Result<()> {
    let scene = scene();
    set(
        &scene,
        &job(
            "a",
            &json!({ "on": "push", "repository": "github.com/acme/app" }),
        ),
    )
    .await?;
    let mut body = push("main");
    let paths: Vec<_> = (0..5000).map(|number| format!("src/{number}")).collect();
    body["commits"][0]["modified"] = json!(paths);
    body["head_commit"]["message"] = "\u{1}ä\0".repeat(100_000).into();
    let answer = github(&scene, "push", "1", &body).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let build: BuildView = scene.get("/jobs/a/builds/1").await?.json()?;
    let told = build.cause.told().context("no event")?;
    assert_eq!(told.paths, None);
    assert!(told.facts["message"].len() <= 4096);
    Ok(())
}
