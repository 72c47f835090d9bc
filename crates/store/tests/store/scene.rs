//! A store with everything that a test needs around it: a clock, several ways in, a worker that
//! does what it is told, and the raw tree to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context, Result, ensure};
use distci_model::Timestamp;
use distci_model::config::JobConfig;
use distci_model::decide::decide;
use distci_model::id::{BuildRef, JobId, RequestId, TicketId, TicketKey, WorkerName};
use distci_model::outcome::{Failure, Outcome, TaskResult};
use distci_model::ticket::{Duty, IndexName, QueueName, Ticket, TicketState};
use distci_model::wire::{BuildView, Claim, CommitReply, CommitRequest, ControlOrder, Work};
use distci_store::blobs::Blobs;
use distci_store::coordination::embedded::Embedded;
use distci_store::coordination::simulator::{Faults, Simulator};
use distci_store::coordination::{Clock, Coordination, Node, NodePath, Version};
use distci_store::{Claiming, Expected, Store, keys};
use serde::Deserialize;

/// A store and its surroundings.
pub(crate) struct Scene {
    /// One for each frontend; over the embedded store they are the same.
    pub(crate) stores: Vec<Store>,
    /// The tree below the first of them.
    pub(crate) tree: Arc<dyn Coordination>,
    pub(crate) blobs: Blobs,
    pub(crate) simulator: Option<Simulator>,
    clock: Clock,
    _dir: Option<tempfile::TempDir>,
}

/// A clock that goes on by a millisecond each time somebody looks.
fn clock() -> Clock {
    let millis = AtomicI64::new(1_700_000_000_000);
    Arc::new(move || {
        let now = millis.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_millisecond(now).unwrap_or_default()
    })
}

impl Scene {
    pub(crate) fn embedded() -> Result<Self> {
        let (dir, clock) = (tempfile::tempdir()?, clock());
        let tree: Arc<dyn Coordination> = Arc::new(Embedded::open(dir.path(), clock.clone())?);
        let blobs = Blobs::directory(&dir.path().join("blobs"))?;
        let store = Store::new(Arc::clone(&tree), blobs.clone());
        Ok(Self {
            stores: vec![store; 3],
            tree,
            blobs,
            simulator: None,
            clock,
            _dir: Some(dir),
        })
    }

    /// Three sessions on a simulated store without faults as yet.
    pub(crate) fn simulated(seed: u64) -> Self {
        let (clock, blobs) = (clock(), Blobs::memory());
        let simulator = Simulator::new(seed, Faults::none(), clock.clone());
        let sessions: Vec<Arc<dyn Coordination>> = (0..3)
            .map(|_| Arc::new(simulator.session()) as Arc<dyn Coordination>)
            .collect();
        let over = |session: &Arc<dyn Coordination>| Store::new(session.clone(), blobs.clone());
        Self {
            stores: sessions.iter().map(over).collect(),
            tree: sessions[0].clone(),
            blobs,
            simulator: Some(simulator),
            clock,
            _dir: None,
        }
    }

    /// The store, where it does not matter through which frontend.
    pub(crate) fn store(&self) -> &Store {
        &self.stores[0]
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        if let Some(simulator) = &self.simulator {
            simulator.set_faults(faults);
            simulator.settle();
        }
    }

    pub(crate) async fn set_job(&self, config: &serde_json::Value) -> Result<JobConfig> {
        let config = job_config(config)?;
        self.store()
            .set_job(&config, Expected::Any, self.now())
            .await?;
        Ok(config)
    }

    pub(crate) async fn post(&self, job: &str, request: &str) -> Result<BuildRef> {
        let (job, request) = (job.parse()?, RequestId::derive(request));
        let given = BTreeMap::new();
        let posted = self.store().post_build(&job, &request, &given, self.now());
        posted.await?.build().context("skipped")
    }

