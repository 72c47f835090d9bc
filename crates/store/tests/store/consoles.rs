//! Consoles: appended by offset and attempt, read across chunks, kept apart by attempt.

use anyhow::Result;
use bytes::Bytes;
use distci_model::id::{Attempt, BuildRef};
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::wire::{Claim, MAX_CONSOLE_CHUNK};
use distci_store::{LinesFrom, MAX_LINE, Search, Store, StoreError};
use serde_json::json;

use crate::scene::{Scene, exit, job};

async fn running(scene: &Scene) -> Result<(BuildRef, Claim)> {
    scene.set_job(&job("j", &["a"])).await?;
    let build = scene.post("j", "r").await?;
    Ok((build, scene.next_task().await?))
}

async fn append(store: &Store, claim: &Claim, at: u64, text: &str) -> Result<u64, StoreError> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    store
        .append_console(&claim.ticket, claim.attempt, at, bytes)
        .await
}

async fn text(scene: &Scene, build: &BuildRef, attempt: Option<u32>) -> Result<(String, bool)> {
    let attempt = attempt.map(Attempt::new);
    let home = scene.store().console(build, &"a".parse()?, attempt).await?;
    let part = scene.store().read_console(&home, 0, 1 << 20).await?;
    assert_eq!(part.length, part.bytes.len() as u64);
    Ok((String::from_utf8(part.bytes.to_vec())?, home.complete))
}

#[tokio::test]
async fn an_append_begins_where_the_console_ends_and_may_be_repeated() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, claim) = running(&scene).await?;
    // The second frontend has not heard of what came through the first.
    let others = [scene.store().clone(), second_frontend(&scene)];
    for (store, length) in others.iter().zip([3, 6]) {
        assert_eq!(append(store, &claim, 0, "abc").await?, length);
        assert_eq!(append(store, &claim, 3, "def").await?, 6);
        assert_eq!(append(store, &claim, 0, "abc").await?, 6);
        for wrong in [5, 7, 1_000_000] {
            let refused = append(store, &claim, wrong, "xyz").await;
            assert!(
                matches!(refused, Err(StoreError::Offset { length: 6 })),
                "{refused:?}"
            );
        }
    }
    let huge = append(scene.store(), &claim, u64::MAX - 1, "x").await;
    assert!(matches!(huge, Err(StoreError::TooLarge { .. })), "{huge:?}");
    let large = append(scene.store(), &claim, 6, &"x".repeat(MAX_CONSOLE_CHUNK + 1)).await;
    assert!(matches!(large, Err(StoreError::TooLarge { .. })));
    assert_eq!(append(scene.store(), &claim, 6, "").await?, 6);
    assert_eq!(text(&scene, &build, None).await?, ("abcdef".into(), false));
    Ok(())
}

fn second_frontend(scene: &Scene) -> Store {
    Store::new(scene.tree.clone(), scene.blobs.clone())
}

#[tokio::test]
async fn the_end_of_a_console_is_seen_by_who_read_only_its_beginning() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, claim) = running(&scene).await?;
    let other = second_frontend(&scene);
    append(scene.store(), &claim, 0, "abc").await?;
    assert_eq!(text(&scene, &build, None).await?, ("abc".into(), false));
    append(&other, &claim, 3, "def").await?;
    scene.complete(&claim, Outcome::Success).await?;
    scene.control().await?;
    assert_eq!(text(&scene, &build, None).await?, ("abcdef".into(), true));
    Ok(())
}

#[tokio::test]
async fn what_is_left_of_a_console_is_not_taken_for_the_whole() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, claim) = running(&scene).await?;
    append(scene.store(), &claim, 0, "abc").await?;
    let mut result = TaskResult::of(Outcome::Success);
    // As if the next chunk had been there, and been lost.
    result.console_bytes = 6;
    let complete = scene
        .store()
        .complete(&claim.ticket, claim.attempt, &result, scene.now());
    complete.await?;
    scene.control().await?;
    for store in [scene.store().clone(), second_frontend(&scene)] {
        let home = store.console(&build, &"a".parse()?, None).await?;
        let read = store.read_console(&home, 0, 1 << 20).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_range_crosses_chunks() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, claim) = running(&scene).await?;
    for start in (0..30).step_by(3) {
        let chunk: String = (start..start + 3)
            .map(|n: u64| char::from(b'a' + (n % 26) as u8))
            .collect();
        append(scene.store(), &claim, start, &chunk).await?;
    }
    let all = "abcdefghijklmnopqrstuvwxyzabcd";
    let home = scene.store().console(&build, &"a".parse()?, None).await?;
    for store in [scene.store().clone(), second_frontend(&scene)] {
        for from in 0..=31 {
            for most in [0, 1, 2, 3, 4, 7, 100] {
                let part = store.read_console(&home, from, most).await?;
                let from = usize::try_from(from)?.min(30);
                let expected = &all[from..(from + most).min(30)];
                assert_eq!(part.bytes, expected.as_bytes(), "{most} bytes from {from}");
                assert_eq!(part.length, 30);
            }
        }
        assert_eq!(store.read_console(&home, u64::MAX, 9).await?.bytes, "");
    }
    Ok(())
}

