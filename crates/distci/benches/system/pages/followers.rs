//! Many who watch one build through one frontend: what it costs, and that each sees all of it.

use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use super::http::Line;
use super::{Site, build};
use crate::report::{Report, Times};
use crate::rig::{Server, finish, resident, set_job, shell, trigger, watch, worked};

const CONSOLE: &str = "pages: 500 watch a console";
const PAGE: &str = "pages: 500 watch the page of a build";
const IDLE: &str = "pages: 500 watch, nothing happens";

const FOLLOWERS: usize = 500;
const LINES: usize = 80;
const REST: Duration = Duration::from_secs(10);

/// What a frontend spent.
struct Spent {
    since: Instant,
    worked: Duration,
}

impl Spent {
    fn from_now(server: &Server) -> anyhow::Result<Self> {
        Ok(Self {
            since: Instant::now(),
            worked: worked(server.id())?,
        })
    }

    /// The share of one processor, in percent.
    fn share(&self, server: &Server) -> anyhow::Result<f64> {
        let worked = worked(server.id())?.saturating_sub(self.worked);
        Ok(100.0 * worked.as_secs_f64() / self.since.elapsed().as_secs_f64())
    }
}

pub(super) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    if ![CONSOLE, PAGE, IDLE]
        .iter()
        .any(|figure| report.wants(figure))
    {
        return Ok(());
    }
    let server = Server::frontend().await?;
    let _worker = server.worker(&["--slots", "4"])?;
    consoles(report, &server).await?;
    pages(report, &server).await
}

/// Viewers of a console: each hears how it grows, and gets its lines.
async fn consoles(report: &mut Report, server: &Server) -> anyhow::Result<()> {
    let site = server.site()?;
    let go = tempfile::tempdir()?;
    let script = format!(
        "echo begins; until [ -e {}/go ]; do sleep 0.1; done\n\
         for i in $(seq {LINES}); do date +%s%N; sleep 0.25; done",
        go.path().display()
    );
    let job = set_job(site.client, "console", shell(&script, 1)).await?;
    let build = trigger(site.client, &job).await?;
    watch(site.client, &build, |view| {
        view.phase == distci_model::wire::BuildPhase::Running
    })
    .await?;
    let before = resident(server.id())?;
    let mut viewers = viewers(&site).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = Spent::from_now(server)?;
    tokio::time::sleep(REST).await;
    let idle = spent.share(server)?;
    let open = resident(server.id())?;
    report.add(
        IDLE,
        format!("{idle:.0} % of a processor, {before:.0} → {open:.0} MB with 1000 connections"),
        "(figure only)",
        String::from("nothing"),
    );
    let spent = Spent::from_now(server)?;
    std::fs::write(go.path().join("go"), "")?;
    let (mut times, mut asked, mut all) = (Times::new()?, 0, Vec::new());
    while let Some(seen) = viewers.join_next().await {
        let seen = seen??;
        asked += seen.asked;
        seen.ages.iter().for_each(|age| times.add(*age));
        all.push(seen.lines);
    }
    let share = spent.share(server)?;
    let took = spent.since.elapsed();
    finish(site.client, &build).await?;
    let first = all.first().context("nobody watched")?;
    ensure!(first.len() == LINES + 1, "{} lines", first.len());
    ensure!(
        all.iter().all(|lines| lines == first),
        "some saw another console"
    );
    let raw = raw(&site, asked, took).await?;
    let memory = resident(server.id())?;
    let measured = format!(
        "{share:.0} % of a processor, {memory:.0} MB; {asked} requests in {:.0} s; line printed → there {times}; \
         all saw the same {} lines",
        took.as_secs_f64(),
        first.len()
    );
    report.add(CONSOLE, measured, "(figure only)", raw);
    Ok(())
}

/// Everybody who watches, each over two connections.
async fn viewers(site: &Site<'_>) -> anyhow::Result<JoinSet<anyhow::Result<Seen>>> {
    let mut viewers = JoinSet::new();
    for _ in 0..FOLLOWERS {
        let events = Line::open(site.url, &site.token).await?;
        let events = events
            .follow(&format!("{}/growth?{QUERY}", viewer()))
            .await?;
        let parts = Line::open(site.url, &site.token).await?;
        viewers.spawn(view(events, parts));
    }
    Ok(viewers)
}

