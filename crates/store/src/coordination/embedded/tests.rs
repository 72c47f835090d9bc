//! What only the embedded store promises: durability, one sync a batch, one process, and a disk
//! that may fill up.

use std::future::{Ready, ready};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use futures::FutureExt;
use futures::future::join_all;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::*;
use crate::coordination::contract::{
    Subject, commit, create, create_for_session, delete, get, list, path, queued, set,
};
use crate::coordination::{CommitError, Event, Expect};

fn open() -> Ready<Subject> {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(dir.path(), clock()).unwrap());
    ready(Subject {
        store,
        dir: Some(dir),
    })
}

mod contract {
    crate::coordination::contract::contract!(super::open);
}

fn clock() -> Clock {
    let ticks = AtomicUsize::new(0);
    Arc::new(move || {
        let tick = ticks.fetch_add(1, Ordering::Relaxed);
        jiff::Timestamp::from_second(i64::try_from(tick).unwrap()).unwrap()
    })
}

/// How the disk behaves at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Fine,
    /// Nothing can be written.
    Full,
    /// The next sync succeeds, what follows it finds the disk full, and then all is fine.
    FullOnceSynced,
    /// The next sync succeeds, and from then on the disk is full.
    FullFromSync,
    /// No sync succeeds.
    Broken,
}

/// The one disk behind all backends that a test opens.
#[derive(Debug)]
struct Disk {
    file: PathBuf,
    mood: Mutex<Mood>,
    syncs: AtomicUsize,
    // While it holds, syncs wait; the flag tells that one does.
    held: Mutex<bool>,
    changed: Condvar,
    waits: AtomicBool,
}

impl Disk {
    fn in_dir(dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            file: dir.join("coord.redb"),
            mood: Mutex::new(Mood::Fine),
            syncs: AtomicUsize::new(0),
            held: Mutex::new(false),
            changed: Condvar::new(),
            waits: AtomicBool::new(false),
        })
    }

    fn opener(self: &Arc<Self>) -> OpenFile {
        let disk = self.clone();
        Box::new(move || {
            let backend = file::open(&disk.file)?;
            disk::builder().create_with_backend(Backend {
                backend,
                disk: disk.clone(),
            })
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }

    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.changed.notify_all();
    }

    fn wait_for_a_sync(&self) {
        let held = self.held.lock().unwrap();
        let waits = |_: &mut bool| !self.waits.load(Ordering::SeqCst);
        drop(self.changed.wait_while(held, waits).unwrap());
    }

    fn space(&self) -> io::Result<()> {
        match *self.mood.lock().unwrap() {
            Mood::Full => Err(io::ErrorKind::StorageFull.into()),
            Mood::Fine | Mood::FullOnceSynced | Mood::FullFromSync | Mood::Broken => Ok(()),
        }
    }

    /// Stands for the error of whatever a commit does after its sync.
    fn after_sync(&self) -> io::Result<()> {
        let mut mood = self.mood.lock().unwrap();
        let (then, told) = match *mood {
            Mood::Fine => return Ok(()),
            Mood::FullOnceSynced => (Mood::Fine, io::ErrorKind::StorageFull),
            Mood::FullFromSync | Mood::Full => (Mood::Full, io::ErrorKind::StorageFull),
            Mood::Broken => (Mood::Broken, io::ErrorKind::Other),
        };
        *mood = then;
        Err(told.into())
    }
}

#[derive(Debug)]
struct Backend {
    backend: file::Guarded<FileBackend>,
    disk: Arc<Disk>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.space()?;
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let held = self.disk.held.lock().unwrap();
        self.disk.waits.store(*held, Ordering::SeqCst);
        self.disk.changed.notify_all();
        drop(self.disk.changed.wait_while(held, |held| *held).unwrap());
        self.disk.waits.store(false, Ordering::SeqCst);
        self.disk.syncs.fetch_add(1, Ordering::SeqCst);
        self.backend.sync_data()?;
        self.disk.after_sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.space()?;
        self.backend.write(offset, data)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
}

