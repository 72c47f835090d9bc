//! The frontends of the simulation: real ones, over sessions with the simulated store.
//!
//! Owns their lives: start, end, death, pauses, and the loss of the store. Never looks into them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_frontend::{HookSecrets, Inner, Who};
use distci_store::Store;
use distci_store::blobs::Blobs;
use distci_store::coordination::simulator::{Dice, Session, Simulator};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock::Time;
use crate::gate::Gate;
use crate::line::Line;
use crate::network::Network;
use crate::story::Story;

/// What opens the API.
pub(crate) const TOKEN: &str = "simulation";
/// After how long without a word the store believes a session to be over.
const SESSION: Duration = Duration::from_secs(10);
/// How long a frontend that is told to stop has for the requests that it is at.
const GRACE: Duration = Duration::from_secs(2);
/// By how many seconds the clock of a frontend is wrong at most.
const WRONG: usize = 90;

/// What all frontends share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) blobs: Blobs,
    pub(crate) network: Network,
    pub(crate) time: Time,
    pub(crate) story: Story,
}

/// A frontend that runs.
struct Running {
    session: Arc<Session>,
    gate: Gate,
    stop: CancellationToken,
    /// By how many seconds its clock is wrong.
    wrong: Arc<AtomicI64>,
    _duties: JoinSet<()>,
}

/// All frontends, by their names.
pub(crate) struct Frontends {
    around: Surroundings,
    names: Vec<String>,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    running: BTreeMap<String, Running>,
    /// Sessions of the dead, which the store still believes in.
    ghosts: JoinSet<()>,
}

/// The address of a frontend on the network.
pub(crate) fn address(name: &str) -> String {
    format!("{name}:7000")
}

impl Frontends {
    pub(crate) fn new(around: Surroundings, count: usize, dice: Dice) -> Self {
        Self {
            around,
            names: (1..=count).map(|number| format!("f{number}")).collect(),
            state: Mutex::new(State {
                dice,
                running: BTreeMap::new(),
                ghosts: JoinSet::new(),
            }),
        }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Their addresses, as clients are told them.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let names = self.names.iter();
        names
            .map(|name| format!("http://{}", address(name)))
            .collect()
    }

    /// Starts those that do not run.
    pub(crate) fn start_all(&self) {
        self.names.iter().for_each(|name| self.start(name));
    }

    /// Starts a frontend, if it does not run.
    pub(crate) fn start(&self, name: &str) {
        let mut state = self.state();
        if state.running.contains_key(name) {
            return;
        }
        let session = Arc::new(self.around.simulator.session());
        let line = Line::new(Arc::clone(&session), state.dice.split());
        let store = Store::new(Arc::new(line), self.around.blobs.clone());
        let wrong = i64::try_from(state.dice.below(2 * WRONG)).unwrap_or(0);
        let ahead = wrong - i64::try_from(WRONG).unwrap_or(0);
        let wrong = Arc::new(AtomicI64::new(ahead));
        let stop = CancellationToken::new();
        let who = Who {
            token: TOKEN.to_owned(),
            clock: self.around.time.wrong_clock(Arc::clone(&wrong)),
            hooks: HookSecrets::default(),
            public_url: None,
            address: address(name),
        };
        let inner = Inner::new(who, store, stop.clone());
        let gate = Gate::default();
        let mut duties = JoinSet::new();
        for duty in inner.duties() {
            let gate = gate.clone();
            duties.spawn(async move { gate.guard(duty).await });
        }
        self.around
            .network
            .plug(&address(name), inner, gate.clone());
        let running = Running {
            session,
            gate,
            stop,
            wrong,
            _duties: duties,
        };
        state.running.insert(name.to_owned(), running);
        let told = format_args!("starts; its clock is wrong by {ahead} s");
        self.around.story.tell(name, told);
    }

    /// Kills a frontend. The store believes in its session a while longer.
    pub(crate) fn kill(&self, name: &str) {
        let mut state = self.state();
        let Some(running) = state.running.remove(name) else {
            return;
        };
        self.around.network.unplug(&address(name));
        let session = Arc::clone(&running.session);
        state.ghosts.spawn(async move {
            sleep(SESSION).await;
            drop(session);
        });
        self.around.story.tell(name, "is killed");
    }

    /// Tells a frontend to stop, and waits until it has.
    pub(crate) async fn stop(&self, name: &str) {
        let stop = self.of(name, |running| running.stop.clone());
        let Some(stop) = stop else {
            return;
        };
        self.around.story.tell(name, "is told to stop");
        stop.cancel();
        sleep(GRACE).await;
        self.around.network.unplug(&address(name));
        let stopped = self.state().running.remove(name);
        drop(stopped);
        self.around.story.tell(name, "has stopped");
    }

    /// Stops the process of a frontend, and lets it go on after `time`.
    pub(crate) async fn pause(&self, name: &str, time: Duration) {
        let known = self.of(name, |running| {
            (running.gate.clone(), Arc::clone(&running.session))
        });
        let Some((gate, session)) = known else {
            return;
        };
        let story = &self.around.story;
        story.tell(name, format_args!("is paused for {time:.1?}"));
        gate.shut();
        self.silent(name, &session, time).await;
        gate.open();
        story.tell(name, "goes on");
    }

    /// Takes the store out of a frontend's reach for `time`.
    pub(crate) async fn cut_off(&self, name: &str, time: Duration) {
        let session = self.of(name, |running| Arc::clone(&running.session));
        let Some(session) = session else {
            return;
        };
        let story = &self.around.story;
        story.tell(name, format_args!("loses the store for {time:.1?}"));
        self.silent(name, &session, time).await;
        story.tell(name, "has the store again");
    }

    /// A gap: a connection that is lost for a moment.
    pub(crate) fn blink(&self, name: &str) {
        if self
            .of(name, |running| running.session.reconnect())
            .is_some()
        {
            self.around.story.tell(name, "has missed news");
        }
    }

    /// Sets the clock of a frontend.
    pub(crate) fn set_clock(&self, name: &str, ahead: i64) {
        let set = |running: &Running| running.wrong.store(ahead, Ordering::Relaxed);
        if self.of(name, set).is_some() {
            let story = &self.around.story;
            story.tell(name, format_args!("has its clock set wrong by {ahead} s"));
        }
    }

    /// The store does not hear of a session for `time`.
    async fn silent(&self, name: &str, session: &Session, time: Duration) {
        session.cut();
        sleep(time.min(SESSION)).await;
        if let Some(beyond) = time.checked_sub(SESSION) {
            self.around.story.tell(name, "has no session any more");
            session.lapse();
            sleep(beyond).await;
        }
        session.mend();
    }

    fn of<T>(&self, name: &str, look: impl FnOnce(&Running) -> T) -> Option<T> {
        self.state().running.get(name).map(look)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
