//! Random commits on a real server do what the law of the tree says: outcome, versions and events.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::coordination::Life;
use crate::coordination::contract::{path, queued};
use crate::coordination::tree::{Draft, Refusal, Tree};

const COMMITS: usize = 400;

fn any_op() -> impl Strategy<Value = Op> {
    let path = prop::collection::vec(0..3_u8, 0..4).prop_map(|names| {
        names
            .iter()
            .fold(NodePath::root(), |path, name| path.join(&name.to_string()))
    });
    let life = prop_oneof![6 => Just(Life::Durable), 1 => Just(Life::Session)];
    let version = prop_oneof![4 => 0..3_u32, 1 => Just(u32::MAX)];
    let expect = prop_oneof![
        Just(Expect::Any),
        version.prop_map(|version| Expect::Exactly(Version(version)))
    ];
    (path, 0..7_u8, life, expect).prop_map(|(path, kind, life, expect)| {
        let data = Bytes::from(vec![kind]);
        match (kind, expect) {
            (0..=2, _) => Op::Create { path, data, life },
            (3, _) => Op::Set { path, data, expect },
            (4 | 5, _) | (_, Expect::Any) => Op::Delete { path, expect },
            (_, Expect::Exactly(version)) => Op::Check { path, version },
        }
    })
}

fn commits() -> Vec<Vec<Op>> {
    let mut runner = TestRunner::deterministic();
    let commit = prop::collection::vec(any_op(), 0..5);
    let commits = prop::collection::vec(commit, COMMITS);
    commits.new_tree(&mut runner).unwrap().current()
}

#[tokio::test]
async fn random_commits_keep_the_law_of_the_tree() {
    let store = open(&settings(shared::zookeeper().unwrap())).await;
    let mut watch = store.watch(&NodePath::root());
    let mut tree = Tree::default();
    let mut accepted = 0;
    for ops in commits() {
        let mut draft = Draft::new(&tree);
        let expected = draft.commit(&ops);
        let changes = draft.into_changes();
        match (store.commit(ops.clone()).await, expected) {
            (Ok(receipt), Ok(effect)) => {
                assert_eq!(effect.versions, receipt.versions, "{ops:?}");
                assert_eq!(effect.events, queued(&mut watch), "{ops:?}");
                tree.apply(&changes);
                accepted += 1;
            }
            (Err(CommitError::Conflict { index, kind }), Err(refusal)) => {
                assert_eq!(refusal, Refusal { index, kind }, "{ops:?}");
                assert!(queued(&mut watch).is_empty());
            }
            (outcome, law) => panic!("{outcome:?} but the law says {law:?}: {ops:?}"),
        }
    }
    assert!(accepted > COMMITS / 10, "only {accepted} were accepted");
    for (at, entry) in tree.iter() {
        assert_eq!(Some(entry.node.clone()), store.get(at).await.unwrap());
        assert_eq!(tree.children(at), store.list(at).await.unwrap());
    }
    assert_eq!(
        tree.children(&path("/")),
        store.list(&path("/")).await.unwrap()
    );
}
