//! The process: slots that claim, do and report.
//!
//! Owns how many claims are held at once and when there are no more. Never decides what is right
//! for a build; a worker that is killed at any point loses one attempt of each slot.

use std::ffi::OsString;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use distci_client::{Client, ClientError};
use distci_model::capability::{Capabilities, Capability, Kind, Label};
use distci_model::id::{RequestId, WorkerId};
use distci_model::wire::{Claim, ClaimRequest, Held, Standing, Work};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempt;
use crate::beats::Beats;
use crate::control::control;
use crate::interrupt::Interrupts;
use crate::isolation::{Isolation, Process};
use crate::room::Rooms;
use crate::signals::hear_ignored;

/// How long a claim request is held; below the most that a frontend allows.
const CLAIM_WAIT: u64 = 25;
/// How long no frontend may answer before an attempt is given up; the same as for its beats.
const CUT_OFF: Duration = Duration::from_mins(10);
/// Between two looks for a frontend, or for space on the disk.
const PAUSE: Duration = Duration::from_secs(5);
/// Slots for build control. They are apart from the others, because a build must never wait for
/// the slots that its own tasks hold; a decision takes milliseconds.
const CONTROL_SLOTS: usize = 2;
/// How long what runs may go on by itself when the worker has to leave.
const GRACE: Duration = Duration::from_secs(5);
/// How long it may take to end what still runs after that, and to give it back.
const LAST_GRACE: Duration = Duration::from_secs(10);
/// Below this much free space a task is likely to fill the disk: this part of the whole, within
/// these bounds. Without the upper one a large disk would be called full with a terabyte free.
const LEAST_PART: u64 = 20;
const LEAST_FREE: RangeInclusive<u64> = 64 * 1024 * 1024..=4 * 1024 * 1024 * 1024;

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name, for people, and which run of it this is.
    pub id: WorkerId,
    /// What it does.
    pub kinds: Vec<Kind>,
    /// The labels that it carries.
    pub labels: Vec<Label>,
    /// How many tasks it runs at once.
    pub slots: usize,
    /// Whether it leaves after one ticket.
    pub once: bool,
    /// Where it works: `attempts/` for what runs, `git/` for what is worth keeping.
    pub directory: PathBuf,
    /// The command that runs [`crate::supervisor::main`].
    pub supervisor: Vec<OsString>,
    /// A file of credentials in the form of `git credential-store`.
    pub git_credentials: Option<PathBuf>,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its directory cannot be used: give another, or mend it.
    #[error("{}: {source}", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// No frontend will ever give it work: mend the token, the address or the settings.
    #[error("no work can be claimed: {0}")]
    Claim(#[source] ClientError),
    /// It is told to do nothing.
    #[error("a worker needs at least one kind and one slot")]
    NothingToDo,
}

/// What all slots share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) settings: Settings,
    /// For what an attempt writes: as patient as its beats.
    pub(crate) patient: Client,
    /// For everything else.
    client: Client,
    pub(crate) rooms: Rooms,
    pub(crate) isolation: Box<dyn Isolation>,
    beats: Beats,
    /// No new claims.
    stop: CancellationToken,
    /// An end to those that there are.
    halt: CancellationToken,
}

/// Works until `stop`, or with `once` until one ticket is done.
///
/// # Errors
/// [`Error`], if nothing can ever be done.
///
/// # Cancel safety
/// Dropped, it kills what it runs; its claims lapse.
pub async fn run(settings: Settings, client: Client, stop: CancellationToken) -> Result<(), Error> {
    hear_ignored();
    let worker = Arc::new(Worker::prepare(settings, client, stop.child_token()).await?);
    let mut slots = JoinSet::new();
    for (capabilities, count) in worker.slots()? {
        for _ in 0..count {
            slots.spawn(Arc::clone(&worker).work(capabilities.clone()));
        }
    }
    let mut outcome = Ok(());
    let work = async {
        while let Some(done) = slots.join_next().await {
            // One slot without hope, or done with its one ticket, and all others are called off.
            worker.stop.cancel();
            outcome = std::mem::replace(&mut outcome, Ok(())).and(done.unwrap_or(Ok(())));
        }
    };
    tokio::select! {
        () = work => {}
        () = worker.beats.beat(&worker.settings.id, &worker.client) => {}
        () = worker.leave() => tracing::warn!("leaving with claims in hand; they will lapse"),
    }
    // What is left now was given up, and a store on the same disk may not even start beside it.
    slots.shutdown().await;
    worker.sweep().await;
    outcome
}

impl Worker {
    async fn prepare(
        settings: Settings,
        client: Client,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let directory = settings.directory.clone();
        let rooms = tokio::task::spawn_blocking(move || {
            let rooms = Rooms::open(&directory)?;
            rooms.sweep()?;
            Ok(rooms)
        });
        let rooms = rooms
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        let rooms = rooms.map_err(|source| Error::Directory {
            directory: settings.directory.clone(),
            source,
        })?;
        let isolation = Box::new(Process {
            supervisor: settings.supervisor.clone(),
        });
        Ok(Self {
            settings,
            patient: client.clone().with_deadline(CUT_OFF),
            client,
            rooms,
            isolation,
            beats: Beats::default(),
            stop,
            halt: CancellationToken::new(),
        })
    }

