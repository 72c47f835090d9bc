//! What the simulator promises beyond the contract: its faults happen, are told as the contract
//! says, depend on the seed alone, and lose nothing that the contract protects.

use std::collections::BTreeSet;
use std::future::{Ready, ready};

use futures::FutureExt;
use futures::future::join_all;
use jiff::Timestamp;

use super::*;
use crate::coordination::contract::{
    Subject, commit, create, create_for_session, get, list, path, queued, set,
};
use crate::coordination::{ConflictKind, Event, Expect, Life, Outage, Version};

mod contract {
    crate::coordination::contract::contract!(super::open);
}

fn open() -> Ready<Subject> {
    ready(Subject {
        store: Arc::new(simulator(1, Faults::none()).session()),
        dir: None,
    })
}

fn simulator(seed: u64, faults: Faults) -> Simulator {
    Simulator::new(seed, faults, Arc::new(|| Timestamp::UNIX_EPOCH))
}

const ALWAYS: PerMille = PerMille(1000);

#[tokio::test]
async fn a_commit_lost_on_its_way_is_unknown_and_did_not_happen() {
    let simulator = simulator(
        1,
        Faults {
            lost_before: ALWAYS,
            ..Faults::none()
        },
    );
    let session = simulator.session();
    let mut watch = session.watch(&path("/"));
    let unknown = session.commit(vec![create("/a", "")]).await;
    assert!(matches!(unknown, Err(CommitError::Unknown)));
    assert_eq!(None, get(&session, "/a").await);
    assert_eq!(vec![Event::Gap], queued(&mut watch));
    assert_eq!(Health::Connected { epoch: 2 }, *session.health().borrow());
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_unknown_and_happened() {
    let simulator = simulator(
        1,
        Faults {
            lost_after: ALWAYS,
            ..Faults::none()
        },
    );
    let session = simulator.session();
    let mut watch = session.watch(&path("/"));
    let unknown = session.commit(vec![create("/a", "x")]).await;
    assert!(matches!(unknown, Err(CommitError::Unknown)));
    assert_eq!(Some((b"x".to_vec(), 0)), get(&session, "/a").await);
    assert_eq!(vec![Event::Gap], queued(&mut watch));
}

#[tokio::test]
async fn a_missed_event_is_a_gap_before_the_receipt() {
    let simulator = simulator(
        1,
        Faults {
            missed_events: ALWAYS,
            ..Faults::none()
        },
    );
    let session = simulator.session();
    let mut watch = session.watch(&path("/"));
    commit(&session, [create("/a", "")]).await;
    assert_eq!(vec![Event::Gap], queued(&mut watch));
}

#[tokio::test]
async fn a_session_hears_of_another_at_its_own_receipt_at_the_latest() {
    let simulator = simulator(
        1,
        Faults {
            lag: ALWAYS,
            ..Faults::none()
        },
    );
    let (one, two) = (simulator.session(), simulator.session());
    let mut watch = two.watch(&path("/"));
    commit(&one, [create("/a", "")]).await;
    assert_eq!(None, get(&two, "/a").await);
    assert!(queued(&mut watch).is_empty());
    commit(&two, [create("/b", "")]).await;
    let told = vec![Event::Created(path("/a")), Event::Created(path("/b"))];
    assert_eq!(told, queued(&mut watch));
    assert_eq!(vec!["a", "b"], list(&two, "/").await);
}

#[tokio::test]
async fn a_settled_store_is_seen_by_everybody() {
    let simulator = simulator(
        1,
        Faults {
            lag: ALWAYS,
            ..Faults::none()
        },
    );
    let (one, two) = (simulator.session(), simulator.session());
    let mut watch = two.watch(&path("/"));
    commit(&one, [create("/a", "")]).await;
    simulator.settle();
    assert_eq!(vec![Event::Created(path("/a"))], queued(&mut watch));
    assert_eq!(vec!["a"], list(&two, "/").await);
}

#[tokio::test]
async fn a_session_takes_its_nodes_with_it() {
    let simulator = simulator(1, Faults::none());
    let (one, two) = (simulator.session(), simulator.session());
    let ops = [
        create_for_session("/fe/1"),
        create("/fe/2", ""),
        create_for_session("/fe/3"),
    ];
    commit(&one, ops).await;
    commit(
        &two,
        [create_for_session("/fe/4"), set("/fe/3", "x", Expect::Any)],
    )
    .await;
    let mut watch = two.watch(&path("/fe"));
    drop(one);
    assert_eq!(vec!["2", "4"], list(&two, "/fe").await);
    let told = vec![Event::Deleted(path("/fe/1")), Event::Deleted(path("/fe/3"))];
    assert_eq!(told, queued(&mut watch));
}

#[tokio::test]
async fn an_expired_session_is_fenced_for_ever() {
    let simulator = simulator(1, Faults::none());
    let session = simulator.session();
    let mut watch = session.watch(&path("/"));
    session.expire();
    assert_eq!(None, watch.next().await);
    assert_eq!(None, session.watch(&path("/")).next().await);
    assert_eq!(Health::Fenced, *session.health().borrow());
    let refused = session.commit(vec![create("/a", "")]).await;
    assert!(matches!(refused, Err(CommitError::Down(Outage::Fenced))));
    assert!(session.get(&path("/a")).await.is_err());
    assert!(list(&simulator.session(), "/").await.is_empty());
}

#[tokio::test]
async fn a_session_that_expires_in_mid_commit_does_not_know() {
    let simulator = simulator(
        1,
        Faults {
            expiry: ALWAYS,
            ..Faults::none()
        },
    );
    let session = simulator.session();
    let unknown = session
        .commit(vec![create_for_session("/fe/1"), create("/a", "")])
        .await;
    assert!(matches!(unknown, Err(CommitError::Unknown)));
    let other = simulator.session();
    assert_eq!(vec!["a", "fe"], list(&other, "/").await);
    assert!(list(&other, "/fe").await.is_empty());
}

/// Raises a counter once, as the protocol does: repeat the identical commit while its outcome is
/// unknown, then look whether it was ours.
async fn count_once(store: &Session, me: &'static str) {
    loop {
        let seen = store.get(&path("/n")).await.unwrap().unwrap();
        let mine = store.get(&path("/done").join(me)).await.unwrap();
        if mine.is_some() {
            return;
        }
        let done = Op::Create {
            path: path("/done").join(me),
            data: seen.data,
            life: Life::Durable,
        };
        let ops = vec![set("/n", me, Expect::Exactly(seen.version)), done];
        loop {
            match store.commit(ops.clone()).await {
                Ok(_) => return,
                Err(CommitError::Unknown) => {}
                Err(CommitError::Conflict { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const CLIENTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A busy run: its outcome, with all that each client's watch told.
async fn run(seed: u64) -> (u32, Vec<Vec<Event>>) {
    let simulator = simulator(seed, Faults::none());
    commit(
        &simulator.session(),
        [create("/n", ""), create("/done", "")],
    )
    .await;
    simulator.set_faults(Faults::hostile());
    let sessions: Vec<_> = CLIENTS.iter().map(|_| simulator.session()).collect();
    let mut watches: Vec<_> = sessions.iter().map(|s| s.watch(&path("/"))).collect();
    let clients = sessions.iter().zip(CLIENTS);
    join_all(clients.map(|(session, me)| count_once(session, me))).await;
    simulator.settle();
    let told = watches.iter_mut().map(queued).collect();
    simulator.set_faults(Faults::none());
    (get(&sessions[0], "/n").await.unwrap().1, told)
}

#[tokio::test]
async fn hostile_faults_break_no_exactly_once_protocol() {
    for seed in 0..300 {
        assert_eq!(CLIENTS.len(), run(seed).await.0 as usize, "seed {seed}");
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run(seed).await, run(seed).await, "seed {seed}");
    }
    let runs = join_all((0..20).map(run)).await;
    assert!(
        runs.iter().any(|other| other.1 != runs[0].1),
        "the seed does not matter"
    );
}

/// Keeps a set of names up to date as mirrors do: an event makes it look at one node, a gap at all.
async fn mirror(store: &Session, watch: &mut Watch, names: &mut BTreeSet<String>) {
    while let Some(Some(event)) = watch.next().now_or_never() {
        match event {
            Event::Gap => *names = list(store, "/d").await.into_iter().collect(),
            Event::Changed(_) => {}
            Event::Created(path) => drop(names.insert(path.name().to_owned())),
            Event::Deleted(path) => drop(names.remove(path.name())),
        }
    }
}

#[tokio::test]
async fn a_mirror_that_lists_after_a_gap_is_right_in_the_end() {
    for seed in 0..200 {
        let simulator = simulator(seed, Faults::none());
        let (writer, reader) = (simulator.session(), simulator.session());
        commit(&writer, [create("/d", "")]).await;
        simulator.set_faults(Faults::hostile());
        let mut watch = reader.watch(&path("/d"));
        let mut names = BTreeSet::new();
        for i in 0..40 {
            let name = format!("/d/{i}");
            drop(writer.commit(vec![create(&name, "")]).await);
            if i % 3 == 0 {
                drop(
                    writer
                        .commit(vec![crate::coordination::contract::delete(&name)])
                        .await,
                );
            }
            mirror(&reader, &mut watch, &mut names).await;
        }
        simulator.settle();
        simulator.set_faults(Faults::none());
        mirror(&reader, &mut watch, &mut names).await;
        let truth: BTreeSet<_> = list(&writer, "/d").await.into_iter().collect();
        assert_eq!(truth, names, "seed {seed}");
    }
}

#[tokio::test]
async fn who_catches_up_sees_what_others_were_told_of() {
    let lagging = Faults {
        lag: ALWAYS,
        ..Faults::none()
    };
    let simulator = simulator(7, lagging);
    let (one, two) = (simulator.session(), simulator.session());
    commit(&one, [create("/a", "")]).await;
    assert_eq!(None, get(&two, "/a").await);
    two.catch_up().await.unwrap();
    assert!(get(&two, "/a").await.is_some());
}

#[tokio::test]
async fn a_refusal_is_never_for_a_version_older_than_the_receipts() {
    let simulator = simulator(
        7,
        Faults {
            lag: ALWAYS,
            ..Faults::none()
        },
    );
    let (one, two) = (simulator.session(), simulator.session());
    commit(&one, [create("/a", "")]).await;
    // The reader lags, the commit does not.
    assert_eq!(None, get(&two, "/a").await);
    let refused = two.commit(vec![create("/a", "")]).await;
    let exists = ConflictKind::Exists;
    assert!(matches!(refused, Err(CommitError::Conflict { kind, .. }) if kind == exists));
    assert!(get(&two, "/a").await.is_some());
}

#[tokio::test]
async fn who_catches_up_lags_no_more() {
    let lagging = Faults {
        lag: ALWAYS,
        ..Faults::none()
    };
    let simulator = simulator(1, lagging);
    let (writer, reader) = (simulator.session(), simulator.session());
    commit(&writer, [create("/a", "x")]).await;
    assert_eq!(None, get(&reader, "/a").await);
    reader.catch_up().await.unwrap();
    assert_eq!(Some((b"x".to_vec(), 0)), get(&reader, "/a").await);
}

#[tokio::test]
async fn who_is_cut_off_reaches_nothing_and_comes_back_to_a_gap() {
    let simulator = simulator(1, Faults::none());
    let (cut, other) = (simulator.session(), simulator.session());
    commit(&cut, [create_for_session("/mine")]).await;
    let mut watch = cut.watch(&path("/"));
    cut.cut();
    assert_eq!(Health::Disconnected, *cut.health().borrow());
    let refused = cut.commit(vec![create("/a", "")]).await;
    let down = CommitError::Down(Outage::Disconnected);
    assert_eq!(down.to_string(), refused.unwrap_err().to_string());
    assert!(cut.get(&path("/mine")).await.is_err());
    assert!(cut.catch_up().await.is_err());
    commit(&other, [create("/b", "")]).await;
    assert!(queued(&mut watch).is_empty());
    cut.mend();
    assert_eq!(vec![Event::Gap], queued(&mut watch));
    assert_eq!(Health::Connected { epoch: 2 }, *cut.health().borrow());
    assert_eq!(vec!["b", "mine"], list(&cut, "/").await);
}

#[tokio::test]
async fn a_session_that_lapsed_has_lost_its_nodes_and_its_user_goes_on() {
    let simulator = simulator(1, Faults::none());
    let (cut, other) = (simulator.session(), simulator.session());
    commit(&cut, [create_for_session("/mine")]).await;
    cut.cut();
    assert_eq!(vec!["mine"], list(&other, "/").await);
    cut.lapse();
    assert!(list(&other, "/").await.is_empty());
    cut.mend();
    commit(&cut, [create_for_session("/mine")]).await;
    drop(cut);
    assert!(list(&other, "/").await.is_empty());
}

#[tokio::test]
async fn a_full_store_is_read_and_takes_nothing() {
    let simulator = simulator(1, Faults::none());
    let session = simulator.session();
    commit(&session, [create("/a", "x")]).await;
    simulator.set_full(true);
    let refused = session.commit(vec![create("/b", "")]).await;
    assert!(matches!(refused, Err(CommitError::Down(Outage::Full))));
    assert_eq!(Some((b"x".to_vec(), 0)), get(&session, "/a").await);
    simulator.set_full(false);
    commit(&session, [create("/b", "")]).await;
}

#[tokio::test]
async fn planted_defects_are_as_they_are_called() {
    let unguarded = simulator(1, Faults::none());
    let session = unguarded.session();
    commit(&session, [create("/a", "")]).await;
    unguarded.set_defect(Defect::NoChecks);
    commit(&session, [set("/a", "x", Expect::Exactly(Version(7)))]).await;
    assert_eq!(Some((b"x".to_vec(), 1)), get(&session, "/a").await);

    let forgetful = simulator(1, Faults::none());
    let session = forgetful.session();
    forgetful.set_defect(Defect::Forgetful);
    for number in 0..1000 {
        commit(&session, [create(&format!("/{number}"), "")]).await;
    }
    let kept = list(&session, "/").await.len();
    assert!((900..1000).contains(&kept), "{kept} of 1000");
}
