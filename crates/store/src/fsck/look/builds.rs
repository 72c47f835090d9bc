//! What is looked at of a build: its anchor, the tickets of its tasks, and what they refer to.

use std::collections::BTreeSet;

use distci_model::build::{Build, Progress};
use distci_model::capability::Capabilities;
use distci_model::config::TaskConfig;
use distci_model::id::{BuildKey, TicketId, TicketKey};
use distci_model::outcome::TaskResult;
use distci_model::ticket::{Duty, Ticket, TicketState};

use super::super::repair::Repair;
use super::{Flaw, Grounds, Look};
use crate::coordination::{NodePath, Version};
use crate::error::StoreError;
use crate::keys::{self, AttemptBlobs};
use crate::tickets::run_blobs;
use crate::transaction::{Child, Read};

/// The ticket of this name, if it is one that may be below a build.
fn ticket_of_task(name: &str) -> Option<TicketId> {
    let ticket: TicketId = name.parse().ok()?;
    (ticket.duty() == Duty::Task).then_some(ticket)
}

impl Look<'_> {
    pub(super) async fn builds(&mut self) -> Result<(), StoreError> {
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
        self.held(&control, &build.record.ticket, build.version)?;
        self.class(&control, &build.record.ticket, &Capabilities::control());
        let mut children = BTreeSet::new();
        let (mut mailbox, mut flagged) = (false, false);
        for name in self.store.coordination.list(path).await? {
            let below = path.join(&name);
            if below == keys::mailbox(key) {
                mailbox = true;
            } else if below == keys::cancel_flag(key) {
                flagged = true;
            } else if below == keys::wishes(key) {
                // Read by every decision: what it asks for is seen when the build next wakes.
            } else if let Some(ticket) = ticket_of_task(&name) {
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
        if let (TicketState::Parked { .. }, Some(news)) = (&build.record.ticket.state, news) {
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
    pub(super) fn named(&mut self, key: &TicketKey, ticket: &Ticket, version: Version) {
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

    pub(super) fn class(&mut self, key: &TicketKey, ticket: &Ticket, requires: &Capabilities) {
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
                Progress::Waiting | Progress::Asking { .. } | Progress::Skipped { .. } => {}
                Progress::Finished(run) | Progress::Backoff { last: run, .. } => {
                    let blobs = run_blobs(&build.record, run);
                    self.result(&blobs, &run.result, &here).await?;
                }
                Progress::Posted { ticket, .. } if present.remove(ticket) => {
                    let key = TicketKey {
                        build: control.build.clone(),
                        ticket: ticket.clone(),
                    };
                    if self.child(&key, build).await? {
                        news = Some(format!("its ticket {ticket} is done"));
                    }
                }
                Progress::Posted { ticket, .. } => {
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
        self.held(key, ticket, child.version)?;
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
        if result.tests.is_some() {
            let detail = format!("the report of tests of {}", here.0);
            wanted.push((of.tests(), None, detail));
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
}
