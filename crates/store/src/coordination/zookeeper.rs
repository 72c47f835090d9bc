//! The shared tree of a cluster: a ZooKeeper ensemble, below one chroot.
//!
//! Owns one session at a time, and makes the next one when it has ended. Never touches anything
//! outside of the chroot, and never answers from a connection that has not caught up with the
//! ensemble. Invariant: whatever the ensemble told this process before a reply is in the queues
//! before the caller has that reply.

mod feed;
mod keeper;
mod plan;
mod refusal;
mod servers;
mod session;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use distci_model::Timestamp;
use futures::future::join_all;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zookeeper_client::{Client, CreateMode, MultiWriteError, MultiWriteResult};

use self::feed::{Feed, Line};
use self::plan::{Plan, Verdict};
use super::{
    CommitError, Coordination, Health, Node, NodePath, Op, Outage, ReadError, Receipt, ServerFacts,
    Standing, Version, Watch, check_limits,
};

pub use self::session::OpenError;
pub use self::settings::{Identity, Settings, Tls};

/// How long a request may be on its way. After that its caller is told that nobody knows: the
/// session itself learns of a dead connection only after two fifths of its timeout.
const REPLY: Duration = Duration::from_secs(5);

/// The pause before a question is repeated.
const RETRY: Duration = Duration::from_millis(10);

/// How often a commit is planned anew when others make and remove its parents at the same time.
const ROUNDS: usize = 16;

/// A name below the chroot that never is a node.
const NOWHERE: &str = "/.nowhere";

/// A session with a ZooKeeper ensemble, and its successors.
///
/// A request waits at most one second for a connection and five for its reply, then it is answered
/// with [`Outage::Disconnected`], or [`CommitError::Unknown`] for a commit that was sent.
///
/// When a session ends, its session nodes go, though sometimes only after its successor has begun:
/// the names of session nodes must be new ones, or their owner finds its own dead self in the way.
///
/// Dropping it ends the session, and with it every watch.
pub struct ZooKeeper {
    feed: Arc<Feed>,
    settings: Arc<Settings>,
    _keeper: JoinSet<()>,
}

impl ZooKeeper {
    /// Begins a session, and makes the chroot if need be.
    pub async fn connect(settings: Settings) -> Result<Self, OpenError> {
        let settings = Arc::new(settings);
        let feed = Arc::new(Feed::new(session::open(&settings).await?));
        keeper::begin(&settings, &feed).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper::keep(settings.clone(), feed.clone()));
        Ok(Self {
            feed,
            settings,
            _keeper: tasks,
        })
    }

    /// Asks until an answer came over a connection that was good from before the question until
    /// after the reply. Questions change nothing, so they can be repeated.
    async fn ask<T, F>(&self, question: impl Fn(Arc<Client>) -> F) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, zookeeper_client::Error>>,
    {
        let deadline = Instant::now() + REPLY;
        loop {
            let line = self.feed.line().await.map_err(ReadError::Down)?;
            match timeout_at(deadline, question(line.client.clone())).await {
                Ok(Ok(answer)) if self.feed.is_open(&line) => return Ok(answer),
                Ok(Err(error)) if refusal::is_final(&error) => {
                    return Err(ReadError::Down(refusal::outage(error)));
                }
                Ok(_) => {}
                Err(_) => return Err(ReadError::Down(Outage::Disconnected)),
            }
            if Instant::now() >= deadline {
                return Err(ReadError::Down(Outage::Disconnected));
            }
            // What fails on an open line must not make this a busy loop.
            sleep(RETRY).await;
        }
    }

    /// Sends the commit as planned.
    async fn send(
        &self,
        client: &Client,
        plan: &Plan<'_>,
    ) -> Result<Vec<MultiWriteResult>, MultiWriteError> {
        let acls = self.settings.identity.acls();
        let mut writer = client.new_multi_writer();
        plan.write(
            &mut writer,
            &CreateMode::Persistent.with_acls(acls),
            &CreateMode::Ephemeral.with_acls(acls),
        )?;
        match timeout(REPLY, writer.commit()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(zookeeper_client::Error::Timeout.into()),
        }
    }

    /// Reads what the plan has to know about nodes outside of the commit.
    async fn look(&self, client: &Client, plan: &mut Plan<'_>) -> Result<(), CommitError> {
        let paths = plan.unknowns();
        let looks = paths.iter().map(|path| client.check_stat(path.as_str()));
        let out_of_reach = CommitError::Down(Outage::Disconnected);
        let Ok(stats) = timeout(REPLY, join_all(looks)).await else {
            return Err(out_of_reach);
        };
        let stats: Result<Vec<_>, _> = stats.into_iter().collect();
        let versions = stats.map_err(|_| out_of_reach)?.into_iter();
        let versions = versions.map(|stat| stat.map(|stat| version(stat.version)));
        plan.learn(paths.iter().cloned().zip(versions));
        Ok(())
    }

    /// What a caller is told of a commit that happened, once everything before it is queued.
    async fn receipt(
        &self,
        line: &Line,
        plan: &Plan<'_>,
        results: &[MultiWriteResult],
    ) -> Result<Receipt, CommitError> {
        let mut told = results.iter().filter_map(time).max();
        if let Some(path) = plan.created().filter(|_| told.is_none()) {
            told = time_of(&line.client, path).await;
        }
        let store_time = self.feed.note_time(told);
        // The connection was lost meanwhile, and with it perhaps events: the gap comes first.
        if !self.feed.is_open(line) && !self.feed.reopens(line, REPLY).await {
            return Err(CommitError::Unknown);
        }
        Ok(Receipt {
            versions: plan.versions(results),
            store_time,
            written: told.and_then(|told| Timestamp::from_millisecond(told).ok()),
        })
    }
}

