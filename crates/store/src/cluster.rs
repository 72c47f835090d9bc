//! The frontends as they tell each other of themselves.
//!
//! Owns `/fe` and `/beat`: who is there, what waits there, and which claims each frontend has heard
//! of lately. All of it lives as long as a session, so a dead frontend leaves nothing behind. Never
//! decides anything: a claim that nobody names is given up by `distci-frontend`.

use bytes::Bytes;
use distci_model::Timestamp;
use distci_model::id::{ClassId, FrontendId};
use distci_model::lease::node_of;
use distci_model::ticket::ClaimHash;
use serde::{Deserialize, Serialize};
use tokio::sync::watch::Receiver;

use crate::coordination::{
    CommitError, ConflictKind, Event, Expect, Health, Life, NodePath, Op, Receipt, Watch,
};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{pack, read};

/// Claims in one node of a digest: 64 KiB, which a commit takes with ease.
const CLAIMS_PER_NODE: usize = 8192;

/// What a frontend tells the others about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Where it listens, for people.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Since when it runs, by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The classes of tickets that workers wait for there.
    #[serde(default)]
    pub wants: Vec<ClassId>,
}

/// News of the frontends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterNews {
    /// One came, changed or went.
    Members,
    /// One has named the claims that it hears of.
    Digest(DigestNode),
    /// News were missed: look at everything again.
    Gap,
}

/// One node of a frontend's digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DigestNode(NodePath);

/// Follows the frontends.
#[derive(Debug)]
pub struct ClusterWatch {
    members: Watch,
    digests: Watch,
}

impl ClusterWatch {
    /// Forgets the news that are queued, for whoever looks at everything next sees what they tell.
    pub fn skip(&mut self) {
        self.members.skip();
        self.digests.skip();
    }

    /// The next news; `None` when the store is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<ClusterNews> {
        loop {
            tokio::select! {
                member = self.members.next() => return Some(match member? {
                    Event::Gap => ClusterNews::Gap,
                    Event::Created(_) | Event::Changed(_) | Event::Deleted(_) => ClusterNews::Members,
                }),
                digest = self.digests.next() => match digest? {
                    Event::Gap => return Some(ClusterNews::Gap),
                    Event::Created(path) | Event::Changed(path) => {
                        return Some(ClusterNews::Digest(DigestNode(path)));
                    }
                    Event::Deleted(_) => {}
                },
            }
        }
    }
}

impl Store {
    /// Whether the coordination store can be used, with its changes.
    pub fn health(&self) -> Receiver<Health> {
        self.coordination.health()
    }

    /// Tells the others of a frontend, for as long as this session lasts. An id is for one session:
    /// the node of an earlier one may still be there, and then goes away. Gives the time by the
    /// store's clock, if it tells.
    ///
    /// # Idempotence
    /// The latest card counts.
    pub async fn announce(
        &self,
        frontend: &FrontendId,
        card: &Card,
    ) -> Result<Option<Timestamp>, StoreError> {
        let path = keys::member(frontend);
        let data = pack(&path, card)?;
        Ok(self.put_for_session(path, data).await?.written)
    }

    /// All frontends.
    pub async fn members(&self) -> Result<Vec<(FrontendId, Card)>, StoreError> {
        let mut members = Vec::new();
        for name in self.coordination.list(&keys::members()).await? {
            let Ok(id) = name.parse::<FrontendId>() else {
                continue;
            };
            let card = match read::<Card>(&*self.coordination, &keys::member(&id)).await {
                Ok(card) => card.map(|card| card.record),
                // Of another version: it is there all the same, and all must agree on that.
                Err(StoreError::Corrupt { .. }) => Some(Card::default()),
                Err(error) => return Err(error),
            };
            members.extend(card.map(|card| (id, card)));
        }
        Ok(members)
    }

    /// Names the claims that a frontend has heard of since the last time. Gives the time by the
    /// store's clock. What was named in one turn can be read for as long as the law of leases says,
    /// by those who are slow.
    pub async fn publish(
        &self,
        frontend: &FrontendId,
        turn: u64,
        heard: &[ClaimHash],
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut time = None;
        for (part, hashes) in heard.chunks(CLAIMS_PER_NODE).enumerate() {
            let hashes = hashes.iter();
            let data: Vec<u8> = hashes.flat_map(|hash| hash.0.to_le_bytes()).collect();
            let path = keys::digest(frontend, node_of(turn), part);
            time = self.put_for_session(path, data.into()).await?.written;
        }
        Ok(time)
    }

    /// Asks the store itself, and not what this session has seen of it. Once this returns, the news
    /// of everything that anybody was told of before are in the queues of this store's watches, or
    /// were.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        Ok(self.coordination.catch_up().await?)
    }

    /// Sets a node of this session, or makes it.
    async fn put_for_session(&self, path: NodePath, data: Bytes) -> Result<Receipt, StoreError> {
        let set = Op::Set {
            path: path.clone(),
            data: data.clone(),
            expect: Expect::Any,
        };
        match self.coordination.commit(vec![set]).await {
            Err(CommitError::Conflict {
                kind: ConflictKind::Missing,
                ..
            }) => {}
            set => return Ok(set?),
        }
        let life = Life::Session;
        let create = Op::Create { path, data, life };
        Ok(self.coordination.commit(vec![create]).await?)
    }

    /// The claims that a node of a digest names; none if it is gone.
    pub async fn heard_in(&self, node: &DigestNode) -> Result<Vec<ClaimHash>, StoreError> {
        let Some(node) = self.coordination.get(&node.0).await? else {
            return Ok(Vec::new());
        };
        let (hashes, _) = node.data.as_chunks::<8>();
        Ok(hashes
            .iter()
            .map(|hash| ClaimHash(u64::from_le_bytes(*hash)))
            .collect())
    }

    /// Takes a frontend's leave: nobody needs to wait for the end of its session.
    pub async fn withdraw(&self, frontend: &FrontendId) -> Result<(), StoreError> {
        let mut parts = vec![keys::member(frontend)];
        let listed = self.coordination.list(&keys::digests()).await?;
        let own = listed
            .iter()
            .filter(|name| name.starts_with(frontend.as_str()));
        parts.extend(own.map(|name| keys::digests().join(name)));
        for path in parts {
            let delete = Op::Delete {
                path,
                expect: Expect::Any,
            };
            match self.coordination.commit(vec![delete]).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Follows the frontends.
    pub fn watch_cluster(&self) -> ClusterWatch {
        ClusterWatch {
            members: self.coordination.watch(&keys::members()),
            digests: self.coordination.watch(&keys::digests()),
        }
    }
}
