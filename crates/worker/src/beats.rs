//! Keeping claims alive, and hearing what became of them.
//!
//! Owns the one request by which all claims of this worker are renewed. Held open by the frontend
//! until there is news, so a cancellation arrives at once; with nothing held there is no request.
//! Every claim request is known here from before it is sent until its claim is held: a claim of this
//! run that a beat does not mention, held or asked for, is one that nobody knows of.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_client::{Client, ClientError};
use distci_model::id::{RequestId, WorkerId};
use distci_model::wire::{BeatReply, BeatRequest, Held, Standing};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::interrupt::Interrupts;

/// How long a beat waits for news: a third of the lease.
const WAIT: u64 = 10;
/// A claim is part of the beats only when it is this old: most tasks of a busy worker are over
/// before, and their leases run much longer.
const SETTLING: Duration = Duration::from_secs(1);
/// How long an attempt goes on while no frontend hears of it. Finishing may still be accepted.
const CUT_OFF: Duration = Duration::from_mins(10);

/// The claims of this worker. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Beats {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    claims: Mutex<Claims>,
    /// Rung when claims come, and when the last one goes.
    changed: Notify,
    /// Whether the latest beat had no answer.
    unheard: AtomicBool,
    /// Whether any claim is held; told of each that comes or goes.
    busy: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Claims {
    /// By ticket and attempt; the standing in the key is always the first.
    held: HashMap<Held, Listener>,
    /// Requests that have brought no claim yet.
    pending: HashSet<RequestId>,
}

#[derive(Debug)]
struct Listener {
    standing: Standing,
    interrupts: Interrupts,
}

/// A claim request that is on its way, until this is dropped.
#[derive(Debug)]
pub struct Pending {
    beats: Beats,
    request: RequestId,
}

/// A claim that is being kept alive, until this is dropped.
#[derive(Debug)]
pub struct Keeping {
    beats: Beats,
    held: Held,
}

impl Beats {
    /// Says of a claim request that its answer is awaited.
    pub fn expect(&self, request: RequestId) -> Pending {
        self.claims().pending.insert(request.clone());
        let beats = self.clone();
        Pending { beats, request }
    }

    /// Whether our claims are renewed, as far as we know.
    pub fn are_heard(&self) -> bool {
        !self.shared.unheard.load(Ordering::Relaxed)
    }

    /// Waits until no claim was held for so long, counted anew after each.
    ///
    /// # Cancel safety
    /// Called again, it counts from the beginning.
    pub async fn idle_for(&self, time: Duration) {
        let mut busy = self.shared.busy.subscribe();
        loop {
            let news = if *busy.borrow_and_update() {
                busy.changed().await
            } else {
                match timeout(time, busy.changed()).await {
                    Ok(news) => news,
                    Err(_) => return,
                }
            };
            // It lasts as long as we do.
            if news.is_err() {
                return;
            }
        }
    }

    /// Beats for as long as it is polled.
    pub async fn beat(&self, worker: &WorkerId, client: &Client) {
        let mut heard = Instant::now();
        loop {
            if self.holds_nothing() {
                self.shared.changed.notified().await;
                heard = Instant::now();
            }
            sleep(SETTLING).await;
            if self.holds_nothing() {
                continue;
            }
            // First an answer at once, which also proves that we are heard; then those that are
            // held, until there is another claim to tell of.
            let answer = client.beat(|| self.request(worker, 0)).await;
            self.hear(answer, &mut heard);
            tokio::select! {
                () = self.beat_on(worker, client, &mut heard) => {}
                () = self.shared.changed.notified() => {}
            }
        }
    }

    /// Beats for the claims that there are, until there is none.
    async fn beat_on(&self, worker: &WorkerId, client: &Client, heard: &mut Instant) {
        while !self.holds_nothing() {
            let soonest = Instant::now() + SETTLING;
            let answer = client.beat(|| self.request(worker, WAIT)).await;
            self.hear(answer, heard);
            // Long polls follow each other without a gap; whatever answers faster than that is
            // news, or a frontend that must not be stormed.
            sleep_until(soonest).await;
        }
    }

