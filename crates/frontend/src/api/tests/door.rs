//! What every request passes: token, paths, limits, the form of errors; and the table of routes.

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::scene::{Scene, TOKEN, one_task, request};

#[tokio::test(start_paused = true)]
async fn without_the_token_nothing_but_health_is_told() -> Result<()> {
    let scene = Scene::new();
    let wrong = [
        None,
        Some("Bearer wrong".to_owned()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(TOKEN.to_owned()),
        Some(format!("Basic {TOKEN}")),
        Some(format!("Bearer {TOKEN}x")),
    ];
    for header in wrong {
        for (method, path) in [
            (Method::GET, "/jobs"),
            (Method::DELETE, "/jobs/j"),
            (Method::POST, "/claims"),
            (Method::GET, "/metrics"),
            (Method::PATCH, "/jobs"),
        ] {
            let mut request = request(method, path, &[], Body::empty())?;
            request.headers_mut().remove("authorization");
            if let Some(header) = &header {
                request
                    .headers_mut()
                    .insert("authorization", header.parse()?);
            }
            let answer = scene.raw(request).await?;
            let problem = answer.problem(401)?;
            assert_eq!(problem.kind, "urn:distci:unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            let told = format!("{answer:?}");
            assert!(!told.contains(TOKEN), "the token is in the answer: {told}");
        }
    }
    scene.app.current.subscribe().wait_for(|is| *is).await?;
    for path in ["/livez", "/readyz", "/version", "/api/openapi.json"] {
        let answer = scene.raw(Request::get(path).body(Body::empty())?).await?;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    let mut any_case = request(Method::GET, "/jobs", &[], Body::empty())?;
    let header = format!("bearer {TOKEN}").parse()?;
    any_case.headers_mut().insert("authorization", header);
    assert_eq!(scene.raw(any_case).await?.status, StatusCode::OK);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_a_problem_too() -> Result<()> {
    let scene = Scene::new();
    let root = scene
        .raw(Request::get("/nothing").body(Body::empty())?)
        .await?;
    root.problem(404)?;
    let cases = [
        (Method::GET, "/nothing", 404),
        (Method::PATCH, "/jobs", 405),
        (Method::GET, "/claims", 405),
        (Method::GET, "/jobs/j", 404),
        (Method::DELETE, "/jobs/j", 404),
        (Method::GET, "/jobs/j/builds/1", 404),
        (Method::GET, "/jobs/j/builds/latest", 404),
        (Method::GET, "/jobs/j/builds/0", 400),
        (Method::GET, "/jobs/j/builds/-1", 400),
        (Method::GET, "/jobs/j/builds/99999999999999999999", 400),
        (Method::GET, "/jobs/..%2f..%2fetc", 400),
        (Method::GET, "/jobs/%2e%2e", 400),
        (Method::GET, "/jobs/a%2Fb", 400),
        (Method::GET, "/jobs/%ff", 400),
        (Method::GET, "/jobs/%00", 400),
        (Method::GET, "/jobs/../../etc", 404),
        (Method::GET, "/jobs?limit=x", 400),
        (Method::GET, "/jobs/j/builds?cursor=x", 400),
        (Method::GET, "/queue?cursor=x", 400),
        (Method::PUT, "/tickets/nonsense/1/layer", 400),
        (Method::POST, "/tickets/a.b/1/release", 400),
        (Method::GET, "/jobs/j/builds/1/artifacts/..%2f..%2fx", 404),
    ];
    for (method, path, status) in cases {
        let answer = scene.send(method, path, &[], Body::empty()).await?;
        answer.problem(status).with_context(|| path.to_owned())?;
    }
    let long = format!("/jobs/{}", "x".repeat(60_000));
    let problem = scene.get(&long).await?.problem(400)?;
    assert!(
        problem.detail.len() < 1000,
        "{} bytes of detail",
        problem.detail.len()
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_the_id_that_it_brought() -> Result<()> {
    let scene = Scene::new();
    let headers = [("x-request-id", "mine")];
    let answer = scene
        .send(Method::GET, "/jobs/j", &headers, Body::empty())
        .await?;
    assert_eq!(answer.problem(404)?.request.as_deref(), Some("mine"));
    let (one, two) = (scene.get("/jobs").await?, scene.get("/jobs").await?);
    assert_eq!(one.header("x-request-id").len(), 32);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_malformed_body_is_told_where() -> Result<()> {
    let scene = Scene::new();
    let claim = json!({ "worker": "w", "capabilities": [], "request": "0".repeat(32) });
    let with = |field: &str, value: Value| {
        let mut claim = claim.clone();
        claim[field] = value;
        claim.to_string()
    };
    let bad = [
        ("{".to_owned(), "EOF"),
        ("{} x".to_owned(), "missing field"),
        (format!("{claim} x"), "trailing"),
        ("[]".to_owned(), "invalid"),
        (with("worker", json!("a/b")), "worker"),
        (
            with("capabilities", json!(["execute-shell", "flying"])),
            "capabilities[1]",
        ),
        (with("request", json!("short")), "request"),
        (with("wait", json!(-1)), "wait"),
        (with("colour", json!("red")), "colour"),
        ("[".repeat(100_000), "invalid"),
        ("\u{0}".to_owned(), "expected"),
    ];
    for (body, word) in bad {
        let answer = scene.send(Method::POST, "/claims", &[], body).await?;
        let problem = answer.problem(400)?;
        assert!(problem.detail.contains(word), "{word}: {}", problem.detail);
        assert!(problem.detail.len() < 4096);
    }
    let many: Vec<_> = (0..65).map(|number| format!("label:l{number}")).collect();
    let body = with("capabilities", json!(many));
    scene
        .send(Method::POST, "/claims", &[], body)
        .await?
        .problem(400)?;
    let held = json!({ "ticket": "a".repeat(16) + "." + &"a".repeat(16), "attempt": 1 });
    let beat = json!({ "worker": "w", "session": "00000000", "held": vec![held; 1025] });
    scene.post("/beats", &beat).await?.problem(400)?;
    let parameters: serde_json::Map<_, _> = (0..257)
        .map(|number| (format!("P{number}"), json!("")))
        .collect();
    let trigger = json!({ "parameters": parameters });
    scene.post("/jobs/j/builds", &trigger).await?.problem(400)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn absurd_sizes_are_413() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    let ticket = format!("/tickets/{}/{}", claim.ticket, claim.attempt);
    let large = [
        (Method::POST, "/claims".to_owned(), 2 << 20),
        (Method::PUT, "/jobs/j".to_owned(), 2 << 20),
        (
            Method::POST,
            format!("{ticket}/console?offset=0"),
            (256 << 10) + 1,
        ),
        (Method::POST, format!("{ticket}/console?offset=0"), 2 << 20),
        (Method::PUT, format!("{ticket}/summary"), (256 << 10) + 1),
        (Method::PUT, format!("{ticket}/artifacts"), 17 << 20),
    ];
    for (method, path, size) in large {
        let answer = scene.send(method, &path, &[], "x".repeat(size)).await?;
        answer.problem(413).with_context(|| path.clone())?;
    }
    let reason = json!({ "code": "checkout", "detail": "x".repeat(20_000) });
    let result = json!({ "verdict": "failure", "reason": reason });
    scene.act(&claim, "complete", &result).await?.problem(413)?;
    // As many artifacts as a task may have do fit.
    let artifact = |number: u32| {
        json!({ "path": format!("target/debug/deps/file-{number}"), "bytes": 1,
            "digest": "ab".repeat(32), "content_type": "application/octet-stream" })
    };
    let manifest = json!({ "artifacts": (0..10_000).map(artifact).collect::<Vec<_>>() });
    let path = format!("{ticket}/artifacts");
    let answer = scene
        .send(Method::PUT, &path, &[], manifest.to_string())
        .await?;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn strangers_invent_no_metrics() -> Result<()> {
    let scene = Scene::new();
    scene.put_job(&one_task("j", &[])).await?;
    for number in 0..50 {
        let odd = Method::from_bytes(format!("ODD{number}").as_bytes())?;
        let stranger = Request::builder().method(odd).uri(format!("/x{number}"));
        scene.raw(stranger.body(Body::empty())?).await?;
    }
    let text = String::from_utf8(scene.get("/metrics").await?.body.to_vec())?;
    assert!(
        text.contains("distci_http_request_duration_seconds"),
        "{text}"
    );
    assert!(!text.contains("ODD"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    Ok(())
}

/// Every route. Who adds one adds it here, and to `distci-client`.
const ROUTES: &[&str] = &[
    "delete /api/v1/jobs/{job}",
    "get /api/v1/demand",
    "get /api/v1/frontends",
    "get /api/v1/jobs",
    "get /api/v1/jobs/{job}",
    "get /api/v1/jobs/{job}/builds",
    "get /api/v1/jobs/{job}/builds/{build}",
    "get /api/v1/jobs/{job}/builds/{build}/artifacts",
    "get /api/v1/jobs/{job}/builds/{build}/artifacts.tar.zst",
    "get /api/v1/jobs/{job}/builds/{build}/artifacts/{path}",
    "get /api/v1/jobs/{job}/builds/{build}/console",
    "get /api/v1/jobs/{job}/builds/{build}/console/lines",
    "get /api/v1/jobs/{job}/builds/{build}/console/search",
    "get /api/v1/jobs/{job}/builds/{build}/events",
    "get /api/v1/jobs/{job}/builds/{build}/report",
    "get /api/v1/jobs/{job}/builds/{build}/state",
    "get /api/v1/jobs/{job}/builds/{build}/summary",
    "get /api/v1/jobs/{job}/builds/{build}/tests",
    "get /api/v1/jobs/{job}/builds/{build}/why",
    "get /api/v1/jobs/{job}/polls",
    "get /api/v1/jobs/{job}/revisions",
    "get /api/v1/jobs/{job}/revisions/{revision}",
    "get /api/v1/jobs/{job}/schedules",
    "get /api/v1/jobs/{job}/tests",
    "get /api/v1/layers/{ticket}/{attempt}",
    "get /api/v1/locks",
    "get /api/v1/metrics",
    "get /api/v1/queue",
    "get /api/v1/search",
    "get /api/v1/tickets/{ticket}/{attempt}/caches/{name}",
    "get /api/v1/tickets/{ticket}/{attempt}/caches/{name}/{scope}/{id}",
    "get /api/v1/webhooks",
    "get /api/v1/webhooks/{id}",
    "get /api/v1/workers",
    "get /livez",
    "get /readyz",
    "get /version",
    "post /api/v1/beats",
    "post /api/v1/claims",
    "post /api/v1/demand",
    "post /api/v1/jobs/{job}/builds",
    "post /api/v1/jobs/{job}/builds/{build}/cancel",
    "post /api/v1/jobs/{job}/builds/{build}/rerun",
    "post /api/v1/jobs/{job}/builds/{build}/tasks/{task}/answer",
    "post /api/v1/jobs/{job}/builds/{build}/tasks/{task}/cancel",
    "post /api/v1/passes",
    "post /api/v1/tickets/{ticket}/{attempt}/artifacts/{index}",
    "post /api/v1/tickets/{ticket}/{attempt}/caches/{name}",
    "post /api/v1/tickets/{ticket}/{attempt}/commit",
    "post /api/v1/tickets/{ticket}/{attempt}/complete",
    "post /api/v1/tickets/{ticket}/{attempt}/console",
    "post /api/v1/tickets/{ticket}/{attempt}/errand",
    "post /api/v1/tickets/{ticket}/{attempt}/layer",
    "post /api/v1/tickets/{ticket}/{attempt}/release",
    "post /api/v1/webhooks/{id}/replay",
    "post /api/v1/workers/drain",
    "post /hooks/{source}",
    "post /hooks/{source}/{job}",
    "put /api/v1/jobs/{job}",
    "put /api/v1/tickets/{ticket}/{attempt}/artifacts",
    "put /api/v1/tickets/{ticket}/{attempt}/artifacts/{index}",
    "put /api/v1/tickets/{ticket}/{attempt}/caches/{name}",
    "put /api/v1/tickets/{ticket}/{attempt}/layer",
    "put /api/v1/tickets/{ticket}/{attempt}/summary",
    "put /api/v1/tickets/{ticket}/{attempt}/tests",
];

#[tokio::test(start_paused = true)]
async fn the_description_names_every_route_and_every_route_answers() -> Result<()> {
    let scene = Scene::new();
    let answer = scene
        .raw(Request::get("/api/openapi.json").body(Body::empty())?)
        .await?;
    let document: Value = answer.json()?;
    assert_eq!(document, crate::openapi());
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().context("no paths")? {
        for method in methods.as_object().context("no methods")?.keys() {
            routes.push(format!("{method} {path}"));
        }
    }
    routes.sort();
    assert_eq!(routes, ROUTES);
    for route in ROUTES {
        let (method, path) = route.split_once(' ').context("no method")?;
        let path = path.replace("{*path}", "x").replace(['{', '}'], "");
        let method = Method::from_bytes(method.to_uppercase().as_bytes())?;
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {TOKEN}"));
        let answer = scene.raw(request.body(Body::empty())?).await?;
        let problem = answer.json::<distci_model::wire::Problem>();
        let detail = problem.map(|problem| problem.detail).unwrap_or_default();
        assert!(!detail.contains("openapi.json"), "{route} leads nowhere");
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{route}");
    }
    Ok(())
}
