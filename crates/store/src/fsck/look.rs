//! One look at everything.
//!
//! Owns the order of reading, which the second look relies on: names and slots before anchors, numbers before
//! builds, builds before records. Never writes.

mod builds;
mod errands;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use distci_model::id::{BuildNumber, ClassId, JobId, JobKey, TicketKey};
use distci_model::ticket::IndexName;
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;

use self::slots::SeenSlots;
use super::repair::Repair;
use super::{Checked, Finding, Flaw};
use crate::coordination::{NodePath, Version};
use crate::errands::poll_key;
use crate::error::StoreError;
use crate::history::PAGE;
use crate::jobs::{JobNode, Numbers};
use crate::keys;
use crate::schedules::{Timetable, job_at};
use crate::store::Store;
use crate::transaction::{Read, unpack};

/// Shards, or records, looked at together.
const TOGETHER: usize = 16;

type Witness = Vec<(NodePath, Option<Version>)>;

/// What a finding was judged by, and what is to be done about it.
struct Grounds {
    witness: Witness,
    repair: Option<Repair>,
}

impl From<Witness> for Grounds {
    /// A person has to do something.
    fn from(witness: Witness) -> Self {
        let repair = None;
        Self { witness, repair }
    }
}

/// What one look has seen.
pub(super) struct Look<'s> {
    store: &'s Store,
    pub(super) checked: Checked,
    pub(super) findings: BTreeSet<Finding>,
    /// Names in the index, until their ticket is seen.
    names: BTreeMap<NodePath, Option<TicketKey>>,
    /// Slots of locks, until the ticket that lists them is seen.
    slots: SeenSlots,
    /// What the store said of itself before any slot was looked at.
    meta: Option<Version>,
    /// The same of jobs under the repositories that they watch, until their job is seen.
    watchers: BTreeSet<NodePath>,
    jobs: BTreeMap<JobId, SeenJob>,
    classes: BTreeSet<ClassId>,
    /// Numbers of builds that are not archived.
    active: BTreeSet<(JobKey, BuildNumber)>,
}

/// A job and its numbers.
struct SeenJob {
    key: JobKey,
    next: BuildNumber,
    removed: bool,
    /// Where the errands of its polls are, until they are seen.
    polls: BTreeSet<TicketKey>,
    witness: Witness,
}

impl<'s> Look<'s> {
    pub(super) async fn at(store: &'s Store) -> Result<Self, StoreError> {
        store.coordination.catch_up().await?;
        let mut look = Self {
            store,
            checked: Checked::default(),
            findings: BTreeSet::new(),
            names: BTreeMap::new(),
            slots: BTreeMap::new(),
            meta: None,
            watchers: BTreeSet::new(),
            jobs: BTreeMap::new(),
            classes: BTreeSet::new(),
            active: BTreeSet::new(),
        };
        look.top().await?;
        look.index().await?;
        look.drains().await?;
        look.slots().await?;
        look.timetables().await?;
        look.all_jobs().await?;
        look.wrong_watchers().await?;
        // Classes are never removed: one that is not here now was not there before any ticket.
        look.builds().await?;
        look.errands().await?;
        look.wrong_names().await?;
        look.leaked_slots().await?;
        look.numbers().await?;
        Ok(look)
    }

    fn find(
        &mut self,
        flaw: Flaw,
        path: impl AsRef<str>,
        detail: impl Into<String>,
        grounds: impl Into<Grounds>,
    ) {
        let Grounds { witness, repair } = grounds.into();
        self.findings.insert(Finding {
            path: path.as_ref().to_owned(),
            flaw,
            detail: detail.into(),
            repair,
            witness,
        });
    }

    fn unknown(&mut self, path: &NodePath) {
        let detail = "no version of DistCI with this schema makes it";
        self.find(Flaw::NodeUnknown, path, detail, Vec::new());
    }

    /// A record; `None` if it is not there, or is a finding.
    async fn record<T: DeserializeOwned>(
        &mut self,
        path: &NodePath,
    ) -> Result<Option<Read<T>>, StoreError> {
        let Some(node) = self.store.coordination.get(path).await? else {
            return Ok(None);
        };
        match unpack(path, &node.data) {
            Ok(record) => Ok(Some(Read {
                record,
                version: node.version,
            })),
            Err(error) => {
                let detail = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                let witness = vec![(path.clone(), Some(node.version))];
                self.find(Flaw::Unreadable, path, detail, witness);
                Ok(None)
            }
        }
    }

