//! The loop: what is wanted, who is there, who is started.
//!
//! Owns the count of workers in each group. How many are wanted is the law of
//! [`distci_model::pool`]; how one is started is a matter of [`crate::start`].

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use distci_client::{Client, ClientError};
use distci_isolation::machine::{self, Machine};
use distci_model::capability::{Capabilities, Kind, Label};
use distci_model::id::{SessionId, WorkerId, WorkerName};
use distci_model::isolation::Isolation;
use distci_model::pool::{self, DemandReply, DemandRequest, starts};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::place::Place;
use crate::start::{Left, Starter};

/// How long a frontend holds the question what is wanted.
const WAIT: u64 = 25;
/// What somebody waits for already is gone after so long; what is still wanted then lacks a worker.
const SETTLING: Duration = Duration::from_millis(250);
/// How long it may take to learn, before leaving, who has something to do.
const LAST_LOOK: Duration = Duration::from_secs(5);
/// Between two questions that no frontend answers.
const PAUSE: Duration = Duration::from_secs(5);
/// How much later than it should a worker without a ticket may leave.
const DELAY: Duration = Duration::from_secs(30);

/// What a pool is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name, which the names of its workers begin with.
    pub name: String,
    /// What it starts.
    pub groups: Vec<Group>,
    /// A folder of its own.
    pub directory: PathBuf,
    /// Where commands of the operator's run.
    pub beside: PathBuf,
    /// This program's file.
    pub program: PathBuf,
    /// The environment of what runs on this machine.
    pub environment: Vec<(OsString, OsString)>,
    /// How every worker finds the frontends, and what lets it in, as its environment says it.
    pub connection: Vec<(OsString, OsString)>,
    /// How cells are made.
    pub machine: machine::Settings,
}

/// Workers that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Fewest workers.
    pub min: usize,
    /// Most workers.
    pub max: usize,
    /// The kinds that each does; empty for all.
    pub kinds: Vec<Kind>,
    /// The labels that each is told to carry.
    pub labels: Vec<Label>,
    /// All that it is believed to offer.
    pub offers: Capabilities,
    /// How long a worker waits for its ticket before it leaves.
    pub idle: Duration,
    /// How long it may take to start.
    pub boot: Duration,
    /// How it is started.
    pub start: Start,
}

/// How a worker is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// As a process beside the pool, with these further arguments.
    Machine(Vec<OsString>),
    /// In a fresh world of its own.
    Cell(Isolation),
    /// By a command that lasts as long as the worker, and ends it when it is asked to end.
    Command(Vec<String>),
}

/// Why a pool cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder cannot be used.
    #[error("{}: {source}", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// No worker of a group could ever be started: mend the machine or the group.
    #[error("group {group}: {source}")]
    Group {
        /// Which.
        group: String,
        /// What is wrong.
        source: distci_isolation::Error,
    },
    /// A driver that a group names does not work here.
    #[error(transparent)]
    Machine(#[from] distci_isolation::Error),
    /// No frontend will ever tell what is wanted: mend the token or the address.
    #[error("nobody says what is wanted: {0}")]
    Demand(#[source] ClientError),
}

/// Starts workers until `stop`; then lets those that have something to do finish it. What it does not
/// end when it is dropped dies with this process.
///
/// # Errors
/// [`Error`], if nothing can ever be started.
///
/// # Cancel safety
/// Dropped, it kills its workers; their claims lapse.
pub async fn run(settings: Settings, client: Client, stop: CancellationToken) -> Result<(), Error> {
    let mut pool = Pool::prepare(settings).await?;
    while !stop.is_cancelled() {
        let (request, next) = (pool.request(pool.known.clone(), WAIT), pool.next_look());
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(ended) = pool.tasks.join_next_with_id() => pool.left(ended),
            () = sleep_until(next) => {
                // Before anything else, or this moment would come again and again.
                pool.end_late(Instant::now());
                pool.known = None;
            }
            reply = look(&client, request) => match reply {
                Ok(reply) => pool.act(reply),
                Err(error) if error.is_passing() => {
                    tracing::warn!("nobody says what is wanted: {error}");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(PAUSE) => {}
                    }
                }
                Err(error) => return Err(Error::Demand(error)),
            },
        }
    }
    pool.leave(&client).await;
    Ok(())
}

/// Looks whether every group can be started on this machine.
///
/// # Errors
/// [`Error`], of the first that cannot.
pub async fn check(settings: &Settings) -> Result<(), Error> {
    prepare(settings).await.map(drop)
}

