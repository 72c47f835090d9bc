//! Consoles over HTTP: by offset, by range, live.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{Method, StatusCode};
use distci_model::console::{FoundView, GrepView, HitView, LinesView};
use distci_model::wire::{Claim, Page};
use distci_store::Store;
use distci_store::blobs::Blobs;
use distci_store::coordination::simulator::{Faults, Simulator};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::counted::Counted;
use super::pages::Browser;
use super::scene::{Answer, Scene, clock};
use crate::hooks::HookSecrets;

const CONSOLE: &str = "/jobs/j/builds/1/console?task=a";

async fn running() -> Result<(Scene, Claim)> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    Ok((scene, claim))
}

async fn range(scene: &Scene, path: &str, range: &str) -> Result<Answer> {
    scene
        .send(Method::GET, path, &[("range", range)], Body::empty())
        .await
}

#[tokio::test(start_paused = true)]
async fn an_append_says_where_the_console_ends() -> Result<()> {
    let (scene, claim) = running().await?;
    for _ in 0..2 {
        let answer = scene.append(&claim, 0, b"hello").await?;
        assert_eq!(
            (answer.status, answer.header("x-console-length")),
            (StatusCode::NO_CONTENT, "5")
        );
    }
    for wrong in [3, 6] {
        let answer = scene.append(&claim, wrong, b"xxx").await?;
        assert_eq!(answer.problem(409)?.kind, "urn:distci:offset");
        assert_eq!(answer.header("x-console-length"), "5");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_reader_by_offset_waits_for_the_next_bytes() -> Result<()> {
    let (scene, claim) = running().await?;
    scene.append(&claim, 0, b"one").await?;
    let now = scene.get(&format!("{CONSOLE}&offset=1")).await?;
    assert_eq!(
        (&now.body[..], now.header("x-console-complete")),
        (&b"ne"[..], "false")
    );
    assert_eq!(
        (
            now.header("x-console-length"),
            now.header("x-console-attempt")
        ),
        ("3", "1")
    );
    let start = Instant::now();
    let append = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.append(&claim, 3, b"two").await
    };
    let waiting = format!("{CONSOLE}&offset=3&wait=30");
    let (read, _) = tokio::try_join!(scene.get(&waiting), append)?;
    assert_eq!(&read.body[..], b"two");
    assert!(
        start.elapsed() < Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    let nothing = scene.get(&format!("{CONSOLE}&offset=6&wait=5")).await?;
    assert_eq!((nothing.body.len(), start.elapsed().as_secs()), (0, 5));
    let finish = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.finish(&claim).await
    };
    let start = Instant::now();
    let waiting = format!("{CONSOLE}&offset=6&wait=30");
    let read = async { Ok((scene.get(&waiting).await?, start.elapsed())) };
    let ((end, time), ()) = tokio::try_join!(read, finish)?;
    assert_eq!(
        (end.body.len(), end.header("x-console-complete")),
        (0, "true")
    );
    assert!(
        time < Duration::from_millis(1100),
        "the end waited to be looked for: {time:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_console_is_read_by_range() -> Result<()> {
    let (scene, claim) = running().await?;
    scene.append(&claim, 0, b"01234").await?;
    scene.append(&claim, 5, b"56789").await?;
    let whole = scene.get(CONSOLE).await?;
    assert_eq!(
        (whole.status, &whole.body[..]),
        (StatusCode::OK, &b"0123456789"[..])
    );
    let types: Vec<_> = whole.headers.get_all("content-type").iter().collect();
    assert_eq!(
        types,
        ["text/plain; charset=utf-8"],
        "one type, and no other"
    );
    for (wanted, bytes, named) in [
        ("bytes=3-6", "3456", "bytes 3-6/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
    ] {
        let part = range(&scene, CONSOLE, wanted).await?;
        assert_eq!(
            (part.status, &part.body[..]),
            (StatusCode::PARTIAL_CONTENT, bytes.as_bytes())
        );
        assert_eq!(part.header("content-range"), named);
        let types: Vec<_> = part.headers.get_all("content-type").iter().collect();
        assert_eq!(types.len(), 1);
    }
    for bad in ["bytes=10-", "bytes=5-4", "bytes=-0", "bytes=x"] {
        let answer = range(&scene, CONSOLE, bad).await?;
        answer.problem(416)?;
        assert_eq!(answer.header("content-range"), "bytes */10");
    }
    scene
        .get("/jobs/j/builds/1/console?task=b")
        .await?
        .problem(404)?;
    scene
        .get("/jobs/j/builds/1/console?task=a&attempt=2")
        .await?
        .problem(404)?;
    scene.get("/jobs/j/builds/1/console").await?.problem(400)?;
    Ok(())
}

/// The events of a stream that ended: kind, id, data.
fn events(answer: &Answer) -> Result<Vec<(String, String, Value)>> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let text = String::from_utf8(answer.body.to_vec())?;
    let mut events = Vec::new();
    for block in text.split("\n\n") {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start().to_owned())
        };
        if let Some(kind) = field("event:") {
            let data = field("data:").context("an event without data")?;
            let id = field("id:").unwrap_or_default();
            events.push((kind, id, serde_json::from_str(&data)?));
        }
    }
    Ok(events)
}

