//! The workers of the simulation: the real beats, the real loop of build control and the real client,
//! without a machine.
//!
//! Owns the slots and their order of calls, which are those of `distci_worker`, and the lives of the
//! processes. What a task does in a slot is in `attempt`. Never sees the store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use distci_client::{Client, ClientError};
use distci_model::capability::{Capabilities, Capability, Kind};
use distci_model::id::{RequestId, SessionId, WorkerId, WorkerName};
use distci_model::wire::{Claim, ClaimRequest, Held, Standing, Work};
use distci_store::coordination::simulator::Dice;
use distci_worker::{Beats, Interrupts, Pending, control};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempt;
use crate::gate::Gate;
use crate::scene::Scene;

/// How long a claim request is held.
const WAIT: u64 = 25;
/// How long an attempt goes on while the store takes nothing.
const UNSTORED: Duration = Duration::from_mins(15);
/// What it may take to give back a claim that came too late.
const WITHDRAWAL: Duration = Duration::from_secs(2);
/// How long a worker that is told to stop has for what it holds.
const GRACE: Duration = Duration::from_secs(5);

/// What a worker does, and how much of it at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots {
    pub(crate) tasks: usize,
    pub(crate) control: usize,
}

/// One worker, which may die and come back.
pub(crate) struct Worker {
    pub(crate) name: WorkerName,
    slots: Slots,
    scene: Arc<Scene>,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    running: Option<Process>,
}

struct Process {
    gate: Gate,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

/// One run of a worker.
pub(crate) struct Run {
    pub(crate) id: WorkerId,
    pub(crate) scene: Arc<Scene>,
    /// For what an attempt writes.
    pub(crate) patient: Client,
    client: Client,
    beats: Beats,
    stop: CancellationToken,
    began: Instant,
    dice: Mutex<Dice>,
}

impl Worker {
    pub(crate) fn new(name: WorkerName, slots: Slots, scene: Arc<Scene>, dice: Dice) -> Self {
        let state = State {
            dice,
            running: None,
        };
        Self {
            name,
            slots,
            scene,
            state: Mutex::new(state),
        }
    }

    /// Starts a run of it, if there is none.
    ///
    /// # Errors
    /// There is no client for it.
    pub(crate) fn start(&self) -> Result<(), ClientError> {
        let mut state = self.state();
        if state.running.is_some() {
            return Ok(());
        }
        let stop = CancellationToken::new();
        let run = Arc::new(Run::new(self, stop.clone(), state.dice.split())?);
        let (gate, mut tasks) = (Gate::default(), JoinSet::new());
        let all = [
            (Capabilities::control(), self.slots.control),
            (of_tasks(), self.slots.tasks),
        ];
        for (capabilities, count) in all {
            for _ in 0..count {
                let (run, gate, offers) = (Arc::clone(&run), gate.clone(), capabilities.clone());
                tasks.spawn(async move { gate.guard(run.slot(offers)).await });
            }
        }
        let beating = gate.clone();
        tasks.spawn(async move { beating.guard(run.beats.beat(&run.id, &run.client)).await });
        state.running = Some(Process {
            gate,
            stop,
            _tasks: tasks,
        });
        self.scene.story.tell(self.name.as_str(), "starts");
        Ok(())
    }

