//! The image of these tests: a static busybox and the names that it goes by.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use distci_isolation::Image;
use nix::fcntl::{Flock, FlockArg};

/// Made once in the target folder, for all tests and their later runs.
pub(crate) fn busybox() -> Image {
    let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    fs::create_dir_all(&images).unwrap();
    let lock = File::create(images.join("busybox.lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let folder = images.join("busybox");
    if !folder.is_dir() {
        let fresh = images.join("busybox.new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).unwrap();
        }
        make(&fresh.join("root"));
        fs::rename(fresh, &folder).unwrap();
    }
    Image::in_folder(&folder).unwrap()
}

fn make(root: &Path) {
    for folder in [
        "bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = "/bin/busybox";
    fs::copy(busybox, root.join("bin/busybox")).expect("the package busybox-static is needed");
    let list = Command::new(busybox).arg("--list").output().unwrap();
    for name in String::from_utf8(list.stdout).unwrap().lines() {
        if name != "busybox" {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
}
