//! The timers: tickets that are parked until a time, and their waking.
//!
//! Owns a mirror of them and the loop that queues each when cluster time has passed its own. Any
//! number of frontends may wake the same one: a commit wins, and the others find it awake. Who goes
//! first is a matter of hashing. Invariant: nothing is woken before its time.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_model::Timestamp;
use distci_model::id::TicketKey;
use distci_model::ticket::{DueName, Stamp};
use distci_store::StoreError;
use futures::StreamExt;
use futures::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often timers are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// How much later each frontend acts than the one before it in the order of duty.
pub(crate) const RANK: Duration = Duration::from_secs(2);
/// How soon a timer that could not be woken is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Most timers woken in one look,
const MANY: usize = 256;
/// and at the same time.
const TOGETHER: usize = 16;

/// The tickets that wait for a time.
#[derive(Debug, Default)]
pub(crate) struct Timers(Mutex<BTreeSet<DueName>>);

impl Timers {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<DueName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A timer appeared.
    pub(crate) fn add(&self, timer: DueName) {
        self.lock().insert(timer);
    }

    /// A timer is gone.
    pub(crate) fn remove(&self, timer: &DueName) {
        self.lock().remove(timer);
    }

    /// Makes the timers exactly these, after news were missed.
    pub(crate) fn reset(&self, timers: Vec<DueName>) {
        *self.lock() = timers.into_iter().collect();
    }

    /// When the first of them is due.
    fn first(&self) -> Option<Timestamp> {
        let first = self.lock().first().map(|timer| timer.due)?;
        Some(moment(first))
    }

    /// Those that are due, and this frontend's to wake by `rank`.
    fn due(&self, now: Timestamp, rank: impl Fn(&TicketKey) -> Option<u32>) -> Vec<DueName> {
        let is_due = |timer: &&DueName| moment(timer.due) <= now;
        let is_ours = |timer: &&DueName| {
            let late = now.duration_since(moment(timer.due)).unsigned_abs();
            rank(&timer.key).is_some_and(|rank| late >= RANK * rank)
        };
        let timers = self.lock();
        let due = timers.iter().take_while(is_due).filter(is_ours);
        due.take(MANY).cloned().collect()
    }
}

fn moment(due: Stamp) -> Timestamp {
    let millis = i64::try_from(due.millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// Wakes what is due until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(first) = app.timers.first() else {
            continue;
        };
        if !app.time.is_soon(first, Instant::now(), app.now()) {
            continue;
        }
        let Some(now) = app.time.now(Instant::now()) else {
            continue;
        };
        let due = app.timers.due(now, |key| app.peers.duty_rank(key));
        tokio::select! {
            () = wake(&app, due) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Queues the tickets whose time has come. What cannot be queued stays, and is tried again.
async fn wake(app: &App, due: Vec<DueName>) {
    let wakes = due.into_iter().map(|timer| async move {
        match app.store.wake(&timer.key).await {
            Ok(()) => {
                app.metrics.woken.inc();
                app.timers.remove(&timer);
                true
            }
            Err(error @ StoreError::Down(_)) => {
                tracing::warn!(ticket = %timer.key, %error, "a timer waits for the store");
                false
            }
            Err(error) => {
                tracing::error!(ticket = %timer.key, %error, "a timer cannot be woken");
                false
            }
        }
    });
    let woken: Vec<bool> = stream::iter(wakes)
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    if woken.contains(&false) {
        tokio::time::sleep(AGAIN).await;
    }
}