    fn holds_nothing(&self) -> bool {
        self.claims().held.is_empty()
    }

    /// What is held and what is asked for, at one moment.
    fn request(&self, worker: &WorkerId, wait: u64) -> BeatRequest {
        let claims = self.claims();
        let held = claims.held.iter();
        let held = held.map(|(held, listener)| Held {
            standing: listener.standing,
            ..held.clone()
        });
        BeatRequest {
            worker: worker.name.clone(),
            session: worker.session.clone(),
            held: held.collect(),
            pending: claims.pending.iter().cloned().collect(),
            wait,
        }
    }

    fn hear(&self, answer: Result<(BeatRequest, BeatReply), ClientError>, heard: &mut Instant) {
        self.shared
            .unheard
            .store(answer.is_err(), Ordering::Relaxed);
        match answer {
            Ok((request, reply)) => {
                *heard = Instant::now();
                for (held, standing) in request.held.iter().zip(reply.standings) {
                    self.note(held, standing);
                }
            }
            Err(error @ ClientError::StoreDown { .. }) => {
                tracing::warn!("our claims wait for the store, as everybody's do: {error}");
                *heard = Instant::now();
            }
            Err(error) if heard.elapsed() < CUT_OFF => {
                tracing::warn!("no frontend hears of our claims: {error}");
            }
            Err(error) => {
                tracing::error!("cut off for too long, giving every claim up: {error}");
                let all: Vec<Held> = self.claims().held.keys().cloned().collect();
                for held in &all {
                    self.note(held, Standing::Lost);
                }
            }
        }
    }

    fn note(&self, held: &Held, standing: Standing) {
        let key = Held {
            standing: Standing::Held,
            ..held.clone()
        };
        let mut claims = self.claims();
        // Over by our own doing meanwhile, if it is not there.
        let Some(listener) = claims.held.get_mut(&key) else {
            return;
        };
        listener.standing = standing;
        match standing {
            Standing::Held => {}
            Standing::Cancel => listener.interrupts.cancel.cancel(),
            Standing::Lost => listener.interrupts.lost.cancel(),
        }
    }

    /// No panic can leave the claims half-changed, so a poisoned lock is as good as another.
    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.shared
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// The request, as it is sent each time.
    pub fn request(&self) -> &RequestId {
        &self.request
    }

