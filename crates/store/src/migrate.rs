//! Copying a stopped embedded store into a cluster.
//!
//! Owns the order: blobs before the nodes that refer to them (R4), anchors before the builds of
//! which they are a part, and `/meta` says `migrating` until all is there, so that no frontend
//! starts on a half. Never changes the source. Invariant: whatever is there already was put there
//! by an earlier try of the same migration, so repeating goes on where it ended.

use std::collections::BTreeMap;
use std::io;

use distci_model::Timestamp;
use distci_model::build::Build;
use distci_model::errand::Errand;
use distci_model::id::{BuildKey, TicketId, TicketKey};
use distci_model::plan::{Intent, plan};
use distci_model::ticket::Ticket;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::blobs::{BlobError, BlobKey, Blobs};
use crate::coordination::{CommitError, ConflictKind, Coordination, Life, NodePath, Op};
use crate::error::StoreError;
use crate::keys;
use crate::meta::{Meta, PrepareError};
use crate::store::Store;
use crate::transaction::{Anchor, Child, Read, Transaction, Tried, encode, read, until_done};

/// Blobs copied at the same time.
const BLOBS: usize = 8;
/// Commits on their way at the same time.
const COMMITS: usize = 16;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Blobs of the source.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Those that an earlier try had copied.
    pub blobs_there: u64,
    /// Jobs, removed ones included.
    pub jobs: u64,
    /// Builds that are not archived.
    pub builds: u64,
    /// Tickets of tasks.
    pub tickets: u64,
    /// Errands.
    pub errands: u64,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Blobs: so many of so many are there.
    Blobs {
        /// Done.
        done: u64,
        /// In all.
        of: u64,
    },
    /// Jobs and builds.
    Nodes {
        /// Done.
        done: u64,
        /// In all.
        of: u64,
    },
}

/// Why a store was not copied. Repeating goes on where it ended.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The target is in use already.
    #[error("the target already holds another store ({cluster}): give an empty chroot and bucket")]
    Taken {
        /// That store's id.
        cluster: String,
    },
    /// The target holds nodes, but does not say whose.
    #[error("the target holds {path}, which is no part of this migration: give an empty chroot")]
    Strange {
        /// What is there.
        path: String,
    },
    /// The source or the target must not be used.
    #[error("the {which} cannot be used")]
    Unusable {
        /// Source or target.
        which: &'static str,
        /// Why not.
        source: PrepareError,
    },
    /// One of them does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BlobError> for MigrateError {
    fn from(error: BlobError) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Copies all of this store into `target`, which is empty or holds a part of it. This one must
    /// not be in use. `tell` hears of the progress.
    ///
    /// # Errors
    /// [`MigrateError`].
    ///
    /// # Idempotence
    /// Repeated, it goes on where it ended; after the end, it finds nothing to do.
    pub async fn migrate(
        &self,
        target: &Self,
        at: Timestamp,
        tell: &(dyn Fn(Stage) + Sync),
    ) -> Result<Copied, MigrateError> {
        let unusable = |which| move |source| MigrateError::Unusable { which, source };
        let source = self.prepare(at).await.map_err(unusable("source"))?;
        let Some(begun) = begin(target, &source, at).await? else {
            return Ok(Copied::default());
        };
        target.make_directories().await?;
        let mut copied = Copied::default();
        copy_blobs(&self.blobs, &target.blobs, &mut copied, tell).await?;
        Nodes::of(self, at)
            .await?
            .copy(target, &mut copied, tell)
            .await?;
        finish(target, begun).await?;
        Ok(copied)
    }
}

/// Marks the target as being copied into; `None` if that is over already.
async fn begin(
    target: &Store,
    source: &Meta,
    at: Timestamp,
) -> Result<Option<Read<Meta>>, MigrateError> {
    let unusable = |source| MigrateError::Unusable {
        which: "target",
        source,
    };
    if target.meta().await.map_err(unusable)?.is_none() {
        if let Some(path) = list(&*target.coordination, &NodePath::root())
            .await?
            .first()
        {
            let path = path.to_string();
            return Err(MigrateError::Strange { path });
        }
        if let Some((path, _)) = any_blob(&target.blobs).await? {
            return Err(MigrateError::Strange { path });
        }
        let meta = Meta {
            // It is the same store in another place.
            cluster: source.cluster.clone(),
            created: source.created,
            migrating: Some(source.cluster.clone()),
            ..Meta::new(at)?
        };
        target.make_meta(meta).await.map_err(unusable)?;
    }
    let there = target.meta().await.map_err(unusable)?;
    let there = there.ok_or_else(|| StoreError::missing("mark of the migration"))?;
    if there.record.cluster != source.cluster {
        let cluster = there.record.cluster;
        return Err(MigrateError::Taken { cluster });
    }
    Ok(there.record.migrating.is_some().then_some(there))
}

