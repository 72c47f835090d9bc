//! A commit as it is sent: one `multi` that does what the seam promises.
//!
//! Owns the differences between the two: parents are made, a delete says which version it saw, the
//! root is no node. Never talks to a server. Invariant: a plan that rests on a wrong guess about
//! nodes outside of the commit is refused as a whole, and says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use zookeeper_client::{CreateOptions, Error, MultiWriteError, MultiWriteResult, MultiWriter};

use super::{NOWHERE, refusal, version};
use crate::coordination::{CommitError, ConflictKind, Expect, Life, NodePath, Op, Version};

/// A commit, with what is known of the nodes around it.
pub(super) struct Plan<'a> {
    ops: &'a [Op],
    // What reads have shown, `None` being a missing node. Before anybody has looked, parents are
    // taken to be there, and a node that is deleted at any version to be as new: index entries are
    // never written twice, so the first guess is nearly always right.
    seen: BTreeMap<NodePath, Option<Version>>,
    steps: Vec<Step>,
}

/// One operation of the multi.
struct Step {
    /// The operation of the commit that it is for.
    origin: usize,
    kind: Kind,
}

enum Kind {
    /// The operation itself.
    Whole,
    /// A missing parent of what the operation creates.
    Parent(NodePath),
    /// A delete at any version, with the version that the node is believed to have.
    Guessed(Version),
    /// A delete at any version of a node that the given step wrote.
    AsWritten(usize),
    /// An operation on the root, which has no node. It is always refused.
    Root,
}

/// What a refused multi means.
pub(super) enum Verdict {
    /// The caller has to know.
    Final(CommitError),
    /// A guess was wrong: look, and send again. If there is no end to it, this is the answer.
    Raced(CommitError),
}

impl<'a> Plan<'a> {
    /// The plan of somebody who has not looked yet.
    pub(super) fn new(ops: &'a [Op]) -> Self {
        let mut plan = Self {
            ops,
            seen: BTreeMap::new(),
            steps: Vec::new(),
        };
        plan.plan();
        plan
    }

    /// The nodes that the plan makes guesses about.
    pub(super) fn unknowns(&self) -> BTreeSet<NodePath> {
        let mut unknowns = BTreeSet::new();
        for op in self.ops {
            match op {
                Op::Create { path, .. } => unknowns.extend(ancestors(path)),
                Op::Delete {
                    path,
                    expect: Expect::Any,
                } if !path.is_root() => drop(unknowns.insert(path.clone())),
                Op::Delete { .. } | Op::Set { .. } | Op::Check { .. } => {}
            }
        }
        unknowns
    }

    /// Plans anew with what a read has shown.
    pub(super) fn learn(&mut self, seen: impl IntoIterator<Item = (NodePath, Option<Version>)>) {
        self.seen.extend(seen);
        self.plan();
    }

    fn plan(&mut self) {
        let mut steps = Vec::with_capacity(self.ops.len());
        // What the steps so far leave at a path: the step that wrote it, or nothing.
        let mut written: HashMap<NodePath, Option<usize>> = HashMap::new();
        for (origin, op) in self.ops.iter().enumerate() {
            let path = op.path();
            if path.is_root() {
                steps.push(Step {
                    origin,
                    kind: Kind::Root,
                });
                continue;
            }
            if let Op::Create { .. } = op {
                for parent in ancestors(path) {
                    if !self.is_there(&written, &parent) {
                        written.insert(parent.clone(), Some(steps.len()));
                        let kind = Kind::Parent(parent);
                        steps.push(Step { origin, kind });
                    }
                }
            }
            let kind = self.kind(op, &written);
            let left = (!matches!(op, Op::Delete { .. })).then_some(steps.len());
            written.insert(path.clone(), left);
            steps.push(Step { origin, kind });
        }
        self.steps = steps;
    }

    fn is_there(&self, written: &HashMap<NodePath, Option<usize>>, path: &NodePath) -> bool {
        match written.get(path) {
            Some(left) => left.is_some(),
            None => !matches!(self.seen.get(path), Some(None)),
        }
    }

    fn kind(&self, op: &Op, written: &HashMap<NodePath, Option<usize>>) -> Kind {
        let Op::Delete {
            path,
            expect: Expect::Any,
        } = op
        else {
            return Kind::Whole;
        };
        match written.get(path) {
            Some(Some(step)) => Kind::AsWritten(*step),
            _ => Kind::Guessed(self.seen.get(path).copied().flatten().unwrap_or_default()),
        }
    }

