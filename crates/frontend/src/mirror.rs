//! The mirror: keeps board, leases, timers, drain orders and jobs in step with the store's index.
//!
//! Owns two loops of a frontend that nobody asks for: following the store, and giving up claims that
//! have lapsed. Both derive everything from the store and may be run by any number of frontends at
//! once.

use std::pin::pin;
use std::time::Duration;

use distci_model::lease::FRESH;
use distci_model::ticket::{IndexName, QueueName};
use distci_store::{
    ClusterNews, ClusterWatch, DrainNews, DrainWatch, IndexNews, IndexWatch, JobNews, JobWatch,
    LockNews, LockWatch, StoreError,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::leases::{Lapsed, TICK};

/// How soon a mirror that could not be brought up to date is listed again.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the index and the other frontends until `stop`.
pub(crate) async fn follow(app: App, stop: CancellationToken) {
    // Watched before listed: what happens in between is news.
    let mut watches = Watches::of(&app);
    let mut questions = app.barrier.questions();
    let mut question = None;
    let mut applied = list(&app).await;
    loop {
        if let Err(error) = &applied {
            tracing::error!(%error, "the index cannot be read; it is listed again soon");
        }
        let behind = applied.is_err();
        app.current.send_replace(!behind);
        let news = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            news = watches.next() => news,
            () = tokio::time::sleep(AGAIN), if behind => Some(News::Gap),
            // Answered by a look at all queues that began after the question was read: what came
            // into one of them while the others were looked at is not overlooked.
            asked = std::future::ready(question), if question.is_some() && !behind => {
                app.barrier.answer(asked.unwrap_or_default());
                question = None;
                continue;
            }
            Ok(()) = questions.changed() => {
                question = Some(*questions.borrow_and_update());
                continue;
            }
        };
        let Some(news) = news else {
            tracing::info!("the store is closed");
            return;
        };
        applied = if behind {
            // A mirror that is behind is made whole before it takes single news.
            list(&app).await
        } else {
            take(&app, &mut watches, news).await
        };
    }
}

async fn take(app: &App, watches: &mut Watches, news: News) -> Result<(), StoreError> {
    match news {
        News::Gap
        | News::Index(IndexNews::Gap)
        | News::Cluster(ClusterNews::Gap)
        | News::Locks(LockNews::Gap)
        | News::Jobs(JobNews::Gap)
        | News::Drains(DrainNews::Gap) => {
            // One loss is told by every watch; what they hold now, the list shows.
            watches.skip();
            return list(app).await;
        }
        News::Index(news) => return apply(app, news).await,
        News::Cluster(news) => return hear(app, news).await,
        News::Locks(LockNews::Freed(lock)) => app.board.freed(&lock),
        News::Jobs(JobNews::Changed(job)) => app.jobs.changed(job),
        News::Drains(DrainNews::Given(order)) => app.drains.add(order),
        News::Drains(DrainNews::Gone(order)) => app.drains.remove(&order),
    }
    Ok(())
}

enum News {
    Index(IndexNews),
    Cluster(ClusterNews),
    Locks(LockNews),
    Drains(DrainNews),
    Jobs(JobNews),
    Gap,
}

/// Everything that is followed.
struct Watches {
    queue: IndexWatch,
    claims: IndexWatch,
    timers: IndexWatch,
    cluster: ClusterWatch,
    locks: LockWatch,
    drains: DrainWatch,
    jobs: JobWatch,
}

impl Watches {
    fn of(app: &App) -> Self {
        Self {
            queue: app.store.watch_queue(),
            claims: app.store.watch_claims(),
            timers: app.store.watch_timers(),
            cluster: app.store.watch_cluster(),
            locks: app.store.watch_locks(),
            drains: app.store.watch_drains(),
            jobs: app.store.watch_jobs(),
        }
    }

    /// The next news, of the queue first, but for who is to take nothing of it; `None` when the store
    /// is gone. Cancel safe.
    async fn next(&mut self) -> Option<News> {
        tokio::select! {
            biased;
            news = self.drains.next() => news.map(News::Drains),
            news = self.queue.next() => news.map(News::Index),
            news = self.claims.next() => news.map(News::Index),
            news = self.timers.next() => news.map(News::Index),
            news = self.cluster.next() => news.map(News::Cluster),
            news = self.locks.next() => news.map(News::Locks),
            news = self.jobs.next() => news.map(News::Jobs),
        }
    }

    /// Forgets the news that are queued.
    fn skip(&mut self) {
        self.queue.skip();
        self.claims.skip();
        self.timers.skip();
        self.cluster.skip();
        self.locks.skip();
        self.drains.skip();
        self.jobs.skip();
    }
}

/// Takes in what the other frontends tell.
async fn hear(app: &App, news: ClusterNews) -> Result<(), StoreError> {
    match news {
        ClusterNews::Members | ClusterNews::Gap => app.peers.set(app.store.members().await?),
        ClusterNews::Digest(node) => {
            let heard = app.store.heard_in(&node).await?;
            app.leases.told(&heard, Instant::now());
        }
    }
    Ok(())
}

