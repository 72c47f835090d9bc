//! Timers as frontends keep them: nothing is woken before its time or forgotten, whoever dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_model::Timestamp;
use distci_model::decide::{Next, decide};
use distci_model::id::{BuildKey, TicketKey};
use distci_model::ticket::TicketState;
use distci_model::wire::{Claim, CommitRequest, Work};
use distci_store::blobs::Blobs;
use distci_store::coordination::Clock;
use distci_store::coordination::simulator::{Faults, PerMille, Simulator};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::scene::{Scene, claim_request, control};

/// The store's clock: it goes as the test's time does, and can be set.
#[derive(Clone)]
struct StoreClock {
    start: Instant,
    set: Arc<AtomicI64>,
    /// How often the store read it: once for every commit.
    commits: Arc<AtomicU64>,
}

impl StoreClock {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            set: Arc::new(AtomicI64::new(1_800_000_000_000)),
            commits: Arc::default(),
        }
    }

    fn clock(&self) -> Clock {
        let this = self.clone();
        Arc::new(move || {
            this.commits.fetch_add(1, Ordering::Relaxed);
            this.now()
        })
    }

    fn now(&self) -> Timestamp {
        let set = Timestamp::from_millisecond(self.set.load(Ordering::Relaxed));
        set.unwrap_or_default() + self.start.elapsed()
    }

    fn step(&self, millis: i64) {
        self.set.fetch_add(millis, Ordering::Relaxed);
    }
}

struct Cluster {
    clock: StoreClock,
    simulator: Simulator,
    blobs: Blobs,
    frontends: Vec<Scene>,
}

impl Cluster {
    async fn of(count: usize, faults: Faults) -> Result<Self> {
        let clock = StoreClock::new();
        let mut cluster = Self {
            simulator: Simulator::new(7, faults, clock.clock()),
            clock,
            blobs: Blobs::memory(),
            frontends: Vec::new(),
        };
        for _ in 0..count {
            cluster.join();
        }
        cluster.pass(Duration::from_secs(5)).await;
        let known = |one: &Scene| one.app.peers.all().len() == count;
        ensure!(cluster.frontends.iter().all(known));
        Ok(cluster)
    }

    /// One more frontend, whose own clock is wrong by months.
    fn join(&mut self) {
        let session = self.simulator.session();
        self.frontends
            .push(Scene::beside(session, self.blobs.clone()));
    }

    /// Lets time pass, in which news spread.
    async fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(Duration::from_millis(100)).await;
            self.simulator.settle();
        }
    }

    /// A build that is parked until `after` from now.
    async fn parked(&self, job: &str, after: Duration) -> Result<TicketKey> {
        let frontend = &self.frontends[0];
        frontend.build(job).await?;
        let wish = claim_request("c", &control(), 30);
        let claim: Claim = frontend.post("/claims", &wish).await?.json()?;
        let Work::Control { order } = &claim.work else {
            anyhow::bail!("a task for a control worker");
        };
        let build = BuildKey::derive(&order.build.ticket.job, order.build.id.number);
        let (checkpoint, events) = (&order.build.checkpoint, &order.events);
        let mut decision = decide(&order.config, &build, checkpoint, events);
        let until = Some(self.clock.now() + after);
        decision.next = Next::Park { until };
        let mailbox = order.mailbox;
        let request = json!(CommitRequest { mailbox, decision });
        let answer = frontend.act(&claim, "commit", &request).await?;
        ensure!(answer.status.is_success(), "{answer:?}");
        self.simulator.settle();
        Ok(claim.ticket)
    }

    async fn is_parked(&self, key: &TicketKey) -> Result<bool> {
        let ticket = self.frontends.last().context("nobody is there")?;
        let ticket = ticket.app.store.ticket(key).await?;
        let state = ticket.context("it is gone")?.state;
        Ok(matches!(state, TicketState::Parked { .. }))
    }

    /// How long it takes until the ticket is awake, at most ten minutes.
    async fn wakes(&self, key: &TicketKey) -> Result<Duration> {
        let since = Instant::now();
        while since.elapsed() < Duration::from_mins(10) {
            if !self.is_parked(key).await? {
                return Ok(since.elapsed());
            }
            self.pass(Duration::from_millis(100)).await;
        }
        anyhow::bail!("it sleeps for ever")
    }
}

/// Whether a time in seconds is what was waited for. Virtual time: this is the law, not the speed
/// of a machine.
fn is_within(took: Duration, from: u64, to: u64) -> Result<()> {
    let range = Duration::from_secs(from)..=Duration::from_secs(to);
    ensure!(range.contains(&took), "{took:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_timer_wakes_in_time_and_never_early() -> Result<()> {
    for faults in [
        Faults::none(),
        Faults {
            lag: PerMille(300),
            ..Faults::none()
        },
    ] {
        let cluster = Cluster::of(3, faults).await?;
        for after in [2, 40, 200] {
            let job = format!("j{after}");
            let key = cluster.parked(&job, Duration::from_secs(after)).await?;
            is_within(cluster.wakes(&key).await?, after, after + 2)?;
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_timer_outlives_whoever_kept_it() -> Result<()> {
    let mut cluster = Cluster::of(3, Faults::none()).await?;
    let key = cluster.parked("j", Duration::from_mins(2)).await?;
    // The first in rank may be among the dead.
    cluster.frontends.truncate(1);
    is_within(cluster.wakes(&key).await?, 119, 125)?;
    let key = cluster.parked("k", Duration::from_mins(2)).await?;
    cluster.frontends.clear();
    sleep(Duration::from_mins(5)).await;
    cluster.join();
    ensure!(cluster.is_parked(&key).await?);
    is_within(cluster.wakes(&key).await?, 0, 3)
}

#[tokio::test(start_paused = true)]
async fn a_timer_outlives_broken_connections() -> Result<()> {
    let broken = Faults {
        missed_events: PerMille(300),
        lost_before: PerMille(100),
        lost_after: PerMille(100),
        ..Faults::none()
    };
    let cluster = Cluster::of(2, Faults::none()).await?;
    let key = cluster.parked("j", Duration::from_secs(90)).await?;
    cluster.simulator.set_faults(broken);
    cluster.pass(Duration::from_secs(80)).await;
    cluster.simulator.set_faults(Faults::none());
    cluster.simulator.settle();
    ensure!(cluster.is_parked(&key).await?);
    is_within(cluster.wakes(&key).await?, 8, 16)
}

#[tokio::test(start_paused = true)]
async fn a_store_clock_that_leaps_is_believed_the_second_time() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    let key = cluster.parked("j", Duration::from_hours(1)).await?;
    cluster.pass(Duration::from_secs(70)).await;
    ensure!(cluster.is_parked(&key).await?);
    // A timer that is soon makes the frontends look at the clock, which then says another thing.
    let soon = cluster.parked("k", Duration::from_secs(50)).await?;
    cluster.clock.step(3_600_000);
    is_within(cluster.wakes(&key).await?, 10, 75)?;
    ensure!(!cluster.is_parked(&soon).await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn idle_frontends_write_nothing() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    let key = cluster.parked("j", Duration::from_hours(1)).await?;
    cluster.pass(Duration::from_secs(20)).await;
    let commits = || cluster.clock.commits.load(Ordering::Relaxed);
    let before = commits();
    cluster.pass(Duration::from_mins(50)).await;
    ensure!(commits() == before, "somebody wrote something");
    ensure!(cluster.is_parked(&key).await?);
    Ok(())
}
