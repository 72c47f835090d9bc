//! The history of a job without a database.
//!
//! Owns the listing of builds. Numbers are dense, so no index is needed: the latest archived builds
//! are in the job's own node, active ones are read from their anchors, older ones from pages of 256
//! summaries. A page is a pure function of the records, so whoever finds it missing and all its
//! builds archived writes it, and all writers write the same.

use std::num::NonZeroU64;

use bytes::Bytes;
use distci_model::build::{Build, Progress};
use distci_model::id::{Attempt, BuildKey, BuildNumber, JobId, JobKey, TicketKey};
use distci_model::wire::{BuildPhase, BuildSummary, Page};
use futures::StreamExt;

use crate::control::summary;
use crate::error::StoreError;
use crate::jobs::Job;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Child, Read, decode, encode, read};

/// Builds of one page.
pub(crate) const PAGE: NonZeroU64 = NonZeroU64::new(256).unwrap();
/// Records read at once when a page is made.
const PARALLEL: usize = 16;
/// Largest page, compressed.
const MAX_PAGE: u64 = 1024 * 1024;

/// A job in a list, with its last builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobHead {
    /// What its builds are known by.
    pub key: JobKey,
    /// What it is for.
    pub description: Option<String>,
    /// Counts the changes of its configuration.
    pub revision: u32,
    /// Its last builds, latest first.
    pub builds: Vec<BuildSummary>,
}

impl Store {
    /// A job as a list shows it, with at most `limit` of its last builds. Two reads, and one for each
    /// of them that is active, as long as the limit is not over 16.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job.
    pub async fn job_with_builds(&self, id: &JobId, limit: usize) -> Result<JobHead, StoreError> {
        let job = self.read_job(id).await?;
        let (builds, _) = self.list_builds_of(&job, None, limit).await?;
        Ok(JobHead {
            key: job.key,
            description: job.node.record.description,
            revision: job.node.record.config.revision,
            builds,
        })
    }

    /// The builds of a job, latest first: at most `limit` of those before number `before`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job.
    pub async fn list_builds(
        &self,
        id: &JobId,
        before: Option<BuildNumber>,
        limit: usize,
    ) -> Result<Page<BuildSummary>, StoreError> {
        let job = self.read_job(id).await?;
        let (items, next) = self.list_builds_of(&job, before, limit).await?;
        Ok(Page {
            items,
            next: next.map(|number| number.to_string()),
        })
    }

    pub(crate) async fn list_builds_of(
        &self,
        job: &Job,
        before: Option<BuildNumber>,
        limit: usize,
    ) -> Result<(Vec<BuildSummary>, Option<BuildNumber>), StoreError> {
        let end = before.map_or(job.numbers.record.next, |n| n.min(job.numbers.record.next));
        let mut builds = Vec::new();
        let mut page: Option<(u64, Vec<BuildSummary>)> = None;
        for number in (1..end.get())
            .rev()
            .take(limit)
            .filter_map(BuildNumber::new)
        {
            let recent = job
                .numbers
                .record
                .recent
                .iter()
                .find(|known| known.number == number);
            if let Some(known) = recent {
                builds.push(known.clone());
                continue;
            }
            if let Some(active) = self.active_summary(job, number).await? {
                builds.push(active);
                continue;
            }
            let index = number.get() / PAGE;
            if page.as_ref().is_none_or(|(known, _)| *known != index) {
                page = Some((index, self.history_page(job, index, end).await?));
            }
            let mut listed = page.iter().flat_map(|(_, builds)| builds);
            if let Some(known) = listed.find(|known| known.number == number) {
                builds.push(known.clone());
                continue;
            }
            // It ended since the page was read, for which it was still at work.
            let record = self.record(&job.key, number).await?;
            builds.extend(record.map(|record| summary(&record.build, &record.outcome)));
        }
        let next = builds
            .last()
            .map(|last| last.number)
            .filter(|number| number.get() > 1);
        Ok((builds, next))
    }

    async fn active_summary(
        &self,
        job: &Job,
        number: BuildNumber,
    ) -> Result<Option<BuildSummary>, StoreError> {
        let path = keys::build(&BuildKey::derive(&job.key, number));
        let build: Option<Read<Build>> = read(&*self.coordination, &path).await?;
        let Some(Read { record: build, .. }) = build else {
            return Ok(None);
        };
        let phase = if self.has_begun(job, number, &build).await? {
            BuildPhase::Running
        } else {
            BuildPhase::Queued
        };
        Ok(Some(BuildSummary {
            number,
            phase,
            outcome: None,
            cause: build.cause,
            created: build.created,
            finished: None,
        }))
    }

    /// Whether any task of an active build was ever claimed. Reads tickets only while none is known
    /// to have been.
    async fn has_begun(
        &self,
        job: &Job,
        number: BuildNumber,
        build: &Build,
    ) -> Result<bool, StoreError> {
        let key = BuildKey::derive(&job.key, number);
        let mut posted = Vec::new();
        for progress in &build.checkpoint.tasks {
            match progress {
                Progress::Waiting | Progress::Skipped { .. } => {}
                Progress::Posted { ticket, run: 1 } => posted.push(ticket),
                Progress::Posted { .. }
                | Progress::Backoff { .. }
                | Progress::Asking { .. }
                | Progress::Finished(_) => return Ok(true),
            }
        }
        for ticket in posted {
            let build = key.clone();
            let ticket = ticket.clone();
            let path = keys::anchor(&TicketKey { build, ticket });
            let child: Option<Read<Child>> = read(&*self.coordination, &path).await?;
            // Consumed meanwhile: it has run.
            if child.is_none_or(|child| child.record.ticket.attempt > Attempt::default()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The archived builds of a page; stored, if the page is full.
    async fn history_page(
        &self,
        job: &Job,
        index: u64,
        end: BuildNumber,
    ) -> Result<Vec<BuildSummary>, StoreError> {
        let key = keys::history_page(&job.key, index);
        if let Some(data) = self.blobs.get(&key, MAX_PAGE).await? {
            let text =
                zstd::decode_all(&*data).map_err(|error| StoreError::corrupt(&key, error))?;
            return decode(key.as_str(), &text);
        }
        let first = (index * PAGE.get()).max(1);
        let last = (index + 1) * PAGE.get();
        let numbers = (first..last.min(end.get())).filter_map(BuildNumber::new);
        let records = futures::stream::iter(numbers)
            .map(|number| self.record(&job.key, number))
            .buffered(PARALLEL);
        let records: Vec<_> = records.collect().await;
        let mut builds = Vec::with_capacity(records.len());
        for record in records {
            builds.extend(record?.map(|record| summary(&record.build, &record.outcome)));
        }
        if builds.len() as u64 == last - first {
            let text = encode(key.as_str(), &builds)?;
            let data =
                zstd::encode_all(&*text, 3).map_err(|error| StoreError::corrupt(&key, error))?;
            self.blobs.put(&key, Bytes::from(data)).await?;
        }
        Ok(builds)
    }
}