    /// The most urgent queued ticket that `wanted` wants and no lock holds up, claimed.
    pub(crate) async fn claim(&self, wanted: impl Fn(&QueueName) -> bool) -> Result<Option<Claim>> {
        let mut queue = self.queue().await?;
        queue.sort();
        for entry in queue.into_iter().filter(wanted) {
            let request = RequestId::derive(&format!("{} {}", entry.key, entry.version));
            let claiming = self
                .store()
                .claim(&entry.key, &worker("w"), &request, self.now())
                .await?;
            match claiming {
                Claiming::Claimed(claim) => return Ok(Some(*claim)),
                Claiming::Taken => return Ok(None),
                Claiming::Blocked(_) => {}
            }
        }
        Ok(None)
    }

    /// Decides until no build has anything to decide.
    pub(crate) async fn control(&self) -> Result<()> {
        while let Some(claim) = self.claim(|entry| entry.key.ticket.is_control()).await? {
            let Work::Control { order } = &claim.work else {
                anyhow::bail!("a control ticket asks for a task");
            };
            let mut order = (**order).clone();
            loop {
                let request = decision(&order);
                let (key, attempt) = (&claim.ticket, claim.attempt);
                let commit = self.store().commit(key, attempt, &request, self.now());
                match commit.await? {
                    CommitReply::Again { order: next } => order = *next,
                    CommitReply::Over => break,
                }
            }
        }
        Ok(())
    }

    /// Controls, and claims the next task.
    pub(crate) async fn next_task(&self) -> Result<Claim> {
        self.control().await?;
        let claim = self
            .claim(|entry| entry.key.ticket.duty() == Duty::Task)
            .await?;
        claim.context("no task is queued")
    }

    /// Does everything that is queued; each task ends as `outcome` says.
    pub(crate) async fn run_all(&self, outcome: &Outcome) -> Result<()> {
        loop {
            self.control().await?;
            let Some(claim) = self
                .claim(|entry| entry.key.ticket.duty() == Duty::Task)
                .await?
            else {
                return Ok(());
            };
            self.complete(&claim, outcome.clone()).await?;
        }
    }

    pub(crate) async fn complete(&self, claim: &Claim, outcome: Outcome) -> Result<()> {
        let (result, at) = (TaskResult::of(outcome), self.now());
        let complete = self
            .store()
            .complete(&claim.ticket, claim.attempt, &result, at);
        Ok(complete.await?)
    }

    pub(crate) async fn view(&self, build: &BuildRef) -> Result<BuildView> {
        Ok(self.store().build(build).await?)
    }

    pub(crate) async fn queue(&self) -> Result<Vec<QueueName>> {
        let names = self.names(&keys::queue()).await?;
        Ok(names
            .iter()
            .filter_map(|name| keys::parse_queue(name))
            .collect())
    }

