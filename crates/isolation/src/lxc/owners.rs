//! Folders of a file system that cannot show its owners as others: they are changed for the time of
//! a command, and changed back.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use super::ids::{COUNT, Range};

/// From whom to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// From the machine's to the container's.
    Container,
    /// Back.
    Machine,
}

/// Changes the owners of `path` and of all that is below. Who is not of those to be changed stays.
/// Blocks.
pub(super) fn give(path: &Path, range: Range, to: To) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let uid = shift(found.uid(), range.uid, to);
    let gid = shift(found.gid(), range.gid, to);
    if (uid, gid) != (found.uid(), found.gid()) {
        lchown(path, Some(uid), Some(gid))?;
        keep_mode(path, &found)?;
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), range, to)?;
        }
    }
    Ok(())
}

fn shift(id: u32, first: u32, to: To) -> u32 {
    let shifted = match to {
        To::Container => Some(id).filter(|id| *id < COUNT).map(|id| first + id),
        To::Machine => id.checked_sub(first).filter(|id| *id < COUNT),
    };
    shifted.unwrap_or(id)
}

/// The kernel takes the right to be somebody else from a file that gets another owner.
fn keep_mode(path: &Path, found: &Metadata) -> io::Result<()> {
    const SOMEBODY_ELSE: u32 = 0o6000;
    if found.is_file() && found.mode() & SOMEBODY_ELSE != 0 {
        fs::set_permissions(path, found.permissions())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_given_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let range = Range {
            uid: 1_000_000,
            gid: 2_000_000,
        };
        let tool = folder.path().join("tool");
        fs::write(&tool, "x").unwrap();
        lchown(&tool, Some(7), Some(8)).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let owner = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777)
        };
        give(folder.path(), range, To::Container).unwrap();
        assert_eq!(owner(&tool), (1_000_007, 2_000_008, 0o4755));
        assert_eq!(owner(&folder.path().join("link")).0, 1_000_000);
        assert_eq!(owner(Path::new("/etc/passwd")).0, 0);
        give(folder.path(), range, To::Machine).unwrap();
        assert_eq!(owner(&tool), (7, 8, 0o4755));
        assert_eq!(owner(folder.path()).0, 0);
    }
}
