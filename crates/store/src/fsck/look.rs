//! One look at everything.
//!
//! Owns the order of reading, which the second look relies on: names before anchors, numbers before
//! builds, builds before records. Never writes.

use std::collections::{BTreeMap, BTreeSet};

use distci_model::build::{Build, Progress};
use distci_model::capability::Capabilities;
use distci_model::config::TaskConfig;
use distci_model::id::{BuildKey, BuildNumber, ClassId, JobId, JobKey, TicketId, TicketKey};
use distci_model::outcome::TaskResult;
use distci_model::ticket::{IndexName, Ticket, TicketState};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;

use super::repair::Repair;
use super::{Checked, Finding, Flaw};
use crate::coordination::{NodePath, Version};
use crate::error::StoreError;
use crate::history::PAGE;
use crate::jobs::{JobNode, Numbers};
use crate::keys::{self, AttemptBlobs};
use crate::store::Store;
use crate::transaction::{Child, Read, unpack};

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
            jobs: BTreeMap::new(),
            classes: BTreeSet::new(),
            active: BTreeSet::new(),
        };
        look.top().await?;
        look.index().await?;
        look.all_jobs().await?;
        // Classes are never removed: one that is not here now was not there before any ticket.
        look.builds().await?;
        look.wrong_names().await?;
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

    /// A name counts as long as it is where it belongs.
    fn enter(&mut self, path: NodePath, name: Option<IndexName>) {
        self.checked.names += 1;
        let key = name.and_then(|name| {
            let belongs = keys::index(&name) == path;
            let (IndexName::Queue(distci_model::ticket::QueueName { key, .. })
            | IndexName::Claim(distci_model::ticket::ClaimName { key, .. })) = name;
            belongs.then_some(key)
        });
        self.names.insert(path, key);
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
        let Some(numbers) = self.record::<Numbers>(&numbers_path).await? else {
            if self.store.coordination.get(&numbers_path).await?.is_none() {
                let witness = vec![(path.clone(), Some(job.version))];
                let detail = "the job has no numbers";
                self.find(Flaw::Unreadable, numbers_path, detail, witness);
            }
            return Ok(());
        };
        let seen = SeenJob {
            key: JobKey::derive(&id, job.record.incarnation),
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

    async fn builds(&mut self) -> Result<(), StoreError> {
        for path in self.sharded(&keys::builds()).await? {
            let key = path.name().parse().ok();
            let Some(key) = key.filter(|key| keys::build(key) == path) else {
                self.unknown(&path);
                continue;
            };
            if let Some(build) = self.record::<Build>(&path).await? {
                self.checked.builds += 1;
                self.build(&key, &path, build).await?;
            }
        }
        Ok(())
    }

    async fn build(
        &mut self,
        key: &BuildKey,
        path: &NodePath,
        build: Read<Build>,
    ) -> Result<(), StoreError> {
        let control = TicketKey::control(key.clone());
        let here = (path.clone(), Some(build.version));
        self.belongs(key, path, &build);
        self.named(&control, &build.record.ticket, build.version);
        self.class(&control, &build.record.ticket, &Capabilities::control());
        let mut children = BTreeSet::new();
        let (mut mailbox, mut flagged) = (false, false);
        for name in self.store.coordination.list(path).await? {
            let below = path.join(&name);
            if below == keys::mailbox(key) {
                mailbox = true;
            } else if below == keys::cancel_flag(key) {
                flagged = true;
            } else if let Ok(ticket) = name.parse::<TicketId>() {
                children.insert(ticket);
            } else {
                self.unknown(&below);
            }
        }
        let held = matches!(build.record.ticket.state, TicketState::Claimed(_));
        let wake = (!held).then(|| Repair::Wake {
            control: control.clone(),
            version: build.version,
        });
        if !mailbox {
            let (path, detail) = (keys::mailbox(key), "the build has no mailbox");
            self.find(
                Flaw::MailboxMissing,
                path,
                detail,
                Grounds {
                    witness: vec![here.clone()],
                    repair: wake.clone(),
                },
            );
        }
        let news = self.children(&control, &build, children).await?;
        let unheard = flagged && build.record.checkpoint.cancelled.is_none();
        let news = news.or(unheard.then(|| "somebody asked to cancel it".to_owned()));
        if let (TicketState::Parked, Some(news)) = (&build.record.ticket.state, news) {
            self.find(
                Flaw::AsleepOverNews,
                path,
                news,
                Grounds {
                    witness: vec![here],
                    repair: wake,
                },
            );
        }
        Ok(())
    }

    /// Whether a build is one of its job's.
    fn belongs(&mut self, key: &BuildKey, path: &NodePath, build: &Read<Build>) {
        let id = &build.record.id;
        let ticket = &build.record.ticket;
        let mut witness = vec![(path.clone(), Some(build.version))];
        let why = match self.jobs.get(&id.job) {
            None => Some("its job is not there".to_owned()),
            Some(job) => {
                witness.extend(job.witness.iter().cloned());
                if job.removed || job.key != ticket.job {
                    Some(format!("job {} was removed", id.job))
                } else if id.number >= job.next {
                    Some(format!("the next number is {}", job.next))
                } else if BuildKey::derive(&job.key, id.number) != *key {
                    Some(format!("it says that it is {id}, which is elsewhere"))
                } else {
                    None
                }
            }
        };
        match why {
            Some(why) => self.find(Flaw::BuildUnknown, path, why, witness),
            None => {
                self.active.insert((ticket.job.clone(), id.number));
            }
        }
    }

    /// The index has the name of the ticket.
    fn named(&mut self, key: &TicketKey, ticket: &Ticket, version: Version) {
        let Some(name) = ticket.index_name(key, version.0) else {
            return;
        };
        let (name, anchor) = (keys::index(&name), keys::anchor(key));
        if self.names.remove(&name).is_none() {
            let detail = format!("of {anchor}");
            let witness = vec![(anchor.clone(), Some(version))];
            let repair = Repair::Name {
                name: name.clone(),
                anchor: (anchor, version),
            };
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

    fn class(&mut self, key: &TicketKey, ticket: &Ticket, requires: &Capabilities) {
        if self.classes.contains(&ticket.class) {
            return;
        }
        let path = keys::class(&ticket.class);
        let repair = (requires.class() == ticket.class).then(|| Repair::Class {
            path: path.clone(),
            payload: keys::class_payload(requires).into(),
        });
        let detail = format!("of {}", keys::anchor(key));
        self.find(
            Flaw::ClassUnknown,
            path,
            detail,
            Grounds {
                witness: Vec::new(),
                repair,
            },
        );
    }

    /// The tickets of a build's tasks, and the results that it has. Gives what is news to it.
    async fn children(
        &mut self,
        control: &TicketKey,
        build: &Read<Build>,
        mut present: BTreeSet<TicketId>,
    ) -> Result<Option<String>, StoreError> {
        let here = (keys::anchor(control), Some(build.version));
        let mut news = None;
        for progress in &build.record.checkpoint.tasks {
            match progress {
                Progress::Waiting | Progress::Skipped { .. } => {}
                Progress::Finished(run) => {
                    let blobs = AttemptBlobs {
                        job: build.record.ticket.job.clone(),
                        number: build.record.id.number,
                        ticket: run.ticket.clone(),
                        attempt: run.attempt,
                    };
                    self.result(&blobs, &run.result, &here).await?;
                }
                Progress::Posted { ticket } if present.remove(ticket) => {
                    let key = TicketKey {
                        build: control.build.clone(),
                        ticket: ticket.clone(),
                    };
                    if self.child(&key, build).await? {
                        news = Some(format!("its ticket {ticket} is done"));
                    }
                }
                Progress::Posted { ticket } => {
                    let path = here.0.join(ticket.as_str());
                    let detail = "the build waits for it";
                    self.find(Flaw::TicketMissing, path, detail, vec![here.clone()]);
                }
            }
        }
        for orphan in present {
            let path = here.0.join(orphan.as_str());
            let detail = "the build did not post it, or has consumed it";
            self.find(Flaw::TicketOrphaned, path, detail, vec![here.clone()]);
            let key = TicketKey {
                build: control.build.clone(),
                ticket: orphan,
            };
            self.child(&key, build).await?;
        }
        Ok(news)
    }

    /// The ticket of a task. Gives whether it is done.
    async fn child(&mut self, key: &TicketKey, build: &Read<Build>) -> Result<bool, StoreError> {
        let path = keys::anchor(key);
        for name in self.store.coordination.list(&path).await? {
            self.unknown(&path.join(&name));
        }
        let Some(child) = self.record::<Child>(&path).await? else {
            return Ok(false);
        };
        self.checked.tickets += 1;
        let ticket = &child.record.ticket;
        self.named(key, ticket, child.version);
        if !self.classes.contains(&ticket.class) {
            let requires = self.requires(build, child.record.task).await?;
            self.class(key, ticket, &requires);
        }
        let TicketState::Done(done) = &ticket.state else {
            return Ok(false);
        };
        let blobs = AttemptBlobs {
            job: ticket.job.clone(),
            number: ticket.number,
            ticket: key.ticket.clone(),
            attempt: ticket.attempt,
        };
        let here = (path, Some(child.version));
        self.result(&blobs, &done.result, &here).await?;
        Ok(true)
    }

    /// What a task of a build requires, as far as its configuration can still be read.
    async fn requires(&self, build: &Read<Build>, task: usize) -> Result<Capabilities, StoreError> {
        let Build { ticket, config, .. } = &build.record;
        match self.store.config(&ticket.job, config).await {
            Ok(config) => Ok(config
                .tasks
                .get(task)
                .map_or_else(Capabilities::control, TaskConfig::requires)),
            Err(StoreError::Corrupt { .. } | StoreError::NotFound { .. }) => {
                Ok(Capabilities::control())
            }
            Err(error) => Err(error),
        }
    }

    /// Everything that a result refers to is there, and is of the same attempt.
    async fn result(
        &mut self,
        of: &AttemptBlobs,
        result: &TaskResult,
        here: &(NodePath, Option<Version>),
    ) -> Result<(), StoreError> {
        self.checked.results += 1;
        let mut wanted = Vec::new();
        if let Some(layer) = &result.layer {
            let detail = format!("the layer of {}", here.0);
            if layer.ticket == of.ticket && layer.attempt == of.attempt {
                wanted.push((of.layer(), Some(layer.bytes), detail));
            } else {
                let detail = format!("{detail} is of another attempt");
                let witness = vec![here.clone()];
                self.find(Flaw::BlobMissing, of.layer(), detail, witness);
            }
        }
        if result.artifacts > 0 {
            let detail = format!("the artifacts of {}", here.0);
            wanted.push((of.artifact_manifest(), None, detail));
        }
        for (key, bytes, detail) in wanted {
            let size = self.store.blobs.head(&key).await?;
            if size.is_none_or(|size| bytes.is_some_and(|bytes| bytes != size)) {
                self.find(Flaw::BlobMissing, &key, detail, vec![here.clone()]);
            }
        }
        if result.console_bytes > 0 {
            let chunks = self.store.blobs.list(&of.console()).await?;
            let stored: u64 = chunks.iter().map(|(_, bytes)| bytes).sum();
            if stored < result.console_bytes {
                let wanted = result.console_bytes;
                let detail = format!("{stored} of {wanted} bytes of the console of {}", here.0);
                let witness = vec![here.clone()];
                self.find(Flaw::BlobMissing, of.console(), detail, witness);
            }
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
