//! The laws of nodes: what each step does, what a commit is, and what readers see.

use bytes::Bytes;

use super::{
    Store, check, commit, create, create_for_session, delete, exactly, get, list, node, path,
    refusal, set, versions,
};
use crate::coordination::{CommitError, ConflictKind, Expect, Life, MAX_COMMIT_BYTES, MAX_OPS, Op};

pub(crate) async fn a_missing_node_is_nothing(store: Store<'_>) {
    assert_eq!(None, get(store, "/a").await);
    assert_eq!(None, get(store, "/a/b/c").await);
}

pub(crate) async fn a_new_node_has_its_data_and_version_zero(store: Store<'_>) {
    assert_eq!(vec![0], versions(store, [create("/a", "x")]).await);
    assert_eq!(Some(node("x", 0)), get(store, "/a").await);
}

pub(crate) async fn a_node_holds_any_bytes(store: Store<'_>) {
    let all: Bytes = (0..=u8::MAX).cycle().take(100_000).collect();
    let op = Op::Create {
        path: path("/a"),
        data: all.clone(),
        life: Life::Durable,
    };
    commit(store, [op, create("/b", "")]).await;
    assert_eq!(Some((all.to_vec(), 0)), get(store, "/a").await);
    assert_eq!(Some(node("", 0)), get(store, "/b").await);
}

pub(crate) async fn creating_what_exists_conflicts(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    assert_eq!(
        (0, ConflictKind::Exists),
        refusal(store, [create("/a", "y")]).await
    );
    assert_eq!(Some(node("x", 0)), get(store, "/a").await);
}

pub(crate) async fn a_set_raises_the_version_by_one(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    assert_eq!(vec![1], versions(store, [set("/a", "y", exactly(0))]).await);
    assert_eq!(vec![2], versions(store, [set("/a", "y", exactly(1))]).await);
    assert_eq!(Some(node("y", 2)), get(store, "/a").await);
}

pub(crate) async fn a_set_of_another_version_conflicts(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    assert_eq!(
        (0, ConflictKind::Version),
        refusal(store, [set("/a", "y", exactly(1))]).await
    );
    assert_eq!(Some(node("x", 0)), get(store, "/a").await);
}

pub(crate) async fn a_set_of_any_version_takes_the_present_one(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    commit(store, [set("/a", "y", exactly(0))]).await;
    assert_eq!(
        vec![2],
        versions(store, [set("/a", "z", Expect::Any)]).await
    );
}

pub(crate) async fn a_set_of_a_missing_node_conflicts(store: Store<'_>) {
    assert_eq!(
        (0, ConflictKind::Missing),
        refusal(store, [set("/a", "y", Expect::Any)]).await
    );
    assert_eq!(
        (0, ConflictKind::Missing),
        refusal(store, [set("/a", "y", exactly(0))]).await
    );
    assert_eq!(None, get(store, "/a").await);
}

pub(crate) async fn a_deleted_node_is_gone(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    assert_eq!(vec![0], versions(store, [delete("/a")]).await);
    assert_eq!(None, get(store, "/a").await);
}

pub(crate) async fn a_delete_of_another_version_conflicts(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    let op = Op::Delete {
        path: path("/a"),
        expect: exactly(3),
    };
    assert_eq!((0, ConflictKind::Version), refusal(store, [op]).await);
    assert_eq!(Some(node("x", 0)), get(store, "/a").await);
}

pub(crate) async fn a_delete_of_a_missing_node_conflicts(store: Store<'_>) {
    assert_eq!(
        (0, ConflictKind::Missing),
        refusal(store, [delete("/a")]).await
    );
}

pub(crate) async fn a_node_with_children_is_not_deleted(store: Store<'_>) {
    commit(store, [create("/a", "x"), create("/a/b", "y")]).await;
    assert_eq!(
        (0, ConflictKind::NotEmpty),
        refusal(store, [delete("/a")]).await
    );
    // A neighbour whose name begins the same is no child.
    commit(
        store,
        [create("/c", ""), create("/c!", ""), create("/cc", "")],
    )
    .await;
    commit(store, [delete("/c"), delete("/a/b"), delete("/a")]).await;
}

pub(crate) async fn a_node_made_anew_begins_at_version_zero(store: Store<'_>) {
    commit(store, [create("/a", "x"), set("/a", "y", Expect::Any)]).await;
    commit(store, [delete("/a")]).await;
    commit(store, [create("/a", "z")]).await;
    assert_eq!(Some(node("z", 0)), get(store, "/a").await);
}

