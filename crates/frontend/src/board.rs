//! The board: queued tickets on one side, waiting workers on the other.
//!
//! Owns the matching within this frontend. It is a mirror and a list of open connections: losing it
//! loses nothing, for the store has the queue and workers ask again. Invariant: an entry is offered
//! to one waiting worker at a time, so workers of one frontend never race each other.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_model::capability::Capabilities;
use distci_model::id::{ClassId, WorkerName};
use distci_model::ticket::QueueName;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::peers::Peers;

/// How much later at least each frontend claims a ticket than the one before it in the order.
const RANK: Duration = Duration::from_millis(10);
/// How many times longer than a claim: its news must be here, or a race is lost, and lost races make
/// a busy store slower still.
const CLAIMS: u32 = 3;
/// How much one claim counts for how long they take.
const SMOOTHING: u32 = 8;
/// A store that hangs for a moment must not keep tickets waiting for long after.
const SLOWEST: Duration = Duration::from_millis(100);
/// How far a worker looks for a ticket that no other frontend claims before this one.
const WINDOW: usize = 64;

/// The matching of one frontend. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    state: Arc<Mutex<State>>,
    peers: Arc<Peers>,
    /// Rung when an entry begins to ripen.
    ripening: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    queue: HashMap<ClassId, BTreeSet<QueueName>>,
    classes: HashMap<ClassId, Capabilities>,
    offered: HashSet<QueueName>,
    /// Entries that other frontends may claim before us, until then.
    unripe: HashMap<QueueName, Instant>,
    ripening: BTreeSet<(Instant, QueueName)>,
    profiles: HashMap<Capabilities, VecDeque<Waiter>>,
    /// How long claims take of late.
    claiming: Duration,
}

#[derive(Debug)]
struct Waiter {
    worker: WorkerName,
    offer: oneshot::Sender<Offer>,
}

/// An entry that is this worker's to try. Dropped, it goes to somebody else.
#[derive(Debug)]
pub(crate) struct Offer {
    board: Board,
    entry: Option<QueueName>,
}

impl Offer {
    /// The entry; `None` only after it was [`spent`](Self::spent).
    pub(crate) fn entry(&self) -> Option<&QueueName> {
        self.entry.as_ref()
    }

    /// The entry is out of the queue, by this worker's claim or by somebody else's.
    pub(crate) fn spent(mut self) {
        if let Some(entry) = self.entry.take() {
            self.board.remove(&entry);
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.board.lock().offered.remove(&entry);
            self.board.match_entry(&entry);
        }
    }
}

/// What waits here, for people to read.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) worker: WorkerName,
    pub(crate) capabilities: Capabilities,
}