async fn apply(app: &App, news: IndexNews) -> Result<(), StoreError> {
    match news {
        IndexNews::Gap => list(app).await?,
        IndexNews::Added(IndexName::Queue(entry)) => {
            let build = entry.key.build.clone();
            learn(app, &entry).await?;
            app.board.add(&entry);
            app.ring_build(&build);
        }
        IndexNews::Removed(IndexName::Queue(entry)) => {
            app.board.remove(&entry);
            app.ring_build(&entry.key.build);
        }
        IndexNews::Added(IndexName::Claim(claim)) => {
            let build = claim.key.build.clone();
            let request = (claim.worker.clone(), claim.request.clone());
            app.leases.add(claim, Instant::now());
            app.requests.ring(&request);
            app.ring_build(&build);
        }
        IndexNews::Removed(IndexName::Claim(claim)) => {
            app.leases.remove(&claim);
            app.ring_build(&claim.key.build);
            // Its console is complete.
            app.consoles.ring(&claim.key);
        }
        IndexNews::Added(IndexName::Due(timer)) => app.timers.add(timer),
        IndexNews::Removed(IndexName::Due(timer)) => app.timers.remove(&timer),
    }
    Ok(())
}

async fn list(app: &App) -> Result<(), StoreError> {
    let mut queue = Vec::new();
    let mut claims = Vec::new();
    let mut timers = Vec::new();
    let mut names = app.store.list_queue().await?;
    names.extend(app.store.list_claims().await?);
    names.extend(app.store.list_timers().await?);
    for name in names {
        match name {
            IndexName::Queue(entry) => {
                learn(app, &entry).await?;
                queue.push(entry);
            }
            IndexName::Claim(claim) => claims.push(claim),
            IndexName::Due(timer) => timers.push(timer),
        }
    }
    app.peers.set(app.store.members().await?);
    // Before anything is offered to those who are asked to leave.
    app.drains.reset(app.store.drains().await?);
    app.jobs.reset(app.store.job_ids().await?);
    app.board.reset(&queue);
    app.board.freed_any();
    app.leases.reset(claims, Instant::now());
    app.timers.reset(timers);
    app.requests.ring_all();
    app.builds.ring_all();
    app.consoles.ring_all();
    Ok(())
}

async fn learn(app: &App, entry: &QueueName) -> Result<(), StoreError> {
    if app.board.knows(&entry.class) {
        return Ok(());
    }
    match app.store.class(&entry.class).await {
        Ok(Some(requires)) => app.board.learn(entry.class.clone(), requires),
        Ok(None) => tracing::error!(class = %entry.class, "a ticket of an unknown class is queued"),
        // Of one class alone: the others must not wait for somebody to mend it.
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(class = %entry.class, %error, "the tickets of a class are offered to nobody");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Gives up lapsed claims until `stop`.
pub(crate) async fn expire(app: App, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let lapsed = app
            .leases
            .lapsed(Instant::now(), |key| app.peers.duty_rank(key));
        if lapsed.is_empty() {
            continue;
        }
        let mut giving_up = pin!(give_up(&app, lapsed));
        loop {
            tokio::select! {
                () = &mut giving_up => break,
                // Who is at work is not asleep: meanwhile the other claims lapse as they should.
                _ = tick.tick() => app.leases.look(Instant::now()),
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Gives up those of the lapsed claims that no frontend has heard of. The store itself is asked first:
/// once it has answered, the news of every beat that others had published before are queued here, and
/// once those are taken in, who is still silent was heard by nobody.
async fn give_up(app: &App, lapsed: Vec<Lapsed>) {
    let fresh = async {
        app.store.catch_up().await?;
        app.barrier.pass().await;
        Ok::<_, StoreError>(())
    };
    match tokio::time::timeout(FRESH, fresh).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "lapsed claims stay while the store cannot be asked");
            return tokio::time::sleep(AGAIN).await;
        }
        Err(_) => return tracing::warn!("lapsed claims stay while this frontend is behind"),
    }
    let mut stuck = false;
    for claim in lapsed {
        if !app.leases.is_still_lapsed(&claim, Instant::now()) {
            continue;
        }
        let Lapsed { key, attempt, .. } = claim;
        match app.store.expire(&key, attempt, app.now()).await {
            Ok(()) => {
                app.metrics.expired.inc();
                let what = "a claim was given up, for its worker is silent";
                app.vitals
                    .lapse(what, format!("ticket {key}, attempt {attempt}"));
                tracing::warn!(ticket = %key, %attempt, "the worker is silent; queued again");
            }
            // Somebody else was first, or the holder finished after all.
            Err(StoreError::AttemptOver { .. } | StoreError::Gone) => {
                app.leases.forget(&key, attempt);
            }
            Err(error @ StoreError::Down(_)) => {
                // The store is in trouble, and no other claim would fare better.
                tracing::error!(ticket = %key, %attempt, %error, "lapsed claims stay for now");
                return tokio::time::sleep(AGAIN).await;
            }
            // Of one claim alone: the others must not wait for somebody to mend it.
            Err(error) => {
                tracing::error!(ticket = %key, %attempt, %error, "a lapsed claim stays");
                stuck = true;
            }
        }
    }
    if stuck {
        tokio::time::sleep(AGAIN).await;
    }
}
