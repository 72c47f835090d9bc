//! Reading and writing inside one directory, and nowhere else.
//!
//! Owns every step by which something is opened, made or removed in a workspace from outside of a
//! cell. Each directory on the way is opened relative to the one above and never through a
//! symbolic link, so no content of a workspace can lead an operation out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens,
    mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::path::{EntryPath, Name};
use super::snapshot::Moment;

/// Why something could not be done inside the directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// The way leads through a symbolic link.
    #[error("{0} leads out of the workspace")]
    Escapes(EntryPath),
    /// The file system says no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: EntryPath,
        /// What it said.
        source: io::Error,
    },
    /// The layer, or the directory itself, cannot be written or read.
    #[error(transparent)]
    Layer(io::Error),
}

/// A directory whose inside may be changed.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory used last: consecutive entries mostly share it.
    latest: Option<(EntryPath, OwnedFd)>,
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_RDONLY);

impl Tree {
    /// The tree in `directory`, which itself may be reached by any path.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(directory, flags, Mode::empty())?;
        Ok(Self { root, latest: None })
    }

    /// Opens a regular file for reading, though its mode may forbid it to its owner.
    pub(crate) fn read(&mut self, path: &EntryPath) -> Result<File, TreeError> {
        // Without O_NONBLOCK a pipe in place of the file would make us wait for ever.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let is_file = self
            .stat(path)?
            .is_some_and(|stat| is(&stat, SFlag::S_IFREG));
        let (_, name) = path.split();
        let parent = self.parent(path, Missing::Fails)?;
        let opened = match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::EACCES) if is_file => {
                let follow = FchmodatFlags::FollowSymlink;
                fchmodat(parent, name, Mode::S_IRUSR, follow).map_err(io_at(path))?;
                openat(parent, name, flags, Mode::empty())
            }
            opened => opened,
        };
        opened.map(File::from).map_err(io_at(path))
    }

    /// Where a symbolic link points.
    pub(crate) fn target(&mut self, path: &EntryPath) -> Result<Name, TreeError> {
        let (_, name) = path.split();
        let parent = self.parent(path, Missing::Fails)?;
        let target = readlinkat(parent, name).map_err(io_at(path))?;
        Ok(Name::new(std::os::unix::ffi::OsStrExt::as_bytes(
            target.as_os_str(),
        )))
    }

    /// A new empty file in place of whatever was there.
    pub(crate) fn create(&mut self, path: &EntryPath) -> Result<File, TreeError> {
        self.remove(path)?;
        let (_, name) = path.split();
        let parent = self.parent(path, Missing::IsMade)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let flags = flags | OFlag::O_NOFOLLOW;
        let file = openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        file.map(File::from).map_err(io_at(path))
    }

    /// A symbolic link in place of whatever was there. Nothing here ever follows it.
    pub(crate) fn link(
        &mut self,
        path: &EntryPath,
        target: &Name,
        modified: Moment,
    ) -> Result<(), TreeError> {
        self.remove(path)?;
        let (_, name) = path.split();
        let parent = self.parent(path, Missing::IsMade)?;
        symlinkat(target.as_os_str(), parent, name).map_err(io_at(path))?;
        let time = modified.into();
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(parent, name, &TimeSpec::UTIME_OMIT, &time, flags).map_err(io_at(path))
    }

    /// A directory, unless there is one already.
    pub(crate) fn directory(&mut self, path: &EntryPath) -> Result<(), TreeError> {
        if self
            .stat(path)?
            .is_some_and(|stat| !is(&stat, SFlag::S_IFDIR))
        {
            self.remove(path)?;
        }
        self.descend(path, Missing::IsMade).map(drop)
    }

    /// Removes whatever is there, with all that is in it; nothing there is fine.
    pub(crate) fn remove(&mut self, path: &EntryPath) -> Result<(), TreeError> {
        let Some(stat) = self.stat(path)? else {
            return Ok(());
        };
        let (_, name) = path.split();
        if !is(&stat, SFlag::S_IFDIR) {
            let parent = self.parent(path, Missing::Fails)?;
            return unlinkat(parent, name, UnlinkatFlags::NoRemoveDir).map_err(io_at(path));
        }
        let parent = self.parent(path, Missing::Fails)?;
        // std removes a tree without following links; the way to the directory is ours.
        let by_handle = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name);
        let removed = std::fs::remove_dir_all(by_handle);
        // What was open may just have gone.
        self.latest = None;
        removed.map_err(|source| TreeError::Io {
            path: path.clone(),
            source,
        })
    }

    /// Gives a directory its mode and its time.
    pub(crate) fn settle(
        &mut self,
        path: &EntryPath,
        mode: u32,
        modified: Moment,
    ) -> Result<(), TreeError> {
        let directory = self.descend(path, Missing::Fails)?;
        let result = settle(&directory, mode, modified);
        result.map_err(|source| TreeError::Io {
            path: path.clone(),
            source,
        })
    }

    fn stat(&mut self, path: &EntryPath) -> Result<Option<FileStat>, TreeError> {
        let (_, name) = path.split();
        let parent = match self.parent(path, Missing::Fails) {
            Ok(parent) => parent,
            Err(TreeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(io_at(path)(errno)),
        }
    }

    /// The directory that `path` is in.
    fn parent(&mut self, path: &EntryPath, missing: Missing) -> Result<&OwnedFd, TreeError> {
        let (Some(parent), _) = path.split() else {
            return Ok(&self.root);
        };
        let known = self.latest.take().filter(|(known, _)| *known == parent);
        let handle = match known {
            Some((_, handle)) => handle,
            None => self.descend(&parent, missing)?,
        };
        Ok(&self.latest.insert((parent, handle)).1)
    }

    fn descend(&self, path: &EntryPath, missing: Missing) -> Result<OwnedFd, TreeError> {
        let mut at = self.root.try_clone().map_err(|source| TreeError::Io {
            path: path.clone(),
            source,
        })?;
        for segment in path.segments() {
            if missing == Missing::IsMade {
                match mkdirat(&at, segment, Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(io_at(path)(errno)),
                }
            }
            at = match openat(&at, segment, DIRECTORY, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::ENOTDIR | Errno::ELOOP) if is_link(&at, segment) => {
                    return Err(TreeError::Escapes(path.clone()));
                }
                Err(errno) => return Err(io_at(path)(errno)),
            };
        }
        Ok(at)
    }
}