#[tokio::test]
async fn attempts_are_kept_apart_and_a_zombie_appends_nothing() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, first) = running(&scene).await?;
    append(scene.store(), &first, 0, "one").await?;
    scene
        .store()
        .expire(&first.ticket, first.attempt, scene.now())
        .await?;
    let late = append(scene.store(), &first, 3, "late").await;
    assert!(
        matches!(late, Err(StoreError::AttemptOver { .. })),
        "{late:?}"
    );
    let second = scene.next_task().await?;
    assert_eq!(second.attempt, first.attempt.next());
    append(scene.store(), &second, 0, "two").await?;
    let late = append(scene.store(), &first, 3, "late").await;
    assert!(
        matches!(late, Err(StoreError::AttemptOver { current: 2 })),
        "{late:?}"
    );
    for archived in [false, true] {
        assert_eq!(text(&scene, &build, Some(1)).await?, ("one".into(), true));
        assert_eq!(
            text(&scene, &build, Some(2)).await?,
            ("two".into(), archived)
        );
        assert_eq!(text(&scene, &build, None).await?, ("two".into(), archived));
        for none in [0, 3] {
            let missing = text(&scene, &build, Some(none)).await;
            assert!(missing.is_err(), "attempt {none} has a console");
        }
        if !archived {
            scene.complete(&second, Outcome::Success).await?;
            let late = append(scene.store(), &second, 3, "late").await;
            assert!(
                matches!(late, Err(StoreError::AttemptOver { .. })),
                "{late:?}"
            );
            scene.control().await?;
        }
    }
    scene.check_swept().await
}

#[tokio::test]
async fn what_never_ran_has_no_console() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = job("j", &["a", "b"]);
    config["tasks"][1]["needs"] = json!(["a"]);
    scene.set_job(&config).await?;
    let build = scene.post("j", "r").await?;
    let missing = async |task: &str| {
        let console = scene.store().console(&build, &task.parse()?, None).await;
        Ok::<_, anyhow::Error>(matches!(console, Err(StoreError::NotFound { .. })))
    };
    assert!(missing("a").await? && missing("b").await? && missing("c").await?);
    let claim = scene.next_task().await?;
    assert!(!missing("a").await?);
    scene.complete(&claim, exit(1)).await?;
    scene.control().await?;
    assert!(missing("b").await?, "a skipped task has a console");
    assert!(missing("c").await?, "an unknown task has a console");
    Ok(())
}

#[tokio::test]
async fn what_ran_before_it_was_cancelled_keeps_its_console() -> Result<()> {
    let scene = Scene::embedded()?;
    let mut config = job("j", &["a", "b"]);
    config["tasks"][0]["retry"] = json!({"max": 1, "backoff": "1h"});
    scene.set_job(&config).await?;
    let build = scene.post("j", "r").await?;
    let claim = scene.next_task().await?;
    append(scene.store(), &claim, 0, "tried").await?;
    scene.complete(&claim, exit(3)).await?;
    scene.control().await?;
    assert_eq!(text(&scene, &build, None).await?, ("tried".into(), true));
    scene.store().cancel_build(&build, scene.now()).await?;
    scene.run_all(&Outcome::Success).await?;
    for attempt in [None, Some(1)] {
        let read = text(&scene, &build, attempt).await?;
        assert_eq!(read, ("tried".into(), true), "attempt {attempt:?}");
    }
    assert!(text(&scene, &build, Some(2)).await.is_err());
    Ok(())
}

