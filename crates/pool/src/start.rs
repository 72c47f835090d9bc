//! One worker, from its start to its end.
//!
//! Owns the cell that it runs in and what it is told: its name, what it offers, and to leave after
//! one ticket or when there is none for it. Nothing of it is left when it has ended.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use distci_isolation::{Cell, Command, Ended, Error, Finished, Machine, Output, Place, Site};
use distci_model::id::WorkerId;
use tokio_util::sync::CancellationToken;

use crate::place;
use crate::pool::{Group, Settings, Start};

/// How long a worker that is asked to leave may take: it gives back what it claimed, and a command of
/// the operator's ends what it began elsewhere.
const GRACE: Duration = Duration::from_secs(30);
/// Last lines of what a worker said that are told when it fails.
const LINES: usize = 20;
/// Longest line that is kept.
const LINE: usize = 1000;
/// Where a cell with an image finds programs, if the image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a worker left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Left {
    /// As it should.
    Well,
    /// Because it was stopped.
    Stopped,
    /// For this reason.
    Failed(String),
}

/// What is needed to start workers.
#[derive(Debug)]
pub(crate) struct Starter {
    pub(crate) settings: Settings,
    pub(crate) machine: Machine,
    pub(crate) place: place::Place,
}

impl Starter {
    /// Runs a worker of the group to its end.
    ///
    /// # Cancel safety
    /// Dropped, it kills the worker, and leaves what the next pool removes.
    pub(crate) async fn run(
        self: Arc<Self>,
        group: &Group,
        id: &WorkerId,
        stop: CancellationToken,
    ) -> Left {
        match self.try_to_run(group, id, &stop).await {
            Ok((finished, said)) => judge(&finished, &said),
            Err(error) => Left::Failed(error.to_string()),
        }
    }

    async fn try_to_run(
        self: &Arc<Self>,
        group: &Group,
        id: &WorkerId,
        stop: &CancellationToken,
    ) -> Result<(Finished, Said), Error> {
        let (own, name) = (Arc::clone(self), id.name.clone());
        let site = blocking(move || own.place.site(&name)).await?;
        let ran = self.run_at(&site, group, id, stop).await;
        if let Err(error) = blocking(move || place::leave(&site)).await {
            tracing::warn!(worker = %id.name, "not all of it is gone: {error}");
        }
        ran
    }

    async fn run_at(
        &self,
        site: &Site,
        group: &Group,
        id: &WorkerId,
        stop: &CancellationToken,
    ) -> Result<(Finished, Said), Error> {
        let cell = match &group.start {
            Start::Cell(isolation) => self.machine.open(site, isolation, Vec::new()).await?,
            Start::Machine(_) | Start::Command(_) => self.machine.open_own(site).await?,
        };
        let command = match &group.start {
            Start::Machine(arguments) => self.on_machine(group, id, arguments),
            Start::Command(argv) => self.by_command(group, id, argv),
            Start::Cell(_) => self.in_cell(cell.as_ref(), site, group, id).await?,
        };
        let mut said = Said::of(id);
        let asked = Box::pin(async {
            stop.cancelled().await;
            GRACE
        });
        let finished = cell.run(&command, &mut said, asked).await;
        if !said.line.is_empty() {
            said.end_line();
        }
        cell.close().await?;
        Ok((finished?, said))
    }

    /// This very program, beside the pool.
    fn on_machine(&self, group: &Group, id: &WorkerId, more: &[OsString]) -> Command {
        let mut argv = vec![self.settings.program.clone().into(), "worker".into()];
        argv.extend(arguments(group, id).map(OsString::from));
        argv.extend(["--dir".into(), self.place.shared().into()]);
        argv.extend_from_slice(more);
        Command {
            argv,
            directory: self.place.scratch(),
            env: self.environment(group, id),
        }
    }

    /// What the operator says.
    fn by_command(&self, group: &Group, id: &WorkerId, argv: &[String]) -> Command {
        let mut env = self.environment(group, id);
        let told = arguments(group, id).collect::<Vec<_>>().join(" ");
        env.push(("DISTCI_WORKER_ARGUMENTS".into(), told.into()));
        Command {
            argv: argv.iter().map(OsString::from).collect(),
            directory: self.settings.beside.clone(),
            env,
        }
    }

