//! The ordered tree itself, as a law without I/O: what a commit may do and what it changes.
//!
//! Owns the nodes in memory and the rules of every step. Never reads a clock, waits or stores.
//! Invariant: every node but those at the top has a durable parent in the tree, and a refused
//! commit leaves no trace. Shared by the embedded store and the simulator.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound::{Excluded, Included, Unbounded};

use bytes::Bytes;

use super::{ConflictKind, Event, Expect, Life, Node, NodePath, Op, Version};

/// A node in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What readers see.
    pub node: Node,
    /// How long it stays.
    pub life: Life,
}

/// What becomes of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It holds this node now.
    Write(Entry),
    /// It holds no node any more.
    Remove,
}

/// What becomes of each path that a series of commits touched.
pub type Changes = BTreeMap<NodePath, Change>;

/// All nodes, in the order of their paths.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<NodePath, Entry>,
}

impl FromIterator<(NodePath, Entry)> for Tree {
    fn from_iter<I: IntoIterator<Item = (NodePath, Entry)>>(nodes: I) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
        }
    }
}

impl Tree {
    /// The node at `path`.
    pub fn get(&self, path: &NodePath) -> Option<&Entry> {
        self.nodes.get(path)
    }

    /// The names of the direct children of `dir`, in order.
    pub fn children(&self, dir: &NodePath) -> Vec<String> {
        let prefix = dir.prefix();
        let mut names = Vec::new();
        let mut below = self.from(&prefix);
        while let Some(rest) = below
            .next()
            .and_then(|(path, _)| path.as_str().strip_prefix(&prefix))
        {
            match rest.split_once('/') {
                None => names.push(rest.to_owned()),
                // A listing costs what it shows: skip all that is deeper. '0' follows '/'.
                Some((name, _)) => below = self.from(&format!("{prefix}{name}0")),
            }
        }
        names
    }

    /// All nodes in order.
    pub fn iter(&self) -> impl Iterator<Item = (&NodePath, &Entry)> {
        self.nodes.iter()
    }

    /// Makes `changes`, which a [`Draft`] over this tree has allowed.
    pub fn apply(&mut self, changes: &Changes) {
        for (path, change) in changes {
            match change {
                Change::Write(entry) => drop(self.nodes.insert(path.clone(), entry.clone())),
                Change::Remove => drop(self.nodes.remove(path)),
            }
        }
    }

    /// The part of `changes`, yet to be applied, that has to outlive the process: each path with
    /// its durable node, or with nothing where there is to be none.
    pub fn durable<'a>(&self, changes: &'a Changes) -> Vec<(&'a NodePath, Option<&'a Node>)> {
        let is_durable = |entry: &Entry| entry.life == Life::Durable;
        let lasting = |(path, change): (&'a NodePath, &'a Change)| match change {
            Change::Write(entry) if is_durable(entry) => Some((path, Some(&entry.node))),
            Change::Write(_) | Change::Remove => self
                .get(path)
                .is_some_and(is_durable)
                .then_some((path, None)),
        };
        changes.iter().filter_map(lasting).collect()
    }

    fn from(&self, start: &str) -> Range<'_, NodePath, Entry> {
        self.nodes.range::<str, _>((Included(start), Unbounded))
    }

    fn below(&self, dir: &NodePath) -> impl Iterator<Item = (&NodePath, &Entry)> {
        let prefix = dir.prefix();
        let nodes = self
            .nodes
            .range::<str, _>((Excluded(prefix.as_str()), Unbounded));
        nodes.take_while(move |(path, _)| path.as_str().starts_with(&prefix))
    }
}

/// What an allowed commit says to its author and to the watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// As in [`Receipt::versions`](super::Receipt::versions).
    pub versions: Vec<Version>,
    /// In the order of the steps.
    pub events: Vec<Event>,
}

/// The first step that is not allowed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The position of the step in the commit.
    pub index: usize,
    /// The rule that it breaks.
    pub kind: ConflictKind,
}

/// Commits that are allowed one after the other, but not yet made.
#[derive(Debug)]
pub struct Draft<'a> {
    base: &'a Tree,
    changes: Changes,
    // What the paths touched by the present commit held before it, newest last.
    undo: Vec<(NodePath, Option<Change>)>,
}

impl<'a> Draft<'a> {
    /// A draft without any commit.
    pub const fn new(base: &'a Tree) -> Self {
        Self {
            base,
            changes: Changes::new(),
            undo: Vec::new(),
        }
    }

