//! The driver of a docker daemon's containers, on a daemon of its own.

use std::path::Path;
use std::process::Command;

use distci_components::Docker as Daemon;
use distci_isolation::{Docker, Error, Groups, Isolation, Terms};
use distci_model::isolation::{Network, Size};

use crate::image::busybox;
use crate::laws::contract;
use crate::powers;
use crate::scene::{Scene, Subject, supervisor};

/// One in the target folder.
fn start() -> Daemon {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker");
    Daemon::start(&folder).unwrap()
}

fn driver(daemon: &Daemon) -> Docker {
    let groups = Groups::at_the_top();
    assert_eq!(groups.trouble(), None);
    Docker {
        supervisor: supervisor(),
        groups,
        program: "docker".into(),
        host: daemon.host(),
        private: Some("bridge".to_owned()),
        busybox: "/bin/busybox".into(),
    }
}

fn subject(daemon: &Daemon) -> Subject {
    Subject {
        isolation: Box::new(driver(daemon)),
        image: Some(busybox()),
        networks: &[Network::Host, Network::None, Network::Private],
        scale: 4,
        many: 25,
    }
}

/// One daemon keeps all laws: to start one for each would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract() {
    let daemon = start();
    let subject = subject(&daemon);
    contract!(in order &subject);
    powers::none_over_the_machine(&subject).await;
    powers::none_to_read_the_environment(&subject).await;
    refusals(&daemon).await;
    probes(&daemon).await;
    an_image_that_the_daemon_lost(&daemon).await;
}

async fn refusals(daemon: &Daemon) {
    let scene = Scene::new();
    let mut driver = driver(daemon);
    driver.private = None;
    let mut terms = subject(daemon).terms();
    terms.network = Network::Private;
    let limited = Terms {
        disk: Size::from_bytes(1 << 30),
        ..subject(daemon).terms()
    };
    for terms in [terms, limited] {
        let refused = driver.open(&scene.site, &terms).await.err();
        assert!(
            matches!(refused, Some(Error::Unsupported(_))),
            "{refused:?}"
        );
    }
    scene.assert_clean();
}

async fn probes(daemon: &Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let (image, mut driver) = (busybox(), driver(daemon));
    driver.probe(&image, folder.path()).await.unwrap();
    driver.host = String::from("unix:///no/such/socket");
    let tried = driver.probe(&image, folder.path()).await;
    powers::assert_says(&tried, "/no/such/socket");
    driver.program = "no-such-docker".into();
    let tried = driver.probe(&image, folder.path()).await;
    powers::assert_says(&tried, "install the package docker.io");
}

async fn an_image_that_the_daemon_lost(daemon: &Daemon) {
    let subject = subject(daemon);
    Scene::run(&subject, &subject.terms(), "true").await;
    let mut remove = Command::new("docker");
    remove.args(["--host", &daemon.host(), "image", "rm", "--force"]);
    assert!(
        remove
            .arg("distci:busybox")
            .output()
            .unwrap()
            .status
            .success()
    );
    let (finished, _) = Scene::run(&subject, &subject.terms(), "exit 4").await;
    assert_eq!(finished.ended, distci_isolation::Ended::Exit(4));
}