    /// It brought a claim: keeps `held` alive from now on; what becomes of it goes to `interrupts`.
    pub fn keep(self, held: &Held, interrupts: &Interrupts) -> Keeping {
        let listener = Listener {
            standing: Standing::Held,
            interrupts: interrupts.clone(),
        };
        let beats = self.beats.clone();
        // Only then is the request forgotten, by dropping it: at no time is neither known.
        {
            let mut claims = beats.claims();
            claims.held.insert(held.clone(), listener);
            beats.shared.busy.send_replace(true);
        }
        beats.shared.changed.notify_one();
        Keeping {
            beats,
            held: held.clone(),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.beats.claims().pending.remove(&self.request);
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        let mut claims = self.beats.claims();
        claims.held.remove(&self.held);
        let idle = claims.held.is_empty();
        // Under the lock: of two claims that come and go, the later has the last word.
        self.beats.shared.busy.send_replace(!idle);
        drop(claims);
        if idle {
            self.beats.shared.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use distci_model::id::{Attempt, TicketKey};

    use super::*;

    fn worker() -> WorkerId {
        "w 0123abcd".parse().unwrap()
    }

    fn held() -> Held {
        let ticket: TicketKey = format!("{}.{}", "b".repeat(16), "t".repeat(16))
            .parse()
            .unwrap();
        Held {
            ticket,
            attempt: Attempt::new(1),
            standing: Standing::Held,
        }
    }

    fn reply(standing: Standing) -> BeatReply {
        BeatReply {
            standings: vec![standing],
            unheard: 0,
        }
    }

    fn request(random: u8) -> RequestId {
        RequestId::in_session(&worker().session, [random; 12])
    }

    fn keep(beats: &Beats, interrupts: &Interrupts) -> Keeping {
        beats.expect(request(0)).keep(&held(), interrupts)
    }

    #[tokio::test]
    async fn what_became_of_a_claim_is_heard_and_repeated_to_the_frontend() {
        let (beats, interrupts) = (Beats::default(), Interrupts::default());
        let keeping = keep(&beats, &interrupts);
        let worker = worker();
        let mut heard = Instant::now();
        let first = beats.request(&worker, 0);
        beats.hear(Ok((first, reply(Standing::Cancel))), &mut heard);
        assert!(interrupts.cancel.is_cancelled() && !interrupts.lost.is_cancelled());
        let next = beats.request(&worker, 0);
        assert_eq!(next.held[0].standing, Standing::Cancel);
        beats.hear(Ok((next, reply(Standing::Lost))), &mut heard);
        assert!(interrupts.lost.is_cancelled());
        drop(keeping);
        assert!(beats.request(&worker, 0).held.is_empty());
    }

    #[test]
    fn a_request_is_mentioned_until_its_claim_is() {
        let beats = Beats::default();
        let (waiting, lucky) = (beats.expect(request(1)), beats.expect(request(2)));
        assert_eq!(beats.request(&worker(), 0).pending.len(), 2);
        let keeping = lucky.keep(&held(), &Interrupts::default());
        let beat = beats.request(&worker(), 0);
        assert_eq!((beat.held, beat.pending), (vec![held()], vec![request(1)]));
        drop(waiting);
        assert_eq!(beats.request(&worker(), 0).pending, []);
        drop(keeping);
        assert!(beats.holds_nothing());
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_counts_from_the_end_of_the_latest_claim() {
        let idle = Duration::from_mins(1);
        let beats = Beats::default();
        let begun = Instant::now();
        let work = async {
            for _ in 0..3 {
                sleep(idle / 2).await;
                let keeping = keep(&beats, &Interrupts::default());
                sleep(idle * 2).await;
                drop(keeping);
            }
            sleep(idle / 2).await;
            // Over before anybody looks.
            drop(keep(&beats, &Interrupts::default()));
        };
        tokio::join!(beats.idle_for(idle), work);
        assert_eq!(begun.elapsed(), idle * 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_survives_ten_minutes_without_news_and_no_longer() {
        let (beats, interrupts) = (Beats::default(), Interrupts::default());
        let keeping = keep(&beats, &interrupts);
        let mut heard = Instant::now();
        tokio::time::advance(CUT_OFF / 2).await;
        beats.hear(Err(ClientError::Unauthorized), &mut heard);
        assert!(!interrupts.lost.is_cancelled());
        tokio::time::advance(CUT_OFF / 2).await;
        beats.hear(Err(ClientError::Unauthorized), &mut heard);
        assert!(interrupts.lost.is_cancelled());
        drop(keeping);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_is_down_no_claim_is_given_up() {
        let (beats, interrupts) = (Beats::default(), Interrupts::default());
        let keeping = keep(&beats, &interrupts);
        let mut heard = Instant::now();
        for _ in 0..6 {
            tokio::time::advance(CUT_OFF).await;
            let (tried, last) = (1, String::new());
            beats.hear(Err(ClientError::StoreDown { tried, last }), &mut heard);
        }
        assert!(!interrupts.lost.is_cancelled());
        assert!(!beats.are_heard());
        let request = beats.request(&worker(), 0);
        beats.hear(Ok((request, reply(Standing::Held))), &mut heard);
        assert!(beats.are_heard());
        drop(keeping);
    }
}