async fn follow(scene: &Scene, last: Option<&str>) -> Result<Answer> {
    let mut headers = vec![("accept", "text/event-stream")];
    headers.extend(last.map(|id| ("last-event-id", id)));
    scene
        .send(Method::GET, CONSOLE, &headers, Body::empty())
        .await
}

#[tokio::test(start_paused = true)]
async fn a_live_reader_gets_whole_characters_and_the_end() -> Result<()> {
    let (scene, claim) = running().await?;
    let text = "aäb€c\u{1f600}\n".as_bytes();
    let write = async {
        for (at, byte) in text.iter().enumerate() {
            scene.append(&claim, at as u64, &[*byte]).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The last character is never whole.
        scene
            .append(&claim, text.len() as u64, &[0xff, 0xe2, 0x82])
            .await?;
        tokio::time::sleep(Duration::from_secs(40)).await;
        scene.finish(&claim).await
    };
    let (answer, ()) = tokio::try_join!(follow(&scene, None), write)?;
    let events = events(&answer)?;
    let (end, texts) = events.split_last().context("no events")?;
    assert_eq!((end.0.as_str(), end.1.as_str()), ("end", "16"));
    let mut read = String::new();
    let mut position = 0;
    for (kind, id, data) in texts {
        assert_eq!(
            (kind.as_str(), &data["offset"]),
            ("console", &json!(position))
        );
        read += data["text"].as_str().context("no text")?;
        position = id.parse()?;
    }
    assert_eq!(position, 16);
    assert_eq!(read, "aäb€c\u{1f600}\n\u{fffd}\u{fffd}");
    assert!(texts.len() >= 7, "{texts:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_live_reader_comes_back_where_it_was() -> Result<()> {
    let (scene, claim) = running().await?;
    scene.append(&claim, 0, b"one two").await?;
    scene.finish(&claim).await?;
    for (last, rest) in [
        (None, "one two"),
        (Some("4"), "two"),
        (Some("x"), "one two"),
    ] {
        let events = events(&follow(&scene, last).await?)?;
        assert_eq!(events[0].2["text"], json!(rest), "{last:?}");
        assert_eq!((events.len(), events[1].0.as_str()), (2, "end"));
    }
    for last in ["7", "99"] {
        let events = events(&follow(&scene, Some(last)).await?)?;
        assert_eq!((events.len(), events[0].0.as_str()), (1, "end"));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn lines_are_read_by_number_and_searched() -> Result<()> {
    let (scene, claim) = running().await?;
    let text = b"one\ntwo <b>\n\xff three\nfour";
    scene.append(&claim, 0, text).await?;
    let lines = "/jobs/j/builds/1/console/lines?task=a";
    let all: LinesView = scene.get(lines).await?.json()?;
    assert_eq!((all.total, all.length), (4, text.len() as u64));
    assert!(!all.complete);
    let shown: Vec<&str> = all.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(shown, ["one", "two <b>", "\u{fffd} three", "four"]);
    let some: LinesView = scene
        .get(&format!("{lines}&line=2&count=1"))
        .await?
        .json()?;
    assert_eq!(some.lines, all.lines[1..2]);
    let at: LinesView = scene
        .get(&format!("{lines}&offset=13&count=1"))
        .await?
        .json()?;
    assert_eq!(at.lines, all.lines[2..3]);
    scene.get(&format!("{lines}&line=0")).await?.problem(400)?;
    let search = "/jobs/j/builds/1/console/search?task=a";
    let found: FoundView = scene
        .get(&format!("{search}&q=TWO&ignore_case=true"))
        .await?
        .json()?;
    assert_eq!(found.lines.len(), 1);
    let HitView {
        line, found, after, ..
    } = &found.lines[0];
    assert_eq!((*line, found.as_str(), after.as_str()), (2, "two", " <b>"));
    let some: FoundView = scene.get(&format!("{search}&q=o&count=2")).await?.json()?;
    assert_eq!((some.lines.len(), some.next), (2, Some(4)));
    let wrong = scene
        .get(&format!("{search}&q=(&regex=true"))
        .await?
        .problem(400)?;
    assert!(wrong.detail.contains("unclosed group"), "{wrong:?}");
    scene.get(&format!("{search}&q=")).await?.problem(400)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn consoles_of_many_builds_are_searched_newest_first() -> Result<()> {
    let scene = Scene::new();
    for number in 1..=3 {
        scene.build("j").await?;
        let claim = scene.task().await?;
        let text = format!("build {number}\n").repeat(150);
        scene.append(&claim, 0, text.as_bytes()).await?;
    }
    let first = "/search?q=build&job=j*".to_owned();
    let (mut seen, mut path) = (Vec::new(), first.clone());
    loop {
        let page: Page<GrepView> = scene.get(&path).await?.json()?;
        seen.extend(
            page.items
                .iter()
                .map(|found| (found.build.number.get(), found.hit.line)),
        );
        match page.next {
            Some(next) => path = format!("{first}&cursor={next}"),
            None => break,
        }
    }
    let builds = [3, 2, 1].into_iter();
    let wanted: Vec<_> = builds
        .flat_map(|build| (1..=150).map(move |line| (build, line)))
        .collect();
    assert_eq!(seen, wanted);
    for nowhere in [
        "q=build&job=other",
        "q=none",
        "q=build&task=b",
        "q=build&failed=true",
    ] {
        let page: Page<GrepView> = scene.get(&format!("/search?{nowhere}")).await?.json()?;
        assert_eq!((page.items.len(), page.next), (0, None), "{nowhere}");
    }
    for wrong in ["q=a&job=[", "q=a&cursor=x", "q=a&since=yesterday", "q="] {
        scene.get(&format!("/search?{wrong}")).await?.problem(400)?;
    }
    Ok(())
}

#[tokio::test]
async fn many_who_watch_a_console_read_it_together() -> Result<()> {
    let tree = Counted::new(Simulator::new(1, Faults::none(), clock()).session());
    let store = Store::new(tree.clone(), Blobs::memory());
    let scene = Scene::over(store, HookSecrets::default());
    scene.build("j").await?;
    let claim = scene.task().await?;
    let browser = Browser::signed_in(&scene).await?;
    let part = "/jobs/j/builds/1/console/part?task=a&line=1&count=200";
    for (offset, text) in [(0, "one\n"), (4, "<two>\n")] {
        scene.append(&claim, offset, text.as_bytes()).await?;
        tree.reads();
        browser.get(part).await?;
        let (alone, _) = tree.reads();
        let all = futures::future::try_join_all((0..50).map(|_| browser.get(part))).await?;
        let (together, _) = tree.reads();
        assert!(together <= 2 * alone, "{together} reads, {alone} for one");
        for answer in all {
            let shown: Value = serde_json::from_slice(&answer.body)?;
            assert_eq!(shown["total"], offset / 4 + 1, "{shown}");
        }
    }
    Ok(())
}