#[async_trait]
impl Coordination for ZooKeeper {
    async fn get(&self, path: &NodePath) -> Result<Option<Node>, ReadError> {
        if path.is_root() {
            return Ok(None);
        }
        self.ask(|client| async move {
            match client.get_data(path.as_str()).await {
                Ok((data, stat)) => Ok(Some(Node {
                    data: Bytes::from(data),
                    version: version(stat.version),
                })),
                Err(zookeeper_client::Error::NoNode) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn list(&self, dir: &NodePath) -> Result<Vec<String>, ReadError> {
        let names = self.ask(|client| async move {
            match client.list_children(dir.as_str()).await {
                Err(zookeeper_client::Error::NoNode) => Ok(Vec::new()),
                names => names,
            }
        });
        let mut names = names.await?;
        names.sort_unstable();
        Ok(names)
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Receipt, CommitError> {
        check_limits(&ops)?;
        let mut plan = Plan::new(&ops);
        let mut rounds = ROUNDS;
        loop {
            let line = self.feed.line().await.map_err(CommitError::Down)?;
            let error = match self.send(&line.client, &plan).await {
                Ok(results) => return self.receipt(&line, &plan, &results).await,
                Err(error) => error,
            };
            match plan.judge(error) {
                Verdict::Final(error) => return Err(error),
                Verdict::Raced(error) if rounds == 0 => return Err(error),
                Verdict::Raced(_) => rounds -= 1,
            }
            self.look(&line.client, &mut plan).await?;
        }
    }

    async fn catch_up(&self) -> Result<(), ReadError> {
        self.ask(|client| async move { session::catch_up(&client).await })
            .await
    }

    fn watch(&self, dir: &NodePath) -> Watch {
        self.feed.watch(dir)
    }

    fn health(&self) -> Receiver<Health> {
        self.feed.health()
    }

    fn standing(&self) -> Standing {
        let chroot = &self.settings.chroot;
        Standing {
            place: format!("ZooKeeper, below {chroot}"),
            session: Some(self.feed.session(self.settings.session_timeout)),
        }
    }

    async fn servers(&self) -> Vec<ServerFacts> {
        servers::ask(&self.settings).await
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The same 32 bits, which ZooKeeper counts with a sign.
const fn version(signed: i32) -> Version {
    Version(signed.cast_unsigned())
}

/// When a node was made. Some servers, 3.8.0 among them, do not say so when it was made in a multi
/// (ZOOKEEPER-4026, -4667), so it takes a read. Without an answer the time is only older than it could be.
async fn time_of(client: &Client, path: &NodePath) -> Option<i64> {
    let stat = timeout(REPLY, client.check_stat(path.as_str())).await;
    Some(stat.ok()?.ok()??.ctime)
}

/// When the leader accepted a step, in milliseconds, if its result tells.
fn time(result: &MultiWriteResult) -> Option<i64> {
    match result {
        MultiWriteResult::Create { stat, .. } | MultiWriteResult::SetData { stat } => {
            (!stat.is_invalid()).then_some(stat.mtime)
        }
        _ => None,
    }
}