    async fn top(&mut self) -> Result<(), StoreError> {
        for name in self.store.coordination.list(&NodePath::root()).await? {
            if !keys::is_top(&name) {
                self.unknown(&NodePath::root().join(&name));
            }
        }
        Ok(())
    }

    /// What is below the shards of a tree, shard by shard.
    async fn sharded(&mut self, tree: &NodePath) -> Result<Vec<NodePath>, StoreError> {
        let shards = self.store.coordination.list(tree).await?;
        let (known, strange): (Vec<_>, Vec<_>) =
            shards.into_iter().partition(|name| keys::is_shard(name));
        for name in strange {
            self.unknown(&tree.join(&name));
        }
        let store = self.store;
        let list = |name: String| async move {
            let shard = tree.join(&name);
            let below = store.coordination.list(&shard).await?;
            let paths = below.iter().map(|name| shard.join(name));
            Ok::<_, StoreError>(paths.collect::<Vec<_>>())
        };
        let listed = stream::iter(known).map(list).buffered(TOGETHER).boxed();
        let listed: Vec<_> = listed.try_collect().await?;
        Ok(listed.concat())
    }

    async fn index(&mut self) -> Result<(), StoreError> {
        for path in self.sharded(&keys::queue()).await? {
            let name = keys::parse_queue(path.name()).map(IndexName::Queue);
            self.enter(path, name);
        }
        for path in self.sharded(&keys::claims()).await? {
            let name = keys::parse_claim(path.name()).map(IndexName::Claim);
            self.enter(path, name);
        }
        for path in self.sharded(&keys::timers()).await? {
            let name = keys::parse_due(path.name()).map(IndexName::Due);
            self.enter(path, name);
        }
        let watchers = self.sharded(&keys::watchers()).await?;
        self.watchers.extend(watchers);
        for name in self.store.coordination.list(&keys::classes()).await? {
            let path = keys::classes().join(&name);
            let Ok(class) = name.parse::<ClassId>() else {
                self.unknown(&path);
                continue;
            };
            let node = self.store.coordination.get(&path).await?;
            match node.as_ref().and_then(|node| keys::parse_class(&node.data)) {
                Some(requires) if requires.class() == class => {
                    self.classes.insert(class);
                }
                Some(_) | None => {
                    let detail = "it does not say what the class requires";
                    self.find(Flaw::Unreadable, &path, detail, Vec::new());
                }
            }
        }
        Ok(())
    }

    async fn drains(&mut self) -> Result<(), StoreError> {
        for name in self.store.coordination.list(&keys::drains()).await? {
            if keys::parse_drain(&name).is_none() {
                self.unknown(&keys::drains().join(&name));
            }
        }
        Ok(())
    }

    /// A name counts as long as it is where it belongs.
    fn enter(&mut self, path: NodePath, name: Option<IndexName>) {
        self.checked.names += 1;
        let key = name.and_then(|name| {
            let belongs = keys::index(&name) == path;
            belongs.then(|| name.key().clone())
        });
        self.names.insert(path, key);
    }

    async fn timetables(&mut self) -> Result<(), StoreError> {
        for path in self.sharded(&keys::timetables()).await? {
            if job_at(&path).is_none() {
                self.unknown(&path);
                continue;
            }
            self.record::<Timetable>(&path).await?;
        }
        Ok(())
    }

    async fn all_jobs(&mut self) -> Result<(), StoreError> {
        for path in self.sharded(&keys::jobs()).await? {
            let Some(id) = path.name().parse().ok().filter(|id| keys::job(id) == path) else {
                self.unknown(&path);
                continue;
            };
            self.checked.jobs += 1;
            self.job(id, &path).await?;
        }
        Ok(())
    }

    async fn job(&mut self, id: JobId, path: &NodePath) -> Result<(), StoreError> {
        let numbers_path = keys::numbers(&id);
        for name in self.store.coordination.list(path).await? {
            if path.join(&name) != numbers_path {
                self.unknown(&path.join(&name));
            }
        }
        let Some(job) = self.record::<JobNode>(path).await? else {
            return Ok(());
        };
        self.watches(&id, path, &job);
        let Some(numbers) = self.record::<Numbers>(&numbers_path).await? else {
            if self.store.coordination.get(&numbers_path).await?.is_none() {
                let witness = vec![(path.clone(), Some(job.version))];
                let detail = "the job has no numbers";
                self.find(Flaw::Unreadable, numbers_path, detail, witness);
            }
            return Ok(());
        };
        let key = JobKey::derive(&id, job.record.incarnation);
        let polls = job.record.polls.iter();
        let seen = SeenJob {
            polls: polls
                .map(|(mark, since)| poll_key(&key, mark, *since))
                .collect(),
            key,
            next: numbers.record.next,
            removed: job.record.removed,
            witness: vec![
                (path.clone(), Some(job.version)),
                (numbers_path, Some(numbers.version)),
            ],
        };
        self.jobs.insert(id, seen);
        Ok(())
    }

