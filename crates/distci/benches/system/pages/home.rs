//! Home, with many jobs: at the server and on a screen.

use std::time::{Duration, Instant};

use anyhow::Context;
use distci_model::id::JobId;
use futures::stream::{StreamExt, TryStreamExt, iter};

use super::Site;
use super::browser::Browser;
use super::http::{Copy, Line};
use crate::report::{Report, Times};
use crate::rig::{finish, set_job, shell, trigger};

pub(super) const QUIET: &str = "pages: home of 10,000 jobs";
pub(super) const TRIGGERED: &str = "pages: home right after a trigger";
pub(super) const FIRST: &str = "pages: 100 jobs that nobody looked at yet";
pub(super) const SCREEN: &str = "pages: home of 10,000 jobs in Chromium";

const TARGET: &str = "< 50 ms";
const JOBS: usize = 10_000;
/// Requests on their way while jobs and builds are made.
const AT_ONCE: usize = 32;
/// Jobs of the first page.
const SHOWN: usize = 100;
/// Builds of each of these: as many as are shown,
pub(super) const LIVELY: usize = 16;
/// or fewer, where builds take long.
pub(super) const CALM: usize = 4;

fn name(number: usize) -> String {
    format!("team-{:02}-service-{number:05}", number / 250)
}

/// Makes the jobs, and builds of those on the first page.
pub(super) async fn fill(site: &Site<'_>, builds: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    iter(0..JOBS)
        .map(|number| async move { set_job(site.client, &name(number), shell("true", 1)).await })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    eprintln!(
        "{JOBS} jobs were made in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    iter(0..SHOWN * builds)
        .map(|number| async move {
            let job: JobId = name(number % SHOWN).parse()?;
            finish(site.client, &trigger(site.client, &job).await?).await
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let took = start.elapsed().as_secs_f64();
    eprintln!("{} builds were done in {took:.0} s", SHOWN * builds);
    Ok(())
}

/// At the server.
pub(super) async fn measure(
    report: &mut Report,
    site: &Site<'_>,
    place: &str,
) -> anyhow::Result<()> {
    let mut line = Line::open(site.url, &site.token).await?;
    let copy = Copy::of(&mut line, &["/"]).await?;
    let (times, bytes) = line.times("/").await?;
    let raw = format!(
        "{}: the same {bytes} bytes from memory",
        copy.times("/").await?
    );
    report.add(
        &format!("{place}{QUIET}"),
        times.to_string(),
        TARGET,
        raw.clone(),
    );
    let mut times = Times::new()?;
    for number in 0..SHOWN {
        let build = trigger(site.client, &name(number).parse()?).await?;
        let start = Instant::now();
        line.get("/").await?;
        times.add(start.elapsed());
        finish(site.client, &build).await?;
    }
    report.add(
        &format!("{place}{TRIGGERED}"),
        times.to_string(),
        TARGET,
        raw.clone(),
    );
    let mut times = Times::new()?;
    for number in (SHOWN..JOBS - SHOWN).step_by(2 * SHOWN) {
        let start = Instant::now();
        line.get(&format!("/?after={}", name(number))).await?;
        times.add(start.elapsed());
    }
    report.add(&format!("{place}{FIRST}"), times.to_string(), TARGET, raw);
    Ok(())
}

/// In a browser: until the page is whole and painted.
pub(super) async fn on_screen(report: &mut Report, site: &Site<'_>) -> anyhow::Result<()> {
    let mut line = Line::open(site.url, &site.token).await?;
    let copy = Copy::of(&mut line, &["/"]).await?;
    let browser = Browser::open().await?;
    browser
        .sign_in(&format!("{}/sign-in", site.url), &site.token)
        .await?;
    let (first, times) = readable(&browser, site.url).await?;
    let (_, raw) = readable(&browser, &copy.url).await?;
    browser.leave().await?;
    let measured = format!("first {first:.0} ms, then {times}");
    let raw = format!("{raw}: the same from memory");
    report.add(SCREEN, measured, "< 1 s", raw);
    Ok(())
}

/// Loads home again and again: how long the first time took, in milliseconds, and the others.
async fn readable(browser: &Browser, url: &str) -> anyhow::Result<(f64, Times)> {
    let (mut first, mut times) = (None, Times::new()?);
    for _ in 0..21 {
        browser.visit(&format!("{url}/")).await?;
        let millis = painted(browser).await?;
        if first.is_none() {
            first = Some(millis);
        } else {
            times.add(Duration::from_secs_f64(millis / 1000.0));
        }
    }
    Ok((first.context("never loaded")?, times))
}

/// When the page was whole and something of it painted, in milliseconds since it was asked for.
async fn painted(browser: &Browser) -> anyhow::Result<f64> {
    let script = "const paint = performance.getEntriesByName('first-contentful-paint')[0];\
        const load = performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd;\
        return paint && load ? Math.max(paint.startTime, load) : 0";
    loop {
        let millis: f64 = browser.window.execute(script, vec![]).await?.convert()?;
        if millis > 0.0 {
            return Ok(millis);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
