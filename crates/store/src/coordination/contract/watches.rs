//! The laws of time: what watches tell and when, and what holds when many write at once.

use futures::FutureExt;
use futures::future::join_all;

use super::{
    Store, changed, check, commit, create, created, delete, deleted, exactly, get, list, node,
    path, queued, refusal, set,
};
use crate::coordination::watch::WATCH_BUFFER;
use crate::coordination::{CommitError, ConflictKind, Event, Expect, Health, MAX_OPS, NodePath};

pub(crate) async fn a_watch_tells_what_happened_in_order(store: Store<'_>) {
    commit(store, [create("/a", "")]).await;
    let mut watch = store.watch(&path("/a"));
    commit(store, [create("/a/b", "x")]).await;
    commit(store, [set("/a/b", "y", Expect::Any)]).await;
    commit(store, [delete("/a/b")]).await;
    assert_eq!(
        vec![created("/a/b"), changed("/a/b"), deleted("/a/b")],
        queued(&mut watch)
    );
}

pub(crate) async fn a_watch_tells_of_every_depth_but_not_of_itself(store: Store<'_>) {
    commit(store, [create("/a/b", ""), create("/x", "")]).await;
    let mut watch = store.watch(&path("/a"));
    let ops = [
        create("/ab", ""),
        create("/x/y", ""),
        set("/a", "", Expect::Any),
    ];
    commit(store, ops).await;
    commit(store, [create("/a/b/c", "")]).await;
    commit(store, [create("/a/d", "")]).await;
    assert_eq!(vec![created("/a/b/c"), created("/a/d")], queued(&mut watch));
}

pub(crate) async fn a_watch_of_the_root_tells_of_everything(store: Store<'_>) {
    let mut watch = store.watch(&NodePath::root());
    commit(store, [create("/a", ""), create("/a/b", "")]).await;
    assert_eq!(vec![created("/a"), created("/a/b")], queued(&mut watch));
}

pub(crate) async fn a_watch_tells_nothing_from_before_it(store: Store<'_>) {
    commit(store, [create("/a/b", "")]).await;
    let mut watch = store.watch(&path("/a"));
    assert!(queued(&mut watch).is_empty());
}

pub(crate) async fn a_refused_commit_and_a_check_are_not_told(store: Store<'_>) {
    commit(store, [create("/a", "")]).await;
    let mut watch = store.watch(&NodePath::root());
    refusal(
        store,
        [
            create("/b", ""),
            set("/a", "", Expect::Any),
            delete("/none"),
        ],
    )
    .await;
    commit(store, [check("/a", 0)]).await;
    assert!(queued(&mut watch).is_empty());
}

pub(crate) async fn the_steps_of_a_commit_are_told_in_their_order(store: Store<'_>) {
    commit(store, [create("/q/2", ""), create("/c", "")]).await;
    let mut watch = store.watch(&NodePath::root());
    let ops = [
        delete("/q/2"),
        create("/c/9", ""),
        create("/c/1", ""),
        set("/c/1", "", exactly(0)),
    ];
    commit(store, ops).await;
    let told = vec![
        deleted("/q/2"),
        created("/c/9"),
        created("/c/1"),
        changed("/c/1"),
    ];
    assert_eq!(told, queued(&mut watch));
}

pub(crate) async fn events_are_queued_before_the_receipt(store: Store<'_>) {
    commit(store, [create("/a", "")]).await;
    let mut watch = store.watch(&path("/a"));
    let names: Vec<_> = (0..20).map(|i| format!("/a/{i}")).collect();
    let commits = names.iter().map(|at| store.commit(vec![create(at, "")]));
    for receipt in join_all(commits).await {
        receipt.unwrap();
    }
    // Another commit's receipt vouches for the events of all those.
    commit(store, [check("/a", 0)]).await;
    assert_eq!(names.len(), queued(&mut watch).len());
}

pub(crate) async fn every_watch_hears(store: Store<'_>) {
    commit(store, [create("/a", "")]).await;
    let mut watches = [
        store.watch(&path("/a")),
        store.watch(&path("/a")),
        store.watch(&path("/")),
    ];
    commit(store, [create("/a/b", "")]).await;
    for watch in &mut watches {
        assert_eq!(vec![created("/a/b")], queued(watch));
    }
}

pub(crate) async fn a_dropped_watch_disturbs_nobody(store: Store<'_>) {
    let gone = store.watch(&path("/"));
    let mut watch = store.watch(&path("/"));
    drop(gone);
    commit(store, [create("/a", "")]).await;
    assert_eq!(vec![created("/a")], queued(&mut watch));
}

