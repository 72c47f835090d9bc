//! The driver of namespaces.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use distci_isolation::{Bubblewrap, Groups, Isolation as _, Shared};
use distci_model::isolation::Network;

use crate::image::busybox;
use crate::laws::contract;
use crate::powers;
use crate::scene::{Scene, Subject, never, program, run, supervisor};

fn driver() -> Bubblewrap {
    let groups = Groups::find();
    assert_eq!(groups.trouble(), None);
    Bubblewrap {
        supervisor: supervisor(),
        groups,
        program: "bwrap".into(),
    }
}

fn subject() -> Subject {
    Subject {
        isolation: Box::new(driver()),
        image: Some(busybox()),
        networks: &[Network::Host, Network::None],
        scale: 1,
        many: 200,
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
    powers::assert_says(&tried, "true: No such file or directory");
    driver.program = "no-such-bwrap".into();
    let tried = driver.probe(&image, folder.path()).await;
    powers::assert_says(&tried, "install the package bubblewrap");
    // Whatever came of it, nothing is left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// What bubblewrap could not do is not the command's end.
#[tokio::test]
async fn trouble_is_not_an_exit_code() {
    let scene = Scene::new();
    let mut terms = subject().terms();
    terms.shared = vec![Shared {
        outside: scene.site.folder.join("not-there"),
        inside: "/cache".into(),
    }];
    let cell = scene.open(&subject(), &terms).await;
    let (finished, _) = run(cell.as_ref(), "exit 1", never()).await;
    let said = finished.unwrap_err().to_string();
    assert!(said.contains("Can't find source path"), "{said}");
    cell.close().await.unwrap();
    scene.assert_clean();
}

/// Somebody who may do nothing special on the machine has cells too, though no limits.
#[tokio::test]
async fn an_ordinary_user_has_cells() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let script = format!(
        "chmod 755 {0}; cp {1} {0}/program; cp -r {2} {0}/busybox; \
         mkdir -p {0}/site/cell {0}/site/workspace {0}/site/tmp {0}/site/files; \
         chown -R nobody {0}/busybox {0}/site",
        folder.path().display(),
        program(),
        busybox().folder().display(),
    );
    let made = Command::new("sh").arg("-c").arg(script).status().unwrap();
    assert!(made.success());
    let mut worker = Command::new("setpriv")
        .args(["--reuid", "nobody", "--clear-groups", "--"])
        .arg(path("program"))
        .args(["work", "bubblewrap"])
        .arg(path("site"))
        .arg(format!("user-{}", std::process::id()))
        .arg("id -u; echo x > /etc/left; touch made; rm -r /usr; echo ready")
        .arg(path("busybox"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let text: Vec<String> = lines.map(Result::unwrap).take(2).collect();
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(text, ["0", "ready"]);
    assert_ne!(fs::metadata(path("site/workspace/made")).unwrap().uid(), 0);
    assert!(path("busybox/root/usr").exists() && !path("busybox/root/etc/left").exists());
}
