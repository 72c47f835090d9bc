//! The console on a screen: a line that was just printed, and one of 200 MB.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Site;
use super::browser::Browser;
use super::http::{Copy, Line};
use crate::builds::LINES;
use crate::report::{Report, Times};
use crate::rig::{Server, finish, set_job, shell, trigger};

const PRINTED: &str = "pages: line printed → on the screen";
const SCREEN: &str = "pages: first screen of a console of 200 MB in Chromium";
const ANEW: &str = "pages: the same at a frontend that never saw it";
const SEARCH: &str = "pages: search over a console of 200 MB";
const FOUND: &str = "pages: the same in Chromium, Enter → shown";

pub(super) const FIGURES: [&str; 5] = [PRINTED, SCREEN, ANEW, SEARCH, FOUND];

const CONSOLE: &str = "/jobs/big/builds/1/console?task=execute-shell";
const SEARCHED: &str = "/api/v1/jobs/big/builds/1/console/search?task=execute-shell&count=2000";
const ROUNDS: usize = 20;

/// A bit more than 200 MB, and something to be found at its end.
const BIG: &str = "seq -f 'line %.0f of a console that goes on and on and on for ever and ever' 2900000; \
    echo 'the needle in the hay'";

/// Notes when the first line of a console is painted, from before the page's own scripts run.
const FIRST_LINE: &str = "addEventListener('DOMContentLoaded', () => {\
    const look = () => { const line = document.querySelector('.viewer .console li span');\
    if (line?.textContent.startsWith('line ')) requestAnimationFrame(() => { window.painted = performance.now(); });\
    else requestAnimationFrame(look); }; look(); })";

/// Notes for each line that shows a moment in nanoseconds how old it is in the frame in which it is
/// painted first. Those that are there already are old.
const AGES: &str = "window.ages = []; const seen = new Set(); const look = (note) => {\
    const now = performance.timeOrigin + performance.now();\
    for (const span of document.querySelectorAll('.viewer .console li span')) {\
    const text = span.textContent; if (!/^\\d{19}$/.test(text) || seen.has(text)) continue;\
    seen.add(text); if (note) window.ages.push(now - Number(text) / 1e6); } };\
    look(false); new MutationObserver(() => requestAnimationFrame(() => look(true)))\
    .observe(document.querySelector('.viewer'), { subtree: true, childList: true, characterData: true })";

/// Looks for a text as a reader does, and says how long it took until it was shown.
const FIND: &str = "const done = arguments[0]; const start = performance.now();\
    const field = document.querySelector('.viewer input'); field.value = 'needle';\
    field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));\
    const look = () => { const found = document.querySelector('.viewer .console li.marked span');\
    if (found?.textContent.includes('needle')) done(performance.now() - start);\
    else requestAnimationFrame(look); }; look()";

pub(super) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let server = Server::standalone(2).await?;
    if report.wants(PRINTED) {
        printed(report, &server.site()?).await?;
    }
    if !FIGURES[1..].iter().any(|figure| report.wants(figure)) {
        return Ok(());
    }
    let job = set_job(&server.client, "big", shell(BIG, 1)).await?;
    let start = Instant::now();
    let build = trigger(&server.client, &job).await?;
    finish(&server.client, &build).await?;
    eprintln!(
        "200 MB were printed in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    first_screen(report, &server.site()?).await?;
    search(report, &server.site()?).await?;
    anew(report, server).await
}

/// From a script's printing of a line to its being painted in a browser.
async fn printed(report: &mut Report, site: &Site<'_>) -> anyhow::Result<()> {
    // Time to open the page, then lines by whose moments ages are known.
    let script = format!("echo begins; sleep 4; {LINES}; {LINES}");
    let job = set_job(site.client, "lines", shell(&script, 1)).await?;
    let build = trigger(site.client, &job).await?;
    let browser = Browser::open().await?;
    browser
        .sign_in(&format!("{}/sign-in", site.url), &site.token)
        .await?;
    browser
        .visit(&format!(
            "{}/jobs/lines/builds/1/console?task=execute-shell",
            site.url
        ))
        .await?;
    browser.window.execute(AGES, vec![]).await?;
    finish(site.client, &build).await?;
    browser.see(".viewer [data-status]", "121 lines").await?;
    let ages: Vec<f64> = browser
        .window
        .execute("return window.ages", vec![])
        .await?
        .convert()?;
    browser.leave().await?;
    ensure!(
        ages.len() > 60,
        "only {} lines were seen to come",
        ages.len()
    );
    let mut times = Times::new()?;
    for age in &ages {
        times.add(Duration::from_secs_f64(age.max(0.0) / 1000.0));
    }
    let raw = String::from("16.7 ms: a frame of the screen");
    report.add(PRINTED, times.to_string(), "p50 < 300 ms", raw);
    Ok(())
}

/// A browser that notes when it has painted the first line of a console.
async fn watching(site: &Site<'_>) -> anyhow::Result<Browser> {
    let browser = Browser::open().await?;
    let tools = browser.window.cdp();
    let script = serde_json::json!({ "source": FIRST_LINE });
    tools
        .send_raw("Page.addScriptToEvaluateOnNewDocument", script)
        .await?;
    browser
        .sign_in(&format!("{}/sign-in", site.url), &site.token)
        .await?;
    Ok(browser)
}

