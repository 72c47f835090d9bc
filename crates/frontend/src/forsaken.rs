//! Reports that nobody takes to their forge.
//!
//! Owns the loop that gives up what has been in the queue for a week, because no worker knows the
//! forge: else it would be there for ever. When that is so is the errand's law. Any number of
//! frontends may give up the same one: a commit wins, and the others find nothing.

use std::time::Duration;

use distci_model::errand::PATIENCE;
use distci_model::ticket::Stamp;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often the queue is looked through: a week more or less an hour is a week.
const PERIOD: Duration = Duration::from_hours(1);

/// Gives up what is forsaken until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first look would come before anything is known.
    tick.tick().await;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = look(&app) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn look(app: &App) {
    let Some(now) = app.time.now(Instant::now()) else {
        return;
    };
    let Ok(then) = now.checked_sub(PATIENCE) else {
        return;
    };
    let old = app.board.errands_since(Stamp::at(then));
    let ours = old
        .into_iter()
        .filter(|key| app.peers.duty_rank(key) == Some(0));
    for key in ours {
        match app.store.forsake_report(&key, now).await {
            Ok(true) => drop(app.metrics.forsaken.inc()),
            Ok(false) => {}
            // The next look finds it again.
            Err(error) => {
                tracing::warn!(ticket = %key, %error, "a report that nobody takes stays queued");
                return;
            }
        }
    }
}
