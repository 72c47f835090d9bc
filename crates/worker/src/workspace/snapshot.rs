//! What a workspace looks like without reading a single file.
//!
//! Owns the comparison of two looks. A file whose every mark is unchanged is unchanged: the first
//! look ends only when the file system's clock has moved past everything in it, so that no later
//! change can leave the marks as they were.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use super::path::EntryPath;

/// A file's time: seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment(pub(crate) i64, pub(crate) i64);

impl From<Moment> for TimeSpec {
    fn from(moment: Moment) -> Self {
        // The kernel refuses nanoseconds outside of a second.
        TimeSpec::new(moment.0, moment.1.clamp(0, 999_999_999))
    }
}

/// What kind of thing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    File,
    Directory,
    Link,
}

/// The marks of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) shape: Shape,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) modified: Moment,
    changed: Moment,
    inode: u64,
}

/// The marks of everything in a workspace.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    entries: BTreeMap<EntryPath, Marks>,
    /// What cannot be handed on: sockets, pipes, devices.
    pub(crate) skipped: Vec<EntryPath>,
    /// Directories that are open to be read, and their modes.
    opened: Vec<(PathBuf, u32)>,
    /// Marks from here on prove nothing: the clock would not move past them.
    doubtful_from: Option<Moment>,
}

/// How one look differs from an earlier one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// New or different, directories before what is in them.
    pub(crate) written: Vec<(EntryPath, Marks)>,
    /// Gone, directories before what was in them.
    pub(crate) removed: Vec<EntryPath>,
}

impl Snapshot {
    /// Looks at everything in `root`. Blocks. Directories that their owner may not read stay open
    /// for it until [`Self::close`].
    pub(crate) fn take(root: &Path) -> io::Result<Self> {
        let mut snapshot = Self::default();
        let mut open: Vec<Option<EntryPath>> = vec![None];
        while let Some(directory) = open.pop() {
            let place = match &directory {
                Some(path) => root.join(path.as_path()),
                None => root.to_owned(),
            };
            for entry in fs::read_dir(&place)? {
                let entry = entry?;
                let path = match &directory {
                    Some(above) => above.join(&entry.file_name()),
                    None => EntryPath::new(entry.file_name().as_bytes()),
                };
                let path =
                    path.map_err(|error| io::Error::new(io::ErrorKind::InvalidFilename, error))?;
                match Marks::of(&entry.metadata()?) {
                    None => snapshot.skipped.push(path),
                    Some(marks) => {
                        if marks.shape == Shape::Directory {
                            snapshot.open(entry.path(), marks.mode)?;
                            open.push(Some(path.clone()));
                        }
                        snapshot.entries.insert(path, marks);
                    }
                }
            }
        }
        Ok(snapshot)
    }

    fn open(&mut self, directory: PathBuf, mode: u32) -> io::Result<()> {
        const READING: u32 = 0o500;
        if mode & READING != READING {
            fs::set_permissions(&directory, Permissions::from_mode(mode | READING))?;
            self.opened.push((directory, mode));
        }
        Ok(())
    }