    /// The names that a job has under the repositories that it watches.
    fn watches(&mut self, id: &JobId, path: &NodePath, job: &Read<JobNode>) {
        for mark in &job.record.watches {
            let name = keys::watcher(mark, id);
            if self.watchers.remove(&name) {
                continue;
            }
            let anchor = (path.clone(), job.version);
            let repair = Repair::Name {
                name: name.clone(),
                anchor,
            };
            let witness = vec![(path.clone(), Some(job.version))];
            let detail = format!("job \"{id}\" waits for events of this repository");
            self.find(
                Flaw::NameMissing,
                name,
                detail,
                Grounds {
                    witness,
                    repair: Some(repair),
                },
            );
        }
    }

    /// The names that no job has claimed as its own.
    async fn wrong_watchers(&mut self) -> Result<(), StoreError> {
        for name in std::mem::take(&mut self.watchers) {
            let job = keys::parse_watcher(name.name()).map(|(_, job)| keys::job(&job));
            let version = match &job {
                Some(path) => self.store.coordination.get(path).await?,
                None => None,
            };
            let version = version.map(|node| node.version);
            let anchor = job.clone().and_then(|path| Some((path, version?)));
            let repair = Repair::NoName {
                name: name.clone(),
                anchor,
            };
            let witness = job.map(|path| (path, version)).into_iter().collect();
            let detail = "no job waits for events under this name";
            self.find(
                Flaw::NameWrong,
                name,
                detail,
                Grounds {
                    witness,
                    repair: Some(repair),
                },
            );
        }
        Ok(())
    }

    /// The names that no ticket has claimed as its own.
    async fn wrong_names(&mut self) -> Result<(), StoreError> {
        for (name, key) in std::mem::take(&mut self.names) {
            let anchor = match &key {
                None => None,
                Some(key) => {
                    let path = keys::anchor(key);
                    let node = self.store.coordination.get(&path).await?;
                    Some((path, node.map(|node| node.version)))
                }
            };
            let detail = match &anchor {
                None => "nobody of this version writes such a name".to_owned(),
                Some((path, None)) => format!("{path} is not there"),
                Some((path, Some(version))) => {
                    format!("{path} has another name at its version {version}")
                }
            };
            let repair = Repair::NoName {
                name: name.clone(),
                anchor: anchor
                    .clone()
                    .and_then(|(path, version)| Some((path, version?))),
            };
            let witness = anchor.into_iter().collect();
            self.find(
                Flaw::NameWrong,
                name,
                detail,
                Grounds {
                    witness,
                    repair: Some(repair),
                },
            );
        }
        Ok(())
    }

    /// Every number that was given out is a build or a record.
    async fn numbers(&mut self) -> Result<(), StoreError> {
        for (id, job) in std::mem::take(&mut self.jobs) {
            if job.removed {
                continue;
            }
            let wanted = self.without_page(&job).await?;
            self.checked.records += wanted.len();
            let (store, key) = (self.store, &job.key);
            let look = |number| async move {
                let there = store.blobs.head(&keys::record(key, number)).await?;
                Ok::<_, StoreError>(there.is_none().then_some(number))
            };
            let looks = stream::iter(wanted).map(look).buffered(TOGETHER).boxed();
            let missing: Vec<_> = looks.try_collect().await?;
            for number in missing.into_iter().flatten() {
                let detail = format!("build {id}#{number} has neither an anchor nor a record");
                let path = keys::record(key, number);
                self.find(Flaw::BuildMissing, path, detail, job.witness.clone());
            }
        }
        Ok(())
    }

    /// The archived builds of a job that no page of its history vouches for: a page is written only
    /// when all its records are there.
    async fn without_page(&self, job: &SeenJob) -> Result<Vec<BuildNumber>, StoreError> {
        let mut wanted = Vec::new();
        for page in 0..=job.next.get() / PAGE {
            if self
                .store
                .blobs
                .head(&keys::history_page(&job.key, page))
                .await?
                .is_some()
            {
                continue;
            }
            let first = page * PAGE.get();
            let numbers = (first..first + PAGE.get()).filter_map(BuildNumber::new);
            let given = numbers.take_while(|number| *number < job.next);
            let archived = given.filter(|n| !self.active.contains(&(job.key.clone(), *n)));
            wanted.extend(archived);
        }
        Ok(wanted)
    }
}
