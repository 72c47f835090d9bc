//! The trees that the shared store may hold, and the commits that lead from one to another.
//!
//! Owns their small form. What a commit does is the store's own law, `coordination::tree`; nothing
//! is decided here.

use std::collections::HashMap;

use bytes::Bytes;
use distci_store::coordination::tree::{Draft, Entry, Tree};
use distci_store::coordination::{Expect, Life, Node, NodePath, Op, Version};

use crate::pool::Pool;

/// A tree, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(u32);

/// The steps of a commit, by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(u32);

/// What a step does to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Deed {
    Create,
    Set,
    Delete,
    Check,
}

/// One step of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Step {
    deed: Deed,
    path: u32,
    data: u32,
    version: Option<u32>,
}

/// A node in its small form: path, version, payload.
type Leaf = (u32, u32, u32);

/// All trees and commits met so far.
#[derive(Debug, Default)]
pub(crate) struct Forest {
    paths: Pool<NodePath>,
    payloads: Pool<Bytes>,
    trees: Pool<Box<[Leaf]>>,
    commits: Pool<Box<[Step]>>,
    applied: HashMap<(TreeId, CommitId), Option<TreeId>>,
}

impl Forest {
    /// The number of a tree.
    pub(crate) fn plant(&mut self, tree: &Tree) -> TreeId {
        let mut leaves: Vec<Leaf> = Vec::new();
        for (path, entry) in tree.iter() {
            leaves.push((
                self.paths.keep(path.clone()),
                entry.node.version.0,
                self.payloads.keep(entry.node.data.clone()),
            ));
        }
        leaves.sort_unstable();
        TreeId(self.trees.keep(leaves.into()))
    }

    /// The tree of a number.
    pub(crate) fn tree(&self, id: TreeId) -> Tree {
        let leaves = self.trees.get(id.0);
        let entry = |(path, version, data): &Leaf| {
            let node = Node {
                data: Bytes::clone(&self.payloads.get(*data)),
                version: Version(*version),
            };
            let life = Life::Durable;
            (
                NodePath::clone(&self.paths.get(*path)),
                Entry { node, life },
            )
        };
        leaves.iter().map(entry).collect()
    }

    /// The number of a commit.
    pub(crate) fn note(&mut self, ops: &[Op]) -> CommitId {
        let steps = ops.iter().map(|op| self.step(op)).collect();
        CommitId(self.commits.keep(steps))
    }

    fn step(&mut self, op: &Op) -> Step {
        let nothing = Bytes::new();
        let exactly = |expect: &Expect| match expect {
            Expect::Exactly(version) => Some(version.0),
            Expect::Any => None,
        };
        let (deed, data, version) = match op {
            Op::Create { data, .. } => (Deed::Create, data, None),
            Op::Set { data, expect, .. } => (Deed::Set, data, exactly(expect)),
            Op::Delete { expect, .. } => (Deed::Delete, &nothing, exactly(expect)),
            Op::Check { version, .. } => (Deed::Check, &nothing, Some(version.0)),
        };
        Step {
            deed,
            path: self.paths.keep(op.path().clone()),
            data: self.payloads.keep(data.clone()),
            version,
        }
    }

    /// The steps of a commit.
    pub(crate) fn ops(&self, id: CommitId) -> Vec<Op> {
        let steps = self.commits.get(id.0);
        steps.iter().map(|step| self.op(step)).collect()
    }

    fn op(&self, step: &Step) -> Op {
        let path = NodePath::clone(&self.paths.get(step.path));
        let data = Bytes::clone(&self.payloads.get(step.data));
        let version = step.version.map(Version);
        let expect = version.map_or(Expect::Any, Expect::Exactly);
        match step.deed {
            Deed::Create => Op::Create {
                path,
                data,
                life: Life::Durable,
            },
            Deed::Set => Op::Set { path, data, expect },
            Deed::Delete => Op::Delete { path, expect },
            Deed::Check => Op::Check {
                path,
                version: version.unwrap_or_default(),
            },
        }
    }

    /// The tree after a commit; `None` if the tree refuses it.
    pub(crate) fn apply(&mut self, before: TreeId, commit: CommitId) -> Option<TreeId> {
        if let Some(after) = self.applied.get(&(before, commit)) {
            return *after;
        }
        let mut tree = self.tree(before);
        let mut draft = Draft::new(&tree);
        let allowed = draft.commit(&self.ops(commit)).is_ok();
        let changes = allowed.then(|| draft.into_changes());
        let after = changes.map(|changes| {
            tree.apply(&changes);
            self.plant(&tree)
        });
        self.applied.insert((before, commit), after);
        after
    }

    /// Whether a commit can never happen any more: a node that it names is past the version that it
    /// names, and versions only grow.
    pub(crate) fn is_doomed(&self, tree: TreeId, commit: CommitId) -> bool {
        let leaves = self.trees.get(tree.0);
        let steps = self.commits.get(commit.0);
        steps.iter().any(|step| {
            let at = leaves.binary_search_by_key(&step.path, |leaf| leaf.0);
            let present = at.ok().and_then(|at| leaves.get(at));
            present.is_some_and(|(_, version, _)| step.version.is_some_and(|then| then < *version))
        })
    }

    /// How many trees there are.
    pub(crate) fn len(&self) -> usize {
        self.trees.len()
    }
}
