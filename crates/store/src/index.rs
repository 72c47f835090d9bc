//! The name directories as frontends follow them.
//!
//! Owns the reading of index names and the news of them. Names carry everything that matching and
//! leases need, so no reads follow the events (protocol: mirrors).

use distci_model::capability::Capabilities;
use distci_model::id::ClassId;
use distci_model::ticket::IndexName;
use futures::future::try_join_all;

use crate::coordination::{Event, NodePath, Watch};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;

/// News of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexNews {
    /// A name appeared.
    Added(IndexName),
    /// A name is gone for ever.
    Removed(IndexName),
    /// News were missed: list again.
    Gap,
}

/// The news of one index directory.
#[derive(Debug)]
pub struct IndexWatch {
    watch: Watch,
    parse: fn(&str) -> Option<IndexName>,
}

impl IndexWatch {
    /// Forgets the news that are queued, for whoever lists next sees what they tell.
    pub fn skip(&mut self) {
        self.watch.skip();
    }

    /// The next news; `None` when the store is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<IndexNews> {
        loop {
            let event = self.watch.next().await?;
            let named = |path: &NodePath| (self.parse)(path.name());
            let news = match &event {
                Event::Created(path) => named(path).map(IndexNews::Added),
                Event::Deleted(path) => named(path).map(IndexNews::Removed),
                Event::Changed(_) => None,
                Event::Gap => Some(IndexNews::Gap),
            };
            if let Some(news) = news {
                return Some(news);
            }
        }
    }
}

fn parse_queue(name: &str) -> Option<IndexName> {
    keys::parse_queue(name).map(IndexName::Queue)
}

fn parse_claim(name: &str) -> Option<IndexName> {
    keys::parse_claim(name).map(IndexName::Claim)
}

fn parse_due(name: &str) -> Option<IndexName> {
    keys::parse_due(name).map(IndexName::Due)
}

impl Store {
    /// Follows the queue.
    pub fn watch_queue(&self) -> IndexWatch {
        IndexWatch {
            watch: self.coordination.watch(&keys::queue()),
            parse: parse_queue,
        }
    }

    /// Follows the claims.
    pub fn watch_claims(&self) -> IndexWatch {
        IndexWatch {
            watch: self.coordination.watch(&keys::claims()),
            parse: parse_claim,
        }
    }

    /// Follows those that wait for a time.
    pub fn watch_timers(&self) -> IndexWatch {
        IndexWatch {
            watch: self.coordination.watch(&keys::timers()),
            parse: parse_due,
        }
    }

    /// Every queued ticket. Watch first, then list: since no name is used twice, the order in which
    /// both are put together does not matter.
    pub async fn list_queue(&self) -> Result<Vec<IndexName>, StoreError> {
        self.list_index(&keys::queue(), parse_queue).await
    }

    /// Every claimed ticket.
    pub async fn list_claims(&self) -> Result<Vec<IndexName>, StoreError> {
        self.list_index(&keys::claims(), parse_claim).await
    }

    /// Every ticket that waits for a time.
    pub async fn list_timers(&self) -> Result<Vec<IndexName>, StoreError> {
        self.list_index(&keys::timers(), parse_due).await
    }

    async fn list_index(
        &self,
        dir: &NodePath,
        parse: fn(&str) -> Option<IndexName>,
    ) -> Result<Vec<IndexName>, StoreError> {
        let names = self.list_shards(dir).await?;
        Ok(names.iter().filter_map(|name| parse(name)).collect())
    }

    /// The names in all shards of a tree, asked for all at once: one round trip, not 256.
    pub(crate) async fn list_shards(&self, dir: &NodePath) -> Result<Vec<String>, StoreError> {
        let shards = keys::shards().map(|shard| {
            let shard = dir.join(&shard);
            async move { self.coordination.list(&shard).await }
        });
        let listed = try_join_all(shards).await?;
        Ok(listed.into_iter().flatten().collect())
    }

    /// What a class requires.
    pub async fn class(&self, class: &ClassId) -> Result<Option<Capabilities>, StoreError> {
        let path = keys::class(class);
        let Some(node) = self.coordination.get(&path).await? else {
            return Ok(None);
        };
        let requires = keys::parse_class(&node.data);
        requires
            .map(Some)
            .ok_or_else(|| StoreError::corrupt(path, "not a set of capabilities"))
    }

    /// Whether the store answers.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.coordination.get(&keys::jobs()).await?;
        Ok(())
    }

    /// Whether blobs can be read: asks for one that nobody stores.
    pub async fn check_blobs(&self) -> Result<(), StoreError> {
        self.blobs.head(&keys::no_blob()).await?;
        Ok(())
    }
}