    /// Gives every directory that was opened its mode back.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        // The last opened is the deepest, and no directory above it is in the way yet.
        while let Some((directory, mode)) = self.opened.pop() {
            fs::set_permissions(directory, Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Everything that is no directory.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &EntryPath> {
        let leaves = self.entries.iter();
        let leaves = leaves.filter(|(_, marks)| marks.shape != Shape::Directory);
        leaves.map(|(path, _)| path)
    }

    /// Waits until a change made from now on leaves other marks than those in here: one tick of the
    /// file system's clock, a few milliseconds. `probe` is a file to touch, on the same file
    /// system.
    pub(crate) fn outwait(&mut self, probe: &Path) -> io::Result<()> {
        const TICK: Duration = Duration::from_millis(1);
        const MOST_TICKS: u32 = 50;
        let Some(newest) = self.entries.values().map(|marks| marks.changed).max() else {
            return Ok(());
        };
        let file = File::create(probe)?;
        for _ in 0..MOST_TICKS {
            file.set_permissions(Permissions::from_mode(0o600))?;
            let metadata = file.metadata()?;
            if Moment(metadata.ctime(), metadata.ctime_nsec()) > newest {
                return Ok(());
            }
            thread::sleep(TICK);
        }
        // A coarse clock, or one that was set back: then whatever is as new as this may have
        // changed unseen, and counts as changed.
        let metadata = file.metadata()?;
        self.doubtful_from = Some(Moment(metadata.ctime(), metadata.ctime_nsec()));
        Ok(())
    }

    /// What is different in `later`.
    pub(crate) fn changes(&self, later: &Self) -> Changes {
        let is_written = |(path, now): &(&EntryPath, &Marks)| match self.entries.get(*path) {
            None => true,
            Some(before) => {
                let doubtful = self
                    .doubtful_from
                    .is_some_and(|from| before.changed >= from);
                doubtful || before.differ(now)
            }
        };
        let written = later.entries.iter().filter(is_written);
        let gone = |path: &&EntryPath| !later.entries.contains_key(*path);
        Changes {
            written: written
                .map(|(path, marks)| (path.clone(), *marks))
                .collect(),
            removed: self.entries.keys().filter(gone).cloned().collect(),
        }
    }
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }
}

impl Marks {
    fn of(metadata: &Metadata) -> Option<Self> {
        let form = metadata.file_type();
        let shape = if form.is_file() {
            Shape::File
        } else if form.is_dir() {
            Shape::Directory
        } else if form.is_symlink() {
            Shape::Link
        } else {
            return None;
        };
        Some(Self {
            shape,
            mode: metadata.mode() & 0o7777,
            size: metadata.size(),
            modified: Moment(metadata.mtime(), metadata.mtime_nsec()),
            changed: Moment(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        })
    }

    fn differ(&self, other: &Self) -> bool {
        if (self.shape, self.mode, self.modified) != (other.shape, other.mode, other.modified) {
            return true;
        }
        // A directory's size and change time tell of its entries, which speak for themselves.
        self.shape != Shape::Directory
            && (self.size, self.changed, self.inode) != (other.size, other.changed, other.inode)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;

    use super::*;

    fn settled(root: &Path, probe: &Path) -> Snapshot {
        let mut snapshot = Snapshot::take(root).unwrap();
        snapshot.outwait(probe).unwrap();
        snapshot
    }

    fn written(before: &Snapshot, root: &Path) -> Vec<String> {
        let changes = before.changes(&Snapshot::take(root).unwrap());
        changes
            .written
            .iter()
            .map(|(path, _)| path.to_string())
            .collect()
    }

    #[test]
    fn a_change_that_hides_behind_size_and_time_is_seen() {
        let (root, side) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = root.path().join("file");
        fs::write(&file, "one").unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let before = settled(root.path(), &side.path().join("probe"));
        assert_eq!(written(&before, root.path()), [""; 0]);
        fs::write(&file, "two").unwrap();
        let times = FileTimes::new().set_modified(time);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_times(times)
            .unwrap();
        assert_eq!(written(&before, root.path()), ["file"]);
    }

    #[test]
    fn what_is_gone_is_named_with_all_that_was_in_it() {
        let (root, side) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/c"), "").unwrap();
        let before = settled(root.path(), &side.path().join("probe"));
        fs::remove_dir_all(root.path().join("a")).unwrap();
        let changes = before.changes(&Snapshot::take(root.path()).unwrap());
        let removed: Vec<_> = changes.removed.iter().map(EntryPath::to_string).collect();
        assert_eq!(removed, ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn a_pipe_is_skipped() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let snapshot = Snapshot::take(root.path()).unwrap();
        assert_eq!(snapshot.skipped.len(), 1);
        assert!(snapshot.entries.is_empty());
    }

    #[test]
    fn a_directory_that_nobody_may_read_is_seen_and_stays_so() {
        let root = tempfile::tempdir().unwrap();
        let outer = root.path().join("outer");
        let inner = outer.join("inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(&outer, Permissions::from_mode(0o200)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let mut snapshot = Snapshot::take(root.path()).unwrap();
        let leaves: Vec<_> = snapshot.leaves().map(EntryPath::to_string).collect();
        assert_eq!(leaves, ["outer/inner/file"]);
        assert_eq!((mode(&outer), mode(&inner)), (0o700, 0o500));
        let marks: Vec<_> = snapshot.entries.values().map(|marks| marks.mode).collect();
        assert_eq!(marks[..2], [0o200, 0o000]);
        snapshot.close().unwrap();
        assert_eq!(mode(&outer), 0o200);
        // For whoever is not root, so that the folder can be removed.
        fs::set_permissions(&outer, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(mode(&inner), 0o000);
        fs::set_permissions(&inner, Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_named_as_such() {
        let root = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        let mode = nix::sys::stat::Mode::S_IRWXU;
        let mut at = nix::fcntl::open(root.path(), flags, mode).unwrap();
        for _ in 0..25 {
            nix::sys::stat::mkdirat(&at, name.as_str(), mode).unwrap();
            at = nix::fcntl::openat(&at, name.as_str(), flags, mode).unwrap();
        }
        let error = Snapshot::take(root.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidFilename);
    }
}
