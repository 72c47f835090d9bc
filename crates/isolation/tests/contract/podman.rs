//! The driver of podman's containers.

use std::path::Path;

use distci_isolation::{Groups, Isolation as _, Podman};
use distci_model::isolation::Network;

use crate::image::busybox;
use crate::laws::contract;
use crate::powers;
use crate::scene::{Subject, supervisor};

fn driver() -> Podman {
    let groups = Groups::at_the_top();
    assert_eq!(groups.trouble(), None);
    Podman {
        supervisor: supervisor(),
        groups,
        program: "podman".into(),
        runtime: "runc".to_owned(),
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("podman"),
        busybox: "/bin/busybox".into(),
    }
}

fn subject() -> Subject {
    Subject {
        isolation: Box::new(driver()),
        image: Some(busybox()),
        networks: &[Network::Host, Network::None, Network::Private],
        scale: 4,
        many: 25,
    }
}

contract!(subject());

#[tokio::test]
async fn no_power_over_the_machine() {
    powers::none_over_the_machine(&subject()).await;
}

#[tokio::test]
async fn nobody_reads_the_environment() {
    powers::none_to_read_the_environment(&subject()).await;
}

#[tokio::test]
async fn the_probe_tells_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (image, mut driver) = (busybox(), driver());
    driver.probe(&image, folder.path()).await.unwrap();
    let empty = powers::empty_image(folder.path());
    let tried = driver.probe(&empty, folder.path()).await;
    powers::assert_says(&tried, "true: no such program");
    driver.program = "no-such-podman".into();
    let tried = driver.probe(&image, folder.path()).await;
    powers::assert_says(&tried, "install the package podman");
    driver.program = "podman".into();
    driver.runtime = "no-such-runtime".to_owned();
    let tried = driver.probe(&image, folder.path()).await;
    powers::assert_says(&tried, "install the package no-such-runtime");
}
