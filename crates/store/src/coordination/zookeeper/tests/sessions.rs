//! Several sessions on one tree.

use super::*;
use crate::coordination::contract::{
    commit, create, create_for_session, delete, get, list, path, queued, set,
};

/// Two handles below one chroot, each with its own server of the shared ensemble.
async fn two() -> (ZooKeeper, ZooKeeper) {
    let hosts = shared::ensemble().unwrap();
    let mut hosts = hosts.split(',').map(str::to_owned);
    let first = settings(hosts.next().unwrap());
    let second = Settings {
        hosts: hosts.next().unwrap(),
        ..first.clone()
    };
    (open(&first).await, open(&second).await)
}

#[tokio::test]
async fn who_catches_up_reads_what_others_were_told_before() {
    let (writer, reader) = two().await;
    commit(&writer, [create("/a", "")]).await;
    for round in 1..=300 {
        commit(&writer, [set("/a", "", Expect::Any)]).await;
        reader.catch_up().await.unwrap();
        assert_eq!(Some((Vec::new(), round)), get(&reader, "/a").await);
    }
}

#[tokio::test]
async fn sessions_see_each_other() {
    let (one, other) = two().await;
    let mut watch = other.watch(&path("/"));
    // Without it the first server may make the node before the other one hears of the watch.
    other.catch_up().await.unwrap();
    commit(&one, [create("/a/b", "x")]).await;
    assert_eq!(Event::Created(path("/a")), next(&mut watch).await);
    assert_eq!(Event::Created(path("/a/b")), next(&mut watch).await);
    assert_eq!(Some((b"x".to_vec(), 0)), get(&other, "/a/b").await);
    commit(&other, [delete("/a/b")]).await;
    assert_eq!(Event::Deleted(path("/a/b")), next(&mut watch).await);
}

#[tokio::test]
async fn session_nodes_go_with_their_session() {
    let (one, other) = two().await;
    commit(&one, [create_for_session("/fe/1"), create("/fe/2", "")]).await;
    let mut watch = other.watch(&path("/fe"));
    other.catch_up().await.unwrap();
    assert_eq!(vec!["1", "2"], list(&other, "/fe").await);
    drop(one);
    // What came before is told or shown, never lost; the end of the session is always told.
    while next(&mut watch).await != Event::Deleted(path("/fe/1")) {}
    assert_eq!(vec!["2"], list(&other, "/fe").await);
}

#[tokio::test]
async fn events_of_others_come_before_ones_own_receipt() {
    let (one, other) = two().await;
    commit(&one, [create("/a", "")]).await;
    other.catch_up().await.unwrap();
    let mut watch = other.watch(&path("/a"));
    other.catch_up().await.unwrap();
    for round in 0..100 {
        commit(&one, [create(&format!("/a/{round}"), "")]).await;
        // The receipt of an empty commit vouches for all commits before it.
        commit(&other, []).await;
        let event = Event::Created(path(&format!("/a/{round}")));
        assert_eq!(vec![event], queued(&mut watch));
    }
}

#[tokio::test]
async fn increments_of_many_sessions_are_all_there() {
    let (one, other) = two().await;
    commit(&one, [create("/a", "")]).await;
    other.catch_up().await.unwrap();
    let increments = async |store: &ZooKeeper| {
        for _ in 0..50 {
            loop {
                let version = store.get(&path("/a")).await.unwrap().unwrap().version;
                let op = set("/a", "", Expect::Exactly(version));
                match store.commit(vec![op]).await {
                    Ok(_) => break,
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    };
    tokio::join!(increments(&one), increments(&other));
    one.catch_up().await.unwrap();
    assert_eq!(Some((Vec::new(), 100)), get(&one, "/a").await);
}

#[tokio::test]
async fn parents_that_several_make_at_once_are_made_once() {
    let (one, other) = two().await;
    for round in 0..30 {
        let ours = create(&format!("/{round}/x/one"), "");
        let theirs = create(&format!("/{round}/x/other"), "");
        let both = tokio::join!(one.commit(vec![ours]), other.commit(vec![theirs]));
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
        one.catch_up().await.unwrap();
        let names = list(&one, &format!("/{round}/x")).await;
        assert_eq!(vec!["one", "other"], names);
    }
}

#[tokio::test]
async fn a_directory_larger_than_a_packet_lists() {
    const CHILDREN: usize = 27_000;
    let store = open(&settings(shared::zookeeper().unwrap())).await;
    let name = |index: usize| format!("{index:036}");
    commit(&store, [create("/big", "")]).await;
    let ops: Vec<_> = (0..CHILDREN)
        .map(|index| create(&format!("/big/{}", name(index)), ""))
        .collect();
    let commits = ops.chunks(100).map(|ops| store.commit(ops.to_vec()));
    for receipt in join_all(commits).await {
        receipt.unwrap();
    }
    let names: Vec<_> = (0..CHILDREN).map(name).collect();
    assert!(names == list(&store, "/big").await);
}

#[tokio::test]
async fn store_time_is_the_leaders() {
    let store = open(&settings(shared::zookeeper().unwrap())).await;
    let first = commit(&store, [create("/0", "")]).await.store_time;
    let mut number = 0;
    // A commit that only creates tells the time as well, though servers have been seen to forget
    // it. The clock counts milliseconds, so some commits may share one.
    while number < 10_000 {
        number += 1;
        let op = create(&format!("/{number}"), "");
        if commit(&store, [op]).await.store_time > first {
            return;
        }
    }
    panic!("time stands still");
}
