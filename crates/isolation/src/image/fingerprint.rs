//! What an image holds, as a digest: paths, kinds, modes, owners and contents. Times do not count, so
//! the same packages give the same image.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use blake3::Hasher;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

/// How many characters of the digest name an edition.
const CHARACTERS: usize = 32;

/// What a tree holds, and how much of a disk it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) id: String,
    pub(super) bytes: u64,
}

/// That of the tree at `root` with this environment.
///
/// # Errors
/// If it cannot be read; of kind `Interrupted`, if it was stopped.
pub(super) fn take(
    root: &Path,
    env: &[(String, String)],
    stop: &CancellationToken,
) -> io::Result<Fingerprint> {
    let (mut hasher, mut bytes) = (Hasher::new(), 0);
    for entry in WalkDir::new(root).sort_by_file_name() {
        if stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let entry = entry?;
        let found = fs::symlink_metadata(entry.path())?;
        let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
        part(&mut hasher, below.as_os_str().as_bytes());
        for number in [found.mode(), found.uid(), found.gid()] {
            hasher.update(&number.to_le_bytes());
        }
        bytes += found.blocks() * 512;
        let kind = found.file_type();
        if kind.is_symlink() {
            part(
                &mut hasher,
                fs::read_link(entry.path())?.as_os_str().as_bytes(),
            );
        } else if kind.is_file() {
            hasher.update(&found.len().to_le_bytes());
            io::copy(&mut File::open(entry.path())?, &mut hasher)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            hasher.update(&found.rdev().to_le_bytes());
        }
    }
    for (name, value) in env {
        part(&mut hasher, name.as_bytes());
        part(&mut hasher, value.as_bytes());
    }
    let mut id = hasher.finalize().to_hex().to_string();
    id.truncate(CHARACTERS);
    Ok(Fingerprint { id, bytes })
}

/// With its length first, so that no two lists of parts look the same.
fn part(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn whatever_can_be_seen_counts_and_times_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let id = |env: &[(String, String)]| take(root, env, &CancellationToken::new()).unwrap().id;
        fs::write(root.join("a"), "1").unwrap();
        let mut seen = vec![id(&[])];
        File::open(root.join("a"))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        assert_eq!(id(&[]), seen[0]);
        seen.push(id(&[("A".to_owned(), "b".to_owned())]));
        fs::write(root.join("a"), "2").unwrap();
        seen.push(id(&[]));
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o4755)).unwrap();
        seen.push(id(&[]));
        fs::rename(root.join("a"), root.join("b")).unwrap();
        seen.push(id(&[]));
        symlink("b", root.join("c")).unwrap();
        seen.push(id(&[]));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }
}