impl Board {
    /// A board that takes turns with these.
    pub(crate) fn new(peers: Arc<Peers>) -> Self {
        Self {
            peers,
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the requirements of a class are known here.
    pub(crate) fn knows(&self, class: &ClassId) -> bool {
        self.lock().classes.contains_key(class)
    }

    /// Learns what a class requires.
    pub(crate) fn learn(&self, class: ClassId, requires: Capabilities) {
        self.lock().classes.insert(class, requires);
    }

    /// Adds a queued ticket, and offers it to a waiting worker that fits.
    pub(crate) fn add(&self, entry: &QueueName) {
        let class = entry.class.clone();
        let rank = self.peers.claim_rank(entry);
        {
            let mut state = self.lock();
            if !state.queue.entry(class).or_default().insert(entry.clone()) {
                return;
            }
            if rank > 0 {
                let later = RANK.max(state.claiming * CLAIMS);
                state.ripen(entry, Instant::now() + later * rank);
            }
        }
        if rank == 0 {
            self.match_entry(entry);
        } else {
            self.ripening.notify_one();
        }
    }

    /// Learns how long a claim took.
    pub(crate) fn took(&self, time: Duration) {
        let mut state = self.lock();
        let before = state.claiming * (SMOOTHING - 1);
        state.claiming = (before + time.min(SLOWEST)) / SMOOTHING;
    }

    /// Offers what the other frontends have left, as long as it is polled.
    pub(crate) async fn ripen(&self) {
        loop {
            let first = self.lock().ripening.first().cloned();
            let Some((at, entry)) = first else {
                self.ripening.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(at) => {
                    self.lock().ripe(&entry);
                    self.match_entry(&entry);
                }
                () = self.ripening.notified() => {}
            }
        }
    }

    /// Removes a ticket that is not queued any more.
    pub(crate) fn remove(&self, entry: &QueueName) {
        let mut state = self.lock();
        state.offered.remove(entry);
        state.ripe(entry);
        if let Some(entries) = state.queue.get_mut(&entry.class) {
            entries.remove(entry);
            if entries.is_empty() {
                state.queue.remove(&entry.class);
            }
        }
    }

    /// Makes the queue exactly this, after news were missed.
    pub(crate) fn reset(&self, entries: &[QueueName]) {
        let present: HashSet<&QueueName> = entries.iter().collect();
        let gone: Vec<QueueName> = {
            let state = self.lock();
            let known = state.queue.values().flatten();
            known
                .filter(|entry| !present.contains(entry))
                .cloned()
                .collect()
        };
        for entry in &gone {
            self.remove(entry);
        }
        for entry in entries {
            self.add(entry);
        }
    }

    /// The most urgent, oldest entry that fits and is offered to nobody; or a promise of one.
    pub(crate) fn ask(
        &self,
        worker: &WorkerName,
        capabilities: &Capabilities,
    ) -> Result<Offer, oneshot::Receiver<Offer>> {
        let mut state = self.lock();
        if let Some(entry) = state.best(capabilities, &self.peers) {
            return Ok(self.offer(&mut state, entry));
        }
        let (offer, promise) = oneshot::channel();
        // Before the map grows, it loses what only workers that hung up have offered.
        if state.profiles.len() == state.profiles.capacity() {
            let open = |waiter: &Waiter| !waiter.offer.is_closed();
            state.profiles.retain(|_, waiters| waiters.iter().any(open));
        }
        let waiters = state.profiles.entry(capabilities.clone()).or_default();
        waiters.retain(|waiter| !waiter.offer.is_closed());
        waiters.push_back(Waiter {
            worker: worker.clone(),
            offer,
        });
        Err(promise)
    }

    fn offer(&self, state: &mut State, entry: QueueName) -> Offer {
        state.offered.insert(entry.clone());
        Offer {
            board: self.clone(),
            entry: Some(entry),
        }
    }

    fn match_entry(&self, entry: &QueueName) {
        // A worker that hung up drops its offer, which matches the entry anew.
        let (waiter, offer) = {
            let mut state = self.lock();
            let queued = state
                .queue
                .get(&entry.class)
                .is_some_and(|set| set.contains(entry));
            if !queued || state.offered.contains(entry) || state.unripe.contains_key(entry) {
                return;
            }
            let Some(waiter) = state.waiter_for(&entry.class) else {
                return;
            };
            (waiter, self.offer(&mut state, entry.clone()))
        };
        // Outside of the lock: an offer that nobody takes comes back through it.
        drop(waiter.offer.send(offer));
    }

    /// Every queued ticket in the order of urgency, at most `most`, and how many wait for it.
    pub(crate) fn queued(&self, most: usize) -> Vec<(QueueName, Capabilities, usize)> {
        let state = self.lock();
        let mut entries: Vec<&QueueName> = state.queue.values().flatten().collect();
        entries.sort_unstable_by_key(|entry| (entry.priority, entry.stamp));
        let row = |entry: &QueueName| {
            let requires = state.classes.get(&entry.class).cloned().unwrap_or_default();
            let workers = state.waiting_for(&requires);
            (entry.clone(), requires, workers)
        };
        entries.into_iter().take(most).map(row).collect()
    }

    /// How many tickets of each set of requirements are queued.
    pub(crate) fn demand(&self) -> Vec<(Capabilities, usize, usize)> {
        let state = self.lock();
        let row = |(class, entries): (&ClassId, &BTreeSet<QueueName>)| {
            let requires = state.classes.get(class).cloned().unwrap_or_default();
            let workers = state.waiting_for(&requires);
            (requires, entries.len(), workers)
        };
        state.queue.iter().map(row).collect()
    }

    /// The classes that requests wait for here, at most `most`, in order.
    pub(crate) fn wanted(&self, most: usize) -> Vec<ClassId> {
        let state = self.lock();
        let open = |waiters: &VecDeque<Waiter>| waiters.iter().any(|w| !w.offer.is_closed());
        let profiles = state.profiles.iter().filter(|(_, waiters)| open(waiters));
        let profiles: Vec<&Capabilities> = profiles.map(|(offered, _)| offered).collect();
        let wanted = state
            .classes
            .iter()
            .filter(|(_, requires)| profiles.iter().any(|offered| offered.satisfy(requires)));
        let mut wanted: Vec<ClassId> = wanted.map(|(class, _)| class.clone()).collect();
        wanted.sort_unstable();
        wanted.truncate(most);
        wanted
    }

    /// Every claim request that waits here.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let state = self.lock();
        let open = state.profiles.iter().flat_map(|(capabilities, waiters)| {
            waiters
                .iter()
                .filter(|waiter| !waiter.offer.is_closed())
                .map(|waiter| Waiting {
                    worker: waiter.worker.clone(),
                    capabilities: capabilities.clone(),
                })
        });
        open.collect()
    }
}

impl State {
    fn ripen(&mut self, entry: &QueueName, at: Instant) {
        self.unripe.insert(entry.clone(), at);
        self.ripening.insert((at, entry.clone()));
    }

