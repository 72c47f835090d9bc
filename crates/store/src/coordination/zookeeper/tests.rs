//! What only ZooKeeper can break: connections, sessions, quorums, credentials. All on real servers.

use std::time::Duration;

use super::*;
use crate::coordination::contract::Subject;

mod contract_of_one_server {
    crate::coordination::contract::contract!(super::one_server);
}

mod contract_of_an_ensemble {
    crate::coordination::contract::contract!(super::ensemble);
}

async fn one_server() -> Subject {
    subject(distci_components::shared::zookeeper().unwrap()).await
}

async fn ensemble() -> Subject {
    subject(distci_components::shared::ensemble().unwrap()).await
}

async fn subject(hosts: String) -> Subject {
    let store = ZooKeeper::connect(settings(hosts)).await.unwrap();
    Subject {
        store: Arc::new(store),
        dir: None,
    }
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
