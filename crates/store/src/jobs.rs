//! Jobs: their configurations by revision, and the numbers of their builds.
//!
//! Owns `/j` and the configurations in the blob store. A configuration is stored before the node
//! refers to it, and changes only by compare-and-set on the revision. A removed job leaves a
//! tombstone, so that versions and keys never start again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use distci_model::Timestamp;
use distci_model::build::ConfigRef;
use distci_model::config::JobConfig;
use distci_model::event::{Event, EventKind};
use distci_model::id::{BuildNumber, JobId, JobKey, LockKey, RequestId};
use distci_model::wire::{BuildSummary, JobView};
use serde::{Deserialize, Serialize};

use crate::coordination::Version;
use crate::errands::Polls;
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Read, Transaction, Tried, decode, encode, pack, read, until_done};

/// How many triggers a job remembers, so that a repeated one finds its build.
const REMEMBERED: usize = 128;
/// How many commits a job remembers, so that polls and webhooks know what the others have told.
const COMMITS: usize = 64;
/// How many archived builds are listed from memory.
pub(crate) const RECENT: usize = 16;

/// What `/j/…/<job>` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobNode {
    pub(crate) incarnation: u32,
    pub(crate) config: ConfigRef,
    /// When it got this configuration; unknown of what was stored before this was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) removed: bool,
    /// Marks of the repositories whose events it waits for: which names it has in `/r`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) watches: BTreeSet<String>,
    /// The polls that it has.
    #[serde(default, skip_serializing_if = "Polls::is_empty")]
    pub(crate) polls: Polls,
}

/// What `/j/…/<job>/n` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// The number of the next build.
    pub(crate) next: BuildNumber,
    /// Recent triggers: mark of the request, number of its build.
    pub(crate) triggers: VecDeque<(String, BuildNumber)>,
    /// Recently archived builds, oldest first.
    pub(crate) recent: VecDeque<BuildSummary>,
    /// Of each lock whose older builds are cancelled, the active builds that are not, oldest first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) newest: BTreeMap<LockKey, Vec<BuildNumber>>,
    /// The commits of the latest builds that have one.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub(crate) commits: VecDeque<BuiltCommit>,
}

/// A commit of which there is a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BuiltCommit {
    /// Mark of the repository and the commit.
    commit: String,
    /// Mark of its ref.
    #[serde(rename = "ref")]
    reference: String,
    number: BuildNumber,
    /// Whether a poll found it.
    #[serde(default)]
    polled: bool,
}

impl Numbers {
    fn fresh() -> Self {
        Self {
            next: BuildNumber::FIRST,
            triggers: VecDeque::new(),
            recent: VecDeque::new(),
            newest: BTreeMap::new(),
            commits: VecDeque::new(),
        }
    }

    /// Remembers of which commit a build is, if it is of one.
    pub(crate) fn note_commit(&mut self, number: BuildNumber, told: &Event) {
        let Some((commit, reference)) = commit_marks(told) else {
            return;
        };
        self.commits.push_back(BuiltCommit {
            commit,
            reference,
            number,
            polled: told.kind == EventKind::Poll,
        });
        if self.commits.len() > COMMITS {
            self.commits.pop_front();
        }
    }

    /// The build of the commit and ref of an event, if one of the two was told by a poll: what a
    /// webhook and a poll both tell is built once.
    pub(crate) fn built(&self, told: &Event) -> Option<BuildNumber> {
        let (commit, reference) = commit_marks(told)?;
        let is_news = matches!(
            told.kind,
            EventKind::Push | EventKind::Tag | EventKind::Poll
        );
        let by_poll = told.kind == EventKind::Poll;
        self.commits
            .iter()
            .filter(|known| is_news && (known.polled || by_poll))
            .find(|known| known.commit == commit && known.reference == reference)
            .map(|known| known.number)
    }

    /// Whether one of the latest builds is of the commit of an event, through whatever ref.
    pub(crate) fn has_built(&self, told: &Event) -> bool {
        let marks = commit_marks(told);
        marks.is_some_and(|(commit, _)| self.commits.iter().any(|known| known.commit == commit))
    }

    /// Takes the next number for a trigger.
    pub(crate) fn take(&mut self, mark: String) -> BuildNumber {
        let number = self.next;
        self.next = number.next();
        self.triggers.push_back((mark, number));
        if self.triggers.len() > REMEMBERED {
            self.triggers.pop_front();
        }
        number
    }