pub(crate) async fn a_check_refuses_another_version(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    commit(store, [check("/a", 0), create("/b", "")]).await;
    let ops = [check("/a", 1), create("/c", "")];
    assert_eq!((0, ConflictKind::Version), refusal(store, ops).await);
    assert_eq!(None, get(store, "/c").await);
}

pub(crate) async fn a_check_of_a_missing_node_conflicts(store: Store<'_>) {
    assert_eq!(
        (0, ConflictKind::Missing),
        refusal(store, [check("/a", 0)]).await
    );
}

pub(crate) async fn a_check_changes_nothing(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    assert_eq!(vec![0], versions(store, [check("/a", 0)]).await);
    assert_eq!(Some(node("x", 0)), get(store, "/a").await);
}

pub(crate) async fn a_conflict_undoes_the_whole_commit(store: Store<'_>) {
    commit(store, [create("/a", "x"), create("/b", "x")]).await;
    let ops = [
        set("/a", "y", exactly(0)),
        delete("/b"),
        create("/c", ""),
        create("/a", ""),
    ];
    assert_eq!((3, ConflictKind::Exists), refusal(store, ops).await);
    assert_eq!(Some(node("x", 0)), get(store, "/a").await);
    assert_eq!(Some(node("x", 0)), get(store, "/b").await);
    assert_eq!(vec!["a", "b"], list(store, "/").await);
}

pub(crate) async fn a_conflict_names_the_first_refused_step(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    let ops = [
        check("/a", 0),
        check("/a", 9),
        create("/a", ""),
        delete("/none"),
    ];
    assert_eq!((1, ConflictKind::Version), refusal(store, ops).await);
}

pub(crate) async fn a_step_sees_the_steps_before_it(store: Store<'_>) {
    let ops = [
        create("/a", "x"),
        set("/a", "y", exactly(0)),
        check("/a", 1),
        delete("/a"),
    ];
    assert_eq!(vec![0, 1, 1, 1], versions(store, ops).await);
    assert_eq!(None, get(store, "/a").await);
    let twice = [create("/b", ""), create("/b", "")];
    assert_eq!((1, ConflictKind::Exists), refusal(store, twice).await);
}

pub(crate) async fn a_directory_is_emptied_and_deleted_in_one_commit(store: Store<'_>) {
    commit(store, [create("/a/b", ""), create("/a/c", "")]).await;
    let wrong_order = [delete("/a/b"), delete("/a"), delete("/a/c")];
    assert_eq!(
        (1, ConflictKind::NotEmpty),
        refusal(store, wrong_order).await
    );
    commit(store, [delete("/a/b"), delete("/a/c"), delete("/a")]).await;
    assert!(list(store, "/").await.is_empty());
}

pub(crate) async fn a_node_is_replaced_in_one_commit(store: Store<'_>) {
    commit(store, [create("/a", "x"), set("/a", "y", Expect::Any)]).await;
    assert_eq!(
        vec![1, 0],
        versions(store, [delete("/a"), create("/a", "z")]).await
    );
    assert_eq!(Some(node("z", 0)), get(store, "/a").await);
}

pub(crate) async fn an_empty_commit_has_a_receipt(store: Store<'_>) {
    assert!(versions(store, []).await.is_empty());
}

pub(crate) async fn a_receipt_has_a_version_for_each_step(store: Store<'_>) {
    commit(
        store,
        [
            create("/a", ""),
            create("/b", ""),
            set("/b", "", Expect::Any),
        ],
    )
    .await;
    let ops = [
        check("/a", 0),
        set("/a", "x", Expect::Any),
        delete("/b"),
        create("/d/e", ""),
        check("/d", 0),
    ];
    assert_eq!(vec![0, 1, 1, 0, 0], versions(store, ops).await);
}

pub(crate) async fn two_missing_parents_are_made(store: Store<'_>) {
    commit(store, [create("/a/b/c", "x")]).await;
    assert_eq!(Some(node("x", 0)), get(store, "/a/b/c").await);
    assert_eq!(vec!["a"], list(store, "/").await);
    assert_eq!(vec!["b"], list(store, "/a").await);
}

pub(crate) async fn a_made_parent_is_a_plain_node(store: Store<'_>) {
    commit(store, [create("/a/b", "x")]).await;
    assert_eq!(Some(node("", 0)), get(store, "/a").await);
    commit(
        store,
        [set("/a", "y", exactly(0)), delete("/a/b"), delete("/a")],
    )
    .await;
    assert_eq!(None, get(store, "/a").await);
}

pub(crate) async fn an_existing_parent_is_left_alone(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    commit(store, [create("/a/b", ""), create("/a/c", "")]).await;
    assert_eq!(Some(node("x", 0)), get(store, "/a").await);
}