/// A store over a disk whose mood the test rules.
fn moody() -> (tempfile::TempDir, Arc<Disk>, Embedded) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::in_dir(dir.path());
    let store = Embedded::open_with(dir.path(), clock(), disk.opener()).unwrap();
    (dir, disk, store)
}

#[tokio::test]
async fn everything_but_session_nodes_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), clock()).unwrap();
    commit(
        &store,
        [create("/a/b", "x"), create("/a/c", ""), create("/gone", "")],
    )
    .await;
    commit(&store, [set("/a/b", "y", Expect::Any), delete("/gone")]).await;
    commit(&store, [create_for_session("/fe/1")]).await;
    drop(store);

    let store = Embedded::open(dir.path(), clock()).unwrap();
    assert_eq!(Some((b"y".to_vec(), 1)), get(&store, "/a/b").await);
    assert_eq!(vec!["b", "c"], list(&store, "/a").await);
    assert_eq!(vec!["a", "fe"], list(&store, "/").await);
    assert!(list(&store, "/fe").await.is_empty());
}

#[tokio::test]
async fn acknowledged_commits_survive_a_kill() {
    let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Embedded::open(dir.path(), clock()).unwrap();
    for i in 0..50 {
        commit(&store, [create(&format!("/a/{i:02}"), "x")]).await;
    }
    // The file as a killed process leaves it: never closed.
    std::fs::copy(
        dir.path().join("coord.redb"),
        after.path().join("coord.redb"),
    )
    .unwrap();
    let after = Embedded::open(after.path(), clock()).unwrap();
    assert_eq!(list(&store, "/a").await, list(&after, "/a").await);
}

#[tokio::test]
async fn a_directory_has_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), clock()).unwrap();
    let second = Embedded::open(dir.path(), clock());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    commit(&store, [create("/a", "")]).await;
    drop(store);
    let third = Embedded::open(dir.path(), clock()).unwrap();
    assert_eq!(vec!["a"], list(&third, "/").await);
}

#[test]
fn an_unknown_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Embedded::open(dir.path(), clock()).unwrap());
    let database = redb::Database::open(dir.path().join("coord.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    transaction
        .open_table(meta)
        .unwrap()
        .insert("format", 99)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let opened = Embedded::open(dir.path(), clock());
    assert!(matches!(opened, Err(OpenError::Format { found: 99, .. })));
}

#[test]
fn a_file_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("coord.redb"),
        "not a database, but a letter",
    )
    .unwrap();
    assert!(matches!(
        Embedded::open(dir.path(), clock()),
        Err(OpenError::File(_))
    ));
}

#[tokio::test]
async fn a_commit_on_an_idle_store_costs_one_sync() {
    let (_dir, disk, store) = moody();
    for i in 0..20 {
        let before = disk.syncs();
        commit(&store, [create(&format!("/{i}"), "x")]).await;
        assert_eq!(1, disk.syncs() - before);
    }
}

#[tokio::test]
async fn commits_that_wait_for_the_disk_share_one_sync() {
    let (_dir, disk, store) = moody();
    let before = disk.syncs();
    disk.hold(true);
    let mut first = store.commit(vec![create("/first", "")]);
    assert!(first.as_mut().now_or_never().is_none());
    disk.wait_for_a_sync();

    let later: Vec<_> = (0..100)
        .map(|i| store.commit(vec![create(&format!("/a/{i}"), "")]))
        .collect();
    let mut later = join_all(later);
    assert!((&mut later).now_or_never().is_none());
    disk.hold(false);
    first.await.unwrap();
    assert!(later.await.iter().all(Result::is_ok));
    assert_eq!(2, disk.syncs() - before);
}

#[tokio::test]
async fn session_nodes_and_refusals_cost_no_sync() {
    let (_dir, disk, store) = moody();
    commit(&store, [create("/fe", "")]).await;
    let before = disk.syncs();
    commit(&store, [create_for_session("/fe/1")]).await;
    commit(&store, [set("/fe/1", "x", Expect::Any)]).await;
    commit(&store, [delete("/fe/1")]).await;
    store.commit(vec![delete("/none")]).await.unwrap_err();
    assert_eq!(before, disk.syncs());
}

