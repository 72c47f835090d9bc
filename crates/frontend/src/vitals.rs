//! How this frontend fares, for people who have to trust it.
//!
//! Owns how long the store and requests have taken of late, and the last faults that were met: a
//! bounded list, in which the same fault met again is one. Losing it loses nothing, and nothing is
//! decided by it.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use distci_model::Timestamp;
use distci_store::coordination::{Clock, Health, ServerFacts};
use distci_store::{Act, Observer, Store};
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::metrics::Metrics;
use crate::pace::{Pace, Quantiles};

/// Most faults that are remembered.
const MOST: usize = 50;
/// Most lapses that are remembered.
const MOST_LAPSES: usize = 10_000;
const HOUR: Duration = Duration::from_hours(1);
/// Longest text of a fault.
const LONGEST: usize = 500;
/// How long what the servers of the store have said is good enough.
const FRESH: Duration = Duration::from_secs(5);

/// How this frontend fares.
pub(crate) struct Vitals {
    /// Since when it runs.
    pub(crate) since: Timestamp,
    acts: [Measured; Act::ALL.len()],
    /// Requests that were answered as soon as they could be.
    pub(crate) requests: Pace,
    faults: Mutex<VecDeque<Fault>>,
    /// When claims were taken from their holders, in the last hour.
    lapses: Mutex<VecDeque<Instant>>,
    servers: tokio::sync::Mutex<Option<(Instant, Vec<ServerFacts>)>>,
    clock: Clock,
}

struct Measured {
    pace: Pace,
    histogram: Histogram,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// When it was met last.
    pub(crate) at: Timestamp,
    /// What it was.
    pub(crate) what: String,
    /// Where.
    pub(crate) place: String,
    /// How often it was met.
    pub(crate) times: u64,
}

impl Vitals {
    pub(crate) fn new(metrics: &Metrics, clock: Clock) -> Self {
        let measured = |act| Measured {
            pace: Pace::default(),
            histogram: metrics.of_store(act),
        };
        Self {
            since: clock(),
            acts: Act::ALL.map(measured),
            requests: Pace::default(),
            faults: Mutex::default(),
            lapses: Mutex::default(),
            servers: tokio::sync::Mutex::default(),
            clock,
        }
    }

    /// How long the store took of late, for each thing that it was asked.
    pub(crate) fn paces(&self) -> impl Iterator<Item = (Act, Option<Quantiles>)> {
        let paces = self.acts.iter().map(|measured| measured.pace.quantiles());
        Act::ALL.into_iter().zip(paces)
    }

    /// Remembers that something went wrong.
    pub(crate) fn fault(&self, what: impl Into<String>, place: impl Into<String>) {
        let (mut what, place) = (what.into(), place.into());
        if let Some((end, _)) = what.char_indices().nth(LONGEST) {
            what.truncate(end);
        }
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &Fault| known.what == what && known.place == place;
        let known = faults
            .iter()
            .position(same)
            .and_then(|at| faults.remove(at));
        faults.truncate(MOST - 1);
        faults.push_front(Fault {
            at: (self.clock)(),
            times: known.map_or(1, |known| known.times + 1),
            what,
            place,
        });
    }

    /// Remembers that a claim was taken from its holder.
    pub(crate) fn lapse(&self, what: impl Into<String>, place: impl Into<String>) {
        self.fault(what, place);
        let mut lapses = self.lapses.lock().unwrap_or_else(PoisonError::into_inner);
        if lapses.len() == MOST_LAPSES {
            lapses.pop_front();
        }
        lapses.push_back(Instant::now());
    }

    /// How many claims were taken from their holders in the last hour.
    pub(crate) fn lapsed_last_hour(&self) -> u64 {
        let lapses = self.lapses.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = lapses.iter().rev();
        recent.take_while(|at| at.elapsed() < HOUR).count() as u64
    }

    /// The last faults, newest first.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().cloned().collect()
    }

    /// What the servers of the store say; they are asked once for all who look.
    pub(crate) async fn servers(&self, store: &Store) -> Vec<ServerFacts> {
        let mut servers = self.servers.lock().await;
        if let Some((at, known)) = servers.as_ref()
            && at.elapsed() < FRESH
        {
            return known.clone();
        }
        let fresh = store.servers().await;
        *servers = Some((Instant::now(), fresh.clone()));
        fresh
    }
}

impl Observer for Vitals {
    fn done(&self, act: Act, took: Duration, trouble: Option<&(dyn Error + 'static)>) {
        let measured = Act::ALL.iter().position(|known| *known == act);
        if let Some(measured) = measured.and_then(|at| self.acts.get(at)) {
            measured.pace.note(took);
            measured.histogram.observe(took.as_secs_f64());
        }
        if let Some(trouble) = trouble {
            let causes =
                std::iter::successors(Some(trouble), |error: &&dyn Error| (**error).source());
            let words: Vec<_> = causes.map(ToString::to_string).collect();
            self.fault(words.join(": "), format!("store, {}", act.as_str()));
        }
    }
}

impl std::fmt::Debug for Vitals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vitals").finish_non_exhaustive()
    }
}

/// Notes losses of the store until `stop`.
pub(crate) async fn follow(app: App, stop: CancellationToken) {
    let vitals = Arc::clone(&app.vitals);
    let mut health = app.store.health();
    let mut ended = app
        .store
        .standing()
        .session
        .map_or(0, |session| session.ended);
    loop {
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let now = *health.borrow_and_update();
        match now {
            Health::Disconnected => vitals.fault("the connection to the store is lost", "session"),
            Health::Fenced => vitals.fault("the store has shut this frontend out", "session"),
            Health::Connected { .. } => {}
        }
        let session = app.store.standing().session;
        if let Some(session) = session.filter(|session| session.ended > ended) {
            ended = session.ended;
            vitals.fault("the session with the store has ended", "session");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_faults_are_remembered_and_the_same_is_one() {
        let clock: Clock = Arc::new(|| Timestamp::UNIX_EPOCH);
        let vitals = Vitals::new(&Metrics::default(), clock);
        for number in 0..200 {
            vitals.fault(format!("fault {number}"), "here");
            vitals.fault("again", "here");
        }
        let faults = vitals.faults();
        assert_eq!(faults.len(), MOST);
        assert_eq!((faults[0].what.as_str(), faults[0].times), ("again", 200));
        assert_eq!((faults[1].what.as_str(), faults[1].times), ("fault 199", 1));
        vitals.fault("ü".repeat(10_000), "here");
        assert_eq!(vitals.faults()[0].what.chars().count(), LONGEST);
    }
}
