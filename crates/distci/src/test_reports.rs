//! `distci tests BUILD`: what the tests of a build came to, and how one has gone over builds.

use anyhow::Result;
use distci_client::{Client, TestCalled, TestsWanted};
use distci_model::test_report::{
    Test, TestCounts, TestHistory, TestHistoryView, TestOutcome, TestView, TestsView,
};
use owo_colors::Style;

use crate::cli::Tests;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::{Ended, Exit};
use crate::out::Out;
use crate::table::{Cell, Table};
use crate::view;

/// How many builds tell whether a test is flaky.
const HISTORY: usize = 20;
/// Most builds that one call looks at.
const BUILDS_AT_ONCE: usize = 50;

pub(crate) async fn run(connection: &Connection, arguments: &Tests, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    match &arguments.name {
        Some(name) if arguments.history => history(&client, arguments, name, out).await,
        _ => list(&client, arguments, out).await,
    }
}

async fn list(client: &Client, arguments: &Tests, out: &mut Out) -> Result<Exit> {
    let build = arguments.build.build(client).await?;
    let wanted = TestsWanted {
        failed: arguments.failed,
        task: arguments.task.as_ref(),
        history: Some(HISTORY),
    };
    let mut whole = TestsView {
        counts: TestCounts::default(),
        left_out: 0,
        items: Vec::new(),
        next: None,
    };
    let named = |view: &TestView| {
        let name = arguments.name.as_deref();
        name.is_none_or(|name| view.test.is_called(name))
    };
    loop {
        let page = client.tests(&build, wanted, whole.next.as_deref()).await?;
        whole.items.extend(page.items.into_iter().filter(named));
        (whole.counts, whole.left_out, whole.next) = (page.counts, page.left_out, page.next);
        if whole.next.is_none() || whole.items.len() >= arguments.limit {
            break;
        }
    }
    if whole.items.is_empty() && arguments.name.is_some() {
        return Err(Ended::not_found(format!(
            "{build} has no test of that name"
        )));
    }
    if arguments.json {
        // Pages stay whole, so that `next` goes on exactly where this ends.
        out.json(&whole)?;
        return Ok(Exit::Ok);
    }
    show(&whole, arguments, out)?;
    Ok(Exit::Ok)
}

fn show(whole: &TestsView, arguments: &Tests, out: &mut Out) -> Result<()> {
    let shown = whole.items.iter().take(arguments.limit);
    let mut table = Table::new(&["OUTCOME", "TEST", "TASK", "TOOK", "FLAKY"]);
    for view in shown.clone() {
        let test = &view.test;
        let flaky = view.flaky.map(|flaky| flaky.to_string());
        table.row([
            outcome(test.outcome),
            test.full_name().into(),
            view.task.as_str().into(),
            took(test.duration_ms).into(),
            Cell::styled(flaky.unwrap_or_default(), Style::new().yellow()),
        ]);
    }
    let lines = table.lines(out.data_paint());
    if lines.len() > 1 {
        out.line(&lines[0])?;
    }
    for (view, line) in shown.zip(lines.iter().skip(1)) {
        out.line(line)?;
        said(&view.test, arguments.name.is_some(), out)?;
    }
    let more = whole.next.is_some() || whole.items.len() > arguments.limit;
    let rest = match (more, whole.left_out) {
        (true, _) => format!(", the first {} are shown", arguments.limit),
        (false, 0) => String::new(),
        (false, left_out) => format!(", {left_out} of them are not named"),
    };
    out.say(format_args!("{}{rest}", whole.counts))?;
    Ok(())
}

/// What a test has said: its message, or all of it.
fn said(test: &Test, whole: bool, out: &mut Out) -> Result<()> {
    for line in test.message.lines() {
        out.line(format_args!("    {}", view::plain(line)))?;
    }
    for line in test.details.lines().filter(|_| whole) {
        out.line(format_args!("    | {}", view::plain(line)))?;
    }
    Ok(())
}

async fn history(client: &Client, arguments: &Tests, name: &str, out: &mut Out) -> Result<Exit> {
    let job = arguments.build.job();
    let called = TestCalled {
        name,
        task: arguments.task.as_ref(),
        builds: arguments.limit.min(BUILDS_AT_ONCE),
    };
    let history = client.test_history(job, called, None).await?;
    if history.tests.is_empty() {
        let builds = history.builds;
        let message = format!("no test of that name in the last {builds} builds of {job}");
        return Err(Ended::not_found(message));
    }
    if arguments.json {
        out.json(&history)?;
        return Ok(Exit::Ok);
    }
    show_history(&history, arguments, out)?;
    Ok(Exit::Ok)
}

fn show_history(history: &TestHistoryView, arguments: &Tests, out: &mut Out) -> Result<()> {
    let mut table = Table::new(&["BUILD", "OUTCOME", "TOOK", "AGE", "COMMIT", "TASK"]);
    for test in &history.tests {
        for run in &test.runs {
            let commit: String = run
                .commit
                .iter()
                .flat_map(|id| id.chars().take(12))
                .collect();
            table.row([
                format!("{}#{}", arguments.build.job(), run.build).into(),
                outcome(run.outcome),
                took(run.duration_ms).into(),
                view::age(run.created, now()).into(),
                commit.into(),
                test.task.as_str().into(),
            ]);
        }
    }
    view::print(&table, "no builds", out)?;
    for test in &history.tests {
        if let Some(flaky) = test.flaky {
            out.say(format_args!("{} is flaky: {flaky}", full_name(test)))?;
        }
    }
    Ok(())
}

fn full_name(test: &TestHistory) -> String {
    let name = Test::of(&*test.suite, &*test.name, TestOutcome::Passed);
    format!("{} in {}", view::plain(&name.full_name()), test.task)
}

fn outcome(outcome: TestOutcome) -> Cell {
    let style = match outcome {
        TestOutcome::Failed => Style::new().red(),
        TestOutcome::Errored => Style::new().magenta(),
        TestOutcome::Passed => Style::new().green(),
        TestOutcome::Skipped => Style::new().dimmed(),
    };
    Cell::styled(outcome.to_string(), style)
}

fn took(millis: Option<u64>) -> String {
    match millis {
        None => String::new(),
        Some(millis @ 0..1000) => format!("{millis} ms"),
        Some(millis) => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
    }
}
