//! Servers that die, hang, and lose their quorum under a session.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::coordination::contract::{
    commit, create, create_for_session, get, list, path, queued, set,
};

/// A session that notices a dead connection, and its own end, soon.
fn impatient(servers: &Servers) -> Settings {
    Settings {
        session_timeout: Duration::from_secs(2),
        ..settings(servers.connect())
    }
}

/// Adds one to the counter and leaves a mark, once and only once, by the rule of ambiguous commits:
/// repeat what is unknown as it was, and if that is refused, look for the mark.
async fn increment(store: &ZooKeeper, mark: &str) {
    let mark = format!("/marks/{mark}");
    loop {
        let Ok(counter) = store.get(&path("/counter")).await else {
            continue;
        };
        let version = Expect::Exactly(counter.unwrap().version);
        let ops = vec![set("/counter", "", version), create(&mark, "")];
        let refused = loop {
            match store.commit(ops.clone()).await {
                Ok(_) => return,
                Err(CommitError::Unknown | CommitError::Down(Outage::Disconnected)) => {}
                Err(error) => break error,
            }
        };
        assert!(
            matches!(refused, CommitError::Conflict { .. }),
            "{refused:?}"
        );
        if get_at_last(store, &mark).await.is_some() {
            return;
        }
    }
}

async fn get_at_last(store: &ZooKeeper, at: &str) -> Option<Node> {
    let get = || async { store.get(&path(at)).await.ok() };
    eventually("a read", get).await
}

/// What somebody knows of a directory who lists it once and then only after gaps, until `enough`
/// names are known.
async fn mirror(store: &ZooKeeper, mut watch: Watch, enough: usize) -> BTreeSet<String> {
    let dir = path("/marks");
    let relist = || async { store.list(&dir).await.ok() };
    let mut names: BTreeSet<_> = eventually("a list", relist).await.into_iter().collect();
    while names.len() < enough {
        match next(&mut watch).await {
            Event::Created(path) => drop(names.insert(path.name().to_owned())),
            Event::Gap => names = eventually("a list", relist).await.into_iter().collect(),
            Event::Deleted(_) | Event::Changed(_) => {}
        }
    }
    names
}

#[tokio::test]
async fn no_increment_is_lost_or_doubled_when_leaders_die() {
    const WRITERS: usize = 6;
    const EACH: usize = 40;
    let servers = Servers::many(3).await;
    let settings = impatient(&servers);
    let stores = [open(&settings).await, open(&settings).await];
    let setup = [create("/counter", ""), create("/marks", "")];
    commit(&stores[0], setup).await;
    stores[1].catch_up().await.unwrap();
    let watch = stores[1].watch(&path("/marks"));
    // The other session's marks may not come before the server hears of the watch.
    stores[1].catch_up().await.unwrap();

    let writers = (0..WRITERS).map(async |writer| {
        for number in 0..EACH {
            increment(&stores[writer % 2], &format!("{writer}-{number}")).await;
        }
    });
    let killer = async {
        for part in 1..=2 {
            eventually("a third of the marks", || async {
                let marks = stores[0].list(&path("/marks")).await.ok()?;
                (marks.len() >= part * WRITERS * EACH / 3).then_some(())
            })
            .await;
            let kill = |servers: &distci_components::ZooKeeper| {
                let leader = servers.leader()?;
                servers.kill(leader)?;
                Ok(leader)
            };
            let dead = servers.treat(kill).await;
            servers.treat(move |servers| servers.restart(dead)).await;
        }
    };
    let mirrored = mirror(&stores[1], watch, WRITERS * EACH);
    let (_, (), mirrored) = tokio::join!(join_all(writers), killer, mirrored);

    stores[0].catch_up().await.unwrap();
    let total = u32::try_from(WRITERS * EACH).unwrap();
    assert_eq!(Some((Vec::new(), total)), get(&stores[0], "/counter").await);
    let marks: BTreeSet<_> = list(&stores[0], "/marks").await.into_iter().collect();
    assert_eq!(marks, mirrored);
}

#[tokio::test]
async fn a_lost_connection_is_a_gap_and_watches_go_on() {
    let servers = Servers::many(1).await;
    // Long enough for the slowest restart: the session has to survive it.
    let store = open(&Settings {
        session_timeout: Duration::from_mins(1),
        ..settings(servers.connect())
    })
    .await;
    commit(&store, [create("/a", "x"), create_for_session("/s")]).await;
    let mut watch = store.watch(&path("/a"));
    servers.treat(|servers| servers.restart(0)).await;
    connected_after(&store, 1).await;
    assert_eq!(Some((b"x".to_vec(), 0)), get(&store, "/a").await);
    assert_eq!(vec![Event::Gap], queued(&mut watch));
    commit(&store, [create("/a/b", "")]).await;
    assert_eq!(vec![Event::Created(path("/a/b"))], queued(&mut watch));
    // The session is the same one.
    assert!(get(&store, "/s").await.is_some());
}

