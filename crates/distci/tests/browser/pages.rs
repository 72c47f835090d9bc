//! Every page: whole in both themes and on a small screen, live, and good for what it offers.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::browser::{Browser, Theme};
use crate::site::{Site, shell};

/// A site with builds of every state.
pub(crate) fn lively() -> Result<Site> {
    let site = Site::start()?;
    let go = site.path("go").display().to_string();
    let wait = format!("echo compiling; until [ -e {go} ]; do sleep 0.1; done");
    let publish = json!({ "name": "publish", "type": "publish-artifacts", "needs": ["compile"],
        "params": { "artifacts": ["out/program"], "junit": ["out/*.xml"], "failed_tests": "ignore" } });
    let mut matrix = shell("test", &["compile"], "echo testing on $OS; sleep 0.2");
    matrix["matrix"] = json!({ "os": ["debian", "fedora", "alpine"] });
    matrix["env"] = json!({ "OS": "${os}" });
    let compile = "mkdir out; echo 'a program' > out/program; printf '\\033[1;32mcompiled\\033[0m\\n'\n\
        echo '<testsuite name=\"cart\"><testcase classname=\"cart\" name=\"adds\" time=\"0.2\"/>\
        <testcase classname=\"cart\" name=\"empties\" time=\"1.5\"><failure message=\"left: 1, right: 0\">\
        cart.rs:7</failure></testcase></testsuite>' > out/tests.xml";
    // A first revision, to have something to compare with.
    site.set_job(&json!({ "job_id": "web", "description": "The web shop",
        "tasks": [shell("lint", &[], "echo clean"), shell("compile", &[], compile)] }))?;
    site.set_job(&json!({
        "job_id": "web", "description": "The web shop, from source to release",
        "parameters": { "branch": { "default": "main", "description": "What to build" } },
        "tasks": [shell("lint", &[], "echo clean"), shell("compile", &[], compile), matrix, publish,
            shell("release", &["lint", "test", "publish"], "echo released")]
    }))?;
    let broken = "echo 'error: it does not work'; exit 3";
    site.set_job(&json!({ "job_id": "broken", "tasks": [shell("a", &[], broken), shell("b", &["a"], "true")] }))?;
    site.set_job(&json!({ "job_id": "slow", "tasks": [shell("compile", &[], &wait)] }))?;
    let mut nobody = shell("a", &[], "true");
    nobody["params"]["nodelabels"] = json!(["riscv"]);
    site.set_job(&json!({ "job_id": "waiting", "tasks": [nobody] }))?;
    for (job, count) in [("web", 3), ("broken", 2)] {
        for number in 1..=count {
            site.ask(&["trigger", job])?;
            site.finish(&format!("{job}#{number}"))?;
        }
    }
    site.ask(&["trigger", "slow"])?;
    site.ask(&["trigger", "waiting"])?;
    Ok(site)
}

/// Pages of that site, and what pictures of them are called.
pub(crate) const PAGES: [(&str, &str); 16] = [
    ("home", "/"),
    ("job", "/jobs/web"),
    ("build", "/jobs/web/builds/3"),
    ("failed", "/jobs/broken/builds/1"),
    ("console", "/jobs/broken/builds/1/console?task=a"),
    ("running", "/jobs/slow/builds/1"),
    ("edit", "/jobs/web/edit"),
    ("new", "/new"),
    ("artifacts", "/jobs/web/builds/3/artifacts"),
    ("events", "/jobs/web/builds/3/events"),
    ("tests", "/jobs/web/builds/3/tests"),
    ("revisions", "/jobs/web/revisions?of=2"),
    ("search", "/search?q=comp&since=7d"),
    ("queue", "/queue"),
    ("workers", "/workers"),
    ("cluster", "/cluster"),
];

#[tokio::test]
async fn every_page_is_whole_in_both_themes_and_on_a_small_screen() -> Result<()> {
    let site = lively()?;
    let browser = site.browse().await?;
    for theme in Theme::ALL {
        browser.prefer(theme).await?;
        browser.resize(1280, 900).await?;
        for (name, path) in PAGES {
            browser.visit(&site.at(path)).await?;
            browser.find("main h1").await?;
            browser.fits().await?;
            browser.keep(name, theme).await?;
        }
        browser.resize(390, 800).await?;
        for (_, path) in PAGES {
            browser.visit(&site.at(path)).await?;
            browser.find("main h1").await?;
            browser.fits().await?;
        }
    }
    browser.close().await
}

/// What a stranger sees, and who looks for what is not there: of the latter a browser complains.
#[tokio::test]
async fn who_cannot_see_a_page_is_told_so() -> Result<()> {
    let site = Site::start()?;
    let browser = Browser::open().await?;
    for theme in Theme::ALL {
        browser.prefer(theme).await?;
        for (name, path) in [("sign-in", "/queue"), ("trouble", "/jobs/no-such")] {
            browser.visit(&site.at(path)).await?;
            browser.fits().await?;
            browser.keep(name, theme).await?;
            if name == "sign-in" {
                browser.see("main", "token").await?;
                browser.enter(&site.token()?).await?;
                browser.see("h1", "Queue").await?;
            } else {
                browser.see("main", "no-such").await?;
            }
        }
        browser.window.delete_all_cookies().await?;
    }
    browser.leave().await
}

