//! The revisions of a job: which there were, and what each said.
//!
//! Owns the list of the revisions before each, which is stored before the revision that it belongs
//! to. Whoever loses the race for a revision leaves a configuration behind, so the blobs alone do not
//! tell which one it was. Invariant: what is before a revision is the same for everybody who may
//! store it, for it is made from the node that the commit replaces.

use bytes::Bytes;
use distci_model::build::ConfigRef;
use distci_model::id::{JobId, JobKey};
use distci_model::revision::RevisionView;
use distci_model::wire::{JobView, Page};

use crate::error::StoreError;
use crate::jobs::JobNode;
use crate::keys;
use crate::store::Store;
use crate::transaction::{decode, encode};

/// Revisions in one list.
const LISTED: usize = 50;
/// Most bytes of one list.
const MAX_LIST: u64 = 64 * 1024;

impl Store {
    /// The revisions of a job, the present one first, or those before a number. Where the list ends
    /// above 1 without a next page, nobody has noted the earlier ones.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revisions(
        &self,
        id: &JobId,
        before: Option<u32>,
        most: usize,
    ) -> Result<Page<RevisionView>, StoreError> {
        let job = self.read_job(id).await?;
        let present = view(&job.node.record);
        let mut items = Vec::new();
        let mut at = match before {
            Some(before) if before <= present.revision => before,
            Some(_) | None => {
                let revision = present.revision;
                items.push(present);
                revision
            }
        };
        while items.len() < most && at > 1 {
            let earlier = self.before(&job.key, at).await?;
            let Some(last) = earlier.last() else { break };
            at = last.revision;
            items.extend(earlier);
        }
        let is_more = items.len() > most || items.len() == most && at > 1;
        items.truncate(most);
        let last = items.last().filter(|_| is_more);
        Ok(Page {
            next: last.map(|last| last.revision.to_string()),
            items,
        })
    }

    /// A job as it was at a revision.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for a revision that was never noted and cannot be told from
    /// those that were not taken.
    pub async fn revision(&self, id: &JobId, number: u32) -> Result<JobView, StoreError> {
        let job = self.read_job(id).await?;
        let present = &job.node.record.config;
        let missing = || StoreError::missing(format!("revision {number} of job \"{id}\""));
        let hash = match number {
            0 => None,
            _ if number == present.revision => Some(present.hash.clone()),
            _ if number < present.revision => self.hash_of(&job.key, number).await?,
            _ => None,
        };
        let config = ConfigRef {
            revision: number,
            hash: hash.ok_or_else(missing)?,
            file: None,
        };
        Ok(JobView {
            job: id.clone(),
            revision: number,
            configuration: self.written_config(&job.key, &config).await?,
        })
    }

    /// Stores the text of a revision that is to be, and what is before it: what the job is now.
    ///
    /// # Idempotence
    /// The same is stored again.
    pub(crate) async fn keep_revision(
        &self,
        key: &JobKey,
        config: &ConfigRef,
        text: Bytes,
        replaced: Option<&JobNode>,
    ) -> Result<(), StoreError> {
        let blob = keys::config(key, config.revision, &config.hash);
        self.blobs.put(&blob, text).await?;
        let Some(replaced) = replaced else {
            return Ok(());
        };
        let mut list = vec![view(replaced)];
        list.extend(self.before(key, replaced.config.revision).await?);
        list.truncate(LISTED);
        let list = encode("list of revisions", &list)?;
        self.blobs
            .put(&keys::before(key, config.revision), list)
            .await?;
        Ok(())
    }

    /// The revisions before one, latest first; none if nobody has noted them.
    async fn before(&self, key: &JobKey, revision: u32) -> Result<Vec<RevisionView>, StoreError> {
        let blob = keys::before(key, revision);
        match self.blobs.get(&blob, MAX_LIST).await? {
            Some(text) => decode(blob.as_str(), &text),
            None => Ok(Vec::new()),
        }
    }

    /// The hash of an earlier revision: as it was noted, or that of the only configuration that
    /// anybody has stored for it.
    async fn hash_of(&self, key: &JobKey, number: u32) -> Result<Option<String>, StoreError> {
        let noted = self.before(key, number + 1).await?.into_iter().next();
        if let Some(noted) = noted.filter(|noted| noted.revision == number) {
            return Ok(Some(noted.hash));
        }
        let stored = self.blobs.list(&keys::configs(key)).await?;
        let start = format!("{number}-");
        let mut hashes = stored
            .iter()
            .filter_map(|(name, _)| name.strip_prefix(&start));
        let only = hashes.next().map(str::to_owned);
        Ok(only.filter(|_| hashes.next().is_none()))
    }
}

fn view(node: &JobNode) -> RevisionView {
    RevisionView {
        revision: node.config.revision,
        hash: node.config.hash.clone(),
        since: node.since,
    }
}