/// A text with everything that lines can be, cut into chunks at odd places.
fn odd_text() -> (String, Vec<String>) {
    let mut text = String::from("first\n\n\nafter empty ones\n");
    for number in 0..500 {
        let bar = "=".repeat(number % 37);
        text.extend(["line ", &number.to_string(), " of many: ", &bar, "\n"]);
    }
    text.push_str(&"long ".repeat(3000));
    text.push_str("\nERROR: what went wrong\nlast without an end");
    let sizes = [1, 7, 900, 3, 2, 4096, 1, 30, 5000];
    let (mut chunks, mut rest) = (Vec::new(), text.as_str());
    for size in sizes.iter().cycle() {
        let (chunk, after) = rest.split_at((*size).min(rest.len()));
        chunks.push(chunk.to_owned());
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    (text, chunks)
}

#[tokio::test]
async fn any_line_is_read_without_the_others() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, claim) = running(&scene).await?;
    let (text, chunks) = odd_text();
    let other = second_frontend(&scene);
    let home = scene.store().console(&build, &"a".parse()?, None).await?;
    let none = other.console_lines(&home, LinesFrom::End, 5).await?;
    assert_eq!((none.lines.len(), none.total, none.length), (0, 0, 0));
    let mut at = 0;
    for (number, chunk) in chunks.iter().enumerate() {
        // Both take some, so that each has to learn of what it did not count.
        let store = if number % 3 == 0 {
            &other
        } else {
            scene.store()
        };
        at = append(store, &claim, at, chunk).await?;
    }
    let expected: Vec<&str> = text.split('\n').collect();
    for store in [scene.store(), &other, &second_frontend(&scene)] {
        for from in [0, 1, 2, 3, 4, 250, 503, 504, 505, 506, 507] {
            let lines = store.console_lines(&home, LinesFrom::Line(from), 3).await?;
            assert_eq!(lines.total, expected.len() as u64);
            assert_eq!(lines.length, text.len() as u64);
            let rest = expected.get(usize::try_from(from)?..).unwrap_or_default();
            assert_eq!(lines.lines.len(), rest.len().min(3), "from {from}");
            for (line, wanted) in lines.lines.iter().zip(rest) {
                let offset = wanted.as_ptr() as usize - text.as_ptr() as usize;
                assert_eq!(line.offset, offset as u64, "{line:?}");
                assert_eq!(line.bytes, &wanted.as_bytes()[..wanted.len().min(MAX_LINE)]);
                assert_eq!(line.cut, wanted.len().saturating_sub(MAX_LINE) as u64);
                let same = store
                    .console_lines(&home, LinesFrom::Offset(line.offset), 1)
                    .await?;
                assert_eq!(same.lines.first(), Some(line));
            }
        }
        let last = store.console_lines(&home, LinesFrom::End, 2).await?;
        assert_eq!(last.lines[1].bytes, "last without an end");
        assert_eq!(last.lines[0].bytes, "ERROR: what went wrong");
    }
    Ok(())
}

/// A pattern, whether it is a text, whether case counts for nothing; and the same by hand.
type Case = (&'static str, bool, bool, fn(&str) -> bool);

#[tokio::test]
async fn a_console_is_searched_line_by_line() -> Result<()> {
    let scene = Scene::embedded()?;
    let (build, claim) = running(&scene).await?;
    let (text, chunks) = odd_text();
    let mut at = 0;
    for chunk in &chunks {
        at = append(scene.store(), &claim, at, chunk).await?;
    }
    let home = scene.store().console(&build, &"a".parse()?, None).await?;
    let cases: [Case; 8] = [
        ("error", true, true, |line| {
            line.to_lowercase().contains("error")
        }),
        ("error", true, false, |line| line.contains("error")),
        ("^$", false, false, str::is_empty),
        ("y [0-9]*7 ", false, false, |_| false),
        ("line [0-9]*7 ", false, false, |line| {
            let number = line
                .strip_prefix("line ")
                .and_then(|rest| rest.split(' ').next());
            number.is_some_and(|number| number.ends_with('7'))
        }),
        ("long", true, false, |line| line.contains("long")),
        ("an end$", false, false, |line| line.ends_with("an end")),
        ("=", true, false, |line| line.contains('=')),
    ];
    for (pattern, is_text, ignore_case, fits) in cases {
        let search = Search::new(pattern, is_text, ignore_case).map_err(anyhow::Error::msg)?;
        let lines: Vec<&str> = text.split('\n').collect();
        let wanted = lines.iter().zip(0..).filter(|(line, _)| fits(line));
        let wanted: Vec<u64> = wanted.map(|(_, number)| number).collect();
        let mut told = Vec::new();
        let mut from = Some(0);
        while let Some(line) = from {
            let found = scene
                .store()
                .search_console(&home, &search, line, 100)
                .await?;
            for found in &found.matches {
                told.push(found.line);
                let line = lines[usize::try_from(found.line)?].as_bytes();
                assert!(line.starts_with(&found.bytes), "{pattern}: {found:?}");
            }
            from = found.next;
        }
        assert_eq!(told, wanted, "{pattern}");
    }
    let wrong = Search::new("a(", false, false);
    assert!(wrong.is_err_and(|error| error.contains("unclosed group")));
    Ok(())
}