#[tokio::test]
async fn watches_begun_while_disconnected_are_watches() {
    let servers = Servers::many(1).await;
    let store = open(&settings(servers.connect())).await;
    servers.treat(|servers| servers.kill(0)).await;
    let mut health = store.health();
    let down = |health: &Health| *health == Health::Disconnected;
    health.wait_for(down).await.unwrap();
    let mut watch = store.watch(&path("/"));
    servers.treat(|servers| servers.restart(0)).await;
    connected_after(&store, 1).await;
    assert_eq!(vec![Event::Gap], queued(&mut watch));
    commit(&store, [create("/a", "")]).await;
    assert_eq!(vec![Event::Created(path("/a"))], queued(&mut watch));
}

#[tokio::test]
async fn an_ended_session_is_followed_by_another() {
    let servers = Servers::many(1).await;
    let store = open(&impatient(&servers)).await;
    commit(&store, [create("/a", ""), create_for_session("/s")]).await;
    let mut watch = store.watch(&path("/a"));
    servers.treat(|servers| servers.pause(0)).await;
    // A process stops a moment after the signal.
    let lost = eventually("a commit without reply", || async {
        store.commit(vec![set("/a", "", Expect::Any)]).await.err()
    })
    .await;
    assert!(matches!(lost, CommitError::Unknown), "{lost:?}");
    eventually("the end of the session", || async {
        store.feed.is_without_session().then_some(())
    })
    .await;
    let read = store.get(&path("/a")).await;
    assert!(matches!(read, Err(ReadError::Down(Outage::Disconnected))));

    servers.treat(|servers| servers.resume(0)).await;
    let epoch = connected_after(&store, 1).await;
    assert_eq!(Event::Gap, next(&mut watch).await);
    eventually("the end of the old session's nodes", || async {
        store.get(&path("/s")).await.ok()?.is_none().then_some(())
    })
    .await;
    commit_at_last(&store, create_for_session("/s2")).await;
    commit_at_last(&store, create("/a/b", "")).await;
    while next(&mut watch).await != Event::Created(path("/a/b")) {}
    assert!(epoch > 1);
}

#[tokio::test]
async fn without_a_quorum_calls_are_answered_and_with_it_they_work() {
    let servers = Servers::many(3).await;
    let store = open(&impatient(&servers)).await;
    commit(&store, [create("/a", "")]).await;
    servers
        .treat(|servers| servers.kill(0).and_then(|()| servers.kill(1)))
        .await;
    eventually("an outage", || async {
        store.get(&path("/a")).await.is_err().then_some(())
    })
    .await;
    for _ in 0..3 {
        let read = store.get(&path("/a")).await;
        assert!(
            matches!(read, Err(ReadError::Down(Outage::Disconnected))),
            "{read:?}"
        );
        let written = store.commit(vec![set("/a", "x", Expect::Any)]).await;
        let down = matches!(written, Err(CommitError::Down(Outage::Disconnected)));
        assert!(down, "{written:?}");
        let caught_up = store.catch_up().await;
        assert!(caught_up.is_err());
    }
    servers
        .treat(distci_components::ZooKeeper::restart_all)
        .await;
    commit_at_last(&store, create("/b", "")).await;
    assert_eq!(Some((Vec::new(), 0)), get(&store, "/a").await);
}

#[tokio::test]
async fn an_abandoned_watch_ends_on_the_server() {
    let servers = Servers::many(1).await;
    let store = open(&settings(servers.connect())).await;
    let watch = store.watch(&path("/a"));
    let other = store.watch(&path("/a"));
    store.catch_up().await.unwrap();
    let with_it = watches(&servers).await;
    drop(watch);
    store.catch_up().await.unwrap();
    assert_eq!(with_it, watches(&servers).await);
    drop(other);
    eventually("the end of a watch", || async {
        store.catch_up().await.unwrap();
        (watches(&servers).await == with_it - 1).then_some(())
    })
    .await;
}

/// How many watches the server keeps, by its own account.
async fn watches(servers: &Servers) -> usize {
    let mut server = TcpStream::connect(servers.connect()).await.unwrap();
    server.write_all(b"wchs").await.unwrap();
    let mut account = String::new();
    server.read_to_string(&mut account).await.unwrap();
    let total = account.trim().rsplit(':').next().unwrap();
    total.parse().unwrap_or_else(|_| panic!("{account}"))
}
