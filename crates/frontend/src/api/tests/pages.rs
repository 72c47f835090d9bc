//! The pages over the router: who sees them, what their forms need, what every answer refuses.

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use distci_model::config::ConfigProblem;

use super::scene::{Answer, Scene, TOKEN, one_task};

/// A browser with one cookie, as far as pages need one.
pub(super) struct Browser<'a> {
    scene: &'a Scene,
    cookie: String,
}

impl<'a> Browser<'a> {
    /// A browser whose reader has signed in.
    pub(super) async fn signed_in(scene: &'a Scene) -> Result<Self> {
        let mut browser = Self {
            scene,
            cookie: String::new(),
        };
        let answer = browser.post("/sign-in", &[("token", TOKEN)]).await?;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
        let cookie = answer.header("set-cookie").split(';').next();
        browser.cookie = cookie.context("no cookie")?.to_owned();
        Ok(browser)
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path);
        request
            .header("accept", "text/html,*/*;q=0.8")
            .header("cookie", &self.cookie)
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer> {
        let request = self.request(Method::GET, path).body(Body::empty())?;
        self.scene.raw(request).await
    }

    /// A page that is there.
    pub(super) async fn page(&self, path: &str) -> Result<String> {
        let answer = self.get(path).await?;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        Ok(String::from_utf8(answer.body.to_vec())?)
    }