    fn ripe(&mut self, entry: &QueueName) {
        if let Some(at) = self.unripe.remove(entry) {
            self.ripening.remove(&(at, entry.clone()));
        }
    }

    /// Among the first entries that fit, those that the fewest other frontends would claim before
    /// us: two that go through the same queue begin at different ends of it.
    fn best(&self, capabilities: &Capabilities, peers: &Peers) -> Option<QueueName> {
        let fits = |class: &ClassId| {
            self.classes
                .get(class)
                .is_some_and(|requires| capabilities.satisfy(requires))
        };
        let fitting = self.queue.iter().filter(|(class, _)| fits(class));
        let free = |entry: &&QueueName| {
            !self.offered.contains(*entry) && !self.unripe.contains_key(*entry)
        };
        let first = |entries: &'_ BTreeSet<QueueName>| {
            let window = entries.iter().filter(free).take(WINDOW);
            window
                .map(|entry| (peers.share_rank(entry), entry.clone()))
                .min_by_key(|(rank, entry)| (entry.priority, *rank, entry.stamp))
        };
        let found = fitting.filter_map(|(_, entries)| first(entries));
        found
            .min_by_key(|(rank, entry)| (entry.priority, *rank, entry.stamp))
            .map(|(_, entry)| entry)
    }

    /// The worker that has waited longest in the first profile that fits.
    fn waiter_for(&mut self, class: &ClassId) -> Option<Waiter> {
        let requires = self.classes.get(class)?;
        let fitting = self
            .profiles
            .iter_mut()
            .filter(|(offered, _)| offered.satisfy(requires));
        let mut found = None;
        for (_, waiters) in fitting {
            while let Some(waiter) = waiters.pop_front() {
                if !waiter.offer.is_closed() {
                    found = Some(waiter);
                    break;
                }
            }
            if found.is_some() {
                break;
            }
        }
        self.profiles.retain(|_, waiters| !waiters.is_empty());
        found
    }

    fn waiting_for(&self, requires: &Capabilities) -> usize {
        let fitting = self
            .profiles
            .iter()
            .filter(|(offered, _)| offered.satisfy(requires));
        let open = |waiters: &VecDeque<Waiter>| {
            waiters
                .iter()
                .filter(|waiter| !waiter.offer.is_closed())
                .count()
        };
        fitting.map(|(_, waiters)| open(waiters)).sum()
    }
}

#[cfg(test)]
mod tests {
    use distci_model::capability::Kind;
    use distci_model::id::{BuildKey, BuildNumber, JobKey, TicketId, TicketKey};
    use distci_model::ticket::{Priority, Stamp};

    use super::*;

    fn shell(labels: &[&str]) -> Capabilities {
        let labels: Vec<_> = labels.iter().map(|label| label.parse().unwrap()).collect();
        Capabilities::task(Kind::ExecuteShell, &labels)
    }

    fn worker() -> WorkerName {
        "w".parse().unwrap()
    }

