//! What runs beside the screen: a reader for each build and each console.
//!
//! Owns the long polls. Tells the follower what it read, in order, and writes nothing itself.

use std::time::Duration;

use anyhow::Result;
use distci_client::Client;
use distci_model::id::{Attempt, BuildRef, TaskName};
use distci_model::wire::{BuildPhase, TaskState};
use tokio::sync::{mpsc, watch};

use super::News;
use crate::reading::Reading;

/// How long a frontend holds a question about which there is no news.
const WAIT: Duration = Duration::from_secs(25);

/// How far a task is, for the reader of its console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempts {
    /// The latest attempt that began; 0 before the first.
    pub(super) latest: Attempt,
    /// Whether there will be no other.
    pub(super) over: bool,
}

impl Attempts {
    pub(super) fn of(state: &TaskState, build_is_over: bool) -> Self {
        let over = matches!(
            state,
            TaskState::Skipped { .. } | TaskState::Finished { .. }
        );
        Self {
            latest: state.attempt(),
            over: over || build_is_over,
        }
    }
}

/// Tells of a build until it is over.
pub(super) async fn watch_build(
    client: Client,
    build: BuildRef,
    number: usize,
    sender: mpsc::Sender<News>,
) -> Result<()> {
    let mut seen: Option<String> = None;
    loop {
        let watched = client.watch_build(&build, seen.as_deref(), WAIT).await?;
        if seen.as_ref() == Some(&watched.etag) {
            continue;
        }
        let over = watched.view.phase == BuildPhase::Finished;
        let news = News::Build(number, Box::new(watched.view));
        if sender.send(news).await.is_err() || over {
            return Ok(());
        }
        seen = Some(watched.etag);
    }
}

/// A console that is read.
pub(super) struct ConsoleReader {
    pub(super) client: Client,
    pub(super) build: BuildRef,
    pub(super) task: TaskName,
    /// Its place on the screen.
    pub(super) console: usize,
    pub(super) sender: mpsc::Sender<News>,
}

/// Tells of a task's console, attempt by attempt, until there is nothing more.
pub(super) async fn read_console(
    reader: ConsoleReader,
    mut attempts: watch::Receiver<Attempts>,
) -> Result<()> {
    let mut attempt = Attempt::new(1);
    loop {
        let there = |now: &Attempts| now.latest >= attempt || now.over;
        // The follower keeps the sender as long as it lives.
        let Ok(now) = attempts.wait_for(there).await.map(|now| *now) else {
            return Ok(());
        };
        if now.latest < attempt {
            reader.tell(News::ConsoleOver).await;
            return Ok(());
        }
        reader.read_attempt(attempt).await?;
        attempt = attempt.next();
    }
}

impl ConsoleReader {
    async fn read_attempt(&self, attempt: Attempt) -> Result<()> {
        if attempt > Attempt::new(1) {
            self.tell(News::Attempt(self.console, attempt)).await;
        }
        let mut reading = Reading::of(&self.client, &self.build, &self.task, attempt);
        while let Some(bytes) = reading.next(WAIT).await? {
            self.tell(News::Text(self.console, bytes)).await;
        }
        self.tell(News::AttemptOver(self.console)).await;
        Ok(())
    }

    /// A follower that does not listen any more is about to end this reader too.
    async fn tell(&self, news: News) {
        drop(self.sender.send(news).await);
    }
}