    /// Adds the steps to a multi.
    pub(super) fn write(
        &self,
        writer: &mut MultiWriter<'_>,
        durable: &CreateOptions<'_>,
        session: &CreateOptions<'_>,
    ) -> Result<(), Error> {
        if self.steps.is_empty() {
            // A receipt vouches for all commits before it, so even an empty one asks the leader.
            return writer.add_check_version("/", ANY);
        }
        for step in &self.steps {
            let op = &self.ops[step.origin];
            let path = op.path().as_str();
            match (&step.kind, op) {
                (Kind::Root, _) => writer.add_delete(NOWHERE, None)?,
                (Kind::Parent(path), _) => writer.add_create(path.as_str(), &[], durable)?,
                (Kind::Guessed(guess), _) => writer.add_delete(path, Some(signed(*guess)))?,
                (Kind::AsWritten(_), _) => writer.add_delete(path, None)?,
                (Kind::Whole, Op::Create { data, life, .. }) => {
                    let options = match life {
                        Life::Durable => durable,
                        Life::Session => session,
                    };
                    writer.add_create(path, data, options)?;
                }
                (Kind::Whole, Op::Set { data, expect, .. }) => {
                    writer.add_set_data(path, data, demanded(*expect))?;
                }
                (Kind::Whole, Op::Delete { expect, .. }) => {
                    writer.add_delete(path, demanded(*expect))?;
                }
                (Kind::Whole, Op::Check { version, .. }) => {
                    writer.add_check_version(path, signed(*version))?;
                }
            }
        }
        Ok(())
    }

    /// What the caller is told, or what has to be done, when the multi did not succeed.
    pub(super) fn judge(&self, error: MultiWriteError) -> Verdict {
        let (index, source) = match error {
            MultiWriteError::RequestFailed { source } if refusal::is_final(&source) => {
                return Verdict::Final(CommitError::Down(refusal::outage(source)));
            }
            MultiWriteError::RequestFailed { .. } => return Verdict::Final(CommitError::Unknown),
            MultiWriteError::OperationFailed { index, source } => (index, source),
        };
        let step = self.steps.get(index);
        let (Some(step), Some(kind)) = (step, refusal::conflict(&source)) else {
            return Verdict::Final(CommitError::Down(refusal::outage(source)));
        };
        let index = step.origin;
        let conflict = |kind| CommitError::Conflict { index, kind };
        let creates = matches!(self.ops[index], Op::Create { .. });
        match (&step.kind, source) {
            (Kind::Root, _) if creates => Verdict::Final(conflict(ConflictKind::Exists)),
            // The parent of a parent is a session node.
            (_, Error::NoChildrenForEphemerals) => Verdict::Final(conflict(kind)),
            (Kind::Parent(_), _) => Verdict::Raced(conflict(ConflictKind::Missing)),
            (Kind::Whole, Error::NoNode) if creates => Verdict::Raced(conflict(kind)),
            (Kind::Guessed(_), Error::BadVersion) => Verdict::Raced(conflict(kind)),
            _ => Verdict::Final(conflict(kind)),
        }
    }

    /// A node that the commit makes.
    pub(super) fn created(&self) -> Option<&NodePath> {
        let created = |op: &'a Op| matches!(op, Op::Create { .. }).then(|| op.path());
        self.ops.iter().rev().find_map(created)
    }

    /// One version for each operation of the commit, from the results of the multi.
    pub(super) fn versions(&self, results: &[MultiWriteResult]) -> Vec<Version> {
        let mut versions: Vec<Version> = Vec::with_capacity(self.steps.len());
        for (step, result) in self.steps.iter().zip(results) {
            let version = match (&step.kind, &self.ops[step.origin], result) {
                (Kind::Guessed(guess), ..) => *guess,
                (Kind::AsWritten(writer), ..) => versions[*writer],
                (_, _, MultiWriteResult::SetData { stat }) => version(stat.version),
                (_, Op::Check { version, .. }, _) => *version,
                (_, Op::Delete { expect, .. }, _) => match expect {
                    Expect::Exactly(version) => *version,
                    Expect::Any => Version::FIRST,
                },
                _ => Version::FIRST,
            };
            versions.push(version);
        }
        let steps = self.steps.iter().zip(versions);
        let ours = steps.filter(|(step, _)| !matches!(step.kind, Kind::Parent(_)));
        ours.map(|(_, version)| version).collect()
    }
}

/// What ZooKeeper takes for any version.
const ANY: i32 = -1;

/// The same 32 bits with a sign, but for those that would mean any version: a node that was written
/// four thousand million times does not exist, so another such number will do.
const fn signed(version: Version) -> i32 {
    match version.0.cast_signed() {
        ANY => i32::MIN,
        signed => signed,
    }
}

const fn demanded(expect: Expect) -> Option<i32> {
    match expect {
        Expect::Exactly(version) => Some(signed(version)),
        Expect::Any => None,
    }
}

/// The directories above a node, from the top, without the root.
fn ancestors(path: &NodePath) -> Vec<NodePath> {
    let parent = |path: &NodePath| path.parent().filter(|parent| !parent.is_root());
    let mut ancestors: Vec<_> = std::iter::successors(parent(path), parent).collect();
    ancestors.reverse();
    ancestors
}
