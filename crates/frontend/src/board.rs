//! The board: queued tickets on one side, waiting workers on the other.
//!
//! Owns the matching within this frontend. It is a mirror and a list of open connections: losing it
//! loses nothing, for the store has the queue and workers ask again. Invariant: an entry is offered
//! to one waiting worker at a time, so workers of one frontend never race each other. An entry that
//! found a lock full is passed over until a slot of that lock is free, and holds up nobody.

mod full;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_model::capability::Capabilities;
use distci_model::id::{BuildKey, ClassId, LockKey, TicketKey, WorkerName};
use distci_model::pool::Demand;
use distci_model::ticket::{QueueName, Stamp};
use distci_store::Blocked;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::full::FullLocks;
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

/// How long a lock is believed to be full without news.
const FULL: Duration = Duration::from_secs(10);

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
    /// Entries on offer, with the locks of which a slot became free since.
    offered: HashMap<QueueName, Vec<LockKey>>,
    /// Entries that other frontends may claim before us, until then.
    unripe: HashMap<QueueName, Instant>,
    full: FullLocks,
    ripening: BTreeSet<(Instant, Ripening)>,
    profiles: HashMap<Capabilities, VecDeque<Waiter>>,
    /// How long claims take of late.
    claiming: Duration,
}

/// What is looked at again when its time comes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Ripening {
    /// An entry that others may claim before us until then.
    Entry(QueueName),
    /// A lock that is believed to be full until then.
    Lock(LockKey),
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

    /// The entry stays in the queue, and waits for a lock.
    pub(crate) fn blocked(mut self, blocked: &Blocked) {
        if let Some(entry) = self.entry.take() {
            self.board.refuse(&entry, blocked);
        }
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
            {
                let mut state = self.board.lock();
                state.offered.remove(&entry);
                state.full.end(&entry);
            }
            self.board.match_entry(&entry);
        }
    }
}