/// The machine, able to make the cells of all groups.
async fn prepare(settings: &Settings) -> Result<Machine, Error> {
    let machine = Machine::prepare(settings.machine.clone()).await?;
    for group in &settings.groups {
        if let Start::Cell(isolation) = &group.start {
            machine.check(isolation).map_err(|source| Error::Group {
                group: group.name.clone(),
                source,
            })?;
        }
    }
    Ok(machine)
}

/// A worker that was started.
#[derive(Debug)]
struct Worker {
    id: WorkerId,
    group: usize,
    since: Instant,
    /// Whether it was ever seen to hold a claim. It takes one, so it is of no more use then.
    taken: bool,
    stop: CancellationToken,
}

/// What is remembered of a group.
#[derive(Debug, Default)]
struct Past {
    /// Workers that could not be started, or failed.
    failures: Backoff,
    /// Workers that waited in vain.
    vain: Backoff,
}

struct Pool {
    starter: Arc<Starter>,
    tasks: JoinSet<Left>,
    workers: HashMap<Id, Worker>,
    past: Vec<Past>,
    /// The answer that was acted upon.
    known: Option<String>,
}

impl Pool {
    async fn prepare(settings: Settings) -> Result<Self, Error> {
        let directory = settings.directory.clone();
        let place = tokio::task::spawn_blocking(move || Place::take(&directory));
        let place = place
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        let place = place.map_err(|source| Error::Directory {
            directory: settings.directory.clone(),
            source,
        })?;
        let machine = prepare(&settings).await?;
        Ok(Self {
            past: settings.groups.iter().map(|_| Past::default()).collect(),
            starter: Arc::new(Starter {
                settings,
                machine,
                place,
            }),
            tasks: JoinSet::new(),
            workers: HashMap::new(),
            known: None,
        })
    }

    fn groups(&self) -> &[Group] {
        &self.starter.settings.groups
    }

    fn request(&self, known: Option<String>, wait: u64) -> DemandRequest {
        let workers = self.workers.values().map(|worker| worker.id.clone().into());
        DemandRequest {
            workers: workers.collect(),
            known,
            wait,
        }
    }

    /// Starts what is lacking, and ends what should have left by itself.
    fn act(&mut self, reply: DemandReply) {
        let now = Instant::now();
        self.note_busy(&reply.busy);
        self.end_late(now);
        let standing: Vec<pool::Group> = (0..self.groups().len())
            .map(|group| self.standing(group, now))
            .collect();
        let lacking = starts(&standing, &reply.demand);
        for (group, count) in lacking.into_iter().enumerate() {
            if count > 0 {
                self.start(group, count, &standing);
            }
        }
        self.known = Some(reply.tag);
    }

    fn note_busy(&mut self, busy: &[WorkerName]) {
        let busy: HashSet<&WorkerName> = busy.iter().collect();
        for worker in self.workers.values_mut() {
            if !worker.taken && busy.contains(&worker.id.name) {
                worker.taken = true;
                if let Some(past) = self.past.get_mut(worker.group) {
                    *past = Past::default();
                }
            }
        }
    }

    /// A worker that neither takes a ticket nor leaves has not come up, and stands in the way of one
    /// that would.
    fn end_late(&mut self, now: Instant) {
        for worker in self.workers.values() {
            if !worker.taken && now >= self.latest(worker) && !worker.stop.is_cancelled() {
                let name = &worker.id.name;
                tracing::warn!(worker = %name, "it took no ticket and did not leave: ending it");
                worker.stop.cancel();
            }
        }
    }

    /// When a worker that took no ticket is gone at the latest.
    fn latest(&self, worker: &Worker) -> Instant {
        let allowed = self.groups().get(worker.group);
        let allowed = allowed.map_or(Duration::ZERO, |group| group.boot + group.idle);
        worker.since + allowed + DELAY
    }

