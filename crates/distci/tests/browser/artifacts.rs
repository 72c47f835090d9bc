//! Artifacts in the browser: the tree, a report that would be somebody else, and what is saved.

use std::io::Read as _;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::browser::{Browser, Theme};
use crate::program::eventually;
use crate::site::{Site, shell};

/// A report that does what it may, tries what it may not, and says what came of both.
const REPORT: &str = r#"<!doctype html><title>report</title><link rel="stylesheet" href="look.css">
<p id="own">not yet</p><p id="cookie"></p><p id="parent"></p><p id="api"></p><p id="store"></p>
<script src="app.js"></script><script type="module" src="module.js"></script>"#;
const SCRIPT: &str = r#"
const say = (id, text) => { document.getElementById(id).textContent = text; };
say("own", "my script ran");
try { say("cookie", "cookie: " + document.cookie); } catch (e) { say("cookie", "refused: " + e.name); }
try { say("parent", "parent: " + parent.document.title); } catch (e) { say("parent", "refused: " + e.name); }
try { localStorage.setItem("a", "b"); say("store", "stored"); } catch (e) { say("store", "refused: " + e.name); }
fetch("/api/v1/jobs", { credentials: "include" })
  .then(answer => say("api", "answered: " + answer.status)).catch(e => say("api", "refused: " + e.name));
"#;

fn site() -> Result<Site> {
    let site = Site::start()?;
    let write = |file: &str, text: &str| format!("cat > '{file}' <<'END'\n{text}\nEND\n");
    let script = [
        "mkdir -p out/report out/deep/er".to_owned(),
        write("out/report/index.html", REPORT),
        write("out/report/app.js", SCRIPT),
        write("out/report/module.js", "document.title = 'module';"),
        write("out/report/look.css", "#own { color: rgb(1, 2, 3) }"),
        write("out/notes.txt", "first\n<script>alert(1)</script>\nthird"),
        write("out/deep/er/\"><img src=x onerror=alert(1)>.txt", "odd"),
        "printf 'a\\0b' > out/program".to_owned(),
        "printf '<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"40\" height=\"20\"><rect width=\"40\" height=\"20\" fill=\"teal\"/></svg>' > out/picture.svg".to_owned(),
    ];
    let publish = json!({ "name": "publish", "type": "publish-artifacts", "params": { "artifacts": ["out/**"] } });
    let job =
        json!({ "job_id": "web", "tasks": [shell("make", &[], &script.join("\n")), publish] });
    site.set_job(&job)?;
    site.ask(&["trigger", "web"])?;
    site.finish("web#1")?;
    Ok(site)
}

#[tokio::test]
async fn a_report_runs_for_itself_and_is_a_stranger_to_us() -> Result<()> {
    let site = site()?;
    let browser = site.browse().await?;
    browser.visit(&site.at("/jobs/web/builds/1")).await?;
    browser.see(".tree", "report/").await?;
    let file = browser.find(".tree a[href$='index.html']").await?;
    file.click().await?;
    let frame = browser.find("iframe.report").await?;
    for theme in Theme::ALL {
        browser.prefer(theme).await?;
        browser.keep("report", theme).await?;
    }
    let address = frame.attr("src").await?.context("no address")?;
    for inside in [true, false] {
        if inside {
            frame.clone().enter_frame().await?;
        } else {
            browser.window.enter_default_frame().await?;
            browser.visit(&site.at(&address)).await?;
        }
        browser.see("#own", "my script ran").await?;
        let own = browser.find("#own").await?;
        let colour = own.css_value("color").await?;
        ensure!(
            colour.contains("1, 2, 3"),
            "its style sheet did not come: {colour}"
        );
        for what in ["cookie", "store", "api"] {
            browser.see(&format!("#{what}"), "refused").await?;
        }
        if inside {
            browser.see("#parent", "refused").await?;
        }
    }
    // It is told that it may not, which is what the browser complains of.
    browser.leave().await
}

#[tokio::test]
async fn artifacts_are_looked_at_and_saved() -> Result<()> {
    let site = site()?;
    let browser = site.browse().await?;
    for theme in Theme::ALL {
        browser.prefer(theme).await?;
        browser
            .visit(&site.at("/jobs/web/builds/1/artifacts"))
            .await?;
        browser.see("main", "out/").await?;
        browser
            .visit(&site.at("/jobs/web/builds/1/artifacts?below=out/"))
            .await?;
        browser.see("main", "notes.txt").await?;
        browser
            .visit(&site.at("/jobs/web/builds/1/artifacts/out/notes.txt"))
            .await?;
        browser.see("ol.text", "<script>alert(1)</script>").await?;
        browser.keep("preview", theme).await?;
    }
    browser
        .visit(&site.at("/jobs/web/builds/1/artifacts/out/picture.svg"))
        .await?;
    let drawn = "return document.querySelector('.picture img').naturalWidth";
    let width: u64 = browser.window.execute(drawn, Vec::new()).await?.convert()?;
    ensure!(width == 40, "the picture is {width} wide");
    browser
        .visit(&site.at("/jobs/web/builds/1/artifacts/out/program"))
        .await?;
    browser.see("main", "cannot be shown").await?;
    browser
        .visit(&site.at("/jobs/web/builds/1/artifacts?below=out/deep/er/"))
        .await?;
    browser.see("main", "onerror=alert(1)").await?;
    save_all(&site, &browser).await?;
    browser.close().await
}

/// Saves one and all by the links of the pages.
async fn save_all(site: &Site, browser: &Browser) -> Result<()> {
    let folder = site.path("saved");
    std::fs::create_dir(&folder)?;
    let to = json!({ "behavior": "allow", "downloadPath": folder.display().to_string() });
    browser
        .window
        .cdp()
        .send_raw("Browser.setDownloadBehavior", to)
        .await?;
    browser.visit(&site.at("/jobs/web/builds/1")).await?;
    let saved = |name: &'static str| {
        let file = folder.join(name);
        eventually(name, || {
            Ok(file.exists().then(|| std::fs::read(&file)).transpose()?)
        })
    };
    browser
        .find(".tree a[download][href$='notes.txt']")
        .await?
        .click()
        .await?;
    ensure!(
        saved("notes.txt")?.starts_with(b"first\n"),
        "another file was saved"
    );
    browser
        .find("h2 a[href$='artifacts.tar.zst']")
        .await?
        .click()
        .await?;
    let archive = saved("web-1.tar.zst")?;
    let mut tar = tar::Archive::new(zstd::Decoder::new(&archive[..])?);
    let mut names = Vec::new();
    for entry in tar.entries()? {
        let mut entry = entry?;
        let (name, mut bytes) = (entry.path()?.display().to_string(), Vec::new());
        entry.read_to_end(&mut bytes)?;
        names.push(name);
    }
    ensure!(names.len() == 8, "{names:?}");
    ensure!(
        names.iter().any(|name| name == "out/report/index.html"),
        "{names:?}"
    );
    Ok(())
}