    /// Kills it, with everything that it was at.
    pub(crate) fn kill(&self) {
        if self.state().running.take().is_some() {
            self.scene.story.tell(self.name.as_str(), "is killed");
        }
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(&self) {
        let stop = self.state().running.as_ref().map(|run| run.stop.clone());
        let Some(stop) = stop else { return };
        let (name, story) = (self.name.as_str(), &self.scene.story);
        story.tell(name, "is told to stop");
        stop.cancel();
        sleep(GRACE).await;
        drop(self.state().running.take());
        story.tell(name, "has stopped");
    }

    /// Stops its process, and lets it go on after `time`.
    pub(crate) async fn pause(&self, time: Duration) {
        let gate = self.state().running.as_ref().map(|run| run.gate.clone());
        let Some(gate) = gate else { return };
        let (name, story) = (self.name.as_str(), &self.scene.story);
        story.tell(name, format_args!("is paused for {time:.1?}"));
        gate.shut();
        sleep(time).await;
        gate.open();
        story.tell(name, "goes on");
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_tasks() -> Capabilities {
    let kinds = Kind::OF_TASKS.iter().copied();
    kinds.map(Capability::Kind).collect()
}

impl Run {
    fn new(worker: &Worker, stop: CancellationToken, mut dice: Dice) -> Result<Self, ClientError> {
        let client = worker.scene.client(worker.name.as_str())?;
        let beats = Beats::default();
        let hears = beats.clone();
        let [a, b, c, d, ..] = dice.draw().to_le_bytes();
        Ok(Self {
            id: WorkerId {
                name: worker.name.clone(),
                session: SessionId::from_random([a, b, c, d]),
            },
            scene: Arc::clone(&worker.scene),
            patient: client
                .clone()
                .with_deadline(UNSTORED)
                .with_hope(move || !hears.are_heard()),
            client,
            beats,
            stop,
            began: Instant::now(),
            dice: Mutex::new(dice),
        })
    }

    pub(crate) fn split_dice(&self) -> Dice {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        dice.split()
    }

    /// One slot: claim, do, repeat.
    async fn slot(self: Arc<Self>, capabilities: Capabilities) {
        while let Some((claim, pending)) = self.claim(&capabilities).await {
            self.perform(claim, pending).await;
        }
    }

    /// The next claim; none if there are to be no more.
    async fn claim(&self, capabilities: &Capabilities) -> Option<(Claim, Pending)> {
        let mut dice = self.split_dice();
        let mut random = [0; 12];
        for (byte, from) in random.iter_mut().zip(dice.request().as_str().bytes()) {
            *byte = from;
        }
        let request = RequestId::in_session(&self.id.session, random);
        let pending = self.beats.expect(request);
        loop {
            let wanted = self.wanted(&pending, capabilities.clone(), WAIT);
            let answer = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.withdraw(pending).await;
                    return None;
                }
                answer = self.client.claim(&wanted) => answer,
            };
            match answer {
                Ok(Some(claim)) => return Some((claim, pending)),
                Ok(None) => {}
                Err(error) if error.is_passing() => self.tell(&error),
                Err(error) => {
                    self.scene
                        .flaw(format!("{}: no work: {error}", self.id.name));
                    return None;
                }
            }
        }
    }

    fn wanted(&self, pending: &Pending, capabilities: Capabilities, wait: u64) -> ClaimRequest {
        ClaimRequest {
            worker: self.id.name.clone(),
            capabilities,
            request: pending.request().clone(),
            wait,
            age_ms: u64::try_from(self.began.elapsed().as_millis()).ok(),
        }
    }

    /// Gives back the claim that a request may have brought when it was called off.
    async fn withdraw(&self, pending: Pending) {
        let wanted = self.wanted(&pending, Capabilities::default(), 0);
        let withdrawing = async {
            if let Some(claim) = self.client.claim(&wanted).await? {
                self.client.release(&held(&claim)).await?;
            }
            Ok::<_, ClientError>(())
        };
        match timeout(WITHDRAWAL, withdrawing).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => self.tell(&error),
        }
    }

    async fn perform(self: &Arc<Self>, claim: Claim, pending: Pending) {
        let held = held(&claim);
        let interrupts = Interrupts {
            halt: self.stop.clone(),
            ..Interrupts::default()
        };
        let keeping = pending.keep(&held, &interrupts);
        match claim.work {
            Work::Control { order } => {
                let build = order.build.id.clone();
                self.tell(format_args!("decides {build}, attempt {}", held.attempt));
                if let Err(error) = control(&self.client, &held, *order, &interrupts).await {
                    self.tell(format_args!("{build}: {error}"));
                }
            }
            Work::Task { order } => {
                let attempt = Attempt {
                    run: self,
                    held: &held,
                    order: &order,
                    interrupts: &interrupts,
                };
                attempt.run().await;
            }
            Work::Errand { .. } => self.scene.flaw("an errand that nobody wanted".to_owned()),
        }
        drop(keeping);
    }

    pub(crate) fn tell(&self, what: impl std::fmt::Display) {
        self.scene.story.tell(self.id.name.as_str(), what);
    }
}

fn held(claim: &Claim) -> Held {
    Held {
        ticket: claim.ticket.clone(),
        attempt: claim.attempt,
        standing: Standing::Held,
    }
}