/// A queued ticket, for people to read.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) entry: QueueName,
    pub(crate) requires: Capabilities,
    /// How many workers wait here that could do it.
    pub(crate) workers: usize,
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

    /// The errands that have been in the queue since then, or before.
    pub(crate) fn errands_since(&self, then: Stamp) -> Vec<TicketKey> {
        let state = self.lock();
        let entries = state.queue.values().flatten();
        let old = entries.filter(|entry| entry.stamp <= then && entry.key.ticket.is_errand());
        old.map(|entry| entry.key.clone()).collect()
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
                let later = state.step() * rank;
                state.ripen(entry, Instant::now() + later);
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
            let Some((at, ripening)) = first else {
                self.ripening.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(at) => match ripening {
                    Ripening::Entry(entry) => {
                        self.lock().ripe(&entry);
                        self.match_entry(&entry);
                    }
                    Ripening::Lock(lock) => {
                        self.lock().believe(&lock, None);
                        self.match_lock(&lock);
                    }
                },
                () = self.ripening.notified() => {}
            }
        }
    }

    /// Removes a ticket that is not queued any more.
    pub(crate) fn remove(&self, entry: &QueueName) {
        let lock = {
            let mut state = self.lock();
            state.offered.remove(entry);
            state.ripe(entry);
            if let Some(entries) = state.queue.get_mut(&entry.class) {
                entries.remove(entry);
                if entries.is_empty() {
                    state.queue.remove(&entry.class);
                }
            }
            state.forget_lock(entry)
        };
        // It may have left a slot to the next.
        if let Some(lock) = lock {
            self.match_lock(&lock);
        }
    }

    /// A slot of a lock is free: the first that waits for it is offered, or is so after those
    /// frontends that come before us for it.
    pub(crate) fn freed(&self, lock: &LockKey) {
        let is_next = {
            let mut state = self.lock();
            for freed in state.offered.values_mut() {
                freed.push(lock.clone());
            }
            let Some(first) = state.full.waiting(lock).next() else {
                return;
            };
            let rank = self.peers.claim_rank(first);
            let later = Instant::now() + state.step() * rank;
            state.believe(lock, (rank > 0).then_some(later));
            rank == 0
        };
        if is_next {
            self.match_lock(lock);
        } else {
            self.ripening.notify_one();
        }
    }

    /// Slots of any lock may be free, after news were missed.
    pub(crate) fn freed_any(&self) {
        let full = self.lock().full.all();
        for blocked in full {
            self.freed(&blocked.lock);
        }
    }

    /// An entry found a lock full.
    fn refuse(&self, entry: &QueueName, blocked: &Blocked) {
        let (before, is_free) = {
            let mut state = self.lock();
            let freed = state.offered.remove(entry).unwrap_or_default();
            let before = state.forget_lock(entry);
            if !state.is_queued(entry) {
                return;
            }
            state.full.refuse(entry, blocked);
            // What was read of the lock may be older than those news.
            let is_free = freed.contains(&blocked.lock);
            let until = (!is_free).then(|| Instant::now() + FULL);
            state.believe(&blocked.lock, until);
            (before, is_free)
        };
        self.ripening.notify_one();
        if is_free {
            self.match_lock(&blocked.lock);
        }
        if let Some(before) = before.filter(|before| *before != blocked.lock) {
            self.match_lock(&before);
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
        state.offered.insert(entry.clone(), Vec::new());
        state.full.begin(&entry);
        Offer {
            board: self.clone(),
            entry: Some(entry),
        }
    }

    fn match_entry(&self, entry: &QueueName) {
        let lock = self.lock().full.of(entry).cloned();
        match lock {
            Some(lock) => self.match_lock(&lock),
            None => self.match_first(|_| Some(entry.clone())),
        }
    }

    /// Offers the first of those that wait for a lock and for whom a worker waits.
    fn match_lock(&self, lock: &LockKey) {
        self.match_first(|state| {
            let mut waiting = state.full.waiting(lock);
            waiting.find(|entry| state.is_wanted(entry)).cloned()
        });
    }

    fn match_first(&self, choose: impl FnOnce(&State) -> Option<QueueName>) {
        // A worker that hung up drops its offer, which matches the entry anew.
        let (waiter, offer) = {
            let mut state = self.lock();
            let chosen = choose(&state).filter(|it| state.is_queued(it) && state.is_free(it));
            let Some(entry) = chosen else {
                return;
            };
            let Some(waiter) = state.waiter_for(&entry.class) else {
                return;
            };
            (waiter, self.offer(&mut state, entry))
        };
        // Outside of the lock: an offer that nobody takes comes back through it.
        drop(waiter.offer.send(offer));
    }

    /// Every queued ticket in the order of urgency, at most `most`.
    pub(crate) fn queued(&self, most: usize) -> Vec<Queued> {
        let state = self.lock();
        let mut entries: Vec<&QueueName> = state.queue.values().flatten().collect();
        entries.sort_unstable_by_key(|entry| (entry.priority, entry.stamp));
        let entries = entries.into_iter().take(most);
        entries.map(|entry| state.row(entry)).collect()
    }

    /// The queued tickets of a build.
    pub(crate) fn queued_of(&self, build: &BuildKey) -> Vec<Queued> {
        let state = self.lock();
        let entries = state.queue.values().flatten();
        let own = entries.filter(|entry| entry.key.build == *build);
        own.map(|entry| state.row(entry)).collect()
    }

    /// The locks that hold up tickets, with these tickets, the first first and at most `most`.
    pub(crate) fn blocked(&self, most: usize) -> Vec<(Blocked, Vec<QueueName>)> {
        let state = self.lock();
        let row = |blocked: Blocked| {
            let waiting = state.full.waiting(&blocked.lock).take(most);
            let waiting = waiting.cloned().collect();
            (blocked, waiting)
        };
        state.full.all().into_iter().map(row).collect()
    }

    /// How many tickets of each set of requirements are queued.
    pub(crate) fn demand(&self) -> Vec<Demand> {
        let state = self.lock();
        let row = |(class, entries): (&ClassId, &BTreeSet<QueueName>)| {
            let requires = state.classes.get(class).cloned().unwrap_or_default();
            let blocked = entries.iter().filter(|entry| !state.full.admit(entry));
            Demand {
                queued: entries.len(),
                blocked: blocked.count(),
                workers: state.waiting_for(&requires),
                requires,
            }
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
        self.ripening.insert((at, Ripening::Entry(entry.clone())));
    }

    fn ripe(&mut self, entry: &QueueName) {
        if let Some(at) = self.unripe.remove(entry) {
            self.ripening.remove(&(at, Ripening::Entry(entry.clone())));
        }
    }

    /// How much later than the frontend before it each one claims.
    fn step(&self) -> Duration {
        RANK.max(self.claiming * CLAIMS)
    }

    /// Believes a lock to be full until `until`, or not at all.
    fn believe(&mut self, lock: &LockKey, until: Option<Instant>) {
        let timer = |at| (at, Ripening::Lock(lock.clone()));
        if let Some(before) = self.full.believe(lock, until) {
            self.ripening.remove(&timer(before));
        }
        self.ripening.extend(until.map(timer));
    }

    /// Forgets which lock an entry waits for. Gives that lock.
    fn forget_lock(&mut self, entry: &QueueName) -> Option<LockKey> {
        let lock = self.full.of(entry).cloned();
        if let Some((lock, until)) = self.full.forget(entry) {
            self.ripening.remove(&(until, Ripening::Lock(lock)));
        }
        lock
    }

    fn is_queued(&self, entry: &QueueName) -> bool {
        let entries = self.queue.get(&entry.class);
        entries.is_some_and(|entries| entries.contains(entry))
    }

    /// Whether an entry may be offered now, and somebody waits for it.
    fn is_wanted(&self, entry: &QueueName) -> bool {
        let requires = self.classes.get(&entry.class);
        self.is_free(entry) && requires.is_some_and(|requires| self.waiting_for(requires) > 0)
    }

    /// Whether an entry may be offered now.
    fn is_free(&self, entry: &QueueName) -> bool {
        !self.offered.contains_key(entry)
            && !self.unripe.contains_key(entry)
            && self.full.admit(entry)
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
        let free = |entry: &&QueueName| self.is_free(entry);
        let first = |entries: &'_ BTreeSet<QueueName>| {
            let window = entries.iter().filter(free).take(WINDOW);
            window
                .map(|entry| (peers.share_rank(entry), entry.clone()))
                .min_by_key(|(rank, entry)| (entry.priority, *rank, entry.stamp))
        };
        let found = fitting.filter_map(|(_, entries)| first(entries));
        found
            .min_by_key(|(rank, entry)| (entry.priority, *rank, entry.stamp))
            .map(|(_, entry)| self.before(entry, fits))
    }

    /// The first of those that wait for the same lock as `entry` and fit.
    fn before(&self, entry: QueueName, fits: impl Fn(&ClassId) -> bool) -> QueueName {
        let Some(lock) = self.full.of(&entry) else {
            return entry;
        };
        let mut waiting = self.full.waiting(lock);
        let first = waiting.find(|other| fits(&other.class) && self.is_free(other));
        first.cloned().unwrap_or(entry)
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

    fn row(&self, entry: &QueueName) -> Queued {
        let requires = self.classes.get(&entry.class).cloned().unwrap_or_default();
        Queued {
            entry: entry.clone(),
            workers: self.waiting_for(&requires),
            requires,
        }
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
        assert_eq!(board.queued(10)[0].workers, 0);
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

    fn full(lock: &str) -> Blocked {
        Blocked {
            lock: LockKey::of_task(lock),
            name: lock.to_owned(),
        }
    }

    fn free(board: &Board, lock: &str) {
        board.freed(&LockKey::of_task(lock));
    }

    fn asked(board: &Board, capabilities: &Capabilities) -> Option<QueueName> {
        let offer = board.ask(&worker(), capabilities).ok()?;
        let entry = offer.entry().cloned();
        // It stays on offer, as with a claim that hangs.
        std::mem::forget(offer);
        entry
    }

    #[test]
    fn a_blocked_entry_holds_up_nobody() {
        let any = shell(&[]);
        let (old, new) = (entry(1, 1, &any), entry(2, 2, &any));
        let board = board(&[(&old, &any), (&new, &any)]);
        let offer = board.ask(&worker(), &any).unwrap();
        assert_eq!(offer.entry(), Some(&old));
        offer.blocked(&full("deploy"));
        assert_eq!(asked(&board, &any), Some(new));
        assert!(board.ask(&worker(), &any).is_err(), "offered in vain");
        assert_eq!(board.blocked(10), [(full("deploy"), vec![old])]);
    }

    #[test]
    fn a_free_slot_goes_to_the_one_that_is_first_in_the_queue() {
        let (any, linux) = (shell(&[]), shell(&["linux"]));
        let (second, first) = (entry(1, 20, &any), entry(2, 10, &any));
        let (urgent, third) = (
            QueueName {
                priority: Priority::new(1).unwrap(),
                ..entry(3, 90, &linux)
            },
            entry(4, 30, &any),
        );
        let all = [&second, &first, &urgent, &third].map(|entry| {
            let requires = if *entry == urgent { &linux } else { &any };
            (entry, requires.clone())
        });
        let board = Board::default();
        for (entry, requires) in &all {
            board.learn(entry.class.clone(), requires.clone());
            board.add(entry);
        }
        for _ in &all {
            board.ask(&worker(), &linux).unwrap().blocked(&full("a"));
        }
        assert!(board.ask(&worker(), &linux).is_err());
        // This worker cannot do the most urgent one, and does not wait for who can.
        for next in [&first, &second, &third] {
            let mut promise = board.ask(&worker(), &any).unwrap_err();
            assert!(promise.try_recv().is_err(), "offered before a slot is free");
            free(&board, "a");
            let offer = promise.try_recv().unwrap();
            assert_eq!(offer.entry(), Some(next));
            offer.spent();
            // Whoever comes next finds it full again, or is not offered it at all.
            while let Ok(offer) = board.ask(&worker(), &any) {
                offer.blocked(&full("a"));
            }
        }
        free(&board, "a");
        assert_eq!(asked(&board, &linux), Some(urgent));
    }

    #[test]
    fn of_those_that_wait_for_a_lock_one_at_a_time_is_tried() {
        let any = shell(&[]);
        let entries: Vec<_> = (1..=3).map(|number| entry(number, number, &any)).collect();
        let board = board(
            &entries
                .iter()
                .map(|entry| (entry, &any))
                .collect::<Vec<_>>(),
        );
        for _ in &entries {
            board.ask(&worker(), &any).unwrap().blocked(&full("a"));
        }
        let mut promises: Vec<_> = (0..3)
            .map(|_| board.ask(&worker(), &any).unwrap_err())
            .collect();
        free(&board, "a");
        let first = promises[0].try_recv().unwrap();
        assert!(promises[1].try_recv().is_err(), "two race for one slot");
        // It takes the slot; there may be another one.
        first.spent();
        let second = promises[1].try_recv().unwrap();
        assert_eq!(second.entry(), Some(&entries[1]));
        second.blocked(&full("a"));
        assert!(promises[2].try_recv().is_err(), "there was none");
        // A worker that hangs up leaves the slot to the next.
        free(&board, "a");
        drop(promises.remove(2));
        assert_eq!(board.blocked(10), []);
    }

    #[test]
    fn a_slot_that_became_free_during_the_look_is_not_missed() {
        let any = shell(&[]);
        let ticket = entry(1, 1, &any);
        let board = board(&[(&ticket, &any)]);
        for known in [false, true] {
            let offer = board.ask(&worker(), &any).unwrap();
            free(&board, "a");
            offer.blocked(&full("a"));
            assert_eq!(board.blocked(1), [], "known before: {known}");
        }
        let offer = board.ask(&worker(), &any).unwrap();
        free(&board, "b");
        offer.blocked(&full("a"));
        assert_eq!(board.blocked(1), [(full("a"), vec![ticket])]);
    }

    #[test]
    fn an_entry_waits_for_the_lock_that_it_found_full_last() {
        let any = shell(&[]);
        let (both, one) = (entry(1, 1, &any), entry(2, 2, &any));
        let board = board(&[(&both, &any), (&one, &any)]);
        board.ask(&worker(), &any).unwrap().blocked(&full("a"));
        board.ask(&worker(), &any).unwrap().blocked(&full("a"));
        let mut promise = board.ask(&worker(), &any).unwrap_err();
        free(&board, "a");
        let offer = promise.try_recv().unwrap();
        let mut promise = board.ask(&worker(), &any).unwrap_err();
        offer.blocked(&full("b"));
        let offer = promise.try_recv().unwrap();
        assert_eq!(offer.entry(), Some(&one), "the free slot is left unused");
        offer.spent();
        free(&board, "a");
        assert!(board.ask(&worker(), &any).is_err());
        free(&board, "b");
        assert_eq!(asked(&board, &any), Some(both));
    }

    #[test]
    fn what_is_gone_is_forgotten_with_its_lock() {
        let any = shell(&[]);
        let ticket = entry(1, 1, &any);
        let board = board(&[(&ticket, &any)]);
        board.ask(&worker(), &any).unwrap().blocked(&full("a"));
        board.remove(&ticket);
        assert_eq!(board.blocked(10), []);
        assert!(board.lock().ripening.is_empty(), "a timer for nobody");
        // Refused only after it had gone.
        board.add(&ticket);
        let offer = board.ask(&worker(), &any).unwrap();
        board.remove(&ticket);
        offer.blocked(&full("a"));
        assert_eq!(board.blocked(10), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_lock_is_tried_again_without_news() {
        let any = shell(&[]);
        let ticket = entry(1, 1, &any);
        let board = board(&[(&ticket, &any)]);
        board.ask(&worker(), &any).unwrap().blocked(&full("a"));
        let promise = board.ask(&worker(), &any).unwrap_err();
        let offer = tokio::select! {
            () = board.ripen() => panic!("it never ends"),
            offer = promise => offer.unwrap(),
        };
        assert_eq!(offer.entry(), Some(&ticket));
    }

    #[test]
    fn after_a_gap_every_lock_is_tried() {
        let any = shell(&[]);
        let ticket = entry(1, 1, &any);
        let board = board(&[(&ticket, &any)]);
        board.ask(&worker(), &any).unwrap().blocked(&full("a"));
        board.freed_any();
        assert_eq!(asked(&board, &any), Some(ticket));
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