pub(crate) async fn a_refused_commit_makes_no_parents(store: Store<'_>) {
    // A store that makes parents beforehand may leave them, but nothing in them.
    refusal(store, [create("/a/b/c", ""), delete("/none")]).await;
    assert_eq!(None, get(store, "/a/b/c").await);
    assert!(list(store, "/a/b").await.is_empty());
}

pub(crate) async fn nothing_is_created_below_a_session_node(store: Store<'_>) {
    commit(store, [create_for_session("/a")]).await;
    assert_eq!(
        (0, ConflictKind::Missing),
        refusal(store, [create("/a/b", "")]).await
    );
    assert_eq!(
        (0, ConflictKind::Missing),
        refusal(store, [create_for_session("/a/b")]).await
    );
}

pub(crate) async fn a_session_node_is_read_and_written_like_any_other(store: Store<'_>) {
    commit(store, [create_for_session("/fe/1")]).await;
    assert_eq!(
        vec![1],
        versions(store, [set("/fe/1", "x", exactly(0))]).await
    );
    assert_eq!(Some(node("x", 1)), get(store, "/fe/1").await);
    assert_eq!(vec!["1"], list(store, "/fe").await);
    assert_eq!(
        (0, ConflictKind::NotEmpty),
        refusal(store, [delete("/fe")]).await
    );
    commit(store, [delete("/fe/1"), delete("/fe")]).await;
}

pub(crate) async fn a_missing_directory_lists_nothing(store: Store<'_>) {
    assert!(list(store, "/a/b").await.is_empty());
    commit(store, [create("/a", "")]).await;
    assert!(list(store, "/a").await.is_empty());
}

pub(crate) async fn a_listing_shows_direct_children_in_order(store: Store<'_>) {
    let paths = [
        "/a/10",
        "/a/9",
        "/a/B",
        "/a/!x",
        "/a/b/deep",
        "/a/b.c",
        "/ab",
        "/a/b0/deep",
    ];
    for at in paths {
        commit(store, [create(at, "")]).await;
    }
    assert_eq!(
        vec!["!x", "10", "9", "B", "b", "b.c", "b0"],
        list(store, "/a").await
    );
    assert_eq!(vec!["a", "ab"], list(store, "/").await);
}

pub(crate) async fn a_listing_follows_commits(store: Store<'_>) {
    commit(
        store,
        [create("/a/1", ""), create("/a/2", ""), create("/a/3", "")],
    )
    .await;
    commit(store, [delete("/a/2"), create("/a/4", "")]).await;
    assert_eq!(vec!["1", "3", "4"], list(store, "/a").await);
}

pub(crate) async fn the_root_is_a_directory_without_a_node(store: Store<'_>) {
    assert_eq!(None, get(store, "/").await);
    assert_eq!(
        (0, ConflictKind::Exists),
        refusal(store, [create("/", "")]).await
    );
    for op in [delete("/"), check("/", 0), set("/", "", Expect::Any)] {
        assert_eq!((0, ConflictKind::Missing), refusal(store, [op]).await);
    }
}

pub(crate) async fn too_many_steps_are_refused(store: Store<'_>) {
    let ops = |n: usize| -> Vec<_> { (0..n).map(|i| create(&format!("/a/{i}"), "")).collect() };
    let refused = store.commit(ops(MAX_OPS + 1)).await;
    assert!(matches!(refused, Err(CommitError::TooLarge { ops, .. }) if ops == MAX_OPS + 1));
    assert_eq!(None, get(store, "/a").await);
    commit(store, ops(MAX_OPS)).await;
    assert_eq!(MAX_OPS, list(store, "/a").await.len());
}

pub(crate) async fn too_many_bytes_are_refused(store: Store<'_>) {
    let op = |bytes: usize| {
        let data = Bytes::from(vec![7; bytes - "/a".len()]);
        [Op::Create {
            path: path("/a"),
            data,
            life: Life::Durable,
        }]
    };
    let refused = store.commit(op(MAX_COMMIT_BYTES + 1).into()).await;
    assert!(
        matches!(refused, Err(CommitError::TooLarge { bytes, .. }) if bytes == MAX_COMMIT_BYTES + 1)
    );
    assert_eq!(None, get(store, "/a").await);
    commit(store, op(MAX_COMMIT_BYTES)).await;
}

pub(crate) async fn limits_come_before_conflicts(store: Store<'_>) {
    let refused = store.commit(vec![delete("/none"); MAX_OPS + 1]).await;
    assert!(matches!(refused, Err(CommitError::TooLarge { .. })));
}