/// Opens the console: when its first line was painted, since the page was asked for.
async fn open(browser: &Browser, url: &str) -> anyhow::Result<Duration> {
    browser.visit(&format!("{url}{CONSOLE}")).await?;
    loop {
        let script = "return window.painted ?? 0";
        let millis: f64 = browser.window.execute(script, vec![]).await?.convert()?;
        if millis > 0.0 {
            return Ok(Duration::from_secs_f64(millis / 1000.0));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn openings(browser: &Browser, url: &str) -> anyhow::Result<Times> {
    let mut times = Times::new()?;
    for round in 0..=ROUNDS {
        let took = open(browser, url).await?;
        // The first one brings the script.
        if round > 0 {
            times.add(took);
        }
    }
    Ok(times)
}

async fn first_screen(report: &mut Report, site: &Site<'_>) -> anyhow::Result<()> {
    let mut line = Line::open(site.url, &site.token).await?;
    let page = String::from_utf8(line.get(CONSOLE).await?)?;
    let query = page
        .split("data-query=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let query = query
        .context("no viewer on the page")?
        .replace("&#38;", "&")
        .replace("&amp;", "&");
    let part = format!("/jobs/big/builds/1/console/part?{query}&line=1&count=200");
    let copy = Copy::of(&mut line, &[CONSOLE, &part]).await?;
    let browser = watching(site).await?;
    let times = openings(&browser, site.url).await?;
    let raw = openings(&browser, &copy.url).await?;
    browser.leave().await?;
    let raw = format!("{raw}: the same from memory");
    report.add(SCREEN, times.to_string(), "< 500 ms", raw);
    Ok(())
}

/// A frontend that comes new counts the lines when somebody first asks.
async fn anew(report: &mut Report, server: Server) -> anyhow::Result<()> {
    let mut server = server;
    let mut times = Times::new()?;
    for _ in 0..3 {
        server = server.anew().await?;
        let site = server.site()?;
        let browser = watching(&site).await?;
        times.add(open(&browser, site.url).await?);
        browser.leave().await?;
    }
    let (text, _) = text()?;
    let start = Instant::now();
    let ends = std::fs::read(text.path())?
        .into_iter()
        .filter(|&byte| byte == b'\n')
        .count();
    let raw = start.elapsed().as_secs_f64() * 1000.0;
    let raw = format!("{raw:.0} ms: the {ends} line ends of a file counted");
    let measured = format!("{:.0} ms, worst of 3", times.at(100.0));
    report.add(ANEW, measured, "< 500 ms", raw);
    Ok(())
}

/// The same text as a file, and its size in MB.
fn text() -> anyhow::Result<(tempfile::NamedTempFile, f64)> {
    let text = tempfile::NamedTempFile::new()?;
    let output = File::options().write(true).open(text.path())?;
    let done = Command::new("sh")
        .args(["-c", BIG])
        .stdout(output)
        .status()?;
    ensure!(done.success(), "no text to search");
    let bytes = text.path().metadata()?.len();
    let megabytes = Duration::from_micros(bytes).as_secs_f64();
    Ok((text, megabytes))
}

async fn search(report: &mut Report, site: &Site<'_>) -> anyhow::Result<()> {
    let mut line = Line::open(site.url, &site.token).await?;
    let mut measured = Vec::new();
    for (what, query) in [
        ("a text", "q=needle"),
        ("in any case", "q=NEEDLE&ignore_case=true"),
        ("a regular expression", "q=n[aeiou]%2Bdle&regex=true"),
    ] {
        let mut times = Times::new()?;
        for _ in 0..5 {
            let start = Instant::now();
            let found = line.get(&format!("{SEARCHED}&{query}")).await?;
            times.add(start.elapsed());
            let found: Value = serde_json::from_slice(&found)?;
            ensure!(
                found["lines"]
                    .as_array()
                    .is_some_and(|lines| lines.len() == 1),
                "{found}"
            );
        }
        measured.push(format!("{what} {:.0} ms", times.at(50.0)));
    }
    let (text, megabytes) = text()?;
    let mut raw = Vec::new();
    for flags in ["-cF", "-ciF", "-cE"] {
        let mut times = Times::new()?;
        for _ in 0..5 {
            let start = Instant::now();
            Command::new("grep")
                .args([flags, "needle"])
                .arg(text.path())
                .env("LC_ALL", "C")
                .stdout(Stdio::null())
                .status()?;
            times.add(start.elapsed());
        }
        raw.push(format!("{flags} {:.0} ms", times.at(50.0)));
    }
    let raw = format!("grep over the {megabytes:.0} MB: {}", raw.join(", "));
    report.add(SEARCH, measured.join(", "), "< 1 s", raw.clone());
    let browser = watching(site).await?;
    let mut times = Times::new()?;
    for _ in 0..ROUNDS {
        open(&browser, site.url).await?;
        let millis: f64 = browser
            .window
            .execute_async(FIND, vec![])
            .await?
            .convert()?;
        times.add(Duration::from_secs_f64(millis / 1000.0));
    }
    browser.leave().await?;
    report.add(FOUND, times.to_string(), "< 1 s", raw);
    Ok(())
}
