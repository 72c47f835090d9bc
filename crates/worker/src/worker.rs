//! The process: slots that claim, do and report.
//!
//! Owns how many claims are held at once and when there are no more. Never decides what is right
//! for a build; a worker that is killed at any point loses one attempt of each slot.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use distci_client::{Client, ClientError};
use distci_forge::Forge;
use distci_isolation::machine::{self, Machine};
use distci_model::capability::{Capabilities, Capability, Host, Kind, Label};
use distci_model::id::{RequestId, WorkerId};
use distci_model::wire::{Claim, ClaimRequest, Held, Standing, Work};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempt;
use crate::beats::{Beats, Keeping, Pending};
use crate::control::control;
use crate::disk::Disk;
use crate::errands::Errand;
use crate::interrupt::Interrupts;
use crate::leaving::Leaving;
use crate::room::Rooms;
use crate::signals::hear_ignored;

/// How long a claim request is held; below the most that a frontend allows.
const CLAIM_WAIT: u64 = 25;
/// How long the store may refuse what an attempt writes, while its claim is renewed, before the
/// attempt is given up. How long it may go on when not even beats are heard is for these to say.
const UNSTORED: Duration = Duration::from_mins(15);
/// Between two looks for a frontend, or for space on the disk.
const PAUSE: Duration = Duration::from_secs(5);
/// Slots for build control. They are apart from the others, because a build must never wait for
/// the slots that its own tasks hold; a decision takes milliseconds.
const CONTROL_SLOTS: usize = 2;
/// Slots for telling forges: no build waits for a forge, and no forge for a build.
const REPORT_SLOTS: usize = 2;
/// What it may take to find claims that nobody knows of and to give them back.
const WITHDRAWAL: Duration = Duration::from_secs(2);
/// A claim that was being made when its request was called off is known after so long, mostly.
const SETTLING: Duration = Duration::from_millis(20);

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
    /// After how long without a claim it leaves.
    pub idle: Option<Duration>,
    /// Where it works: `attempts/` for what runs, `git/` for what is worth keeping.
    pub directory: PathBuf,
    /// How tasks are kept apart.
    pub machine: machine::Settings,
    /// A file of credentials in the form of `git credential-store`.
    pub git_credentials: Option<PathBuf>,
    /// The forges that it may tell of commits, by their hosts.
    pub forges: BTreeMap<Host, Forge>,
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
    /// A driver that it must have does not work here: mend the machine, or do not ask for it.
    #[error(transparent)]
    Machine(#[from] distci_isolation::Error),
    /// It is told to do nothing.
    #[error("a worker needs at least one kind and one slot")]
    NothingToDo,
}

/// A claim in the hands of this worker.
struct Taken {
    held: Held,
    work: Work,
    interrupts: Interrupts,
    _keeping: Keeping,
}

/// What all slots share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) settings: Settings,
    began: Instant,
    /// For what an attempt reads and writes: patient, and more so while nobody could take its claim.
    pub(crate) patient: Client,
    /// For everything else.
    client: Client,
    pub(crate) rooms: Rooms,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    beats: Beats,
    leaving: Leaving,
}