    fn entry(number: u64, stamp: u64, requires: &Capabilities) -> QueueName {
        let job = JobKey::derive(&"j".parse().unwrap(), 0);
        let build = BuildKey::derive(&job, BuildNumber::new(number).unwrap());
        QueueName {
            priority: Priority::NORMAL,
            class: requires.class(),
            stamp: Stamp::from_millis(stamp),
            job: job.short().to_owned(),
            key: TicketKey {
                build,
                ticket: TicketId::control(),
            },
            version: 0,
        }
    }

    fn board(entries: &[(&QueueName, &Capabilities)]) -> Board {
        let board = Board::default();
        for (entry, requires) in entries {
            board.learn(entry.class.clone(), (*requires).clone());
            board.add(entry);
        }
        board
    }

    #[test]
    fn the_oldest_fitting_entry_comes_first_and_only_once() {
        let (any, linux) = (shell(&[]), shell(&["linux"]));
        let (old, new, other) = (entry(1, 10, &any), entry(2, 20, &any), entry(3, 5, &linux));
        let board = board(&[(&new, &any), (&old, &any), (&other, &linux)]);
        let first = board.ask(&worker(), &any).unwrap();
        assert_eq!(first.entry(), Some(&old));
        let second = board.ask(&worker(), &any).unwrap();
        assert_eq!(second.entry(), Some(&new));
        assert!(board.ask(&worker(), &any).is_err());
        first.spent();
        second.spent();
        assert_eq!(board.ask(&worker(), &linux).unwrap().entry(), Some(&other));
    }

    #[test]
    fn an_offer_that_is_dropped_goes_to_the_next() {
        let any = shell(&[]);
        let board = board(&[]);
        let first = board.ask(&worker(), &any).unwrap_err();
        let mut second = board.ask(&worker(), &any).unwrap_err();
        let ticket = entry(1, 1, &any);
        board.learn(ticket.class.clone(), any.clone());
        board.add(&ticket);
        assert!(second.try_recv().is_err(), "offered to both");
        drop(first);
        let offer = second.try_recv().unwrap();
        assert_eq!(offer.entry(), Some(&ticket));
        drop(offer);
        assert_eq!(board.ask(&worker(), &any).unwrap().entry(), Some(&ticket));
    }

    #[test]
    fn a_worker_without_the_label_waits() {
        let (any, linux) = (shell(&[]), shell(&["linux"]));
        let ticket = entry(1, 1, &linux);
        let board = board(&[(&ticket, &linux)]);
        let promise = board.ask(&worker(), &any).unwrap_err();
        assert_eq!(board.queued(10)[0].2, 0);
        drop(promise);
        assert!(board.ask(&worker(), &linux).is_ok());
    }

    #[test]
    fn what_workers_that_left_have_offered_is_forgotten() {
        let board = Board::default();
        let linux = shell(&["linux"]);
        let promise = board.ask(&worker(), &linux).unwrap_err();
        for number in 0..10_000 {
            let unique = shell(&[&format!("host-{number}")]);
            drop(board.ask(&worker(), &unique));
        }
        assert!(
            board.lock().profiles.len() < 100,
            "memory for those who left"
        );
        assert_eq!(board.waiting().len(), 1);
        drop(promise);
        assert!(board.waiting().is_empty());
    }

    #[test]
    fn the_next_in_the_order_waits_longer_when_claims_take_longer() {
        let board = Board::default();
        for _ in 0..100 {
            board.took(Duration::from_millis(40));
        }
        let claiming = board.lock().claiming;
        assert!(claiming > Duration::from_millis(39) && claiming <= Duration::from_millis(40));
        board.took(Duration::from_mins(1));
        assert!(
            board.lock().claiming < Duration::from_millis(60),
            "one claim counts too much"
        );
    }

    #[test]
    fn a_reset_drops_what_is_gone_and_adds_what_is_new() {
        let any = shell(&[]);
        let (old, new) = (entry(1, 1, &any), entry(2, 2, &any));
        let board = board(&[(&old, &any)]);
        board.reset(std::slice::from_ref(&new));
        assert_eq!(board.ask(&worker(), &any).unwrap().entry(), Some(&new));
    }
}
