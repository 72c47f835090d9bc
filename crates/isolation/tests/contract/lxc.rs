//! The driver of containers by LXC.

use std::os::unix::fs::MetadataExt;

use distci_isolation::{Ended, Groups, Isolation as _, Lxc};
use distci_model::isolation::Network;

use crate::image::busybox;
use crate::laws::contract;
use crate::scene::{Scene, Subject, supervisor};

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
        networks: &[Network::None, Network::Host, Network::Private],
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

/// A file system of the oldest kind knows no owners but its own.
#[tokio::test(flavor = "multi_thread")]
async fn folders_of_any_file_system_are_shown() {
    let scene = Scene::new();
    let workspace = &scene.site.workspace;
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), workspace, Some("ramfs"), none, None::<&str>).unwrap();
    std::fs::write(workspace.join("old"), "kept\n").unwrap();
    let script = "cat old && echo new > new && chmod 600 new old";
    let done = scene.play(&subject(), &subject().terms(), script).await;
    let owner = |name: &str| std::fs::metadata(workspace.join(name)).unwrap().uid();
    let owners = (owner("old"), owner("new"));
    nix::mount::umount(workspace).unwrap();
    assert_eq!((done.0.ended, done.1.as_str()), (Ended::Exit(0), "kept\n"));
    assert_eq!(owners, (0, 0));
    scene.assert_clean();
}