    /// Sends a form as it is.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let mut body = form_urlencoded::Serializer::new(String::new());
        let request = self.request(Method::POST, path);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let body = body.extend_pairs(fields).finish();
        self.scene.raw(request.body(body.into())?).await
    }

    /// Sends a form as a page has it, with the mark that it finds there.
    pub(super) async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let csrf = self.csrf().await?;
        let fields: Vec<_> = [("csrf", csrf.as_str())]
            .iter()
            .chain(fields)
            .copied()
            .collect();
        self.post(path, &fields).await
    }

    pub(super) async fn csrf(&self) -> Result<String> {
        let page = self.page("/").await?;
        let mark = page.split("name=\"csrf\" content=\"").nth(1);
        let mark = mark.and_then(|rest| rest.split('"').next());
        Ok(mark.context("no mark on the page")?.to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_signed_in_is_led_to_where_one_signs_in() -> Result<()> {
    let scene = Scene::new();
    let stranger = Browser {
        scene: &scene,
        cookie: String::new(),
    };
    for (path, to) in [
        ("/", "%2F"),
        ("/jobs/a?x=1&y=2", "%2Fjobs%2Fa%3Fx%3D1%26y%3D2"),
        (
            "/jobs/a/builds/1/console?task=t",
            "%2Fjobs%2Fa%2Fbuilds%2F1%2Fconsole%3Ftask%3Dt",
        ),
        ("/queue", "%2Fqueue"),
        ("/workers", "%2Fworkers"),
        ("/cluster", "%2Fcluster"),
        ("/jobs/a/badge.svg", "%2Fjobs%2Fa%2Fbadge.svg"),
    ] {
        let answer = stranger.get(path).await?;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert_eq!(answer.header("location"), format!("/sign-in?to={to}"));
    }
    let form = stranger.page("/sign-in?to=/queue").await?;
    assert!(form.contains("name=\"to\" value=\"/queue\""), "{form}");
    assert!(!form.contains("<nav"), "a stranger is shown around");
    let answer = stranger
        .post("/sign-in", &[("token", "wrong"), ("to", "/queue")])
        .await?;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.headers.get("set-cookie").is_none());
    let said = String::from_utf8_lossy(&answer.body);
    assert!(said.contains("not the token") && said.contains("value=\"/queue\""));
    let program = scene.raw(Request::get("/").body(Body::empty())?).await?;
    program.problem(401)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_cookie_is_not_the_token_and_ends() -> Result<()> {
    let scene = Scene::new();
    let stranger = Browser {
        scene: &scene,
        cookie: String::new(),
    };
    let asked = [("token", TOKEN), ("to", "//evil.example/")];
    let answer = stranger.post("/sign-in", &asked).await?;
    assert_eq!(answer.header("location"), "/");
    let cookie = answer.header("set-cookie").to_owned();
    for part in [
        "distci=",
        "HttpOnly",
        "SameSite=Lax",
        "Path=/",
        "Max-Age=2592000",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(
        !cookie.contains(TOKEN) && !cookie.contains("Domain"),
        "{cookie}"
    );
    let value = cookie.split(';').next().unwrap_or_default().to_owned();
    let (end, mark) = value.split_once('.').context("no mark")?;
    let later = end.replace("distci=", "distci=9");
    for (cookie, is_good) in [
        (value.clone(), true),
        (format!("other=1; {value}; more=2"), true),
        (format!("{later}.{mark}"), false),
        (
            format!("{end}.{}", mark.replace(char::is_alphanumeric, "0")),
            false,
        ),
        (format!("{end}."), false),
        (end.to_owned(), false),
        ("distci=".to_owned(), false),
        (format!("__Host-{value}"), false),
    ] {
        let browser = Browser {
            scene: &scene,
            cookie,
        };
        let status = browser.get("/").await?.status;
        let expected = if is_good {
            StatusCode::OK
        } else {
            StatusCode::SEE_OTHER
        };
        assert_eq!(status, expected, "{}", browser.cookie);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn over_tls_the_cookie_is_of_this_host_alone() -> Result<()> {
    let scene = Scene::public("https://ci.example/");
    let enter = |host: &'static str| {
        let request = Request::post("/sign-in").header("host", host);
        request.body(Body::from(format!("token={TOKEN}")))
    };
    let answer = scene.raw(enter("ci.example")?).await?;
    let cookie = answer.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-distci=") && cookie.contains("; Secure"),
        "{cookie}"
    );
    let answer = scene.raw(enter("127.0.0.1:7070")?).await?;
    let cookie = answer.header("set-cookie");
    assert!(
        cookie.starts_with("distci=") && !cookie.contains("Secure"),
        "{cookie}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nothing_changes_that_no_page_of_ours_asked_for() -> Result<()> {
    let scene = Scene::new();
    let browser = Browser::signed_in(&scene).await?;
    for fields in [
        &[][..],
        &[("csrf", "")],
        &[("csrf", "0123456789abcdef0123456789abcdef")],
    ] {
        let answer = browser.post("/sign-out", fields).await?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(answer.headers.get("set-cookie").is_none());
    }
    let api = |mark: Option<String>| {
        let request = browser.request(Method::DELETE, "/api/v1/jobs/x");
        let request = request.header("accept", "application/json");
        match mark {
            Some(mark) => request.header("x-distci-csrf", mark),
            None => request,
        }
        .body(Body::empty())
    };
    assert_eq!(scene.raw(api(None)?).await?.status, StatusCode::FORBIDDEN);
    assert_eq!(
        scene.raw(api(Some("x".into()))?).await?.status,
        StatusCode::FORBIDDEN
    );
    let meant = scene.raw(api(Some(browser.csrf().await?))?).await?;
    assert_eq!(meant.status, StatusCode::NOT_FOUND, "there is no such job");
    assert_eq!(browser.get("/api/v1/jobs").await?.status, StatusCode::OK);
    for header in [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
    ] {
        let request = Request::post("/sign-in")
            .header("host", "ci")
            .header(header.0, header.1);
        let answer = scene
            .raw(request.body(Body::from(format!("token={TOKEN}")))?)
            .await?;
        answer.problem(403)?;
    }
    let answer = browser.submit("/sign-out", &[]).await?;
    assert_eq!(answer.header("location"), "/sign-in");
    assert!(
        answer.header("set-cookie").contains("distci=; "),
        "{answer:?}"
    );
    assert!(
        answer.header("set-cookie").contains("Max-Age=0"),
        "{answer:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_answer_says_what_to_refuse() -> Result<()> {
    let scene = Scene::new();
    let browser = Browser::signed_in(&scene).await?;
    for path in [
        "/",
        "/sign-in",
        "/nothing",
        "/api/v1/jobs",
        "/livez",
        "/assets/none",
    ] {
        let answer = browser.get(path).await?;
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(
            answer.header("cross-origin-opener-policy"),
            "same-origin",
            "{path}"
        );
    }
    assert_eq!(
        browser.get("/").await?.header("cache-control"),
        "private, no-cache"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_a_page_refers_to_is_there_for_ever() -> Result<()> {
    let scene = Scene::new();
    let page = Browser::signed_in(&scene).await?.page("/").await?;
    let stranger = Browser {
        scene: &scene,
        cookie: String::new(),
    };
    let assets: Vec<&str> = page
        .split('"')
        .filter(|text| text.starts_with("/assets/"))
        .collect();
    assert!(assets.len() >= 3, "{assets:?}");
    for path in assets {
        let answer = stranger.get(path).await?;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(
            answer.header("cache-control"),
            "public, max-age=31536000, immutable"
        );
        let kind = answer.header("content-type");
        assert!(
            ["text/css", "text/java", "image/svg"]
                .iter()
                .any(|one| kind.starts_with(one))
        );
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_went_wrong_is_a_page_for_who_looks() -> Result<()> {
    let scene = Scene::new();
    let browser = Browser::signed_in(&scene).await?;
    for (path, status) in [
        ("/nothing", 404),
        ("/?after[]=%ff&q", 200),
        ("/assets/x", 404),
    ] {
        let answer = browser.get(path).await?;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(
            answer.header("content-type").starts_with("text/html"),
            "{answer:?}"
        );
    }
    let answer = browser.get("/nothing").await?;
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(said.contains(answer.header("x-request-id")), "{said}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn home_lists_all_jobs_page_by_page() -> Result<()> {
    let scene = Scene::new();
    for number in 0..205 {
        let job = serde_json::json!({
            "job_id": format!("job-{number:03}"),
            "description": "<script>alert(1)</script>",
            "tasks": [{ "type": "execute-shell", "params": { "script": "true" } }],
        });
        scene.put_job(&job).await?;
    }
    scene.build("Zebra").await?;
    let browser = Browser::signed_in(&scene).await?;
    let (mut path, mut seen) = ("/".to_owned(), Vec::new());
    loop {
        let page = browser.page(&path).await?;
        assert!(!page.contains("<script>alert"), "a description runs");
        assert!(page.len() < 60_000, "{} bytes", page.len());
        let rows = page.split("class=\"name\" href=\"/jobs/").skip(1);
        seen.extend(rows.filter_map(|row| Some(row.split('"').next()?.to_owned())));
        let Some((_, next)) = page.split_once("rel=\"next\" href=\"") else {
            break;
        };
        path = next
            .split('"')
            .next()
            .context("no end")?
            .replace("&#38;", "&");
    }
    assert_eq!(seen.len(), 206);
    assert!(seen.is_sorted() && seen.first().is_some_and(|first| first == "Zebra"));
    let found = browser.page("/?q=zEb").await?;
    assert!(found.contains("/jobs/Zebra/builds/1") && !found.contains("job-001"));
    let none = browser.page("/?q=%3Cscript%3E%22").await?;
    assert!(none.contains("No job fits") && !none.contains("<script>\""));
    Ok(())
}

/// A job with parameters, and a task that fails after a hostile line.
fn job() -> serde_json::Value {
    serde_json::json!({
        "job_id": "job",
        "parameters": { "colour": { "choices": ["red", "blue"] }, "count": { "type": "integer", "default": 3 } },
        "tasks": [
            { "name": "a", "type": "execute-shell", "params": { "script": "true" } },
            { "name": "agree", "type": "approve", "params": { "message": "${colour}?" } },
        ],
    })
}

#[tokio::test(start_paused = true)]
async fn a_form_asks_for_a_build_once_and_says_what_is_wrong() -> Result<()> {
    let scene = Scene::new();
    scene.put_job(&job()).await?;
    let browser = Browser::signed_in(&scene).await?;
    let page = browser.page("/jobs/job").await?;
    let request = page.split("name=\"request\" value=\"").nth(1);
    let request = request
        .and_then(|rest| rest.split('"').next())
        .context("no id")?;
    let wrong = [
        ("request", request),
        ("p.colour", "<i>green"),
        ("p.count", "3"),
    ];
    let answer = browser.submit("/jobs/job/builds", &wrong).await?;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        said.contains("role=\"alert\"") && !said.contains("<i>green"),
        "{said}"
    );
    let right = [("request", request), ("p.colour", "blue"), ("p.count", "4")];
    for _ in 0..2 {
        let answer = browser.submit("/jobs/job/builds", &right).await?;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
        assert_eq!(answer.header("location"), "/jobs/job/builds/1");
    }
    assert!(
        browser
            .page("/jobs/job/builds/latest")
            .await?
            .contains("blue")
    );
    let unmeant = browser.post("/jobs/job/builds", &right).await?;
    assert_eq!(unmeant.status, StatusCode::FORBIDDEN);
    assert_eq!(
        browser.get("/jobs/job/builds/2").await?.status,
        StatusCode::NOT_FOUND
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_page_shows_a_build_on_its_way() -> Result<()> {
    let scene = Scene::new();
    scene.put_job(&job()).await?;
    let browser = Browser::signed_in(&scene).await?;
    let request = ["0123456789abcdef"; 2].concat();
    let wish = [("request", request.as_str()), ("p.colour", "red")];
    browser.submit("/jobs/job/builds", &wish).await?;
    let claim = scene.task().await?;
    let text = b"\x1b[31m<script>alert(1)</script>\xff\x1b[0m\nlast\n";
    scene.append(&claim, 0, text).await?;
    let pages = [
        "/",
        "/jobs/job",
        "/jobs/job/builds/1",
        "/queue",
        "/workers",
        "/cluster",
    ];
    for path in pages {
        let page = browser.page(path).await?;
        assert!(page.len() < 60_000, "{path}: {} bytes", page.len());
    }
    assert!(browser.page("/workers").await?.contains("job#1"));
    let console = "/jobs/job/builds/1/console?task=a";
    let page = browser.page(console).await?;
    assert!(page.contains("<span class=\"f1\">&lt;script&gt;") && page.contains("id=\"L2\""));
    scene.finish(&claim).await?;
    assert!(browser.page("/jobs/job/builds/1").await?.contains("red?"));
    let answer = [("answer", "approve"), ("comment", "<b>yes")];
    let path = "/jobs/job/builds/1/tasks/agree/answer";
    assert_eq!(
        browser.post(path, &answer).await?.status,
        StatusCode::FORBIDDEN
    );
    let neither = browser.submit(path, &[]).await?;
    assert_eq!(neither.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        browser.submit(path, &answer).await?.status,
        StatusCode::SEE_OTHER
    );
    scene.control().await?;
    let page = browser.page("/jobs/job/builds/1").await?;
    assert!(page.contains("<title>job#1 success"), "{page}");
    assert!(
        page.contains("/assets/success-"),
        "the tab does not show the state"
    );
    let badge = browser.get("/jobs/job/badge.svg").await?;
    assert_eq!(badge.header("content-type"), "image/svg+xml");
    assert!(String::from_utf8_lossy(&badge.body).contains("success"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn builds_are_cancelled_and_run_again_by_forms() -> Result<()> {
    let scene = Scene::new();
    scene.build("job").await?;
    let browser = Browser::signed_in(&scene).await?;
    let claim = scene.task().await?;
    for path in ["/jobs/job/builds/1/cancel", "/jobs/job/builds/1/rerun"] {
        assert_eq!(browser.post(path, &[]).await?.status, StatusCode::FORBIDDEN);
        assert_eq!(
            browser.get(path).await?.status,
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
    let answer = browser
        .submit("/jobs/job/builds/1/tasks/a/cancel", &[])
        .await?;
    assert_eq!(answer.header("location"), "/jobs/job/builds/1#task-a");
    let answer = browser.submit("/jobs/job/builds/1/cancel", &[]).await?;
    assert_eq!(answer.header("location"), "/jobs/job/builds/1");
    let cancelled = serde_json::json!({ "verdict": "failure", "reason": { "code": "cancelled" } });
    scene.act(&claim, "complete", &cancelled).await?;
    scene.control().await?;
    let page = browser.page("/jobs/job/builds/1").await?;
    assert!(page.contains("<title>job#1 failure"), "its only task was");
    let request = ["fedcba9876543210"; 2].concat();
    for (what, from) in [("failed", ""), ("failed", "")] {
        let fields = [
            ("request", request.as_str()),
            ("what", what),
            ("from", from),
        ];
        let answer = browser.submit("/jobs/job/builds/1/rerun", &fields).await?;
        assert_eq!(
            answer.header("location"),
            "/jobs/job/builds/2",
            "{answer:?}"
        );
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_job_is_written_and_what_is_wrong_is_told_beside_it() -> Result<()> {
    let scene = Scene::new();
    let browser = Browser::signed_in(&scene).await?;
    assert!(browser.page("/new").await?.contains("execute-shell"));
    let text = one_task("made", &[]).to_string();
    let named =
        |text: &str, revision: &str| [("text", text.to_owned()), ("revision", revision.to_owned())];
    let send = async |path: &str, text: &str, revision: &str| {
        let fields = named(text, revision);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        browser.submit(path, &fields).await
    };
    assert_eq!(
        browser
            .post("/new", &[("text", &text), ("revision", "0")])
            .await?
            .status,
        StatusCode::FORBIDDEN
    );
    let wrong = send("/new", "{ \"job_id\": \"made\",\n \"task\": 1 }", "0").await?;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let page = String::from_utf8(wrong.body.to_vec())?;
    assert!(
        page.contains(">2:2</a>") && page.contains("did you mean `tasks`?"),
        "{page}"
    );
    let problems: Vec<ConfigProblem> = send("/check-job", "{", "0").await?.json()?;
    assert!(!problems.is_empty());
    let problems: Vec<ConfigProblem> = send("/check-job", &text, "0").await?.json()?;
    assert_eq!(problems, []);
    let made = send("/new", &text, "0").await?;
    assert_eq!(
        (made.status, made.header("location")),
        (StatusCode::SEE_OTHER, "/jobs/made")
    );
    let again = send("/new", &one_task("made", &["x"]).to_string(), "0").await?;
    assert!(String::from_utf8(again.body.to_vec())?.contains("there is a job made already"));
    let other = send("/jobs/made/edit", &one_task("other", &[]).to_string(), "1").await?;
    assert!(String::from_utf8(other.body.to_vec())?.contains("a job keeps its name"));
    let changed = send(
        "/jobs/made/edit",
        &one_task("made", &["x"]).to_string(),
        "1",
    )
    .await?;
    assert_eq!(changed.status, StatusCode::SEE_OTHER);
    let late = send(
        "/jobs/made/edit",
        &one_task("made", &["y"]).to_string(),
        "1",
    )
    .await?;
    assert_eq!(late.status, StatusCode::UNPROCESSABLE_ENTITY);
    let page = browser.page("/jobs/made/edit").await?;
    assert!(page.contains("name=\"revision\" value=\"2\""), "{page}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nothing_that_the_api_gives_becomes_a_part_of_a_page() -> Result<()> {
    let scene = Scene::new();
    let browser = Browser::signed_in(&scene).await?;
    for (purpose, status) in [
        ("empty", StatusCode::OK),
        ("document", StatusCode::OK),
        ("script", StatusCode::FORBIDDEN),
        ("style", StatusCode::FORBIDDEN),
        ("worker", StatusCode::FORBIDDEN),
        ("serviceworker", StatusCode::FORBIDDEN),
        ("iframe", StatusCode::FORBIDDEN),
        ("image", StatusCode::FORBIDDEN),
    ] {
        let request = browser.request(Method::GET, "/api/v1/jobs");
        let request = request.header("sec-fetch-dest", purpose);
        let answer = scene.raw(request.body(Body::empty())?).await?;
        assert_eq!(answer.status, status, "{purpose}");
    }
    Ok(())
}