    /// The build of a remembered trigger.
    pub(crate) fn taken(&self, mark: &str) -> Option<BuildNumber> {
        self.triggers
            .iter()
            .find(|(known, _)| known == mark)
            .map(|(_, number)| *number)
    }

    /// Forgets a build among the newest ones.
    pub(crate) fn leave(&mut self, number: BuildNumber) {
        self.newest.retain(|_, newest| {
            newest.retain(|known| *known != number);
            !newest.is_empty()
        });
    }

    /// Remembers an archived build.
    pub(crate) fn archive(&mut self, summary: BuildSummary) {
        self.recent.retain(|known| known.number != summary.number);
        self.recent.push_back(summary);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }
}

/// What a commit is remembered by, and its ref.
fn commit_marks(told: &Event) -> Option<(String, String)> {
    let (repository, sha) = (told.fact("repository")?, told.fact("sha")?);
    let mark = |text: &str| keys::request_mark(&RequestId::derive(text))[..16].to_owned();
    let reference = told.fact("ref").unwrap_or_default();
    Some((mark(&format!("{repository} {sha}")), mark(reference)))
}

/// A job as it is now, with everything that posting a build needs.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) key: JobKey,
    pub(crate) node: Read<JobNode>,
    pub(crate) numbers: Read<Numbers>,
}

/// Whether a job was made or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not there.
    Created,
    /// It was there; now it has this configuration.
    Updated,
}

/// Which present state a change of a job expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Any.
    Any,
    /// The job does not exist.
    Absent,
    /// The job is at this revision.
    Revision(u32),
}

impl Store {
    /// The names of all jobs, in order.
    pub async fn job_ids(&self) -> Result<Vec<JobId>, StoreError> {
        let names = self.list_shards(&keys::jobs()).await?;
        let mut ids: Vec<JobId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// A job with its configuration.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job(&self, id: &JobId) -> Result<JobView, StoreError> {
        let job = self.read_job(id).await?;
        let config = &job.node.record.config;
        Ok(JobView {
            job: id.clone(),
            revision: config.revision,
            configuration: self.written_config(&job.key, config).await?,
        })
    }

    /// What a job is for, and its revision.
    pub async fn job_head(&self, id: &JobId) -> Result<(Option<String>, u32), StoreError> {
        let job = self.read_job(id).await?;
        Ok((job.node.record.description, job.node.record.config.revision))
    }

    /// Gives a job this configuration, making the job if need be. Its new schedules begin `at` this
    /// moment.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the job is not as `expected`.
    ///
    /// # Idempotence
    /// The configuration that the job has already is stored no second time.
    pub async fn set_job(
        &self,
        config: &JobConfig,
        expected: Expected,
        at: Timestamp,
    ) -> Result<(JobView, Put), StoreError> {
        until_done!(self.coordination, self.try_set_job(config, expected, at))
    }

    async fn try_set_job(
        &self,
        config: &JobConfig,
        expected: Expected,
        at: Timestamp,
    ) -> Result<Tried<(JobView, Put)>, StoreError> {
        let id = &config.job_id;
        let text = encode("job configuration", config)?;
        let hash = blake3::hash(&text).to_hex().to_string();
        let present: Option<Read<JobNode>> = read(&*self.coordination, &keys::job(id)).await?;
        let live = present.as_ref().filter(|job| !job.record.removed);
        let view = |revision| JobView {
            job: id.clone(),
            revision,
            configuration: config.clone(),
        };
        if let Some(job) = live.filter(|job| job.record.config.hash == hash) {
            // Also the answer to a repeated request, whose revision has been reached already.
            let revision = job.record.config.revision;
            return Ok(Tried::Done((view(revision), Put::Updated)));
        }
        check_expected(id, live.map(|job| job.record.config.revision), expected)?;
        self.check_rounds(config).await?;
        let revision = live.map_or(1, |job| job.record.config.revision + 1);
        let incarnation = match (&present, live) {
            (None, _) => 0,
            (Some(job), Some(_)) => job.record.incarnation,
            (Some(job), None) => job.record.incarnation + 1,
        };
        let key = JobKey::derive(id, incarnation);
        let kept = ConfigRef {
            revision,
            hash,
            file: None,
        };
        let replaced = live.map(|job| &job.record);
        self.keep_revision(&key, &kept, text, replaced).await?;
        let before = live.map_or_else(Polls::new, |job| job.record.polls.clone());
        let node = JobNode {
            incarnation,
            config: kept,
            since: Some(at),
            description: config.description.clone(),
            removed: false,
            watches: crate::events::watched(config),
            polls: Self::polls_of(config, &before, revision),
        };
        let mut transaction = Transaction::default();
        let polls = (&before, &node.polls);
        self.change_polls(&mut transaction, &key, polls, Some((config, at)))
            .await?;
        self.set_schedules(&mut transaction, (id, &key), Some((config, at)))
            .await?;
        let committed = self
            .commit_job(transaction, present.as_ref(), live.is_some(), (id, &node))
            .await?;
        let put = live.map_or(Put::Created, |_| Put::Updated);
        Ok(if committed {
            Tried::Done((view(revision), put))
        } else {
            Tried::Again
        })
    }

