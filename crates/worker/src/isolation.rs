//! Where the commands of an attempt run.
//!
//! Owns the seam between what a kind wants done and how it is kept apart from the machine. A cell is
//! opened for one attempt; whatever runs in it is gone when it is closed.

mod process;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::console::Console;
use crate::interrupt::{Interrupt, Interrupts};
use crate::room::Room;

pub(crate) use process::Process;

/// A way of keeping attempts apart from the machine and from each other.
#[async_trait]
pub(crate) trait Isolation: std::fmt::Debug + Send + Sync {
    /// A cell for the attempt in `room`.
    async fn open(&self, room: &Room) -> io::Result<Box<dyn Cell>>;
}

/// The place where the commands of one attempt run.
#[async_trait]
pub(crate) trait Cell: Send + Sync {
    /// Runs a command to its end. Nothing that it started is left afterwards.
    ///
    /// # Cancel safety
    /// Dropped, it kills what it runs, though not before it returns.
    async fn run(
        &self,
        command: &Command,
        output: &mut Output,
        limits: &Limits,
    ) -> io::Result<Ended>;

    /// Ends whatever is left in the cell.
    async fn close(self: Box<Self>);
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// The program and its arguments.
    pub(crate) argv: Vec<OsString>,
    /// Where.
    pub(crate) directory: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// What may end a command before it ends by itself.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The moment after which it takes too long.
    pub(crate) deadline: Instant,
    /// Everybody else.
    pub(crate) interrupts: Interrupts,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this exit code.
    Exit(u8),
    /// By a signal that we did not send.
    Signal(u8),
    /// It never began.
    NotStarted(String),
    /// It took too long, and we ended it.
    TimedOut,
    /// Somebody wanted it to end.
    Interrupted(Interrupt),
}

/// Where a command's output goes.
#[derive(Debug, Default)]
pub(crate) struct Output {
    console: Option<Console>,
    most: usize,
    kept: Vec<u8>,
}

impl Output {
    /// To the console; the last `most` bytes are kept as well.
    pub(crate) fn shown(console: &Console, most: usize) -> Self {
        Self {
            console: Some(console.clone()),
            most,
            kept: Vec::new(),
        }
    }

    /// Only kept, and of it the last `most` bytes.
    pub(crate) fn kept(most: usize) -> Self {
        Self {
            console: None,
            most,
            kept: Vec::new(),
        }
    }

    /// What was kept, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }

    async fn take(&mut self, bytes: &[u8]) {
        if self.most > 0 {
            self.kept.extend_from_slice(bytes);
            let excess = self.kept.len().saturating_sub(self.most);
            self.kept.drain(..excess);
        }
        if let Some(console) = &self.console {
            console.write(bytes).await;
        }
    }
}
