//! Several frontends over one store: whom one of them hears, all spare, and nobody else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use distci_model::id::RequestId;
use distci_model::id::TicketKey;
use distci_model::wire::{BeatReply, Claim, FrontendView, Standing};
use distci_store::blobs::Blobs;
use distci_store::coordination::simulator::{Faults, PerMille, Simulator};
use distci_store::coordination::{Coordination, Expect, NodePath, Op};
use serde_json::{Value, json};
use tokio::time::{Instant, advance, sleep};

use super::scene::{Scene, claim_again, clock, one_task, shell};
use crate::board::Queued;

const SESSION: &str = "0123abcd";

struct Cluster {
    simulator: Simulator,
    frontends: Vec<Scene>,
}

impl Cluster {
    async fn of(count: usize, faults: Faults) -> Result<Self> {
        let simulator = Simulator::new(7, faults, clock());
        let blobs = Blobs::memory();
        let frontends = (0..count).map(|_| Scene::beside(simulator.session(), blobs.clone()));
        let cluster = Self {
            frontends: frontends.collect(),
            simulator,
        };
        // Until everybody knows everybody.
        for _ in 0..100 {
            sleep(Duration::from_secs(1)).await;
            cluster.simulator.settle();
            let known = cluster.frontends.iter();
            if known.clone().all(|one| one.app.peers.all().len() == count) {
                return Ok(cluster);
            }
        }
        anyhow::bail!("the frontends never met");
    }

    /// A claimed task, and when it was claimed.
    async fn claimed(&self) -> Result<(Claim, Instant)> {
        let first = &self.frontends[0];
        first.build("j").await?;
        first.control().await?;
        let claim = first.post("/claims", &wish(1)).await?.json()?;
        Ok((claim, Instant::now()))
    }

    async fn is_held(&self, claim: &Claim) -> Result<bool> {
        let store = &self.frontends[0].app.store;
        Ok(store
            .check_claim(&claim.ticket, claim.attempt)
            .await
            .is_ok())
    }

    /// Beats at this frontend for as long as the claim is held, at most `most`.
    async fn beat(&self, at: usize, claim: &Claim, most: Duration) -> Result<()> {
        let end = Instant::now() + most;
        while Instant::now() < end {
            let reply: BeatReply = self.frontends[at]
                .post("/beats", &beat(Some(claim), &[]))
                .await?
                .json()?;
            ensure!(reply.standings == [Standing::Held], "{reply:?}");
            self.simulator.settle();
        }
        Ok(())
    }

    /// Waits until the claim is given up, at most two minutes.
    async fn given_up(&self, claim: &Claim, since: Instant) -> Result<Duration> {
        while since.elapsed() < Duration::from_mins(2) {
            if !self.is_held(claim).await? {
                return Ok(since.elapsed());
            }
            sleep(Duration::from_millis(250)).await;
            self.simulator.settle();
        }
        anyhow::bail!("the claim is held for ever");
    }
}

impl Cluster {
    /// Makes the record of a ticket one that nobody can read.
    async fn spoil(&self, ticket: &TicketKey) -> Result<()> {
        let session = self.simulator.session();
        let builds = NodePath::root().join("b");
        for shard in session.list(&builds).await? {
            let path = builds.join(&shard).join(ticket.build.as_str());
            if session.get(&path).await?.is_some() {
                let path = path.join(ticket.ticket.as_str());
                let (data, expect) = ("spoilt".into(), Expect::Any);
                session.commit(vec![Op::Set { path, data, expect }]).await?;
                return Ok(());
            }
        }
        anyhow::bail!("there is no such build");
    }
}

fn wish(number: u8) -> Value {
    let session = SESSION
        .parse()
        .map(|session| RequestId::in_session(&session, [number; 12]));
    let id = session.map(|id| id.to_string()).unwrap_or_default();
    let mut wish = claim_again("", "w", &shell(&[]), 30);
    wish["request"] = json!(id);
    wish
}

fn beat(held: Option<&Claim>, pending: &[Value]) -> Value {
    let held = held.map(|claim| json!({ "ticket": claim.ticket, "attempt": claim.attempt }));
    let held: Vec<_> = held.into_iter().collect();
    let pending: Vec<_> = pending.iter().map(|wish| wish["request"].clone()).collect();
    json!({ "worker": "w", "session": SESSION, "held": held, "pending": pending, "wait": 10 })
}