/// From now on frontends may start.
async fn finish(target: &Store, begun: Read<Meta>) -> Result<(), MigrateError> {
    let path = keys::meta();
    let meta = Meta {
        migrating: None,
        ..begun.record
    };
    let data = encode(path.as_str(), &meta)?;
    let ended: Result<(), StoreError> = until_done!(target.coordination, async {
        let there = read::<Meta>(&*target.coordination, &path).await?;
        let there = there.ok_or_else(|| StoreError::missing("mark of the migration"))?;
        if there.record.migrating.is_none() {
            return Ok(Tried::Done(()));
        }
        let mut transaction = Transaction::default();
        transaction.set(path.clone(), data.clone(), there.version);
        let committed = transaction.commit(&*target.coordination).await?;
        Ok(committed.map_or(Tried::Again, |_| Tried::Done(())))
    });
    Ok(ended?)
}

/// A blob that is there, if any is: the bucket may be the one of another store.
async fn any_blob(blobs: &Blobs) -> Result<Option<(String, u64)>, BlobError> {
    for tree in keys::blob_trees() {
        if let Some((name, bytes)) = blobs.list(&tree).await?.into_iter().next() {
            return Ok(Some((format!("blob {tree}/{name}"), bytes)));
        }
    }
    Ok(None)
}

async fn copy_blobs(
    from: &Blobs,
    to: &Blobs,
    copied: &mut Copied,
    tell: &(dyn Fn(Stage) + Sync),
) -> Result<(), MigrateError> {
    let mut all = Vec::new();
    for tree in keys::blob_trees() {
        let there: BTreeMap<_, _> = to.list(&tree).await?.into_iter().collect();
        for (name, bytes) in from.list(&tree).await? {
            let is_there = there.get(&name) == Some(&bytes);
            copied.blobs += 1;
            copied.blob_bytes += bytes;
            copied.blobs_there += u64::from(is_there);
            if !is_there {
                let key = BlobKey::parse(&format!("{tree}/{name}"));
                all.push(key.map_err(|error| StoreError::corrupt("a blob", error))?);
            }
        }
    }
    let (mut done, of) = (copied.blobs_there, copied.blobs);
    tell(Stage::Blobs { done, of });
    let puts = stream::iter(all).map(|key| copy_blob(from, to, key));
    let mut puts = puts.buffer_unordered(BLOBS).boxed();
    while puts.try_next().await?.is_some() {
        done += 1;
        tell(Stage::Blobs { done, of });
    }
    Ok(())
}

async fn copy_blob(from: &Blobs, to: &Blobs, key: BlobKey) -> Result<(), MigrateError> {
    let Some((bytes, contents)) = from.get_stream(&key, 0).await? else {
        return Err(StoreError::missing(format!("blob {key}")).into());
    };
    let contents = contents.map_err(io::Error::other).boxed();
    to.put_stream(&key, contents, bytes).await?;
    Ok(())
}

/// What is to be copied of the source's tree: groups of nodes, each of which is one commit.
#[derive(Default)]
struct Nodes {
    /// Classes, drain orders, jobs with their schedules, and builds without their tickets.
    first: Vec<Vec<Op>>,
    /// Tickets of tasks, whose builds must be there.
    then: Vec<Vec<Op>>,
    jobs: u64,
    builds: u64,
    errands: u64,
}

impl Nodes {
    async fn of(source: &Store, at: Timestamp) -> Result<Self, MigrateError> {
        let mut nodes = Self::default();
        let tree = &*source.coordination;
        let mut flat = list(tree, &keys::classes()).await?;
        flat.extend(list(tree, &keys::drains()).await?);
        flat.extend(below_shards(tree, &keys::watchers()).await?);
        flat.extend(below_shards(tree, &keys::timetables()).await?);
        for path in flat {
            nodes.first.push(vec![copy(tree, path).await?]);
        }
        for path in below_shards(tree, &keys::jobs()).await? {
            nodes.jobs += 1;
            let mut group = vec![copy(tree, path.clone()).await?];
            for path in list(tree, &path).await? {
                group.push(copy(tree, path).await?);
            }
            nodes.first.push(group);
        }
        for path in below_shards(tree, &keys::builds()).await? {
            nodes.builds += 1;
            nodes.build(tree, &path, at).await?;
        }
        for path in below_shards(tree, &keys::errands()).await? {
            nodes.errands += 1;
            nodes.errand(tree, &path, at).await?;
        }
        Ok(nodes)
    }