#[tokio::test]
async fn who_comes_by_the_command_line_is_signed_in() -> Result<()> {
    let site = lively()?;
    let address = site.ask(&["open", "web#2", "--print"])?;
    let address = address.trim();
    let browser = Browser::open().await?;
    // Somebody who changes the pass gets no further.
    let (page, pass) = address.split_once('#').context("no pass")?;
    browser.visit(&format!("{page}#1{pass}")).await?;
    browser.see("main", "That is not the token").await?;
    browser.visit(address).await?;
    browser.see("h1", "#2").await?;
    ensure!(browser.window.current_url().await?.fragment().is_none());
    // What a program would open for this reader.
    let opener = site.path("opener");
    std::fs::write(&opener, "#!/bin/sh\necho \"$1\" > \"$0.said\"")?;
    std::fs::set_permissions(&opener, PermissionsExt::from_mode(0o700))?;
    let done = site
        .client()
        .args(["open", "queue"])
        .env("BROWSER", &opener)
        .output()?;
    ensure!(done.status.success(), "{done:?}");
    let shown = std::fs::read_to_string(site.path("opener.said"))?;
    ensure!(
        shown.starts_with(&site.at("/sign-in?to=/queue#")),
        "{shown}"
    );
    let refused = site.client().args(["open", "no-such"]).output()?;
    ensure!(refused.status.code() == Some(5), "{refused:?}");
    // Of the answer to the wrong pass the browser complains.
    browser.leave().await
}

#[tokio::test]
async fn a_build_is_triggered_by_the_form_and_seen_to_its_end() -> Result<()> {
    let site = lively()?;
    let browser = site.browse().await?;
    browser.see("main", "web").await?;
    browser.visit(&site.at("/jobs/web")).await?;
    press(&browser, "details.menu summary").await?;
    let field = browser.find("form [name='p.branch']").await?;
    field.clear().await?;
    field.send_keys("release-1").await?;
    press(&browser, "form[action$='/builds'] button").await?;
    browser.see("h1", "#4").await?;
    browser.see("main", "release-1").await?;
    // Nobody loads the page again.
    browser.see(".head", "success").await?;
    let icon = browser.find("link[rel=icon]").await?.attr("href").await?;
    assert!(icon.is_some_and(|icon| icon.contains("success")));
    browser.see("main", "program").await?;
    browser.close().await
}

#[tokio::test]
async fn a_job_is_written_wrongly_and_mended() -> Result<()> {
    let site = Site::start()?;
    let browser = site.browse().await?;
    browser.visit(&site.at("/new")).await?;
    let wrong = r#"{ "job_id": "made",
  "tasks": [ { "name": "a", "type": "execute-shel", "params": { "script": "echo made" } } ] }"#;
    write(&browser, wrong).await?;
    // Told while it is written, with its place; and told again by who takes it.
    browser.see("#problems", "2:").await?;
    browser.see("#problems", "execute-shel").await?;
    press(&browser, ".editor button").await?;
    browser.see("#problems", "execute-shel").await?;
    write(&browser, &wrong.replace("execute-shel", "execute-shell")).await?;
    browser.see("[data-state]", "no problems").await?;
    press(&browser, ".editor button").await?;
    browser.see("h1", "made").await?;
    browser.see(".facts", "revision 1").await?;
    // Somebody else is faster.
    browser.visit(&site.at("/jobs/made/edit")).await?;
    site.set_job(&json!({ "job_id": "made", "tasks": [shell("b", &[], "true")] }))?;
    write(&browser, &wrong.replace("execute-shel", "execute-shell")).await?;
    press(&browser, ".editor button").await?;
    browser
        .see("[role=alert]", "somebody has changed the job")
        .await?;
    let kept = browser.find("textarea").await?.prop("value").await?;
    assert!(kept.is_some_and(|kept| kept.contains("echo made")));
    browser.leave().await
}

async fn write(browser: &Browser, text: &str) -> Result<()> {
    let script = "const field = document.querySelector('textarea'); field.value = arguments[0]; \
        field.dispatchEvent(new Event('input'))";
    browser.window.execute(script, vec![json!(text)]).await?;
    Ok(())
}

#[tokio::test]
async fn a_running_build_is_cancelled() -> Result<()> {
    let site = lively()?;
    let browser = site.browse().await?;
    browser.visit(&site.at("/jobs/slow/builds/1")).await?;
    browser.see(".head", "running").await?;
    press(&browser, "form[action$='/cancel'] button").await?;
    browser.see(".head", "cancelled").await?;
    browser.close().await
}

async fn press(browser: &Browser, css: &str) -> Result<()> {
    browser.find(css).await?.click().await?;
    Ok(())
}