#[tokio::test]
async fn a_full_disk_is_answered_and_takes_commits_when_it_has_room() {
    let (dir, disk, store) = moody();
    commit(&store, [create("/a", "")]).await;
    let mut health = store.health();
    let mut watch = store.watch(&path("/"));
    disk.set(Mood::Full);
    for _ in 0..3 {
        let refused = store.commit(vec![create("/b", "")]).await.unwrap_err();
        assert!(matches!(
            refused,
            CommitError::Unknown | CommitError::Down(Outage::Full)
        ));
    }
    assert_eq!(Health::Disconnected, *health.borrow_and_update());
    assert_eq!(vec!["a"], list(&store, "/").await);
    assert!(queued(&mut watch).is_empty());

    disk.set(Mood::Fine);
    commit(&store, [create("/b", "")]).await;
    assert_eq!(Health::Connected { epoch: 2 }, *health.borrow_and_update());
    assert_eq!(vec![Event::Created(path("/b"))], queued(&mut watch));
    drop(store);
    let store = Embedded::open(dir.path(), clock()).unwrap();
    assert_eq!(vec!["a", "b"], list(&store, "/").await);
}

#[tokio::test]
async fn a_commit_that_is_on_the_disk_after_all_is_acknowledged() {
    let (dir, disk, store) = moody();
    disk.set(Mood::FullOnceSynced);
    commit(&store, [create("/a", "")]).await;
    assert_eq!(vec!["a"], list(&store, "/").await);
    drop(store);
    let store = Embedded::open(dir.path(), clock()).unwrap();
    assert_eq!(vec!["a"], list(&store, "/").await);
}

#[tokio::test]
async fn a_commit_in_doubt_shows_itself_when_the_disk_is_back() {
    let (_dir, disk, store) = moody();
    let mut watch = store.watch(&path("/"));
    disk.set(Mood::FullFromSync);
    let unknown = store.commit(vec![create("/a", "")]).await;
    assert!(matches!(unknown, Err(CommitError::Unknown)));
    assert!(list(&store, "/").await.is_empty());

    disk.set(Mood::Fine);
    let repeated = store.commit(vec![create("/a", "")]).await;
    assert!(matches!(
        repeated,
        Err(CommitError::Conflict { index: 0, .. })
    ));
    assert_eq!(vec!["a"], list(&store, "/").await);
    assert_eq!(vec![Event::Created(path("/a"))], queued(&mut watch));
}

#[tokio::test]
async fn a_broken_disk_fences_the_store() {
    let (_dir, disk, store) = moody();
    commit(&store, [create("/a", "")]).await;
    disk.set(Mood::Broken);
    let unknown = store.commit(vec![create("/b", "")]).await;
    assert!(matches!(unknown, Err(CommitError::Unknown)));
    disk.set(Mood::Fine);
    let down = store.commit(vec![create("/b", "")]).await;
    assert!(matches!(down, Err(CommitError::Down(Outage::Broken(_)))));
    assert_eq!(Health::Fenced, *store.health().borrow());
    assert_eq!(vec!["a"], list(&store, "/").await);
}

#[tokio::test]
async fn dropping_the_store_ends_its_watches_and_keeps_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), clock()).unwrap();
    let mut watch = store.watch(&path("/"));
    let health = store.health();
    // A caller that gives up has still handed over its commit.
    assert!(
        store
            .commit(vec![create("/a", "")])
            .now_or_never()
            .is_none()
    );
    drop(store);
    assert_eq!(Some(Event::Created(path("/a"))), watch.next().await);
    assert_eq!(None, watch.next().await);
    assert_eq!(Health::Fenced, *health.borrow());
    let store = Embedded::open(dir.path(), clock()).unwrap();
    assert_eq!(vec!["a"], list(&store, "/").await);
}