    /// Adds a commit, judged as if those before it had been made. A refused one leaves no trace.
    pub fn commit(&mut self, ops: &[Op]) -> Result<Effect, Refusal> {
        let mut effect = Effect::default();
        for (index, op) in ops.iter().enumerate() {
            match self.step(op, &mut effect.events) {
                Ok(version) => effect.versions.push(version),
                Err(kind) => {
                    self.roll_back();
                    return Err(Refusal { index, kind });
                }
            }
        }
        self.undo.clear();
        Ok(effect)
    }

    /// All that the commits change.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    fn step(&mut self, op: &Op, events: &mut Vec<Event>) -> Result<Version, ConflictKind> {
        match op {
            Op::Create { path, data, life } => self.create(path, data, *life, events),
            Op::Set { path, data, expect } => self.set(path, data, *expect, events),
            Op::Delete { path, expect } => self.delete(path, *expect, events),
            Op::Check { path, version } => self
                .expect(path, Expect::Exactly(*version))
                .map(|entry| entry.node.version),
        }
    }

    fn create(
        &mut self,
        path: &NodePath,
        data: &Bytes,
        life: Life,
        events: &mut Vec<Event>,
    ) -> Result<Version, ConflictKind> {
        if path.is_root() || self.get(path).is_some() {
            return Err(ConflictKind::Exists);
        }
        self.ensure_parent(path, events)?;
        let node = Node {
            data: data.clone(),
            version: Version::FIRST,
        };
        self.change(path, Change::Write(Entry { node, life }));
        events.push(Event::Created(path.clone()));
        Ok(Version::FIRST)
    }

    fn ensure_parent(
        &mut self,
        path: &NodePath,
        events: &mut Vec<Event>,
    ) -> Result<(), ConflictKind> {
        let Some(parent) = path.parent().filter(|parent| !parent.is_root()) else {
            return Ok(());
        };
        match self.get(&parent).map(|entry| entry.life) {
            Some(Life::Durable) => Ok(()),
            Some(Life::Session) => Err(ConflictKind::Missing),
            None => self
                .create(&parent, &Bytes::new(), Life::Durable, events)
                .map(drop),
        }
    }

    fn set(
        &mut self,
        path: &NodePath,
        data: &Bytes,
        expect: Expect,
        events: &mut Vec<Event>,
    ) -> Result<Version, ConflictKind> {
        let present = self.expect(path, expect)?;
        let version = present.node.version.next();
        let life = present.life;
        let node = Node {
            data: data.clone(),
            version,
        };
        self.change(path, Change::Write(Entry { node, life }));
        events.push(Event::Changed(path.clone()));
        Ok(version)
    }

    fn delete(
        &mut self,
        path: &NodePath,
        expect: Expect,
        events: &mut Vec<Event>,
    ) -> Result<Version, ConflictKind> {
        let version = self.expect(path, expect)?.node.version;
        if self.has_children(path) {
            return Err(ConflictKind::NotEmpty);
        }
        self.change(path, Change::Remove);
        events.push(Event::Deleted(path.clone()));
        Ok(version)
    }

    fn expect(&self, path: &NodePath, expect: Expect) -> Result<&Entry, ConflictKind> {
        let entry = self.get(path).ok_or(ConflictKind::Missing)?;
        match expect {
            Expect::Exactly(version) if version != entry.node.version => Err(ConflictKind::Version),
            Expect::Exactly(_) | Expect::Any => Ok(entry),
        }
    }

    fn get(&self, path: &NodePath) -> Option<&Entry> {
        match self.changes.get(path) {
            Some(Change::Write(entry)) => Some(entry),
            Some(Change::Remove) => None,
            None => self.base.get(path),
        }
    }

    fn has_children(&self, dir: &NodePath) -> bool {
        let prefix = dir.prefix();
        let drafted = self
            .changes
            .range::<str, _>((Excluded(prefix.as_str()), Unbounded));
        drafted
            .take_while(|(path, _)| path.as_str().starts_with(&prefix))
            .any(|(_, change)| matches!(change, Change::Write(_)))
            || self
                .base
                .below(dir)
                .any(|(path, _)| !self.changes.contains_key(path))
    }

    fn change(&mut self, path: &NodePath, change: Change) {
        let before = self.changes.insert(path.clone(), change);
        self.undo.push((path.clone(), before));
    }

    fn roll_back(&mut self) {
        while let Some((path, before)) = self.undo.pop() {
            match before {
                Some(change) => drop(self.changes.insert(path, change)),
                None => drop(self.changes.remove(&path)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> NodePath {
        NodePath::parse(text).unwrap()
    }

    fn create(text: &str, life: Life) -> Op {
        Op::Create {
            path: path(text),
            data: Bytes::from_static(b"x"),
            life,
        }
    }

    fn delete(text: &str) -> Op {
        Op::Delete {
            path: path(text),
            expect: Expect::Any,
        }
    }

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for text in paths {
            make(&mut tree, &[create(text, Life::Durable)]).unwrap();
        }
        tree
    }

    fn make(tree: &mut Tree, ops: &[Op]) -> Result<Effect, Refusal> {
        let mut draft = Draft::new(tree);
        let effect = draft.commit(ops)?;
        let changes = draft.into_changes();
        tree.apply(&changes);
        Ok(effect)
    }

    #[test]
    fn a_listing_skips_what_is_deeper_and_misses_no_neighbour() {
        let tree = tree(&["/a/b/x", "/a/b!", "/a/b0", "/a/b/y/z", "/a/c", "/ab"]);
        assert_eq!(vec!["b", "b!", "b0", "c"], tree.children(&path("/a")));
        assert_eq!(vec!["a", "ab"], tree.children(&NodePath::root()));
    }

    #[test]
    fn a_refused_commit_leaves_those_before_it_in_the_draft() {
        let tree = tree(&["/a"]);
        let mut draft = Draft::new(&tree);
        draft.commit(&[create("/a/1", Life::Durable)]).unwrap();
        let before = draft.changes.clone();
        let refused = draft.commit(&[delete("/a/1"), create("/b/c", Life::Durable), delete("/x")]);
        assert_eq!(
            Err(Refusal {
                index: 2,
                kind: ConflictKind::Missing
            }),
            refused
        );
        assert_eq!(before, draft.into_changes());
    }

    #[test]
    fn only_durable_nodes_and_their_removal_reach_the_disk() {
        let mut tree = tree(&["/a", "/b"]);
        let ops = [
            create("/s", Life::Session),
            create("/c", Life::Durable),
            delete("/b"),
        ];
        let mut draft = Draft::new(&tree);
        draft.commit(&ops).unwrap();
        let changes = draft.into_changes();
        let lasting = tree.durable(&changes);
        let lasting: Vec<_> = lasting
            .iter()
            .map(|(p, n)| (p.as_str(), n.is_some()))
            .collect();
        assert_eq!(vec![("/b", false), ("/c", true)], lasting);

        tree.apply(&changes);
        let mut draft = Draft::new(&tree);
        draft.commit(&[delete("/s")]).unwrap();
        assert!(tree.durable(&draft.into_changes()).is_empty());
    }

    #[test]
    fn a_durable_node_replaced_by_a_session_node_leaves_the_disk() {
        let tree = tree(&["/a"]);
        let mut draft = Draft::new(&tree);
        draft
            .commit(&[delete("/a"), create("/a", Life::Session)])
            .unwrap();
        assert_eq!(
            vec![(&path("/a"), None)],
            tree.durable(&draft.into_changes())
        );
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let path = prop::collection::vec(0..3_u8, 1..4).prop_map(|names| {
            names
                .iter()
                .fold(NodePath::root(), |path, name| path.join(&name.to_string()))
        });
        let life = prop_oneof![4 => Just(Life::Durable), 1 => Just(Life::Session)];
        (path, 0..5_u8, life, 0..3_u32).prop_map(|(path, kind, life, version)| {
            let (data, version) = (Bytes::from(vec![kind]), Version(version));
            match kind {
                0 | 1 => Op::Create { path, data, life },
                2 => Op::Set {
                    path,
                    data,
                    expect: Expect::Exactly(version),
                },
                3 => Op::Delete {
                    path,
                    expect: Expect::Any,
                },
                _ => Op::Check { path, version },
            }
        })
    }

    fn commits() -> impl Strategy<Value = Vec<Vec<Op>>> {
        prop::collection::vec(prop::collection::vec(any_op(), 0..4), 0..30)
    }

    proptest! {
        #[test]
        fn drafting_together_is_committing_one_by_one(commits in commits()) {
            let base = Tree::default();
            let mut draft = Draft::new(&base);
            let mut one_by_one = Tree::default();
            for ops in &commits {
                prop_assert_eq!(draft.commit(ops), make(&mut one_by_one, ops));
            }
            let mut together = base.clone();
            together.apply(&draft.into_changes());
            prop_assert_eq!(together.nodes, one_by_one.nodes);
        }

        #[test]
        fn every_node_keeps_a_durable_parent(commits in commits()) {
            let mut tree = Tree::default();
            for ops in &commits {
                drop(make(&mut tree, ops));
                for (path, _) in tree.iter() {
                    let parent = path.parent().filter(|parent| !parent.is_root());
                    let durable = |parent| tree.get(&parent).map(|entry| entry.life);
                    let lasts = parent.is_none_or(|parent| durable(parent) == Some(Life::Durable));
                    prop_assert!(lasts);
                }
            }
        }
    }
}