pub(crate) async fn a_dropped_wait_takes_no_event(store: Store<'_>) {
    let mut watch = store.watch(&path("/"));
    assert!(watch.next().now_or_never().is_none());
    commit(store, [create("/a", "")]).await;
    drop(watch.next());
    assert_eq!(Some(created("/a")), watch.next().await);
}

pub(crate) async fn a_waiting_watch_wakes(store: Store<'_>) {
    let mut watch = store.watch(&path("/"));
    // The wait is polled first, so the commit finds it waiting.
    let (event, _) = tokio::join!(biased; watch.next(), commit(store, [create("/a", "")]));
    assert_eq!(Some(created("/a")), event);
}

pub(crate) async fn an_overflowing_watch_begins_with_a_gap(store: Store<'_>) {
    commit(store, [create("/a", "")]).await;
    let mut watch = store.watch(&NodePath::root());
    for _ in 0..=WATCH_BUFFER / MAX_OPS {
        commit(store, vec![set("/a", "", Expect::Any); MAX_OPS]).await;
    }
    commit(store, [create("/last", "")]).await;
    let events = queued(&mut watch);
    assert_eq!(Some(&Event::Gap), events.first());
    assert!(events.len() <= WATCH_BUFFER);
    assert_eq!(Some(&created("/last")), events.last());
}

pub(crate) async fn a_read_on_an_event_finds_what_it_tells(store: Store<'_>) {
    let mut watch = store.watch(&NodePath::root());
    let writes = async {
        for i in 0..50 {
            commit(store, [create(&format!("/{i}"), "")]).await;
        }
    };
    let reads = async {
        for _ in 0..50 {
            let event = watch.next().await.unwrap();
            let node = store.get(event.path().unwrap()).await.unwrap();
            assert!(node.is_some(), "{event:?} but no node");
        }
    };
    tokio::join!(writes, reads);
}

pub(crate) async fn of_many_writers_of_one_version_one_wins(store: Store<'_>) {
    commit(store, [create("/a", "")]).await;
    let writers = (0..40).map(|_| store.commit(vec![set("/a", "x", exactly(0))]));
    let written = join_all(writers).await;
    assert_eq!(1, written.iter().filter(|written| written.is_ok()).count());
    for lost in written.iter().filter_map(|written| written.as_ref().err()) {
        let version = ConflictKind::Version;
        assert!(matches!(lost, CommitError::Conflict { index: 0, kind } if *kind == version));
    }
    assert_eq!(Some(node("x", 1)), get(store, "/a").await);
}

pub(crate) async fn concurrent_increments_lose_nothing(store: Store<'_>) {
    commit(store, [create("/a", "")]).await;
    let increment = || async {
        loop {
            let version = store.get(&path("/a")).await.unwrap().unwrap().version;
            let op = set("/a", "", Expect::Exactly(version));
            if store.commit(vec![op]).await.is_ok() {
                return;
            }
        }
    };
    join_all((0..12).map(|_| increment())).await;
    assert_eq!(Some(node("", 12)), get(store, "/a").await);
}

pub(crate) async fn concurrent_creates_are_all_there(store: Store<'_>) {
    let ops = (0..300).map(|i| vec![create(&format!("/a/{i:03}"), "")]);
    for receipt in join_all(ops.map(|ops| store.commit(ops))).await {
        receipt.unwrap();
    }
    let names: Vec<_> = (0..300).map(|i| format!("{i:03}")).collect();
    assert_eq!(names, list(store, "/a").await);
}

pub(crate) async fn store_time_never_goes_back(store: Store<'_>) {
    let first = commit(store, [create("/a", "")]).await.store_time;
    let second = commit(store, [delete("/a")]).await.store_time;
    assert!(first <= second);
}

pub(crate) async fn whoever_writes_alone_learns_the_time(store: Store<'_>) {
    let first = commit(store, [create("/a", "")]).await.written;
    let second = commit(store, [set("/a", "x", Expect::Any)]).await.written;
    assert!(first.is_some() && first <= second, "{first:?} {second:?}");
}

pub(crate) async fn a_working_store_is_connected(store: Store<'_>) {
    let health = store.health();
    assert!(matches!(*health.borrow(), Health::Connected { .. }));
}

pub(crate) async fn catching_up_changes_nothing(store: Store<'_>) {
    commit(store, [create("/a", "x")]).await;
    let mut watch = store.watch(&NodePath::root());
    store.catch_up().await.unwrap();
    assert_eq!(Some(node("x", 0)), get(store, "/a").await);
    assert!(queued(&mut watch).is_empty());
}