    async fn build(
        &mut self,
        tree: &dyn Coordination,
        path: &NodePath,
        at: Timestamp,
    ) -> Result<(), MigrateError> {
        let key = path.name().parse();
        let key: BuildKey = key.map_err(|error| StoreError::corrupt(path, error))?;
        let control = TicketKey::control(key.clone());
        let build: Build = record(tree, &control).await?;
        let build = build.with(unheld(build.ticket(), at));
        let mut group = post(&control, &build)?;
        for below in list(tree, path).await? {
            match below.name().parse::<TicketId>() {
                Ok(ticket) => {
                    let build = key.clone();
                    let key = TicketKey { build, ticket };
                    self.then
                        .push(post::<Child>(&key, &record(tree, &key).await?)?);
                }
                Err(_) => group.push(copy(tree, below).await?),
            }
        }
        self.first.push(group);
        Ok(())
    }

    async fn errand(
        &mut self,
        tree: &dyn Coordination,
        path: &NodePath,
        at: Timestamp,
    ) -> Result<(), MigrateError> {
        let key = path.name().parse();
        let key = TicketKey {
            build: key.map_err(|error| StoreError::corrupt(path, error))?,
            ticket: TicketId::errand(),
        };
        let errand: Errand = record(tree, &key).await?;
        let errand = errand.with(unheld(errand.ticket(), at));
        self.first.push(post(&key, &errand)?);
        Ok(())
    }

    async fn copy(
        self,
        target: &Store,
        copied: &mut Copied,
        tell: &(dyn Fn(Stage) + Sync),
    ) -> Result<(), MigrateError> {
        (copied.jobs, copied.builds) = (self.jobs, self.builds);
        copied.errands = self.errands;
        copied.tickets = self.then.len() as u64;
        let (mut done, of) = (0, (self.first.len() + self.then.len()) as u64);
        tell(Stage::Nodes { done, of });
        let tree = &*target.coordination;
        for wave in [self.first, self.then] {
            let commits = stream::iter(wave).map(|group| create(tree, group));
            let mut commits = commits.buffer_unordered(COMMITS).boxed();
            while commits.try_next().await?.is_some() {
                done += 1;
                tell(Stage::Nodes { done, of });
            }
        }
        Ok(())
    }
}

/// Whoever decides about a build does so by the version of its mailbox, which begins anew with the
/// copy: a decision from before must find that its claim is over.
fn unheld(ticket: &Ticket, at: Timestamp) -> Ticket {
    let attempt = ticket.attempt;
    plan(ticket, Intent::Release { attempt, at }).map_or_else(|_| ticket.clone(), |to| to.ticket)
}

/// An anchor with the name that it has at its first version.
fn post<A: Anchor>(key: &TicketKey, anchor: &A) -> Result<Vec<Op>, StoreError> {
    let mut transaction = Transaction::default();
    transaction.post(key, anchor)?;
    Ok(transaction.into_ops())
}

async fn record<A: Anchor>(tree: &dyn Coordination, key: &TicketKey) -> Result<A, StoreError> {
    let path = keys::anchor(key);
    let read = read::<A>(tree, &path).await?;
    read.map(|read| read.record)
        .ok_or_else(|| StoreError::missing(format!("node {path}")))
}

async fn copy(tree: &dyn Coordination, path: NodePath) -> Result<Op, StoreError> {
    let node = tree.get(&path).await?;
    let node = node.ok_or_else(|| StoreError::missing(format!("node {path}")))?;
    Ok(Op::Create {
        path,
        data: node.data,
        life: Life::Durable,
    })
}

async fn list(tree: &dyn Coordination, dir: &NodePath) -> Result<Vec<NodePath>, StoreError> {
    let names = tree.list(dir).await?;
    Ok(names.iter().map(|name| dir.join(name)).collect())
}

async fn below_shards(
    tree: &dyn Coordination,
    dir: &NodePath,
) -> Result<Vec<NodePath>, StoreError> {
    let mut paths = Vec::new();
    for shard in list(tree, dir).await? {
        paths.extend(list(tree, &shard).await?);
    }
    Ok(paths)
}

/// Makes the nodes of a group; all are there already if the first one is.
async fn create(tree: &dyn Coordination, group: Vec<Op>) -> Result<(), StoreError> {
    until_done!(tree, async {
        match tree.commit(group.clone()).await {
            Ok(_)
            | Err(CommitError::Conflict {
                index: 0,
                kind: ConflictKind::Exists,
            }) => Ok(Tried::Done(())),
            Err(CommitError::Unknown) => Ok(Tried::Again),
            Err(error) => Err(error.into()),
        }
    })
}