    /// Removes the rooms that nobody works in.
    async fn sweep(&self) {
        let rooms = self.rooms.clone();
        let swept = tokio::task::spawn_blocking(move || rooms.sweep()).await;
        if let Err(error) = swept.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!("what was given up was not removed: {error}");
        }
    }

    /// What to claim, and how much of it at once.
    fn slots(&self) -> Result<Vec<(Capabilities, usize)>, Error> {
        let Settings {
            kinds,
            labels,
            slots,
            once,
            ..
        } = &self.settings;
        let tasks: Vec<Kind> = kinds
            .iter()
            .copied()
            .filter(|kind| *kind != Kind::BuildControl)
            .collect();
        let mut wanted = Vec::new();
        if !tasks.is_empty() && *slots > 0 {
            let kinds = tasks.into_iter().map(Capability::Kind);
            let labels = labels.iter().cloned().map(Capability::Label);
            wanted.push((
                kinds.chain(labels).collect(),
                if *once { 1 } else { *slots },
            ));
        }
        if kinds.contains(&Kind::BuildControl) {
            let alone = *once && wanted.is_empty();
            wanted.push((
                Capabilities::control(),
                if alone { 1 } else { CONTROL_SLOTS },
            ));
        }
        if wanted.is_empty() {
            Err(Error::NothingToDo)
        } else {
            Ok(wanted)
        }
    }

    /// One slot: claim, do, repeat.
    async fn work(self: Arc<Self>, capabilities: Capabilities) -> Result<(), Error> {
        // Control slots serve the one task of a worker that leaves after it.
        let control = capabilities == Capabilities::control();
        let tasks = self
            .settings
            .kinds
            .iter()
            .any(|kind| *kind != Kind::BuildControl);
        let once = self.settings.once && !(control && tasks);
        while let Some(claim) = self.claim(&capabilities).await? {
            self.perform(claim).await;
            if once {
                break;
            }
        }
        Ok(())
    }

    /// The next claim; `None` when there are to be no more.
    async fn claim(&self, capabilities: &Capabilities) -> Result<Option<Claim>, Error> {
        let mut request: Option<RequestId> = None;
        loop {
            let id = match request.take() {
                Some(id) => id,
                None => self.new_request().map_err(Error::Claim)?,
            };
            let wanted = ClaimRequest {
                worker: self.settings.id.name.clone(),
                capabilities: capabilities.clone(),
                request: id.clone(),
                wait: CLAIM_WAIT,
            };
            let answer = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                answer = self.ask(&wanted) => answer,
            };
            match answer {
                Ok(Some(claim)) => return Ok(Some(claim)),
                Ok(None) => {}
                Err(error) if error.is_passing() => {
                    tracing::warn!("no frontend to claim from: {error}");
                    // The answer may have been lost after the claim was made: ask for the same.
                    request = Some(id);
                }
                Err(error) => return Err(Error::Claim(error)),
            }
        }
    }

    fn new_request(&self) -> Result<RequestId, ClientError> {
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(RequestId::in_session(&self.settings.id.session, random))
    }

    async fn ask(&self, wanted: &ClaimRequest) -> Result<Option<Claim>, ClientError> {
        // Decisions need no space, and builds must not stand still because of a full disk.
        let needs_space = wanted.capabilities != Capabilities::control();
        while needs_space && !self.has_space() {
            sleep(PAUSE).await;
        }
        self.client.claim(wanted).await
    }

    /// Whether a task has room to work in.
    fn has_space(&self) -> bool {
        let enough = self.has_space_for(0);
        if !enough {
            let directory = self.settings.directory.display();
            tracing::warn!("claiming nothing: the disk of {directory} is nearly full");
        }
        enough
    }

    /// Whether the disk would not be nearly full with so many bytes more. What cannot be measured
    /// is not held against it.
    pub(crate) fn has_space_for(&self, bytes: u64) -> bool {
        let Ok(disk) = nix::sys::statvfs::statvfs(&self.settings.directory) else {
            return true;
        };
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        let all = disk.blocks().saturating_mul(disk.fragment_size());
        free >= least_free(all).saturating_add(bytes)
    }

    async fn perform(self: &Arc<Self>, claim: Claim) {
        let held = Held {
            ticket: claim.ticket,
            attempt: claim.attempt,
            standing: Standing::Held,
        };
        let interrupts = Interrupts {
            halt: self.halt.clone(),
            ..Interrupts::default()
        };
        let keeping = self.beats.keep(&held, &interrupts);
        match claim.work {
            Work::Control { order } => {
                let done = control(&self.client, &held, *order, &interrupts).await;
                if let Err(error) = done {
                    tracing::warn!(ticket = %held.ticket, "a decision was not committed: {error}");
                }
            }
            Work::Task { order } => {
                let attempt = Attempt {
                    worker: self,
                    held: &held,
                    order: &order,
                    interrupts,
                };
                attempt.run().await;
            }
        }
        drop(keeping);
    }

    /// Ends only when what runs did not end in time.
    async fn leave(&self) {
        self.stop.cancelled().await;
        sleep(GRACE).await;
        self.halt.cancel();
        sleep(LAST_GRACE).await;
    }
}

/// How much of a disk with `all` bytes must be free.
fn least_free(all: u64) -> u64 {
    (all / LEAST_PART).clamp(*LEAST_FREE.start(), *LEAST_FREE.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_disk_has_to_be_emptier_than_a_task_needs() {
        const GIB: u64 = 1024 * 1024 * 1024;
        assert_eq!(least_free(0), GIB / 16);
        assert_eq!(least_free(20 * GIB), GIB);
        assert_eq!(least_free(20_000 * GIB), 4 * GIB);
    }
}