#[tokio::test(start_paused = true)]
async fn every_frontend_knows_the_others() -> Result<()> {
    let cluster = Cluster::of(3, Faults::none()).await?;
    let views: Vec<FrontendView> = cluster.frontends[1].get("/frontends").await?.json()?;
    ensure!(views.len() == 3 && views.iter().filter(|view| view.here).count() == 1);
    let session = cluster.frontends[2].app.store.clone();
    session
        .withdraw(&cluster.frontends[2].app.peers.own().context("no id")?)
        .await?;
    sleep(Duration::from_millis(10)).await;
    let views: Vec<FrontendView> = cluster.frontends[1].get("/frontends").await?.json()?;
    ensure!(views.len() == 2, "{views:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whom_one_frontend_hears_no_other_gives_up() -> Result<()> {
    let lagging = Faults {
        lag: PerMille(500),
        ..Faults::none()
    };
    let cluster = Cluster::of(3, lagging).await?;
    let (claim, _) = cluster.claimed().await?;
    for at in [0, 1, 2, 0] {
        cluster.beat(at, &claim, Duration::from_mins(3)).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whom_a_digest_has_named_is_not_given_up_by_one_who_reads_it_late() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    let (claim, since) = cluster.claimed().await?;
    let first = &cluster.frontends[0];
    first.trigger("j").await?;
    first.control().await?;
    let other: Claim = first.post("/claims", &wish(2)).await?.json()?;
    // Both know both claims; from now on nobody hears of anything before he asks.
    cluster.simulator.settle();
    sleep(Duration::from_secs(1)).await;
    cluster.simulator.set_faults(Faults {
        lag: PerMille(1000),
        ..Faults::none()
    });
    // The one claim is heard of once, the other all the time: each digest of the first frontend names
    // it, and each is in time written over.
    let beats = |held: &[&Claim]| {
        let held = held.iter();
        let held: Vec<_> = held
            .map(|claim| json!({ "ticket": claim.ticket, "attempt": claim.attempt }))
            .collect();
        json!({ "worker": "w", "session": SESSION, "held": held, "pending": [], "wait": 1 })
    };
    let pending = [wish(1), wish(2)].map(|wish| wish["request"].clone());
    while since.elapsed() < Duration::from_secs(38) {
        let heard = since.elapsed() < Duration::from_secs(12);
        let both = [&claim, &other];
        let mut beat = beats(if heard { &both } else { &both[1..] });
        beat["pending"] = json!(pending);
        first.post("/beats", &beat).await?;
    }
    ensure!(cluster.is_held(&claim).await?, "a digest has named it");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_given_up_in_time() -> Result<()> {
    let cluster = Cluster::of(3, Faults::none()).await?;
    let (claim, since) = cluster.claimed().await?;
    let after = cluster.given_up(&claim, since).await?;
    // Virtual time: this is the law of the protocol, not the speed of a machine.
    ensure!((30..=45).contains(&after.as_secs()), "{after:?}");
    let again: Claim = cluster.frontends[1]
        .post("/claims", &wish(2))
        .await?
        .json()?;
    ensure!((again.ticket, again.attempt) == (claim.ticket, claim.attempt.next()));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_given_up_keeps_no_other_alive() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    let (spoilt, _) = cluster.claimed().await?;
    cluster.spoil(&spoilt.ticket).await?;
    sleep(Duration::from_secs(10)).await;
    let first = &cluster.frontends[0];
    first.trigger("j").await?;
    first.control().await?;
    let claim: Claim = first.post("/claims", &wish(2)).await?.json()?;
    let since = Instant::now();
    while cluster.is_held(&claim).await? {
        ensure!(
            since.elapsed() < Duration::from_mins(2),
            "it is held for ever"
        );
        // No sleep ends to the millisecond, as it would in virtual time.
        advance(Duration::from_millis(400)).await;
        cluster.simulator.settle();
    }
    ensure!(
        (30..=45).contains(&since.elapsed().as_secs()),
        "{:?}",
        since.elapsed()
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_nobody_can_read_stands_in_nobodys_way() -> Result<()> {
    let cluster = Cluster::of(1, Faults::none()).await?;
    let first = &cluster.frontends[0];
    first.build("j").await?;
    first.control().await?;
    sleep(Duration::from_secs(1)).await;
    let queued = first.app.board.queued(2);
    let [Queued { entry: spoilt, .. }] = queued.as_slice() else {
        anyhow::bail!("one is queued, not {queued:?}");
    };
    cluster.spoil(&spoilt.key).await?;
    first.trigger("j").await?;
    first.control().await?;
    let claim: Claim = first.post("/claims", &wish(1)).await?.json()?;
    ensure!(claim.ticket != spoilt.key);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_cannot_be_released_keeps_no_beat_from_being_heard() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    let (orphan, _) = cluster.claimed().await?;
    cluster.spoil(&orphan.ticket).await?;
    let first = &cluster.frontends[0];
    first.trigger("j").await?;
    first.control().await?;
    let claim: Claim = first.post("/claims", &wish(2)).await?.json()?;
    cluster.beat(0, &claim, Duration::from_mins(2)).await
}

#[tokio::test(start_paused = true)]
async fn a_frontend_whose_connection_breaks_is_one_frontend() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    cluster.simulator.set_faults(Faults {
        missed_events: PerMille(1000),
        ..Faults::none()
    });
    let trouble = Instant::now();
    while trouble.elapsed() < Duration::from_secs(20) {
        cluster.frontends[0].put_job(&one_task("j", &[])).await?;
        sleep(Duration::from_secs(1)).await;
        cluster.simulator.settle();
    }
    cluster.simulator.set_faults(Faults::none());
    sleep(Duration::from_secs(10)).await;
    cluster.simulator.settle();
    for frontend in &cluster.frontends {
        let known = frontend.app.peers.all();
        ensure!(known.len() == 2, "{known:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_others_do_the_duty_of_a_dead_frontend() -> Result<()> {
    for dead in 0..3 {
        let mut cluster = Cluster::of(3, Faults::none()).await?;
        let (claim, _) = cluster.claimed().await?;
        cluster.beat(dead, &claim, Duration::from_secs(20)).await?;
        let since = Instant::now();
        drop(cluster.frontends.remove(dead));
        let after = cluster.given_up(&claim, since).await?;
        ensure!(after < Duration::from_secs(51), "{after:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_its_worker_never_heard_of_is_queued_again() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    let (claim, since) = cluster.claimed().await?;
    // While the worker waits for the answer, the claim is no orphan.
    for _ in 0..3 {
        cluster.frontends[1]
            .post("/beats", &beat(None, &[wish(1)]))
            .await?;
        sleep(Duration::from_secs(6)).await;
    }
    ensure!(cluster.is_held(&claim).await?);
    for _ in 0..2 {
        cluster.frontends[1]
            .post("/beats", &beat(None, &[wish(2)]))
            .await?;
        sleep(Duration::from_secs(6)).await;
    }
    ensure!(!cluster.is_held(&claim).await?);
    ensure!(
        since.elapsed() < Duration::from_secs(32),
        "its lease was over anyway"
    );
    let again: Claim = cluster.frontends[0]
        .post("/claims", &wish(3))
        .await?
        .json()?;
    ensure!(again.attempt == claim.attempt.next());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_found_by_its_request_at_every_frontend() -> Result<()> {
    let cluster = Cluster::of(3, Faults::none()).await?;
    let (claim, _) = cluster.claimed().await?;
    for frontend in &cluster.frontends {
        let again: Claim = frontend.post("/claims", &wish(1)).await?.json()?;
        ensure!((&again.ticket, again.attempt) == (&claim.ticket, claim.attempt));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_hears_that_another_frontend_has_claimed_for_it() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    let [first, second] = cluster.frontends.as_slice() else {
        anyhow::bail!("two were asked for");
    };
    let wish = wish(1);
    let claims =
        async { tokio::join!(first.post("/claims", &wish), second.post("/claims", &wish)) };
    let trigger = async {
        sleep(Duration::from_secs(1)).await;
        first.build("j").await?;
        first.control().await
    };
    let ((one, other), triggered) = tokio::join!(claims, trigger);
    triggered?;
    let (one, other) = (one?, other?);
    ensure!(one.status == StatusCode::OK && other.status == StatusCode::OK);
    let (one, other): (Claim, Claim) = (one.json()?, other.json()?);
    ensure!((one.ticket, one.attempt) == (other.ticket, other.attempt));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_frontend_that_cannot_reach_the_store_keeps_nobody_alive() -> Result<()> {
    let cluster = Cluster::of(2, Faults::none()).await?;
    let (claim, _) = cluster.claimed().await?;
    let cut_off = Scene::cut_off(cluster.simulator.session());
    let answer = cut_off.post("/beats", &beat(Some(&claim), &[])).await?;
    answer.problem(503)?;
    Ok(())
}