    /// This program, in a world of its own. It takes itself along, for no image has it.
    async fn in_cell(
        &self,
        cell: &dyn Cell,
        site: &Site,
        group: &Group,
        id: &WorkerId,
    ) -> Result<Command, Error> {
        let (from, to) = (self.settings.program.clone(), site.files.join("distci"));
        blocking(move || std::fs::copy(from, to)).await?;
        let program: PathBuf = cell.path(Place::Files).join("distci");
        let temporary = cell.path(Place::Temporary);
        let mut argv = vec![program.into(), "worker".into()];
        argv.extend(arguments(group, id).map(OsString::from));
        argv.extend(["--dir".into(), temporary.join("worker").into()]);
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), PATH.into()),
            ("HOME".into(), cell.account().home.into()),
        ];
        let image = cell.env().iter();
        env.extend(image.map(|(name, value)| (name.into(), value.into())));
        env.extend(self.settings.connection.iter().cloned());
        env.extend(told(group, id));
        Ok(Command {
            argv,
            directory: temporary,
            env,
        })
    }

    /// The pool's own environment, and what this worker is.
    fn environment(&self, group: &Group, id: &WorkerId) -> Vec<(OsString, OsString)> {
        let mut env = self.settings.environment.clone();
        env.extend(self.settings.connection.iter().cloned());
        env.extend(told(group, id));
        env
    }
}

/// What `distci worker` is told about itself on its command line. No word of it needs quotes.
fn arguments(group: &Group, id: &WorkerId) -> impl Iterator<Item = String> {
    let idle = format!("{}s", group.idle.as_secs());
    let (name, session) = (id.name.as_str(), id.session.as_str());
    // Without its session its claims would not be known as its own, and it be taken for one that never
    // came up.
    let first = [
        "--once",
        "--idle",
        &idle,
        "--name",
        name,
        "--session",
        session,
    ];
    let first = first.map(str::to_owned);
    let kinds = group.kinds.iter().map(|kind| ("--kind", kind.to_string()));
    let labels = group.labels.iter();
    let labels = labels.map(|label| ("--label", label.to_string()));
    let pairs: Vec<_> = kinds.chain(labels).collect();
    let pairs = pairs.into_iter();
    first
        .into_iter()
        .chain(pairs.flat_map(|(option, value)| [option.to_owned(), value]))
}

/// And in its environment: a run that says its session is known by its claims.
fn told(group: &Group, id: &WorkerId) -> [(OsString, OsString); 3] {
    [
        ("DISTCI_POOL_GROUP".into(), group.name.clone().into()),
        ("DISTCI_WORKER_NAME".into(), id.name.as_str().into()),
        ("DISTCI_WORKER_SESSION".into(), id.session.as_str().into()),
    ]
}

fn judge(finished: &Finished, said: &Said) -> Left {
    let how = match &finished.ended {
        Ended::Exit(0) => return Left::Well,
        Ended::Stopped => return Left::Stopped,
        Ended::Exit(code) => format!("exit code {code}"),
        Ended::Signal(signal) => format!("signal {signal}"),
        Ended::NotStarted(why) => format!("it did not start: {why}"),
    };
    let mut why = how;
    for line in &said.last {
        why.push_str("\n  ");
        why.push_str(line);
    }
    Left::Failed(why)
}

/// What a worker says: told line by line, and the last of it kept.
#[derive(Debug)]
struct Said {
    worker: String,
    line: Vec<u8>,
    last: VecDeque<String>,
}

impl Said {
    fn of(id: &WorkerId) -> Self {
        Self {
            worker: id.name.to_string(),
            line: Vec::new(),
            last: VecDeque::new(),
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        tracing::debug!(worker = %self.worker, "{line}");
        if self.last.len() == LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

#[async_trait]
impl Output for Said {
    async fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LINE {
                self.line.push(*byte);
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
