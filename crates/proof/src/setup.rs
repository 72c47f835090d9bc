//! What a model begins with: jobs, who is there, and how much may go wrong.
//!
//! Owns the first tree, which the store's own code makes.

use distci_model::capability::Capabilities;
use distci_model::config::JobConfig;
use distci_model::id::{BuildKey, BuildNumber, JobKey, TicketId, TicketKey};
use distci_store::Expected;
use distci_store::coordination::tree::{Change, Entry, Tree};
use distci_store::coordination::{Life, Node, Version};
use distci_store::keys;

use crate::act::{Act, at};
use crate::defect::Defect;
use crate::engine::Engine;
use crate::forest::TreeId;
use crate::state::Budget;

/// What an actor is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It decides about builds.
    Control,
    /// It does tasks.
    Task,
    /// It wants one thing.
    User(Act),
}

/// A model to be explored.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The jobs that there are.
    pub jobs: Vec<JobConfig>,
    /// Who is there.
    pub roles: Vec<Role>,
    /// How much may go wrong.
    pub budget: Budget,
    /// How many commits a frontend may lag behind.
    pub lag: usize,
    /// What is taken away.
    pub defect: Option<Defect>,
}

impl Setup {
    /// The keys of the tickets that may be met, with names that people can read.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let mut names = Vec::new();
        for job in &self.jobs {
            let key = JobKey::derive(&job.job_id, 0);
            for number in (1..5).filter_map(BuildNumber::new) {
                let build = BuildKey::derive(&key, number);
                let name = format!("{}#{number}", job.job_id);
                for task in &job.flat().tasks {
                    for run in 1..4 {
                        let ticket = TicketId::derive(&build, &task.name, run);
                        let build = build.clone();
                        let key = format!("{:?}", TicketKey { build, ticket });
                        names.push((key, format!("{name} {}.{run}", task.name)));
                    }
                }
                let key = TicketKey::control(build);
                names.push((format!("{key:?}"), name));
            }
        }
        names
    }

    /// The first tree.
    pub(crate) fn plant(&self, engine: &mut Engine) -> TreeId {
        let mut tree = Tree::default();
        for job in &self.jobs {
            let set = engine.prepare(&mut tree, &async |store: &_| {
                store.set_job(job, Expected::Any, at()).await.is_ok()
            });
            assert!(set, "a model needs jobs that the store takes");
        }
        let tasks = self.jobs.iter().flat_map(|job| job.flat().tasks);
        let classes = tasks.map(|task| task.requires());
        // Classes are made once and for all; that nobody has met one yet says nothing about tickets.
        for class in classes.chain([Capabilities::control()]) {
            let path = keys::class(&class.class());
            let data = keys::class_payload(&class).into();
            let node = Node {
                data,
                version: Version::FIRST,
            };
            let life = Life::Durable;
            let entry = Entry { node, life };
            let change = Change::Write(entry);
            tree.apply(&[(path, change)].into());
        }
        engine.forest.plant(&tree)
    }
}