/// What to do about a directory on the way that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsMade,
    Fails,
}

/// Gives an open file or directory its mode and its time.
///
/// All twelve bits are kept, setuid too: the file belongs to the worker's user, whose scripts could
/// set the bit as well, and nobody else reaches into the folder of an attempt.
pub(crate) fn settle(
    handle: &impl std::os::fd::AsFd,
    mode: u32,
    modified: Moment,
) -> io::Result<()> {
    fchmod(handle, Mode::from_bits_truncate(mode & 0o7777))?;
    futimens(handle, &TimeSpec::UTIME_OMIT, &modified.into())?;
    Ok(())
}

fn is(stat: &FileStat, form: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == form.bits()
}

fn is_link(directory: &OwnedFd, name: &std::ffi::OsStr) -> bool {
    let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| is(&stat, SFlag::S_IFLNK))
}

fn io_at(path: &EntryPath) -> impl Fn(Errno) -> TreeError + '_ {
    |errno| TreeError::Io {
        path: path.clone(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(outside.path(), inside.path().join("door")).unwrap();
        let mut tree = Tree::open(inside.path()).unwrap();
        for step in ["door/x", "door/y/z"] {
            assert!(matches!(
                tree.create(&path(step)),
                Err(TreeError::Escapes(_))
            ));
            assert!(matches!(
                tree.directory(&path(step)),
                Err(TreeError::Escapes(_))
            ));
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_is_replaced_not_followed() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(outside.path(), inside.path().join("file")).unwrap();
        let mut tree = Tree::open(inside.path()).unwrap();
        tree.create(&path("file"))
            .unwrap()
            .write_all(b"new")
            .unwrap();
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
        assert_eq!(std::fs::read(inside.path().join("file")).unwrap(), b"new");
    }

    #[test]
    fn a_directory_gives_way_to_a_file() {
        let inside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(inside.path().join("a/b/c")).unwrap();
        let mut tree = Tree::open(inside.path()).unwrap();
        drop(tree.create(&path("a")).unwrap());
        assert!(inside.path().join("a").is_file());
    }
}
