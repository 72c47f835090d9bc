//! Builds, live.
//!
//! Owns the following of builds until they are over: one reader for each build's state and each
//! task's console, all owned by one [`Follower`], which alone writes. Remembers nothing that the
//! frontends would have to know: what it missed it reads again.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use distci_client::{Client, ClientError};
use distci_model::build::Downstream;
use distci_model::id::{Attempt, BuildRef, TaskName};
use distci_model::wire::{BuildPhase, BuildView, TaskState, TaskView};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::exit::Ended;
use crate::out::Out;

mod readers;

use readers::{Attempts, read_console, watch_build};

/// Pieces of news on their way to the screen. A console piece is at most 1 MiB.
const NEWS: usize = 8;
/// How often to look for a build in which nothing happens.
const REMARK: Duration = Duration::from_secs(5);
/// After how long without news a build is said to wait.
const QUIET: Duration = Duration::from_secs(10);

/// What to follow.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    /// Whom to ask.
    pub(crate) client: Client,
    /// How much to show.
    pub(crate) breadth: Breadth,
    /// Asks the builds to stop.
    pub(crate) cancel: CancellationToken,
}

/// How much of builds to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Breadth {
    /// Builds with one of their tasks.
    Task(TaskName),
    /// Builds with all their tasks.
    Builds,
    /// Builds with all their tasks, and every build that they trigger.
    Downstream,
}

/// What readers tell the follower. Numbers are places in its lists.
#[derive(Debug)]
enum News {
    Build(usize, Box<BuildView>),
    Attempt(usize, Attempt),
    Text(usize, Bytes),
    AttemptOver(usize),
    ConsoleOver,
}

/// A build that is followed.
#[derive(Debug)]
struct Followed {
    build: BuildRef,
    view: Option<BuildView>,
    /// What the readers of its consoles have to know.
    tasks: BTreeMap<TaskName, watch::Sender<Attempts>>,
    news: Instant,
    remarked: bool,
}

struct Follower<'a> {
    follow: Follow,
    out: &'a mut Out,
    builds: Vec<Followed>,
    consoles: Vec<Console>,
    open_consoles: usize,
    cancelling: bool,
    sender: mpsc::Sender<News>,
    readers: JoinSet<Result<()>>,
}

impl Follow {
    /// Follows `builds` until all are over. Gives them as they ended, in the order in which they
    /// began.
    pub(crate) async fn run(self, builds: Vec<BuildRef>, out: &mut Out) -> Result<Vec<BuildView>> {
        let (sender, mut inbox) = mpsc::channel(NEWS);
        let mut follower = Follower {
            follow: self,
            out,
            builds: Vec::new(),
            consoles: Vec::new(),
            open_consoles: 0,
            cancelling: false,
            sender,
            readers: JoinSet::new(),
        };
        for build in builds {
            follower.begin(build);
        }
        follower.run(&mut inbox).await?;
        let ended = follower.builds.into_iter();
        Ok(ended.filter_map(|followed| followed.view).collect())
    }
}

