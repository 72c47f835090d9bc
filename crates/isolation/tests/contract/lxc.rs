//! The driver of containers by LXC.

use distci_isolation::{Groups, Isolation as _, Lxc};
use distci_model::isolation::Network;

use crate::image::busybox;
use crate::laws::contract;
use crate::scene::{Subject, supervisor};

fn lxc() -> Lxc {
    let groups = Groups::find();
    assert_eq!(groups.trouble(), None);
    Lxc {
        supervisor: supervisor(),
        groups,
    }
}

fn subject() -> Subject {
    Subject {
        isolation: Box::new(lxc()),
        image: Some(busybox()),
        networks: &[Network::None, Network::Host],
        scale: 1,
    }
}

contract!(subject());

/// What a worker does before it offers the driver.
#[tokio::test(flavor = "multi_thread")]
async fn it_works_here() {
    let folder = tempfile::tempdir().unwrap();
    lxc().probe(&busybox(), folder.path()).await.unwrap();
}