    /// The names in all shards of an index directory.
    pub(crate) async fn names(&self, dir: &NodePath) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for shard in self.tree.list(dir).await? {
            names.extend(self.tree.list(&dir.join(&shard)).await?);
        }
        Ok(names)
    }

    /// Every node of the tree.
    pub(crate) async fn dump(&self) -> Result<BTreeMap<String, Node>> {
        let mut nodes = BTreeMap::new();
        let mut unvisited = vec![NodePath::root()];
        while let Some(dir) = unvisited.pop() {
            for name in self.tree.list(&dir).await? {
                let path = dir.join(&name);
                if let Some(node) = self.tree.get(&path).await? {
                    nodes.insert(path.to_string(), node);
                }
                unvisited.push(path);
            }
        }
        Ok(nodes)
    }

    /// The index holds the names of the anchors that there are, and no others.
    pub(crate) async fn check_index(&self) -> Result<()> {
        let nodes = self.dump().await?;
        let mut expected = BTreeSet::new();
        for (path, node) in &nodes {
            if let Some(name) = recomputed_name(path, node)? {
                expected.insert(keys::index(&name).to_string());
            }
        }
        let is_entry = |path: &&String| {
            ["/q/", "/c/", "/d/"]
                .iter()
                .any(|dir| path.starts_with(dir))
                && path.split('/').count() == 4
        };
        let present: BTreeSet<String> = nodes.keys().filter(is_entry).cloned().collect();
        ensure!(
            present == expected,
            "the index lies: {present:?} is not {expected:?}"
        );
        check_slots(&nodes)
    }

    /// Nothing is left of any build but its record.
    pub(crate) async fn check_swept(&self) -> Result<()> {
        let nodes = self.dump().await?;
        let left = |path: &&String| {
            ["/b/", "/q/", "/c/", "/d/", "/s/"]
                .iter()
                .any(|dir| path.starts_with(dir))
                && path.split('/').count() > 3
        };
        let left: Vec<_> = nodes.keys().filter(left).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

/// What every anchor holds.
#[derive(Deserialize)]
struct Anchor {
    ticket: Ticket,
}

/// The ticket whose anchor is at `path`, if it is one.
fn anchored(path: &str, node: &Node) -> Result<Option<(TicketKey, Ticket)>> {
    let parts: Vec<&str> = path.split('/').collect();
    let key = match parts.as_slice() {
        ["", "b", _, build] => TicketKey::control(build.parse()?),
        ["", "b", _, build, ticket] if ticket.len() == 16 => TicketKey {
            build: build.parse()?,
            ticket: ticket.parse()?,
        },
        ["", "e", _, errand] => TicketKey {
            build: errand.parse()?,
            ticket: TicketId::errand(),
        },
        _ => return Ok(None),
    };
    let anchor: Anchor = serde_json::from_slice(&node.data).context(path.to_owned())?;
    Ok(Some((key, anchor.ticket)))
}

/// The index name of the anchor at `path`, if it is one and has one.
fn recomputed_name(path: &str, node: &Node) -> Result<Option<IndexName>> {
    let Version(version) = node.version;
    let anchored = anchored(path, node)?;
    Ok(anchored.and_then(|(key, ticket)| ticket.index_name(&key, version)))
}

/// A slot is held exactly if the record of a ticket that may hold it lists it, and by that ticket
/// alone.
fn check_slots(nodes: &BTreeMap<String, Node>) -> Result<()> {
    let mut listed = BTreeMap::new();
    for (path, node) in nodes {
        let Some((key, ticket)) = anchored(path, node)? else {
            continue;
        };
        let held = matches!(ticket.state, TicketState::Claimed(_));
        let missing = ticket.locks_missing().count();
        ensure!(
            key.ticket.is_control() || missing == if held { 0 } else { ticket.locks.len() },
            "{key} holds {:?} and is {:?}",
            ticket.slots,
            ticket.state
        );
        for slot in &ticket.slots {
            let known = ticket.locks.iter().any(|need| need.has(slot));
            ensure!(known, "{key} does not need {slot:?}");
            let before = listed.insert(keys::slot(slot).to_string(), key.clone());
            ensure!(before.is_none(), "{slot:?} is held by {key} and {before:?}");
        }
    }
    let is_slot = |path: &&String| path.starts_with("/s/") && path.split('/').count() == 4;
    let present: BTreeSet<&String> = nodes.keys().filter(is_slot).collect();
    let expected: BTreeSet<&String> = listed.keys().collect();
    ensure!(
        present == expected,
        "slots lie: {present:?} is not {expected:?}"
    );
    Ok(())
}

/// What a control worker asks for.
pub(crate) fn decision(order: &ControlOrder) -> CommitRequest {
    CommitRequest {
        mailbox: order.mailbox,
        decision: decide(&order.config, &order.build, &order.events),
    }
}

pub(crate) fn job_config(config: &serde_json::Value) -> Result<JobConfig> {
    JobConfig::parse(&config.to_string()).map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

/// A job of shell tasks, one after the other.
pub(crate) fn job(name: &str, tasks: &[&str]) -> serde_json::Value {
    let tasks: Vec<_> = tasks.iter().map(|task| shell(task)).collect();
    serde_json::json!({ "job_id": name, "tasks": tasks })
}

pub(crate) fn shell(name: &str) -> serde_json::Value {
    serde_json::json!({ "name": name, "type": "execute-shell", "params": { "script": "true" } })
}

#[expect(clippy::unwrap_used, reason = "a name written in a test is a name")]
pub(crate) fn worker(name: &str) -> WorkerName {
    name.parse().unwrap()
}

#[expect(clippy::unwrap_used, reason = "a name written in a test is a name")]
pub(crate) fn job_id(name: &str) -> JobId {
    name.parse().unwrap()
}

pub(crate) fn exit(exit: u8) -> Outcome {
    Outcome::Failure {
        reason: Failure::Exit { exit },
    }
}
