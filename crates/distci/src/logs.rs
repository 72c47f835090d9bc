//! `distci logs BUILD`: the consoles of a build, as far as they are or live.

use std::time::Duration;

use anyhow::Result;
use distci_client::Client;
use distci_model::id::{Attempt, BuildRef, TaskName};
use distci_model::wire::BuildView;
use tokio_util::sync::CancellationToken;

use crate::cli::Logs;
use crate::connection::Connection;
use crate::console::Console;
use crate::exit::{Ended, Exit};
use crate::follow::{Breadth, Follow, check_task};
use crate::out::Out;
use crate::reading::Reading;

pub(crate) async fn run(connection: &Connection, arguments: Logs, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    if arguments.follow {
        let build = arguments.build.build(&client).await?;
        let follow = Follow {
            client: connection.patient_client()?,
            breadth: arguments.task.map_or(Breadth::Builds, Breadth::Task),
            cancel: CancellationToken::new(),
        };
        let ended = follow.run(vec![build], out).await?;
        let exits = ended.iter().map(|view| view.outcome.as_ref());
        return Ok(Exit::of_all(exits.map(Exit::of_outcome)));
    }
    let view = arguments.build.view(&client).await?;
    if let Some(task) = &arguments.task {
        check_task(&view, task)?;
    }
    let mut shown = 0;
    for (position, (task, attempts)) in tasks(&view).enumerate() {
        if arguments.task.as_ref().is_some_and(|wanted| wanted != task) {
            continue;
        }
        let name = arguments.task.is_none().then(|| task.to_string());
        let mut printer = Printer {
            client: &client,
            build: &view.build,
            task,
            console: Console::new(name, position),
        };
        for attempt in (1..=attempts.get()).map(Attempt::new) {
            if arguments.attempt.is_none_or(|wanted| wanted == attempt) {
                printer.print(attempt, out).await?;
                shown += 1;
            }
        }
    }
    match (shown, arguments.attempt) {
        (0, Some(attempt)) => Err(Ended::not_found(format!("there was no attempt {attempt}"))),
        (0, None) => out
            .say("no task has begun")
            .map(|()| Exit::Ok)
            .map_err(Into::into),
        _ => Ok(Exit::Ok),
    }
}

/// The tasks, each with its latest attempt.
fn tasks(view: &BuildView) -> impl Iterator<Item = (&TaskName, Attempt)> {
    let tasks = view.tasks.iter();
    tasks.map(|task| (&task.name, task.state.attempt()))
}

/// Prints the console of a task as far as it is.
struct Printer<'a> {
    client: &'a Client,
    build: &'a BuildRef,
    task: &'a TaskName,
    console: Console,
}

impl Printer<'_> {
    async fn print(&mut self, attempt: Attempt, out: &mut Out) -> Result<()> {
        if attempt > Attempt::new(1) {
            self.console.attempt(attempt, out)?;
        }
        let (build, task) = (self.build, self.task);
        let mut reading = Reading::of(self.client, build, task, attempt);
        while let Some(bytes) = reading.next(Duration::ZERO).await? {
            self.console.show(&bytes, out)?;
        }
        self.console.finish(out)?;
        out.flush()?;
        Ok(())
    }
}
