//! A root file system while it is put together.
//!
//! Owns the rule that no path and no link that an archive brings leads out of it: the kernel resolves
//! every path as if the root were the only file system.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::linkat;

use super::folder::remove;

/// A folder and everything below it.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// A path below the root of a tree: names only, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Below(PathBuf);

/// A place in a tree whose folder is there.
struct Place {
    folder: OwnedFd,
    /// A way to it that no link in the tree can change.
    path: PathBuf,
}

/// Who owns a file, and who may do what with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) mode: u32,
}

impl Below {
    /// `None` for the root itself.
    ///
    /// # Errors
    /// If the path leads out.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut names = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => names.push(name),
                // Archives name things `./etc` or `/etc`, and mean the same.
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    let why = format!("{} leads out of the image", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
        Ok((!names.as_os_str().is_empty()).then_some(Self(names)))
    }

    /// Its last name, if that is text.
    pub(super) fn name(&self) -> &str {
        self.name_os().to_str().unwrap_or_default()
    }

    fn name_os(&self) -> &OsStr {
        self.0.file_name().unwrap_or_default()
    }

    /// The folder that it is in; `None` for the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let parent = self.0.parent().unwrap_or(Path::new(""));
        (!parent.as_os_str().is_empty()).then(|| Self(parent.to_owned()))
    }

    /// Another name in the same folder.
    pub(super) fn sibling(&self, name: &str) -> Self {
        Self(self.0.with_file_name(name))
    }

    /// The path, relative to the root.
    pub(super) fn as_path(&self) -> &Path {
        &self.0
    }
}

impl Tree {
    /// The one at `root`, a folder that is there.
    pub(super) fn at(root: &Path) -> io::Result<Self> {
        let root = File::open(root)?.into();
        Ok(Self { root })
    }

    /// Makes a folder, if it is none yet.
    pub(super) fn folder(&self, path: &Below, rights: Rights) -> io::Result<()> {
        let place = self.place(path)?;
        let is_folder = fs::symlink_metadata(&place.path).is_ok_and(|found| found.is_dir());
        if !is_folder {
            remove(&place.path)?;
            fs::create_dir(&place.path)?;
        }
        rights.give(&place.path)
    }

    /// The rights of the root itself.
    pub(super) fn set_root(&self, rights: Rights) -> io::Result<()> {
        // The dot makes it the folder and not the link to it.
        let root = format!("/proc/self/fd/{}/.", self.root.as_raw_fd());
        rights.give(Path::new(&root))
    }

    /// Makes a file in the place of whatever is there, for `content` to fill.
    pub(super) fn file(
        &self,
        path: &Below,
        rights: Rights,
        content: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let place = self.place(path)?;
        remove(&place.path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&place.path)?;
        content(&mut file)?;
        rights.give(&place.path)
    }

    /// Makes a symbolic link in the place of whatever is there. Where it points is its own matter.
    pub(super) fn link(&self, path: &Below, to: &Path, rights: Rights) -> io::Result<()> {
        let place = self.place(path)?;
        remove(&place.path)?;
        symlink(to, &place.path)?;
        lchown(&place.path, Some(rights.owner), Some(rights.group))
    }

    /// Makes another name for the file `of`, in the place of whatever is there.
    pub(super) fn hard_link(&self, path: &Below, of: &Below) -> io::Result<()> {
        if path == of {
            return Ok(());
        }
        let source = self.place(of)?;
        // Looked at before anything is removed: the archive may be wrong.
        fs::symlink_metadata(&source.path)?;
        let place = self.place(path)?;
        remove(&place.path)?;
        let (from, to) = (of.name_os(), path.name_os());
        Ok(linkat(
            &source.folder,
            from,
            &place.folder,
            to,
            AtFlags::empty(),
        )?)
    }

    /// Removes whatever is there, if anything is.
    pub(super) fn remove(&self, path: &Below) -> io::Result<()> {
        match self.find(path)? {
            Some(place) => remove(&place.path),
            None => Ok(()),
        }
    }

    /// What is in a folder; nothing, if there is none. `None` is the root.
    pub(super) fn list(&self, path: Option<&Below>) -> io::Result<Vec<Below>> {
        let at = path.map_or(Path::new("."), Below::as_path);
        let folder = match self.open(at, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
            opened => opened?,
        };
        let base = path.map_or(PathBuf::new(), |path| path.0.clone());
        fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))?
            .map(|entry| Ok(Below(base.join(entry?.file_name()))))
            .collect()
    }

    /// Whether a folder is there, itself and not behind a link.
    pub(super) fn is_folder(&self, path: &Below) -> io::Result<bool> {
        let place = self.find(path)?;
        let found = place.and_then(|place| fs::symlink_metadata(place.path).ok());
        Ok(found.is_some_and(|found| found.is_dir()))
    }

    /// Opens a file to be read.
    pub(super) fn read(&self, path: &Path) -> io::Result<File> {
        let file: File = self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?.into();
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"))
        }
    }

    /// The place of `path`, with all folders on the way to it.
    fn place(&self, path: &Below) -> io::Result<Place> {
        if let Some(place) = self.find(path)? {
            return Ok(place);
        }
        if let Some(parent) = path.parent() {
            let rights = Rights {
                owner: 0,
                group: 0,
                mode: 0o755,
            };
            self.folder(&parent, rights)?;
        }
        let place = self.find(path)?;
        place.ok_or_else(|| io::Error::from(io::ErrorKind::NotADirectory))
    }

    fn find(&self, path: &Below) -> io::Result<Option<Place>> {
        let parent = path.parent();
        let parent = parent.as_ref().map_or(Path::new("."), Below::as_path);
        match self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(folder) => {
                let way = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
                let path = way.join(path.name_os());
                Ok(Some(Place { folder, path }))
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.root.as_fd(), path, how)
    }
}

impl Rights {
    /// The owner first: a change of it takes set-user-id away.
    fn give(self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.owner), Some(self.group))?;
        fs::set_permissions(path, Permissions::from_mode(self.mode & 0o7777))
    }
}
