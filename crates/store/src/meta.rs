//! What a store says of itself: the form in which it is written, and which store it is.
//!
//! Owns `/meta` and the directories that every store has. Whoever opens a store prepares it first:
//! a form that is not known is refused before anything of it is read. Never changes what is there.

use distci_model::Timestamp;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::coordination::{MAX_OPS, NodePath};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Read, Transaction, Tried, encode, read, until_done};

/// The form in which this version writes.
pub const SCHEMA: u32 = 1;

/// Which store it is, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The form of everything in it, counted from 1.
    pub schema: u32,
    /// Drawn when the store was made, 32 hex digits; no two stores have the same.
    pub cluster: String,
    /// When it was made.
    pub created: Timestamp,
    /// The store that is being copied here, as long as the copy is not whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrating: Option<String>,
}

impl Meta {
    /// That of a new store.
    pub(crate) fn new(at: Timestamp) -> Result<Self, StoreError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| StoreError::Down(error.into()))?;
        Ok(Self {
            schema: SCHEMA,
            cluster: format!("{:032x}", u128::from_be_bytes(random)),
            created: at,
            migrating: None,
        })
    }
}

/// Why a store must not be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A later version wrote it, in a form that this one does not know.
    #[error(
        "this store was written by a newer version of DistCI (schema {found}; this is {SCHEMA}): \
         upgrade distci"
    )]
    Newer {
        /// Its form.
        found: u32,
    },
    /// Not everything of another store has been copied here.
    #[error("a migration into this store is not finished: repeat `distci migrate`")]
    Migrating,
    /// It cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes the store usable: what every store has is there when this returns, and it is of a form
    /// that this version knows.
    ///
    /// # Errors
    /// [`PrepareError`].
    ///
    /// # Idempotence
    /// Whoever comes second, or at the same time, finds what the first one made.
    pub async fn prepare(&self, at: Timestamp) -> Result<Meta, PrepareError> {
        let meta = match self.meta().await? {
            Some(meta) => meta.record,
            None => self.make_meta(Meta::new(at)?).await?,
        };
        if meta.migrating.is_some() {
            return Err(PrepareError::Migrating);
        }
        self.make_directories().await?;
        Ok(meta)
    }

    /// Looks whether the store may be used, and makes nothing.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub async fn acceptable(&self) -> Result<(), PrepareError> {
        match self.meta().await? {
            Some(meta) if meta.record.migrating.is_some() => Err(PrepareError::Migrating),
            Some(_) | None => Ok(()),
        }
    }

    /// What the store says of itself, if it was prepared.
    ///
    /// # Errors
    /// [`PrepareError::Newer`], whatever else a newer version has written there.
    pub(crate) async fn meta(&self) -> Result<Option<Read<Meta>>, PrepareError> {
        #[derive(Deserialize)]
        struct Form {
            schema: u32,
        }
        let path = keys::meta();
        let Some(form) = read::<Form>(&*self.coordination, &path).await? else {
            return Ok(None);
        };
        let found = form.record.schema;
        if found > SCHEMA {
            return Err(PrepareError::Newer { found });
        }
        Ok(read(&*self.coordination, &path).await?)
    }

    /// Gives `meta` to a store that has none. Gives what it has then: somebody may be faster.
    pub(crate) async fn make_meta(&self, meta: Meta) -> Result<Meta, PrepareError> {
        let path = keys::meta();
        let data = encode(path.as_str(), &meta)?;
        let made: Result<(), StoreError> = until_done!(self.coordination, async {
            let mut transaction = Transaction::default();
            transaction.create(path.clone(), data.clone());
            let committed = transaction.commit(&*self.coordination).await?;
            let there = committed.is_some() || self.coordination.get(&path).await?.is_some();
            Ok(if there { Tried::Done(()) } else { Tried::Again })
        });
        made?;
        let there = self.meta().await?;
        Ok(there.map_or(meta, |there| there.record))
    }

    /// Makes those of the fixed directories that are missing.
    pub(crate) async fn make_directories(&self) -> Result<(), StoreError> {
        until_done!(self.coordination, async {
            let trees = self.absent(NodePath::root(), keys::trees()).await?;
            if !trees.is_empty() {
                // Before the shards, which are made all at once and must not race for their parent.
                self.make(&trees).await?;
            }
            let shards = keys::sharded_trees().into_iter().map(|tree| {
                self.absent(
                    tree.clone(),
                    keys::shards().map(move |name| tree.join(&name)),
                )
            });
            let missing = try_join_all(shards).await?.concat();
            if missing.is_empty() {
                return Ok(Tried::Done(()));
            }
            try_join_all(missing.chunks(MAX_OPS).map(|some| self.make(some))).await?;
            // What lost a race is seen, or made, in the next round.
            Ok(Tried::Again)
        })
    }

    /// Those of `wanted`, directories of `parent`, that are not there.
    async fn absent(
        &self,
        parent: NodePath,
        wanted: impl IntoIterator<Item = NodePath>,
    ) -> Result<Vec<NodePath>, StoreError> {
        let present = self.coordination.list(&parent).await?;
        let absent = |path: &NodePath| present.iter().all(|name| name != path.name());
        Ok(wanted.into_iter().filter(absent).collect())
    }

    async fn make(&self, directories: &[NodePath]) -> Result<(), StoreError> {
        let mut transaction = Transaction::default();
        for path in directories {
            transaction.create(path.clone(), bytes::Bytes::new());
        }
        transaction.commit(&*self.coordination).await?;
        Ok(())
    }
}
