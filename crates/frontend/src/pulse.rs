//! The pulse: this frontend tells the others that it is there, what its workers wait for, and which
//! claims it hears of.
//!
//! Owns the frontend's id, which is for one session with the store, and when the others were last
//! told. Never gives up a claim. What is told is never needed to be right: it spares the others
//! effort, and claims their lives.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use distci_model::Timestamp;
use distci_model::id::FrontendId;
use distci_model::lease::DIGEST;
use distci_store::coordination::Health;
use distci_store::{Card, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often the others hear what has changed here.
const CARD: Duration = Duration::from_secs(1);
/// Most classes on a card; workers that wait for more of them are merely served a moment later.
const MAX_WANTS: usize = 256;
/// From here on two clocks are not the same.
const SKEW: Duration = Duration::from_mins(1);

/// When the others were told.
#[derive(Debug)]
pub(crate) struct Pulse {
    told: Mutex<Instant>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            told: Mutex::new(Instant::now()),
        }
    }
}

impl Pulse {
    /// For how long the others have not been told what this frontend knows.
    pub(crate) fn silent_for(&self) -> Duration {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.elapsed()
    }

    fn has_told(&self, at: Instant) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// Names the claims that were heard of since the last time, if there are any.
async fn publish(app: &App, own: &FrontendId, turn: u64) -> Result<(), StoreError> {
    let begun = Instant::now();
    let heard = app.leases.take_untold();
    let time = match app.store.publish(own, turn, &heard).await {
        Ok(time) => time,
        Err(error) => {
            app.leases.keep_untold(&heard);
            return Err(error);
        }
    };
    app.pulse.has_told(begun);
    learn(app, time);
    let skew = time.map(|time| app.now().duration_since(time).unsigned_abs());
    if let Some(skew) = skew.filter(|_| begun.elapsed() < CARD) {
        app.metrics.skew(skew);
        if skew > SKEW {
            tracing::warn!(
                seconds = skew.as_secs(),
                "this clock and the store's differ"
            );
        }
    }
    Ok(())
}

/// Every write of this frontend's own tells what time it is.
fn learn(app: &App, written: Option<Timestamp>) {
    if let Some(written) = written {
        app.time.heard(written, Instant::now(), app.now());
    }
}

/// Tells the others until `stop`, then takes leave.
pub(crate) async fn beat(app: App, address: String, stop: CancellationToken) {
    let mut tick = tokio::time::interval(CARD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Told {
        address,
        ..Told::default()
    };
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => break,
        }
        if let Err(error) = told.tell(&app).await {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, reason, "the other frontends cannot be told");
        }
    }
    if let Some(own) = app.peers.own()
        && let Err(error) = app.store.withdraw(&own).await
    {
        tracing::debug!(%error, "no leave taken; the session's end will say it");
    }
}

/// What the others were told last.
#[derive(Debug, Default)]
struct Told {
    address: String,
    epoch: Option<u64>,
    /// The latest name, and the epoch that it is for.
    own: Option<(u64, FrontendId)>,
    /// Names of earlier epochs that are still to be taken back.
    former: Vec<FrontendId>,
    card: Option<Card>,
    digest: Option<Instant>,
    turn: u64,
}

impl Told {
    async fn tell(&mut self, app: &App) -> Result<(), StoreError> {
        let Health::Connected { epoch } = *app.store.health().borrow() else {
            return Ok(());
        };
        if self.epoch != Some(epoch) {
            self.introduce(app, epoch).await?;
        }
        while let Some(former) = self.former.last() {
            app.store.withdraw(former).await?;
            self.former.pop();
        }
        let card = self.card(app);
        if let Some(own) = app.peers.own()
            && (self.card.as_ref() != Some(&card) || app.time.is_asked(Instant::now()))
        {
            learn(app, app.store.announce(&own, &card).await?);
            self.card = Some(card);
        }
        if let Some(own) = app.peers.own()
            && self.digest.is_none_or(|digest| digest.elapsed() >= DIGEST)
        {
            self.digest = Some(Instant::now());
            self.turn += 1;
            publish(app, &own, self.turn).await?;
        }
        Ok(())
    }

    /// Begins anew after a loss of the store, which may have been the end of the session. What
    /// belonged to an earlier one goes by itself, so its name is not used again; but if the session
    /// lives on, so would that name, and is taken back.
    async fn introduce(&mut self, app: &App, epoch: u64) -> Result<(), StoreError> {
        app.peers.set_own(None);
        self.card = None;
        // Of an announcement with an unknown outcome, the next try makes sure: by the same name.
        let own = match self.own.take() {
            Some((of, own)) if of == epoch => own,
            before => {
                self.former.extend(before.map(|(_, own)| own));
                new_id()?
            }
        };
        self.own = Some((epoch, own.clone()));
        let card = self.card(app);
        learn(app, app.store.announce(&own, &card).await?);
        app.peers.set_own(Some(own));
        (self.epoch, self.card) = (Some(epoch), Some(card));
        Ok(())
    }

    fn card(&self, app: &App) -> Card {
        Card {
            address: self.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: Some(app.vitals.since),
            wants: app.board.wanted(MAX_WANTS),
        }
    }
}

fn new_id() -> Result<FrontendId, StoreError> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Down(error.to_string().into()))?;
    Ok(FrontendId::from_random(bytes))
}