/// Works until `stop`, or until it leaves by itself: after one ticket, when there was nothing to do
/// for long enough, when it is asked to. What it holds then, it finishes; after `stop` it has seconds for that.
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
            match &done {
                // Done with its one ticket, or called off: the others finish what they hold.
                Ok(Ok(())) => worker.leaving.close(),
                // Without hope.
                Ok(Err(_)) | Err(_) => worker.leaving.stop(),
            }
            outcome = std::mem::replace(&mut outcome, Ok(())).and(done.unwrap_or(Ok(())));
        }
    };
    tokio::select! {
        () = work => {}
        () = worker.beats.beat(&worker.settings.id, &worker.client) => {}
        () = worker.leave_when_idle() => {}
        () = worker.leaving.overstayed() => {
            tracing::warn!("leaving with claims in hand; they will lapse");
        }
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
        let machine = Machine::prepare(settings.machine.clone()).await?;
        let beats = Beats::default();
        let hears = beats.clone();
        Ok(Self {
            disk: Disk::of(&settings.directory),
            settings,
            began: Instant::now(),
            patient: client
                .clone()
                .with_deadline(UNSTORED)
                .with_hope(move || !hears.are_heard()),
            client,
            rooms,
            machine,
            beats,
            leaving: Leaving::with(stop),
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
            forges,
            ..
        } = &self.settings;
        let is_of_tasks = |kind: &Kind| Kind::OF_TASKS.contains(kind);
        let tasks: Vec<Kind> = kinds.iter().copied().filter(is_of_tasks).collect();
        let mut wanted = Vec::new();
        if !tasks.is_empty() && *slots > 0 {
            let kinds = tasks.into_iter().map(Capability::Kind);
            let labels = labels.iter().cloned().map(Capability::Label);
            wanted.push((
                kinds.chain(labels).collect(),
                if *once { 1 } else { *slots },
            ));
        }
        let alone = *once && wanted.is_empty();
        let beside = |slots| if alone { 1 } else { slots };
        if kinds.contains(&Kind::BuildControl) {
            wanted.push((Capabilities::control(), beside(CONTROL_SLOTS)));
        }
        if kinds.contains(&Kind::CommitStatus) && !forges.is_empty() {
            let forges = forges.keys().cloned().map(Capability::Forge);
            let reports = forges.chain([Capability::Kind(Kind::CommitStatus)]);
            wanted.push((reports.collect(), beside(REPORT_SLOTS)));
        }
        if wanted.is_empty() {
            Err(Error::NothingToDo)
        } else {
            Ok(wanted)
        }
    }

    /// One slot: claim, do, repeat.
    async fn work(self: Arc<Self>, capabilities: Capabilities) -> Result<(), Error> {
        // The other slots serve the one task of a worker that leaves after it.
        let kinds = &self.settings.kinds;
        let tasks = kinds.iter().any(|kind| Kind::OF_TASKS.contains(kind));
        let once = self.settings.once && (is_for_tasks(&capabilities) || !tasks);
        while let Some(taken) = self.claim(&capabilities).await? {
            self.perform(taken).await;
            if once {
                break;
            }
        }
        Ok(())
    }

    /// The next claim; `None` when there are to be no more.
    async fn claim(&self, capabilities: &Capabilities) -> Result<Option<Taken>, Error> {
        // One request until it brings a claim: an answer may have been lost after the claim was
        // made, and then the same question finds it.
        let pending = self.beats.expect(self.new_request().map_err(Error::Claim)?);
        loop {
            let wanted = self.wanted(&pending, self.offered(capabilities), CLAIM_WAIT);
            let answer = tokio::select! {
                biased;
                () = self.leaving.closed() => {
                    self.withdraw(pending).await;
                    return Ok(None);
                }
                answer = self.ask(&wanted) => answer,
            };
            match answer {
                Ok(Some(claim)) => return Ok(Some(self.take(claim, pending))),
                Ok(None) => {}
                Err(error) if error.is_passing() => {
                    tracing::warn!("no frontend to claim from: {error}");
                }
                Err(ClientError::Draining(order)) => {
                    tracing::info!("asked to leave: {}", order.detail);
                    self.leaving.close();
                }
                Err(error) => return Err(Error::Claim(error)),
            }
        }
    }

    /// With what the machine offers at this moment, if it is for tasks: images come and go.
    fn offered(&self, capabilities: &Capabilities) -> Capabilities {
        if !is_for_tasks(capabilities) {
            return capabilities.clone();
        }
        let own = capabilities.iter().cloned();
        own.chain(self.machine.offers()).collect()
    }

    fn new_request(&self) -> Result<RequestId, ClientError> {
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(RequestId::in_session(&self.settings.id.session, random))
    }

    fn wanted(&self, pending: &Pending, capabilities: Capabilities, wait: u64) -> ClaimRequest {
        ClaimRequest {
            worker: self.settings.id.name.clone(),
            capabilities,
            request: pending.request().clone(),
            wait,
            age_ms: u64::try_from(self.began.elapsed().as_millis()).ok(),
        }
    }

    async fn ask(&self, wanted: &ClaimRequest) -> Result<Option<Claim>, ClientError> {
        // Decisions need no space, and builds must not stand still because of a full disk.
        let needs_space = is_for_tasks(&wanted.capabilities);
        while needs_space && !self.has_space() {
            sleep(PAUSE).await;
        }
        self.client.claim(wanted).await
    }

    /// Whether a task has room to work in.
    fn has_space(&self) -> bool {
        let enough = self.disk.has_space_for(0);
        if !enough {
            let directory = self.settings.directory.display();
            tracing::warn!("claiming nothing: the disk of {directory} is nearly full");
        }
        enough
    }

    /// Keeps a claim from now on.
    fn take(&self, claim: Claim, pending: Pending) -> Taken {
        let held = Held {
            ticket: claim.ticket,
            attempt: claim.attempt,
            standing: Standing::Held,
        };
        let interrupts = Interrupts {
            halt: self.leaving.halt(),
            ..Interrupts::default()
        };
        Taken {
            _keeping: pending.keep(&held, &interrupts),
            held,
            work: claim.work,
            interrupts,
        }
    }

    /// Gives back the claim that a request may have brought when it was called off: with nobody to
    /// know of it, its ticket would wait for its lease to end. Offers nothing, and so finds that
    /// claim or none.
    async fn withdraw(&self, pending: Pending) {
        let wanted = self.wanted(&pending, Capabilities::default(), 0);
        let withdrawing = async {
            sleep(SETTLING).await;
            if let Some(claim) = self.client.claim(&wanted).await? {
                let taken = self.take(claim, pending);
                tracing::info!(ticket = %taken.held.ticket, "giving back what came too late");
                self.client.release(&taken.held).await?;
            }
            Ok::<_, ClientError>(())
        };
        match timeout(WITHDRAWAL, withdrawing).await {
            // Who is asked to leave is told of a claim first.
            Ok(Ok(()) | Err(ClientError::Draining(_))) => {}
            Ok(Err(error)) => tracing::warn!("a claim may be left to its lease: {error}"),
            Err(_) => tracing::warn!("a claim may be left to its lease: no frontend answers"),
        }
    }

    async fn perform(self: &Arc<Self>, taken: Taken) {
        let Taken {
            held,
            work,
            interrupts,
            _keeping,
        } = taken;
        match work {
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
            Work::Errand { order } => {
                let errand = Errand {
                    worker: self,
                    held: &held,
                    order: &order,
                    interrupts,
                };
                errand.run().await;
            }
        }
    }

    /// Claims no more once nothing was held for long enough. Never ends.
    async fn leave_when_idle(&self) {
        if let Some(idle) = self.settings.idle {
            self.beats.idle_for(idle).await;
            tracing::info!(idle_s = idle.as_secs(), "nothing to do; leaving");
            self.leaving.close();
        }
        std::future::pending::<()>().await;
    }
}

/// Whether a slot with these capabilities takes tasks.
fn is_for_tasks(capabilities: &Capabilities) -> bool {
    let of_tasks = Kind::OF_TASKS.map(Capability::Kind);
    capabilities
        .iter()
        .any(|offered| of_tasks.contains(offered))
}
