//! Caches: folders that later builds of a job find again.
//!
//! Owns the tree `cch` of the blob store. An entry is written once, by one attempt, below the scope
//! that its build may write to; later ones take its place, for the number of the build is in its
//! name. Losing one costs time, never a result: nothing in the coordination store refers to it.

use distci_model::build::Build;
use distci_model::cache::{CacheScope, MAX_CACHE, MAX_JOB_CACHES};
use distci_model::id::{Attempt, JobKey, TicketKey};

use crate::artifacts::{ADDRESS_TTL, Upload};
use crate::blobs::{BlobKey, Contents, Deed, SignedUrl};
use crate::error::StoreError;
use crate::keys::{self, AttemptBlobs, CacheEntry};
use crate::store::Store;
use crate::transaction::read;

/// How many entries of one cache stay: somebody may be reading the last but one.
const KEPT: usize = 2;

/// What an attempt may do with caches.
struct Access {
    blobs: AttemptBlobs,
    scope: CacheScope,
}

impl Store {
    /// The newest entry of the cache `name` that the build of this claim may read: of its own scope,
    /// or else of any trusted one.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn find_cache(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        name: &str,
    ) -> Result<Option<(CacheEntry, u64)>, StoreError> {
        let access = self.cache_access(key, attempt).await?;
        let own = access.scope.to_string();
        let entries = self.cache_entries(&access.blobs.job).await?;
        let readable = entries
            .into_iter()
            .filter(|(entry, _)| entry.name == name && (entry.scope == own || entry.is_trusted()));
        Ok(readable.max_by_key(|(entry, _)| (entry.scope == own, entry.id.clone())))
    }

    /// Reads an entry that [`find_cache`](Self::find_cache) found.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also if the build may not read it.
    pub async fn cache(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        entry: &CacheEntry,
    ) -> Result<Contents, StoreError> {
        let blob = self.cache_blob(key, attempt, entry).await?;
        let missing = || StoreError::missing(format!("cache {}", entry.name));
        self.blobs.get_stream(&blob, 0).await?.ok_or_else(missing)
    }

    /// Where it can be read without us, if it can.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], if the build may not read it.
    pub async fn cache_address(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        entry: &CacheEntry,
    ) -> Result<Option<SignedUrl>, StoreError> {
        let blob = self.cache_blob(key, attempt, entry).await?;
        Ok(self.blobs.signed(&blob, Deed::Read, ADDRESS_TTL).await?)
    }

    /// Stores what the cache `name` holds after this attempt. Gives its size.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn put_cache(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        name: &str,
        upload: impl Upload,
    ) -> Result<u64, StoreError> {
        let (access, entry) = self.new_cache(key, attempt, name).await?;
        let blob = keys::cache(&access.blobs.job, &entry);
        let stored = self.blobs.put_stream(&blob, upload, MAX_CACHE).await?;
        Ok(stored.bytes)
    }

    /// Where the holder of a claim may store that, of so many bytes, without us.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn cache_place(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        name: &str,
        bytes: u64,
    ) -> Result<Option<SignedUrl>, StoreError> {
        let (access, entry) = self.new_cache(key, attempt, name).await?;
        self.place(&keys::cache(&access.blobs.job, &entry), bytes)
            .await
    }

    /// The entry that an attempt may write. Whoever writes one removes those that nobody needs.
    async fn new_cache(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        name: &str,
    ) -> Result<(Access, CacheEntry), StoreError> {
        let access = self.cache_access(key, attempt).await?;
        let entry = CacheEntry::new(&access.scope, name, &access.blobs)
            .ok_or_else(|| StoreError::refused(format!("{name:?} is no name of a cache")))?;
        self.trim_caches(&access.blobs.job, &entry).await?;
        Ok((access, entry))
    }

    /// Removes the entries that `new` replaces, and the oldest of the job if they are too large.
    async fn trim_caches(&self, job: &JobKey, new: &CacheEntry) -> Result<(), StoreError> {
        let mut entries = self.cache_entries(job).await?;
        entries.sort_by(|(a, _), (b, _)| b.id.cmp(&a.id));
        let (mut replaced, mut total) = (0, 0_u64);
        for (entry, bytes) in entries {
            let same = entry.scope == new.scope && entry.name == new.name;
            // Another try of the same attempt writes the same entry.
            replaced += usize::from(same && entry.id != new.id);
            total = total.saturating_add(bytes);
            if (same && replaced >= KEPT) || total > MAX_JOB_CACHES {
                self.blobs
                    .delete_prefix(&keys::cache_folder(job, &entry))
                    .await?;
            }
        }
        Ok(())
    }

    async fn cache_entries(&self, job: &JobKey) -> Result<Vec<(CacheEntry, u64)>, StoreError> {
        let listed = self.blobs.list(&keys::caches(job)).await?;
        let entry = |(name, bytes): (String, u64)| Some((CacheEntry::parse(&name)?, bytes));
        Ok(listed.into_iter().filter_map(entry).collect())
    }

    async fn cache_blob(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        entry: &CacheEntry,
    ) -> Result<BlobKey, StoreError> {
        let access = self.cache_access(key, attempt).await?;
        if entry.scope == access.scope.to_string() || entry.is_trusted() {
            return Ok(keys::cache(&access.blobs.job, entry));
        }
        Err(StoreError::missing(format!("cache {}", entry.name)))
    }

    async fn cache_access(&self, key: &TicketKey, attempt: Attempt) -> Result<Access, StoreError> {
        let blobs = self.claimed_blobs(key, attempt).await?;
        let control = TicketKey::control(key.build.clone());
        let gone = || StoreError::missing(format!("build of {key}"));
        let build = read::<Build>(&*self.coordination, &keys::anchor(&control)).await?;
        Ok(Access {
            blobs,
            scope: CacheScope::of(&build.ok_or_else(gone)?.record.cause),
        })
    }
}