    /// Refuses a configuration with which jobs would trigger each other for ever. Two that are set
    /// at the same moment may still close a round; whoever sets either again is told.
    async fn check_rounds(&self, config: &JobConfig) -> Result<(), StoreError> {
        let mut seen = BTreeSet::new();
        let mut ways = vec![vec![config.job_id.clone()]];
        while let Some(way) = ways.pop() {
            let downstream = match way.as_slice() {
                [_] => downstream_of(config),
                [.., last] if seen.insert(last.clone()) => self.downstream_of(last).await?,
                _ => continue,
            };
            for job in downstream {
                let longer: Vec<JobId> = way.iter().cloned().chain([job.clone()]).collect();
                if job == config.job_id {
                    let names: Vec<_> = longer.iter().map(JobId::as_str).collect();
                    let round = names.join(" triggers ");
                    return Err(StoreError::refused(format!("a round without end: {round}")));
                }
                ways.push(longer);
            }
        }
        Ok(())
    }

    /// The jobs that a job triggers; none if it does not exist.
    async fn downstream_of(&self, id: &JobId) -> Result<Vec<JobId>, StoreError> {
        let job = match self.read_job(id).await {
            Ok(job) => job,
            Err(StoreError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let config = self.config(&job.key, &job.node.record.config).await?;
        Ok(downstream_of(&config))
    }

    async fn commit_job(
        &self,
        mut transaction: Transaction,
        present: Option<&Read<JobNode>>,
        keep_numbers: bool,
        (id, node): (&JobId, &JobNode),
    ) -> Result<bool, StoreError> {
        let (path, numbers) = (keys::job(id), keys::numbers(id));
        let data = pack(&path, node)?;
        let fresh = pack(&numbers, &Numbers::fresh())?;
        watch_anew(&mut transaction, id, present, node);
        match present {
            None => {
                transaction.create(path, data);
                transaction.create(numbers, fresh);
            }
            Some(job) => {
                transaction.set(path, data, job.version);
                if !keep_numbers {
                    let old = self.coordination.get(&numbers).await?;
                    let version = old.map_or(Version::FIRST, |node| node.version);
                    transaction.set(numbers, fresh, version);
                }
            }
        }
        Ok(transaction.commit(&*self.coordination).await?.is_some())
    }

    /// Removes a job and all that its builds left.
    ///
    /// # Errors
    /// [`StoreError::Refused`] while builds of it are not finished.
    ///
    /// # Idempotence
    /// A removed job is swept again.
    pub async fn remove_job(&self, id: &JobId) -> Result<(), StoreError> {
        let key = until_done!(self.coordination, self.try_remove_job(id))?;
        for prefix in keys::job_blobs(&key) {
            self.blobs.delete_prefix(&prefix).await?;
        }
        Ok(())
    }

    async fn try_remove_job(&self, id: &JobId) -> Result<Tried<JobKey>, StoreError> {
        let path = keys::job(id);
        let missing = || StoreError::missing(format!("job {id:?}", id = id.as_str()));
        let node: Read<JobNode> = read(&*self.coordination, &path)
            .await?
            .ok_or_else(missing)?;
        let key = JobKey::derive(id, node.record.incarnation);
        if node.record.removed {
            return Ok(Tried::Done(key));
        }
        let numbers = read_numbers(self, id).await?;
        if let Some(number) = self.first_active(&key, &numbers.record).await? {
            return Err(StoreError::refused(format!(
                "build {id}#{number} is not finished"
            )));
        }
        let tombstone = JobNode {
            removed: true,
            watches: BTreeSet::new(),
            polls: Polls::new(),
            ..node.record.clone()
        };
        let mut transaction = Transaction::default();
        let polls = (&node.record.polls, &tombstone.polls);
        self.change_polls(&mut transaction, &key, polls, None)
            .await?;
        watch_anew(&mut transaction, id, Some(&node), &tombstone);
        self.set_schedules(&mut transaction, (id, &key), None)
            .await?;
        transaction.set(path.clone(), pack(&path, &tombstone)?, node.version);
        transaction.check(keys::numbers(id), numbers.version);
        let committed = transaction.commit(&*self.coordination).await?;
        Ok(if committed.is_some() {
            Tried::Done(key)
        } else {
            Tried::Again
        })
    }

    /// A live job.
    pub(crate) async fn read_job(&self, id: &JobId) -> Result<Job, StoreError> {
        until_done!(self.coordination, async {
            self.read_job_as_seen(id).await.map(Tried::Done)
        })
    }

    /// The same for who looks again by himself before he believes that there is none.
    pub(crate) async fn read_job_as_seen(&self, id: &JobId) -> Result<Job, StoreError> {
        let missing = || StoreError::missing(format!("job \"{id}\""));
        let node: Option<Read<JobNode>> = read(&*self.coordination, &keys::job(id)).await?;
        let node = node.filter(|job| !job.record.removed).ok_or_else(missing)?;
        let numbers = read_numbers(self, id).await?;
        let key = JobKey::derive(id, node.record.incarnation);
        Ok(Job {
            id: id.clone(),
            key,
            node,
            numbers,
        })
    }

    /// One revision of a job's configuration, flat.
    pub(crate) async fn config(
        &self,
        job: &JobKey,
        config: &ConfigRef,
    ) -> Result<Arc<JobConfig>, StoreError> {
        if let Some(known) = self.configs.get(config.text()) {
            return Ok(known);
        }
        let flat = Arc::new(self.written_config(job, config).await?.flat());
        self.configs
            .put(config.text().to_owned(), Arc::clone(&flat));
        Ok(flat)
    }

    /// One revision of a job's configuration, as its owner wrote it.
    pub(crate) async fn written_config(
        &self,
        job: &JobKey,
        config: &ConfigRef,
    ) -> Result<JobConfig, StoreError> {
        let key = keys::config(job, config.revision, config.text());
        // With defaults filled in, and of two files: the job's and the one that it reads.
        let limit = 8 * distci_model::config::MAX_BYTES as u64;
        let text = self.blobs.get(&key, limit).await?;
        let text = text.ok_or_else(|| StoreError::corrupt(&key, "it is gone"))?;
        decode(key.as_str(), &text)
    }
}

/// The jobs that builds of a job trigger, however they end.
fn downstream_of(config: &JobConfig) -> Vec<JobId> {
    let downstream = config.downstream_jobs.iter();
    downstream
        .map(|downstream| downstream.job.clone())
        .collect()
}

/// Adds the difference of the names in `/r` to the commit that changes a job's node.
fn watch_anew(
    transaction: &mut Transaction,
    id: &JobId,
    before: Option<&Read<JobNode>>,
    after: &JobNode,
) {
    let none = BTreeSet::new();
    let before = before.map_or(&none, |before| &before.record.watches);
    for mark in after.watches.difference(before) {
        transaction.create(keys::watcher(mark, id), bytes::Bytes::new());
    }
    for mark in before.difference(&after.watches) {
        transaction.delete(keys::watcher(mark, id));
    }
}

async fn read_numbers(store: &Store, id: &JobId) -> Result<Read<Numbers>, StoreError> {
    let path = keys::numbers(id);
    let numbers = read(&*store.coordination, &path).await?;
    numbers.ok_or_else(|| StoreError::corrupt(path, "it is gone"))
}

fn check_expected(id: &JobId, present: Option<u32>, expected: Expected) -> Result<(), StoreError> {
    let stale = |detail| Err(StoreError::Stale { detail });
    match (expected, present) {
        (Expected::Any, _) | (Expected::Absent, None) => Ok(()),
        (Expected::Revision(wanted), Some(revision)) if wanted == revision => Ok(()),
        (Expected::Absent, Some(_)) => stale(format!("job \"{id}\" exists already")),
        (Expected::Revision(wanted), Some(revision)) => stale(format!(
            "job \"{id}\" is at revision {revision}, not {wanted}"
        )),
        (Expected::Revision(wanted), None) => stale(format!(
            "job \"{id}\" does not exist, so it is not at revision {wanted}"
        )),
    }
}
