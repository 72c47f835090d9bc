//! `distci grep`: lines in the consoles of many builds.

use anyhow::{Context, Result};
use distci_model::Timestamp;
use distci_model::console::GrepView;
use owo_colors::Style;

use crate::cli::Grep;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::view;

/// Prints what is found as it is found. As with grep, to find nothing is no success.
pub(crate) async fn run(connection: &Connection, arguments: &Grep, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    let mut query = query(arguments)?;
    let mut left = arguments.limit;
    let mut found = false;
    loop {
        let page = client.grep(&query).await?;
        for line in page.items.iter().take(left) {
            found = true;
            print(line, arguments.json, out)?;
        }
        left = left.saturating_sub(page.items.len());
        query.retain(|(name, _)| *name != "cursor");
        match page.next {
            Some(next) if left > 0 => query.push(("cursor", next)),
            Some(_) => {
                let limit = arguments.limit;
                out.say(format_args!(
                    "there may be more than {limit} lines: see --limit"
                ))?;
                break;
            }
            None => break,
        }
        out.flush()?;
    }
    Ok(if found { Exit::Ok } else { Exit::Failed })
}

fn query(arguments: &Grep) -> Result<Vec<(&'static str, String)>> {
    let mut query = vec![("q", arguments.pattern.clone())];
    let flags = [
        ("regex", !arguments.fixed),
        ("ignore_case", arguments.ignore_case),
        ("failed", arguments.failed),
    ];
    query.extend(flags.map(|(name, value)| (name, value.to_string())));
    query.extend(arguments.job.clone().map(|job| ("job", job)));
    query.extend(
        arguments
            .task
            .as_ref()
            .map(|task| ("task", task.to_string())),
    );
    if let Some(since) = arguments.since {
        let since: Timestamp = now().checked_sub(since).context("that is too long ago")?;
        query.push(("since", since.to_string()));
    }
    Ok(query)
}

fn print(line: &GrepView, json: bool, out: &mut Out) -> Result<()> {
    if json {
        out.line(serde_json::to_string(line)?)?;
        return Ok(());
    }
    let paint = out.data_paint();
    let place = format!("{} {}:{}", line.build, line.task, line.hit.line);
    let hit = &line.hit;
    // Codes of terminals in a console are not obeyed here.
    let plain = |text: &str| view::plain(text);
    out.line(format_args!(
        "{} {}{}{}",
        paint.paint(place, Style::new().dimmed()),
        plain(&hit.before),
        paint.paint(plain(&hit.found), Style::new().red().bold()),
        plain(&hit.after),
    ))?;
    Ok(())
}
