//! The smallest image: the machine's own static busybox under all of its names.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::build::BuildError;
use super::tools::{find, missing};

const FOLDERS: [&str; 9] = [
    "bin", "etc", "root", "sbin", "usr/bin", "usr/sbin", "var", "home", "lib",
];
const MISSING: &str = "there is no static busybox on this machine: install the package \
                       busybox-static";

/// Makes it at `root`.
pub(super) fn make(root: &Path) -> Result<(), BuildError> {
    let busybox = find("busybox").ok_or_else(|| missing(MISSING))?;
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    let own = root.join("bin/busybox");
    // Copied by another process: a child that some thread of ours just forks would hold the file open
    // for writing for a moment, and such a file cannot be run.
    let copied = Command::new("cp").arg(&busybox).arg(&own).output()?;
    if !copied.status.success() {
        let said = String::from_utf8_lossy(&copied.stderr).trim().to_owned();
        return Err(io::Error::other(said).into());
    }
    // What needs libraries does not start where there are none.
    let runs = Command::new("chroot")
        .arg(root)
        .args(["/bin/busybox", "--list"])
        .output()?;
    if !runs.status.success() {
        return Err(missing(MISSING));
    }
    for name in String::from_utf8_lossy(&runs.stdout).lines() {
        link(root, name)?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    Ok(())
}

fn link(root: &Path, name: &str) -> io::Result<()> {
    match symlink("busybox", root.join("bin").join(name)) {
        // Itself is in the list.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}
