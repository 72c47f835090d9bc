//! The mirror: keeps board and leases in step with the store's index.
//!
//! Owns the two loops of a frontend that nobody asks for: following the index, and giving up claims
//! that have lapsed. Both derive everything from the store and may be run by any number of
//! frontends at once.

use std::time::{Duration, Instant};

use distci_model::ticket::{IndexName, QueueName};
use distci_store::{IndexNews, StoreError};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::leases::TICK;

/// How soon a mirror that could not be brought up to date is listed again.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the index until `stop`.
pub(crate) async fn follow(app: App, stop: CancellationToken) {
    // Watched before listed: what happens in between is news.
    let (mut queue, mut claims) = (app.store.watch_queue(), app.store.watch_claims());
    let mut applied = list(&app).await;
    loop {
        if let Err(error) = &applied {
            tracing::error!(%error, "the index cannot be read; it is listed again soon");
        }
        let behind = applied.is_err();
        let news = tokio::select! {
            news = queue.next() => news,
            news = claims.next() => news,
            () = tokio::time::sleep(AGAIN), if behind => Some(IndexNews::Gap),
            () = stop.cancelled() => return,
        };
        let Some(news) = news else {
            tracing::info!("the store is closed");
            return;
        };
        // A mirror that is behind is made whole before it takes single news.
        let news = if behind { IndexNews::Gap } else { news };
        applied = apply(&app, news).await;
    }
}

async fn apply(app: &App, news: IndexNews) -> Result<(), StoreError> {
    match news {
        IndexNews::Gap => list(app).await?,
        IndexNews::Added(IndexName::Queue(entry)) => {
            let build = entry.key.build.clone();
            learn(app, &entry).await?;
            app.board.add(&entry);
            app.builds.ring(&build);
        }
        IndexNews::Removed(IndexName::Queue(entry)) => {
            app.board.remove(&entry);
            app.builds.ring(&entry.key.build);
        }
        IndexNews::Added(IndexName::Claim(claim)) => {
            let build = claim.key.build.clone();
            app.leases.add(claim, Instant::now());
            app.builds.ring(&build);
        }
        IndexNews::Removed(IndexName::Claim(claim)) => {
            app.leases.remove(&claim);
            app.builds.ring(&claim.key.build);
            // Its console is complete.
            app.consoles.ring(&claim.key);
        }
    }
    Ok(())
}

async fn list(app: &App) -> Result<(), StoreError> {
    let mut queue = Vec::new();
    let mut claims = Vec::new();
    let names = app
        .store
        .list_queue()
        .await?
        .into_iter()
        .chain(app.store.list_claims().await?);
    for name in names {
        match name {
            IndexName::Queue(entry) => {
                learn(app, &entry).await?;
                queue.push(entry);
            }
            IndexName::Claim(claim) => claims.push(claim),
        }
    }
    app.board.reset(&queue);
    app.leases.reset(claims, Instant::now());
    app.builds.ring_all();
    app.consoles.ring_all();
    Ok(())
}

async fn learn(app: &App, entry: &QueueName) -> Result<(), StoreError> {
    if app.board.knows(&entry.class) {
        return Ok(());
    }
    if let Some(requires) = app.store.class(&entry.class).await? {
        app.board.learn(entry.class.clone(), requires);
    } else {
        tracing::error!(class = %entry.class, "a ticket of an unknown class is queued");
    }
    Ok(())
}

/// Gives up lapsed claims until `stop`.
pub(crate) async fn expire(app: App, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => expire_one_pass(&app).await,
            () = stop.cancelled() => return,
        }
    }
}

async fn expire_one_pass(app: &App) {
    for (key, attempt) in app.leases.lapsed(Instant::now()) {
        match app.store.expire(&key, attempt, app.now()).await {
            Ok(()) => {
                app.metrics.expired.inc();
                tracing::warn!(ticket = %key, %attempt, "the worker is silent; queued again");
            }
            // Somebody else was first, or the holder finished after all.
            Err(StoreError::AttemptOver { .. }) => app.leases.forget(&key, attempt),
            // Of one claim alone: the others must not wait for somebody to mend it.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(ticket = %key, %attempt, %error, "a lapsed claim stays");
            }
            Err(error) => {
                // The store is in trouble, and no other claim would fare better.
                tracing::error!(ticket = %key, %attempt, %error, "lapsed claims stay for now");
                tokio::time::sleep(AGAIN).await;
                return;
            }
        }
    }
}
