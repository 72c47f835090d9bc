//! `distci events BUILD`: what happened in a build, for people and for tools.

mod chrome;
mod otlp;

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use distci_client::Client;
use distci_model::id::BuildRef;
use distci_model::journal::{Entry, stretches};
use distci_model::wire::BuildPhase;
use owo_colors::Style;

use crate::cli::{Events, EventsFormat};
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::{Out, Paint};
use crate::view;

/// How long one look at a build waits for it to change.
const WAIT: Duration = Duration::from_secs(20);

pub(crate) async fn run(
    connection: &Connection,
    arguments: &Events,
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    let build = arguments.build.build(&client).await?;
    if arguments.follow {
        return follow(&client, &build, arguments.json, out).await;
    }
    let journal = client.journal(&build).await?;
    match arguments.format {
        EventsFormat::Chrome => out.json(&chrome::trace(&build, &stretches(&journal), now()))?,
        EventsFormat::Otlp => out.json(&otlp::trace(&build, &journal, now()))?,
        EventsFormat::Text if arguments.json => out.json(&journal)?,
        EventsFormat::Text => {
            let width = journal.iter().map(name_width).max().unwrap_or_default();
            for entry in &journal {
                out.line(line(entry, width, out.data_paint()))?;
            }
        }
    }
    Ok(Exit::Ok)
}

/// Prints what happens as it happens, until the build is over.
async fn follow(client: &Client, build: &BuildRef, json: bool, out: &mut Out) -> Result<Exit> {
    let mut told = HashSet::new();
    let mut seen: Option<String> = None;
    loop {
        let watched = client.watch_build(build, seen.as_deref(), WAIT).await?;
        for entry in client.journal(build).await? {
            let text = serde_json::to_string(&entry)?;
            if !told.insert(text.clone()) {
                continue;
            }
            if json {
                out.line(text)?;
            } else {
                out.line(line(&entry, 0, out.data_paint()))?;
            }
        }
        out.flush()?;
        if watched.view.phase == BuildPhase::Finished {
            return Ok(Exit::Ok);
        }
        seen = Some(watched.etag);
    }
}

fn name_width(entry: &Entry) -> usize {
    whose(entry).len()
}

/// The task; for what the build's own ticket went through, what decides about it.
fn whose(entry: &Entry) -> &str {
    match &entry.task {
        Some(task) => task.as_str(),
        None if entry.what.is_of_a_claim() => "(control)",
        None => "",
    }
}

/// When, of which task, what: the task's name padded to `width`.
fn line(entry: &Entry, width: usize, paint: Paint) -> String {
    let at = paint.paint(format!("{:.3}", entry.at), Style::new().dimmed());
    let task = whose(entry);
    let what = view::plain(&entry.what.to_string());
    match (task, width) {
        ("", 0) => format!("{at}  {what}"),
        _ => format!(
            "{at}  {}  {what}",
            paint.paint(format!("{task:width$}"), Style::new().bold())
        ),
    }
}

#[cfg(test)]
mod tests {
    use distci_model::Timestamp;
    use distci_model::journal::What;

    use super::*;

    /// A build whose first task was lost once.
    pub(super) fn journal() -> Vec<Entry> {
        let at = |ms: i64| Timestamp::from_millisecond(1_700_000_000_000 + ms).unwrap();
        let worker = || "w".parse().unwrap();
        let attempt = distci_model::id::Attempt::new;
        let task: Option<distci_model::id::TaskName> = Some("compile".parse().unwrap());
        let of_task = |ms, what| Entry {
            at: at(ms),
            task: task.clone(),
            what,
        };
        let claimed = |n| What::Claimed {
            attempt: attempt(n),
            worker: worker(),
            waited_ms: Some(5),
        };
        let over = What::Over {
            outcome: distci_model::outcome::Outcome::Success,
        };
        vec![
            Entry {
                at: at(0),
                task: None,
                what: What::Posted {
                    cause: "manual".to_owned(),
                },
            },
            of_task(5, What::Queued { after: attempt(0) }),
            of_task(10, claimed(1)),
            of_task(
                30,
                What::Lost {
                    attempt: attempt(1),
                    worker: worker(),
                },
            ),
            of_task(30, What::Queued { after: attempt(1) }),
            of_task(35, claimed(2)),
            of_task(
                90,
                What::Ended {
                    attempt: attempt(2),
                    outcome: "success".to_owned(),
                    again: false,
                },
            ),
            Entry {
                at: at(95),
                task: None,
                what: over,
            },
        ]
    }

    #[test]
    fn a_line_says_when_where_and_what() {
        let lines: Vec<String> = journal()
            .iter()
            .map(|entry| line(entry, 7, Paint::OFF))
            .collect();
        assert_eq!(
            lines[0],
            "2023-11-14T22:13:20.000Z           posted: manual"
        );
        assert_eq!(
            lines[3],
            "2023-11-14T22:13:20.030Z  compile  attempt 1 lost: w was not heard of"
        );
        assert_eq!(lines[7], "2023-11-14T22:13:20.095Z           over: success");
    }
}