/// What as many requests for nothing would take.
async fn raw(site: &Site<'_>, requests: usize, within: Duration) -> anyhow::Result<String> {
    let mut line = Line::open(site.url, &site.token).await?;
    let (times, _) = line.times("/version").await?;
    let requests = f64::from(u32::try_from(requests)?);
    let share = 100.0 * requests * times.at(50.0) / 1000.0 / within.as_secs_f64();
    Ok(format!(
        "{share:.0} %: as many `GET /version` of {:.2} ms, both sides",
        times.at(50.0)
    ))
}

fn viewer() -> &'static str {
    "/jobs/console/builds/1/console"
}

const QUERY: &str = "task=execute-shell&attempt=1";

/// What a viewer saw.
struct Seen {
    lines: Vec<String>,
    /// How old lines were when they came.
    ages: Vec<Duration>,
    asked: usize,
}

/// Looks at a console as the page does, and sees to it that nothing which was shown is another later.
async fn view(mut events: super::http::Events, mut parts: Line) -> anyhow::Result<Seen> {
    let mut seen = Seen {
        lines: Vec::new(),
        ages: Vec::new(),
        asked: 0,
    };
    while let Some(event) = events.next().await? {
        let growth: Value = serde_json::from_str(&event)?;
        let part = parts
            .get(&format!("{}/part?{QUERY}&line=1&count=200", viewer()))
            .await?;
        let now = UNIX_EPOCH.elapsed()?;
        seen.asked += 1;
        let part: Value = serde_json::from_slice(&part)?;
        let lines: Vec<String> = serde_json::from_value(part["lines"].clone())?;
        ensure!(lines.starts_with(&seen.lines), "a line became another");
        for line in lines.iter().skip(seen.lines.len()) {
            if let Ok(nanos) = line.parse() {
                seen.ages
                    .push(now.saturating_sub(Duration::from_nanos(nanos)));
            }
        }
        seen.lines = lines;
        if growth["complete"] == true {
            return Ok(seen);
        }
    }
    anyhow::bail!("the stream ended before the console")
}

/// Open pages of a build whose tasks come and go.
async fn pages(report: &mut Report, server: &Server) -> anyhow::Result<()> {
    let site = server.site()?;
    let go = tempfile::tempdir()?;
    let wait = format!(
        "until [ -e {}/go ]; do sleep 0.1; done",
        go.path().display()
    );
    let job = set_job(site.client, build::JOB, build::tasks(&wait, "sleep 1")).await?;
    let build = trigger(site.client, &job).await?;
    let path = format!("/live?of=/jobs/{}/builds/1", build::JOB);
    let mut readers = JoinSet::new();
    for _ in 0..FOLLOWERS {
        let line = Line::open(site.url, &site.token).await?;
        let mut events = line.follow(&path).await?;
        readers.spawn(async move {
            let (mut count, mut bytes) = (0_usize, 0_usize);
            loop {
                let event = events.next().await?.context("the stream ended")?;
                (count, bytes) = (count + 1, bytes + event.len());
                let parts: Value = serde_json::from_str(&event)?;
                let main = parts["main"].as_str().unwrap_or_default();
                // The last page is the one of a build that is over.
                if main.contains("state success") && !main.contains("state running") {
                    return anyhow::Ok((count, bytes));
                }
            }
        });
    }
    let spent = Spent::from_now(server)?;
    std::fs::write(go.path().join("go"), "")?;
    finish(site.client, &build).await?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(seen) = readers.join_next().await {
        let (events, length) = seen??;
        (count, bytes) = (count + events, bytes + length);
    }
    let took = spent.since.elapsed().as_secs_f64();
    let share = spent.share(server)?;
    let megabytes = Duration::from_micros(u64::try_from(bytes)?).as_secs_f64();
    let measured = format!(
        "{share:.0} % of a processor, {:.0} MB; {count} events of {megabytes:.0} MB in {took:.0} s; all saw its end",
        resident(server.id())?
    );
    report.add(
        PAGE,
        measured,
        "(figure only)",
        String::from("rendered once for all"),
    );
    Ok(())
}
