//! A file system of bounded size for all that a task writes.
//!
//! Owns one folder: the file that holds the file system, and the place where it is mounted. What is
//! there is undone by [`crate::sweep`] of that folder, like a cell.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use distci_model::isolation::Size;

use crate::error::Error;
use crate::journal::Journal;

/// Makes it in `folder`, which exists and is empty, and gives the place where it is mounted. Blocks.
///
/// # Errors
/// [`Error::Unsupported`], if this worker may mount nothing; [`Error::Driver`], if a tool said no.
pub fn make_disk(folder: &Path, size: Size) -> Result<PathBuf, Error> {
    if !nix::unistd::geteuid().is_root() {
        let why = "the disk of a task can be limited only by a worker that is root";
        return Err(Error::Unsupported(why.to_owned()));
    }
    let (image, mount) = (folder.join("image"), folder.join("mount"));
    fs::create_dir(&mount)?;
    // Sparse: what a task does not write costs nothing.
    File::create(&image)?.set_len(size.bytes())?;
    let options = "lazy_itable_init=1,nodiscard,root_owner=0:0";
    // No journal: after a crash of the machine nobody looks at it again.
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", options]);
    run("making a disk", make.arg(&image))?;
    let journal = Journal {
        mounts: vec![mount.clone()],
        ..Journal::default()
    };
    journal.write(folder)?;
    let mut attach = Command::new("mount");
    attach.args(["-o", "loop,noatime,nosuid,nodev"]);
    run("mounting a disk", attach.arg(&image).arg(&mount))?;
    Ok(mount)
}

/// Whether the file system of `folder` has no room left to speak of. No kernel counts the writes
/// that it refuses, and it refuses a large one while there is still room for small ones.
pub fn is_full(folder: &Path) -> bool {
    const LITTLE: u64 = 2 * 1024 * 1024;
    let Ok(disk) = nix::sys::statvfs::statvfs(folder) else {
        return false;
    };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let all = disk.blocks().saturating_mul(disk.fragment_size());
    free <= LITTLE.max(all / 20) || disk.files_available() == 0
}

fn run(doing: &'static str, command: &mut Command) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .map_err(|error| Error::driver(doing, &format!("{program}: {error}")))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Error::driver(doing, &format!("{program}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_holds_no_more_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let mount = make_disk(folder.path(), Size::from_bytes(8 << 20).unwrap()).unwrap();
        assert!(!is_full(&mount));
        let full = fs::write(mount.join("big"), vec![1; 16 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        assert!(is_full(&mount));
        crate::sweep(folder.path()).unwrap();
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
        crate::sweep(folder.path()).unwrap();
    }
}