impl Follower<'_> {
    async fn run(&mut self, inbox: &mut mpsc::Receiver<News>) -> Result<()> {
        let mut remark = interval(REMARK);
        while !(self.is_over() && inbox.is_empty()) {
            tokio::select! {
                Some(news) = inbox.recv() => self.take(news)?,
                Some(ended) = self.readers.join_next() => ended??,
                () = self.follow.cancel.cancelled(), if !self.cancelling => self.cancel().await?,
                _ = remark.tick() => self.remark()?,
            }
        }
        self.out.flush()?;
        Ok(())
    }

    fn begin(&mut self, build: BuildRef) {
        if self.builds.iter().any(|followed| followed.build == build) {
            return;
        }
        let (client, sender) = (self.follow.client.clone(), self.sender.clone());
        let number = self.builds.len();
        self.readers
            .spawn(watch_build(client, build.clone(), number, sender));
        self.builds.push(Followed {
            build,
            view: None,
            tasks: BTreeMap::new(),
            news: Instant::now(),
            remarked: false,
        });
    }

    fn is_over(&self) -> bool {
        let settled = |followed: &Followed| {
            let view = followed.view.as_ref();
            view.is_some_and(|view| view.phase == BuildPhase::Finished)
        };
        self.open_consoles == 0 && self.builds.iter().all(settled)
    }

    fn take(&mut self, news: News) -> Result<()> {
        match news {
            News::Build(number, view) => self.take_build(number, *view)?,
            News::Attempt(number, attempt) => {
                self.consoles[number].attempt(attempt, self.out)?;
            }
            News::Text(number, bytes) => self.consoles[number].show(&bytes, self.out)?,
            News::AttemptOver(number) => self.consoles[number].finish(self.out)?,
            News::ConsoleOver => self.open_consoles -= 1,
        }
        Ok(())
    }

    fn take_build(&mut self, number: usize, view: BuildView) -> Result<()> {
        if let Breadth::Task(wanted) = &self.follow.breadth {
            check_task(&view, wanted)?;
        }
        for task in &view.tasks {
            if self.follow.breadth.shows(&task.name) {
                self.take_task(number, task, view.phase == BuildPhase::Finished);
            }
        }
        if self.follow.breadth == Breadth::Downstream {
            for downstream in &view.downstream {
                if let Downstream::Triggered { build } = downstream {
                    self.begin(build.clone());
                }
            }
        }
        let followed = &mut self.builds[number];
        followed.view = Some(view);
        followed.news = Instant::now();
        followed.remarked = false;
        Ok(())
    }

    fn take_task(&mut self, number: usize, task: &TaskView, build_is_over: bool) {
        let now = Attempts::of(&task.state, build_is_over);
        if let Some(known) = self.builds[number].tasks.get(&task.name) {
            known.send_replace(now);
            return;
        }
        if now.latest == Attempt::default() {
            return;
        }
        let (attempts, receiver) = watch::channel(now);
        let build = self.builds[number].build.clone();
        let name = self.console_name(&build, &task.name);
        let console = self.consoles.len();
        self.consoles.push(Console::new(name, console));
        self.open_consoles += 1;
        let reader = readers::ConsoleReader {
            client: self.follow.client.clone(),
            build,
            task: task.name.clone(),
            console,
            sender: self.sender.clone(),
        };
        self.readers.spawn(read_console(reader, receiver));
        self.builds[number]
            .tasks
            .insert(task.name.clone(), attempts);
    }

    fn console_name(&self, build: &BuildRef, task: &TaskName) -> Option<String> {
        match self.follow.breadth {
            Breadth::Task(_) => None,
            Breadth::Builds => Some(task.to_string()),
            Breadth::Downstream => Some(format!("{build} {task}")),
        }
    }

    async fn cancel(&mut self) -> Result<()> {
        self.cancelling = true;
        self.out
            .say("cancelling; interrupt again to leave at once")?;
        for followed in &self.builds {
            match self.follow.client.cancel(&followed.build).await {
                // It was over already.
                Ok(()) | Err(ClientError::Refused(_) | ClientError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says what builds wait for in which nothing happens: a label that nobody carries would
    /// otherwise be silence.
    fn remark(&mut self) -> io::Result<()> {
        for followed in &mut self.builds {
            let Some(view) = &followed.view else { continue };
            if followed.remarked || followed.news.elapsed() < QUIET {
                continue;
            }
            followed.remarked = true;
            for task in &view.tasks {
                if let TaskState::Queued { requires, .. } = &task.state {
                    let (build, task) = (&followed.build, &task.name);
                    let wait = format!("{build} {task} waits for a worker that offers {requires}");
                    self.out.say(wait)?;
                }
            }
        }
        Ok(())
    }
}

impl Breadth {
    fn shows(&self, task: &TaskName) -> bool {
        match self {
            Self::Task(wanted) => wanted == task,
            Self::Builds | Self::Downstream => true,
        }
    }
}

/// Whether the build has this task.
pub(crate) fn check_task(view: &BuildView, wanted: &TaskName) -> Result<()> {
    if view.tasks.iter().any(|task| task.name == *wanted) {
        return Ok(());
    }
    let names: Vec<&str> = view.tasks.iter().map(|task| task.name.as_str()).collect();
    let (build, names) = (&view.build, names.join(", "));
    Err(Ended::not_found(format!(
        "{build} has no task {wanted}, but {names}"
    )))
}
