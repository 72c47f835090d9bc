//! The cell of one attempt, in the words of the worker.
//!
//! Owns the way from an attempt's console and interruptions to what a driver knows of: a sink for
//! bytes and a word when to stop. How the machine is kept safe is the matter of
//! `distci-isolation`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use distci_isolation::{Account, Command, Error, Excess, Finished, Place, Shared, Site, is_full};
use distci_model::isolation::{Isolation, Size, Usage};
use distci_model::outcome::{Failure, Fault};
use tokio::time::{Instant, sleep_until};

use crate::console::Console;
use crate::disk::Disk;
use crate::interrupt::{Interrupt, Interrupts};
use crate::room::Room;
use crate::trouble::Trouble;
use crate::worker::Worker;

/// How long a script that was asked to end may take to do so.
const GRACE: Duration = Duration::from_secs(10);
/// The same when the worker itself has to leave.
const SHORT_GRACE: Duration = Duration::from_secs(3);

/// An open cell.
pub(crate) struct Cell {
    inner: Box<dyn distci_isolation::Cell>,
    site: Site,
    limited_disk: bool,
    disk: Disk,
    usage: Mutex<Option<Usage>>,
}

/// What may end a command before it ends by itself.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The moment after which it takes too long.
    pub(crate) deadline: Instant,
    /// Everybody else.
    pub(crate) interrupts: Interrupts,
}

/// How a command ended, and the limits that it ran into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    pub(crate) excess: Excess,
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

impl Cell {
    /// A cell for the worker's own tools.
    pub(crate) async fn of_worker(worker: &Worker, room: &Room) -> Result<Self, Trouble> {
        let site = room.site();
        let inner = worker.machine.open_own(&site).await?;
        Ok(Self::new(worker, inner, site, false))
    }

    /// A cell for a task that asks for `isolation`.
    pub(crate) async fn of_task(
        worker: &Worker,
        room: &Room,
        isolation: &Isolation,
        shared: Vec<Shared>,
    ) -> Result<Self, Trouble> {
        let site = room.site();
        let inner = worker.machine.open(&site, isolation, shared).await?;
        Ok(Self::new(worker, inner, site, isolation.disk.is_some()))
    }

    fn new(
        worker: &Worker,
        inner: Box<dyn distci_isolation::Cell>,
        site: Site,
        limited_disk: bool,
    ) -> Self {
        Self {
            inner,
            site,
            limited_disk,
            disk: worker.disk.clone(),
            usage: Mutex::default(),
        }
    }

    /// Where commands find a folder of the room.
    pub(crate) fn path(&self, place: Place) -> PathBuf {
        self.inner.path(place)
    }

    /// As whom they run.
    pub(crate) fn account(&self) -> Account {
        self.inner.account()
    }

    /// What its image wants in their environment.
    pub(crate) fn env(&self) -> &[(String, String)] {
        self.inner.env()
    }

    /// Runs a command to its end. Nothing that it started is left afterwards.
    ///
    /// # Errors
    /// A fault, if the cell does not work, or if the command failed and the worker's disk is full.
    ///
    /// # Cancel safety
    /// Dropped, it kills what it runs, though not before it returns.
    pub(crate) async fn run(
        &self,
        command: &Command,
        output: &mut Output,
        limits: &Limits,
    ) -> Result<Ran, Trouble> {
        let why = Mutex::new(None);
        let stop = Box::pin(async {
            let reason = limits.reached().await;
            let grace = match reason {
                Ended::Interrupted(Interrupt::Lost) => Duration::ZERO,
                Ended::Interrupted(Interrupt::Stopped) => SHORT_GRACE,
                _ => GRACE,
            };
            *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            grace
        });
        let finished = self.inner.run(command, output, stop).await?;
        self.count(finished.usage);
        let why = why.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ran = self.judge(finished, why);
        // Who filled the disk nobody can say, and on another worker the command may succeed.
        if let Some(failure) = ran.failure()
            && self.disk.is_full()
        {
            let detail = format!("no room was left when a command failed: {failure}");
            return Err(Trouble::Fault(Fault::DiskFull { detail }));
        }
        Ok(ran)
    }

    fn count(&self, more: Usage) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        *usage = Some(usage.unwrap_or_default().and(more));
    }

    fn judge(&self, finished: Finished, why: Option<Ended>) -> Ran {
        use distci_isolation::Ended as Told;
        let mut excess = finished.excess;
        excess.disk |= self.limited_disk && is_full(&self.site.workspace);
        let ended = match finished.ended {
            Told::Exit(code) => Ended::Exit(code),
            Told::Signal(signal) => Ended::Signal(signal),
            Told::NotStarted(what) => Ended::NotStarted(what),
            // Whoever stopped it has said why; nobody else can have.
            Told::Stopped => why.unwrap_or(Ended::Interrupted(Interrupt::Stopped)),
        };
        Ran { ended, excess }
    }

    /// Ends whatever is left in the cell, and gives what all commands in it took.
    pub(crate) async fn close(self) -> Option<Usage> {
        if let Err(error) = self.inner.close().await {
            // The next sweep tries again.
            tracing::warn!(cell = %self.site.name, "not all of it is gone: {error}");
        }
        self.usage
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    /// Waits until the command has to end, and says why.
    async fn reached(&self) -> Ended {
        tokio::select! {
            interrupt = self.interrupts.any() => Ended::Interrupted(interrupt),
            () = sleep_until(self.deadline) => Ended::TimedOut,
        }
    }
}

impl Ran {
    /// How it failed, if none of its own limits tells why.
    fn failure(&self) -> Option<Failure> {
        let Excess {
            memory,
            processes,
            disk,
        } = self.excess;
        match self.ended {
            _ if memory || processes || disk => None,
            Ended::Exit(exit @ 1..) => Some(Failure::Exit { exit }),
            Ended::Signal(signal) => Some(Failure::Signal { signal }),
            _ => None,
        }
    }

    /// The limit of `isolation` that the command did not survive, if that is why it ended so.
    pub(crate) fn excess(&self, isolation: &Isolation) -> Option<Failure> {
        if !matches!(self.ended, Ended::Exit(1..) | Ended::Signal(_)) {
            return None;
        }
        let Excess {
            memory,
            processes,
            disk,
        } = self.excess;
        if memory {
            let limit = isolation.memory.map(Size::bytes);
            return Some(Failure::OutOfMemory { limit });
        }
        if processes {
            let limit = isolation.processes;
            return Some(Failure::TooManyProcesses { limit });
        }
        let limit = isolation.disk.filter(|_| disk)?.bytes();
        Some(Failure::DiskFull { limit })
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::local("cell", &error),
            Error::Unsupported(_) | Error::Image { .. } | Error::Driver { .. } => {
                Self::Fault(Fault::Isolation {
                    detail: error.to_string(),
                })
            }
        }
    }
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
}

#[async_trait]
impl distci_isolation::Output for Output {
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
