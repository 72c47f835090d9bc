//! The viewer of consoles: long ones, live ones, and what they contain.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::browser::{Browser, Theme};
use crate::program::eventually;
use crate::site::{Site, shell};

/// The numbers and the texts of the lines that are in the page now.
async fn lines(browser: &Browser) -> Result<Vec<(u64, String)>> {
    let script = "return [...document.querySelectorAll('.viewer .console li')].map(li => \
        [Number(li.firstChild.textContent), li.lastChild.textContent])";
    let shown = browser.window.execute(script, Vec::new()).await?;
    Ok(shown.convert()?)
}

/// Waits until a line shows this text.
pub(crate) async fn shows(browser: &Browser, number: u64, text: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let all = lines(browser).await?;
        if all
            .iter()
            .any(|(line, shown)| *line == number && shown == text)
        {
            return Ok(());
        }
        let late = tokio::time::Instant::now() > deadline;
        ensure!(!late, "line {number} is not {text:?}: {all:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Scrolls from the beginning on until each line was seen: `line 1`, `line 2` and so on.
pub(crate) async fn every_line(browser: &Browser, count: u64) -> Result<()> {
    browser
        .window
        .execute(
            "document.querySelector('[data-pane]').scrollTop = 0",
            vec![],
        )
        .await?;
    shows(browser, 1, "line 1").await?;
    let (mut seen, mut top, mut looks) = (0, 0, 0);
    while seen < count {
        let before = seen;
        for (number, text) in lines(browser).await? {
            if number == seen + 1 && text == format!("line {number}") {
                seen = number;
            }
        }
        // Not before the lines that are to be seen here have come.
        if seen > before {
            (top, looks) = (top + 200, 0);
        }
        looks += 1;
        ensure!(looks < 1500, "line {} is missing", seen + 1);
        let scroll = format!("document.querySelector('[data-pane]').scrollTop = {top}");
        browser.window.execute(scroll, vec![]).await?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_console_of_200_mb_opens_scrolls_and_is_searched() -> Result<()> {
    let site = Site::start()?;
    let script = "seq -f 'line %.0f of a console that goes on and on and on for ever and ever' 2900000\n\
        echo 'the needle in the hay'; printf '\\033[31m<b>red</b>\\033[0m\\n'; seq 3; exit 1";
    site.set_job(&json!({ "job_id": "big", "tasks": [shell("a", &[], script)] }))?;
    site.ask(&["trigger", "big"])?;
    site.finish("big#1")?;
    let browser = site.browse().await?;
    let path = "/jobs/big/builds/1/console?task=a";
    browser.visit(&site.at(path)).await?;
    browser.see("[data-status]", "2,900,006 lines").await?;
    let first = "line 1 of a console that goes on and on and on for ever and ever";
    shows(&browser, 1, first).await?;
    // Few of the lines are in the page, wherever it stands.
    ensure!(lines(&browser).await?.len() < 200);
    browser
        .window
        .execute(
            "document.querySelector('[data-pane]').scrollTop = 1e9",
            vec![],
        )
        .await?;
    shows(&browser, 2_900_002, "<b>red</b>").await?;
    let red = browser.find(".viewer .f1").await?;
    ensure!(red.text().await? == "<b>red</b>");
    let half = "const pane = document.querySelector('[data-pane]'); pane.scrollTop = pane.scrollHeight / 2";
    browser.window.execute(half, vec![]).await?;
    eventually_middle(&browser).await?;
    browser
        .find(".viewer input")
        .await?
        .send_keys("NEEDLE\u{e007}")
        .await?;
    shows(&browser, 2_900_001, "the needle in the hay").await?;
    browser.see("[data-status]", "1 of 1").await?;
    ensure!(browser.window.current_url().await?.fragment() == Some("L2900001"));
    // A link to a line leads there.
    browser.visit(&site.at("/queue")).await?;
    browser.visit(&site.at(&format!("{path}#L1234567"))).await?;
    let line = "line 1234567 of a console that goes on and on and on for ever and ever";
    shows(&browser, 1_234_567, line).await?;
    browser.close().await
}

async fn eventually_middle(browser: &Browser) -> Result<()> {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let all = lines(browser).await?;
        let there = all
            .iter()
            .all(|(number, text)| text.starts_with(&format!("line {number} ")));
        if there
            && all
                .first()
                .is_some_and(|(number, _)| (1_400_000..1_500_000).contains(number))
        {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "{:?}", all.first());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_watches_misses_no_line_when_the_frontend_is_killed() -> Result<()> {
    let mut site = Site::start()?;
    let go = site.path("go").display().to_string();
    let script = format!(
        "touch {go}.seen; for i in $(seq 1 40); do echo line $i; sleep 0.05; done\n\
         until [ -e {go} ]; do sleep 0.05; done; for i in $(seq 41 300); do echo line $i; done"
    );
    site.set_job(&json!({ "job_id": "j", "tasks": [shell("a", &[], &script)] }))?;
    site.ask(&["trigger", "j"])?;
    let begun = site.path("go.seen");
    eventually("the task to begin", || Ok(begun.exists().then_some(())))?;
    let browser = site.browse().await?;
    let path = "/jobs/j/builds/1/console?task=a";
    browser.visit(&site.at(path)).await?;
    shows(&browser, 5, "line 5").await?;
    shows(&browser, 40, "line 40").await?;
    site.kill()?;
    std::fs::write(&go, "")?;
    site.revive()?;
    shows(&browser, 300, "line 300").await?;
    site.finish("j#1")?;
    browser.see("[data-status]", "300 lines").await?;
    every_line(&browser, 300).await?;
    let view: Value = serde_json::from_str(&site.ask(&["show", "j#1", "--json"])?)?;
    let shown = view.to_string();
    ensure!(
        shown.contains("\"attempt\":1") && !shown.contains("\"attempt\":2"),
        "{view}"
    );
    // While nobody was there the browser could not load anything, and said so.
    browser.leave().await
}

/// Presses a key on the page.
async fn press(browser: &Browser, key: &str) -> Result<()> {
    browser.find("body").await?.send_keys(key).await?;
    Ok(())
}

/// Waits until the numbers of the lines that are shown are these.
async fn sees(browser: &Browser, wanted: &[u64]) -> Result<()> {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let all = lines(browser).await?;
        if all.iter().map(|line| line.0).eq(wanted.iter().copied()) {
            return Ok(());
        }
        let late = tokio::time::Instant::now() > deadline;
        ensure!(!late, "not {wanted:?}: {all:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Fourteen lines with parts of three forms in them, one of them with colours.
const PARTS: &str = r"
echo 'before'
echo '::group::Install <b>'
printf 'a \033[31mred\033[0m thing\n'
echo '::group::inner'
echo 'deep'
echo '::endgroup::'
echo '::endgroup::'
echo '::error file=a.c::it is broken'
echo '--- a/file'
echo '+++ b/file'
printf 'section_start:1560896352:name\r\033[0KCompile\n'
echo 'compiled'
printf 'section_end:1560896353:name\r\033[0K\n'
echo 'last'
exit 1";

#[tokio::test]
async fn parts_of_a_console_are_folded_and_found() -> Result<()> {
    let site = Site::start()?;
    let task = json!({ "name": "a", "type": "execute-shell", "retry": { "max": 1, "backoff": "0s" },
        "params": { "script": PARTS } });
    site.set_job(&json!({ "job_id": "parts", "tasks": [task] }))?;
    site.ask(&["trigger", "parts"])?;
    site.finish("parts#1")?;
    let browser = site.browse().await?;
    let path = "/jobs/parts/builds/1/console?task=a&attempt=2";
    browser.visit(&site.at(path)).await?;
    // Groups are folded, sections are not unless they say so. The last line is the worker's own.
    sees(&browser, &[1, 2, 8, 9, 10, 11, 12, 13, 14, 15]).await?;
    shows(&browser, 2, "▸Install <b>").await?;
    shows(&browser, 8, "it is broken").await?;
    shows(&browser, 11, "▾Compile").await?;
    browser.find(".viewer li.error").await?;
    browser.find("[data-fold='1']").await?.click().await?;
    sees(&browser, &[1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15]).await?;
    press(&browser, "z").await?;
    sees(&browser, &[1, 2, 8, 9, 10, 11, 14, 15]).await?;
    press(&browser, "z").await?;
    sees(&browser, &(1..=15).collect::<Vec<_>>()).await?;
    press(&browser, "t").await?;
    let time = browser.find(".viewer time").await?.text().await?;
    ensure!(time.contains(':'), "{time:?} is no time");
    press(&browser, "t").await?;
    // What is looked for is found through colours, and unfolds what it is in.
    press(&browser, "z").await?;
    let field = browser.find(".viewer input").await?;
    field.send_keys("a red thing\u{e007}").await?;
    sees(&browser, &[1, 2, 3, 4, 7, 8, 9, 10, 11, 14, 15]).await?;
    browser.find(".viewer li.marked").await?;
    // So does a link to a line.
    browser.visit(&site.at("/queue")).await?;
    browser.visit(&site.at(&format!("{path}#L5"))).await?;
    shows(&browser, 5, "deep").await?;
    browser.visit(&site.at(&format!("{path}&beside=1"))).await?;
    browser.see(".beside", "attempt 1").await?;
    for theme in Theme::ALL {
        browser.prefer(theme).await?;
        browser.keep("beside", theme).await?;
    }
    let count =
        "return [...document.querySelectorAll('.beside .console')].map(one => one.children.length)";
    let counts: Vec<u64> = browser.window.execute(count, vec![]).await?.convert()?;
    ensure!(counts == [10, 10], "{counts:?}");
    browser.close().await
}
