//! What only ZooKeeper can break: connections, sessions, quorums, credentials. All on real servers,
//! and each test below a chroot of its own.

mod faults;
mod model;
mod opening;
mod sessions;

use distci_components::{ZooKeeperPlan, shared};
use tempfile::TempDir;

use super::*;
use crate::coordination::contract::Subject;
use crate::coordination::{Event, Expect};

mod contract_of_one_server {
    crate::coordination::contract::contract!(super::one_server);
}

mod contract_of_an_ensemble {
    crate::coordination::contract::contract!(super::ensemble);
}

async fn one_server() -> Subject {
    subject(shared::zookeeper().unwrap()).await
}

async fn ensemble() -> Subject {
    subject(shared::ensemble().unwrap()).await
}

async fn subject(hosts: String) -> Subject {
    let store = open(&settings(hosts)).await;
    Subject {
        store: Arc::new(store),
        dir: None,
    }
}

async fn open(settings: &Settings) -> ZooKeeper {
    ZooKeeper::connect(settings.clone()).await.unwrap()
}

/// Settings with a chroot that nobody else uses.
fn settings(hosts: String) -> Settings {
    Settings {
        hosts,
        chroot: format!("/distci-test/{}", unique()),
        session_timeout: Duration::from_secs(8),
        identity: Identity::Anonymous,
        tls: None,
    }
}

/// A name that no other test of any process has.
fn unique() -> String {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    format!("{}-{}", std::process::id(), name.trim_start_matches('.'))
}

/// Servers that one test has for itself and may ill-treat.
#[derive(Clone)]
struct Servers {
    servers: Arc<distci_components::ZooKeeper>,
    _dir: Arc<TempDir>,
}

impl Servers {
    async fn start(plan: ZooKeeperPlan) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let folder = dir.clone();
        let start = move || distci_components::ZooKeeper::start(folder.path(), &plan).unwrap();
        let servers = tokio::task::spawn_blocking(start).await.unwrap();
        Self {
            servers: Arc::new(servers),
            _dir: dir,
        }
    }

    async fn many(servers: usize) -> Self {
        Self::start(ZooKeeperPlan {
            servers,
            ..ZooKeeperPlan::default()
        })
        .await
    }

    fn connect(&self) -> String {
        self.servers.connect()
    }

    /// Does something to the servers, without holding up the client's tasks.
    async fn treat<T: Send + 'static>(
        &self,
        treat: impl FnOnce(&distci_components::ZooKeeper) -> anyhow::Result<T> + Send + 'static,
    ) -> T {
        let servers = self.servers.clone();
        let treated = tokio::task::spawn_blocking(move || treat(&servers));
        treated.await.unwrap().unwrap()
    }
}

/// Asks until the answer is there; a minute is for machines that do much else.
async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let patient = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let limit = Duration::from_mins(1);
    timeout(limit, patient)
        .await
        .unwrap_or_else(|_| panic!("{what} not within a minute"))
}

/// The epoch, once the store is connected and that epoch is later than `epoch`.
async fn connected_after(store: &ZooKeeper, epoch: u64) -> u64 {
    let health = store.health();
    eventually("a connection", || async {
        match *health.borrow() {
            Health::Connected { epoch: later } if later > epoch => Some(later),
            _ => None,
        }
    })
    .await
}

/// The next event that a watch has, within a minute.
async fn next(watch: &mut Watch) -> Event {
    let event = timeout(Duration::from_mins(1), watch.next()).await;
    event
        .expect("an event within a minute")
        .expect("a live watch")
}

/// A commit whose outcome must be known, repeated while the store is out of reach.
async fn commit_at_last(store: &ZooKeeper, op: Op) {
    eventually("a commit", || async {
        let committed = store.commit(vec![op.clone()]).await;
        match committed {
            Ok(_) => Some(()),
            Err(CommitError::Down(Outage::Disconnected) | CommitError::Unknown) => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn each_server_says_how_it_stands() {
    let alone = open(&settings(shared::zookeeper().unwrap())).await;
    let servers = alone.servers().await;
    assert_eq!(servers.len(), 1, "{servers:?}");
    let state = servers[0].state.as_ref().unwrap();
    assert_eq!(state.role, "standalone", "{state:?}");
    assert!(
        state.connections.is_some_and(|clients| clients > 0),
        "{state:?}"
    );
    let standing = alone.standing();
    let session = standing.session.unwrap();
    assert!(session.id.is_some() && session.ended == 0, "{session:?}");
    let several = settings(shared::ensemble().unwrap());
    let gone = format!("{},127.0.0.1:1", several.hosts);
    let servers = open(&Settings {
        hosts: gone,
        ..several
    })
    .await
    .servers()
    .await;
    let roles: Vec<_> = servers
        .iter()
        .map(|server| server.state.as_ref().map(|state| state.role.as_str()))
        .collect();
    let count = |role: &str| roles.iter().filter(|known| **known == Ok(role)).count();
    assert_eq!((count("leader"), count("follower")), (1, 2), "{roles:?}");
    assert!(
        roles.iter().any(Result::is_err),
        "a server that is not there answers: {roles:?}"
    );
}