    /// When something changes although nobody tells of it: a pause is over, or a worker is late.
    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let pauses = self.past.iter();
        let pauses = pauses.flat_map(|past| [past.failures.until(now), past.vain.until(now)]);
        let waiting = self.workers.values();
        let waiting = waiting.filter(|worker| !worker.taken && !worker.stop.is_cancelled());
        let late = waiting.map(|worker| self.latest(worker));
        let soonest = pauses.flatten().chain(late).min();
        soonest.unwrap_or(now + Duration::from_hours(1))
    }

    /// A group in the words of the law.
    fn standing(&self, at: usize, now: Instant) -> pool::Group {
        let (Some(group), Some(past)) = (self.groups().get(at), self.past.get(at)) else {
            return pool::Group::default();
        };
        let own = self.workers.values().filter(|worker| worker.group == at);
        let alive = own.clone().count();
        let free = own.filter(|worker| !worker.taken && !worker.stop.is_cancelled());
        let free = free.count();
        let (min, max) = if past.failures.until(now).is_some() {
            (0, alive)
        } else if past.vain.until(now).is_some() {
            (group.min, group.min.max(alive))
        } else {
            (group.min, group.max)
        };
        pool::Group {
            offers: group.offers.clone(),
            min,
            max,
            alive,
            free,
        }
    }

    fn start(&mut self, at: usize, count: usize, standing: &[pool::Group]) {
        let Some(group) = self.groups().get(at).cloned() else {
            return;
        };
        let alive = standing.get(at).map_or(0, |group| group.alive);
        tracing::info!(group = %group.name, alive, "starting {count}");
        for _ in 0..count {
            let id = match new_worker(&self.starter.settings.name, &group.name) {
                Ok(id) => id,
                Err(error) => {
                    tracing::error!("no worker can be named: {error}");
                    return;
                }
            };
            let stop = CancellationToken::new();
            let (starter, group) = (Arc::clone(&self.starter), group.clone());
            let (own, asked) = (id.clone(), stop.clone());
            let task = self
                .tasks
                .spawn(async move { starter.run(&group, &own, asked).await });
            let worker = Worker {
                id,
                group: at,
                since: Instant::now(),
                taken: false,
                stop,
            };
            self.workers.insert(task.id(), worker);
        }
    }

    /// Somebody is gone.
    fn left(&mut self, ended: Result<(Id, Left), tokio::task::JoinError>) {
        let (task, left) = match ended {
            Ok((task, left)) => (task, left),
            Err(error) => (error.id(), Left::Failed(error.to_string())),
        };
        self.known = None;
        let Some(worker) = self.workers.remove(&task) else {
            return;
        };
        let (now, at) = (Instant::now(), worker.group);
        let alive = self.workers.values().filter(|other| other.group == at);
        let alive = alive.count();
        let Some(group) = self.starter.settings.groups.get(at) else {
            return;
        };
        let waited = now - worker.since >= group.idle;
        let spare = alive >= group.min;
        let Some(past) = self.past.get_mut(at) else {
            return;
        };
        let name = &worker.id.name;
        match left {
            Left::Failed(why) => {
                let pause = past.failures.fail(now).as_secs();
                tracing::warn!(worker = %name, "failed, the next in {pause} s at the earliest: {why}");
            }
            Left::Stopped if !worker.taken => {
                past.failures.fail(now);
            }
            // Somebody else took what it was started for; or it does not offer what it should.
            Left::Well if !worker.taken && waited && spare => {
                let pause = past.vain.fail(now).as_secs();
                tracing::info!(worker = %name, "found nothing to do; none to spare for {pause} s");
            }
            Left::Well if !worker.taken && waited => {}
            Left::Well => {
                past.failures.succeed();
                past.vain.succeed();
            }
            Left::Stopped => {}
        }
    }

    /// Lets those finish that have something to do, and ends the others.
    async fn leave(&mut self, client: &Client) {
        let last = self.request(None, 0);
        if let Ok(Ok(reply)) = timeout(LAST_LOOK, client.demand(&last)).await {
            self.note_busy(&reply.busy);
        }
        let idle = self.workers.values().filter(|worker| !worker.taken);
        idle.for_each(|worker| worker.stop.cancel());
        let busy = self.workers.values().filter(|worker| worker.taken).count();
        if busy > 0 {
            tracing::info!(busy, "leaving when the last worker has finished");
        }
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.left(ended);
        }
    }
}

/// What is wanted, when it is not what is known.
async fn look(client: &Client, request: DemandRequest) -> Result<DemandReply, ClientError> {
    let first = client.demand(&request).await?;
    if Some(&first.tag) == request.known.as_ref() {
        return Ok(first);
    }
    sleep(SETTLING).await;
    let now = DemandRequest {
        known: None,
        wait: 0,
        ..request
    };
    client.demand(&now).await
}

/// A worker that nobody else has the name of.
fn new_worker(pool: &str, group: &str) -> io::Result<WorkerId> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let [a, b, c, d, session @ ..] = random;
    let name = format!("{pool}-{group}-{}", HEXLOWER.encode(&[a, b, c, d]));
    Ok(WorkerId {
        name: name.parse().map_err(io::Error::other)?,
        session: SessionId::from_random(session),
    })
}
