//! Folders on their way between a worker and a virtual machine: several in one tar.
//!
//! Owns what is carried: folders, files and links, with their modes and times. Owners stay behind,
//! and so do devices, pipes and sockets. What comes out of an archive lands in the folder meant for
//! it and nowhere else, whatever the archive says: a task may have written it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{linkat, symlinkat};
use tar::{Archive, Builder, Entry, EntryType, Header};

/// No file becomes somebody else's when it is run.
const MODE: u32 = 0o1777;

/// Writes what is in `folders`, the n-th as `n/…`. Files with holes become whole.
///
/// # Errors
/// Of kind `StorageFull`, if the files have more than `most` bytes together; and whatever could not
/// be read or written.
pub(crate) fn pack(folders: &[PathBuf], to: impl Write, most: u64) -> io::Result<()> {
    let mut packing = Packing {
        archive: Builder::new(to),
        packed: HashMap::new(),
        room: most,
    };
    for (n, folder) in folders.iter().enumerate() {
        packing.packed.clear();
        packing.folder(folder, &PathBuf::from(n.to_string()))?;
    }
    packing.archive.into_inner()?.flush()
}

struct Packing<W: Write> {
    archive: Builder<W>,
    /// The files with several names, and the first of these.
    packed: HashMap<(u64, u64), PathBuf>,
    /// Bytes that may still come.
    room: u64,
}

impl<W: Write> Packing<W> {
    fn folder(&mut self, folder: &Path, name: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            self.entry(&path, &name)
                .map_err(|error| named(&path, &error))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        let mut header = Header::new_gnu();
        header.set_metadata(&found);
        header.set_uid(0);
        header.set_gid(0);
        if found.is_dir() {
            self.archive.append_data(&mut header, name, io::empty())?;
            return self.folder(path, name);
        }
        header.set_size(0);
        if found.is_symlink() {
            let to = fs::read_link(path)?;
            return self.archive.append_link(&mut header, name, to);
        }
        if !found.is_file() {
            return Ok(());
        }
        let number = (found.dev(), found.ino());
        if found.nlink() > 1
            && let Some(first) = self.packed.get(&number)
        {
            header.set_entry_type(EntryType::Link);
            return self.archive.append_link(&mut header, name, first);
        }
        let Some(room) = self.room.checked_sub(found.len()) else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        self.room = room;
        header.set_size(found.len());
        let content = File::open(path)?.take(found.len());
        self.archive.append_data(&mut header, name, content)?;
        if found.nlink() > 1 {
            self.packed.insert(number, name.to_owned());
        }
        Ok(())
    }
}

/// Puts what [`pack`] wrote into `folders`, which are empty.
///
/// # Errors
/// Of kind `InvalidData`, if the archive is not such or wants elsewhere; and whatever could not be
/// written.
pub(crate) fn unpack(from: impl Read, folders: &[PathBuf]) -> io::Result<()> {
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let roots = folders
        .iter()
        .map(|folder| open(folder, how, Mode::empty()));
    let mut unpacking = Unpacking {
        roots: roots.collect::<Result<_, _>>()?,
        folders: Vec::new(),
    };
    for entry in Archive::new(from).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        unpacking
            .entry(&path, &mut entry)
            .map_err(|error| named(&path, &error))?;
    }
    unpacking.finish()
}

struct Unpacking {
    roots: Vec<OwnedFd>,
    /// Those made, with what they get when they are full.
    folders: Vec<(PathBuf, u32, SystemTime)>,
}

impl Unpacking {
    fn entry(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let header = entry.header();
        let (mode, kind) = (header.mode()? & MODE, header.entry_type());
        let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(header.mtime()?));
        let modified = modified.ok_or_else(|| invalid("its time is beyond all clocks"))?;
        let (folder, name) = self.place(path)?;
        match kind {
            EntryType::Directory => {
                mkdirat(&folder, name, Mode::S_IRWXU)?;
                self.folders.push((path.to_owned(), mode, modified));
            }
            EntryType::Regular => {
                let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mut file: File = openat(&folder, name, how, Mode::S_IWUSR)?.into();
                io::copy(entry, &mut file)?;
                file.set_modified(modified)?;
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            EntryType::Symlink => symlinkat(link(entry)?.as_path(), &folder, name)?,
            EntryType::Link => {
                let of = link(entry)?;
                let (from, old) = self.place(&of)?;
                linkat(&from, old, &folder, name, AtFlags::empty())?;
            }
            _ => return Err(invalid("it is of no kind that is carried")),
        }
        Ok(())
    }

    /// The folder that something is in, reached without following links, and its name there.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (root, below) = self.split(path)?;
        let name = below.file_name().ok_or_else(|| invalid("it has no name"))?;
        let parent = match below.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        Ok((open_below(root, parent, OFlag::O_PATH)?, name))
    }

    fn split<'a>(&self, path: &'a Path) -> io::Result<(&OwnedFd, &'a Path)> {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let mut parts = path.components();
        let n = parts
            .next()
            .and_then(|n| n.as_os_str().to_str()?.parse().ok());
        match n.and_then(|n: usize| self.roots.get(n)) {
            Some(root) if path.components().all(plain) => Ok((root, parts.as_path())),
            _ => Err(invalid("it is in none of the folders")),
        }
    }

    /// Gives folders their times and modes, the deepest first: one may forbid to reach those in it.
    fn finish(self) -> io::Result<()> {
        for (path, mode, modified) in self.folders.iter().rev() {
            let (root, below) = self.split(path)?;
            let folder: File = open_below(root, below, OFlag::O_RDONLY)?.into();
            folder.set_modified(*modified)?;
            folder.set_permissions(Permissions::from_mode(*mode))?;
        }
        Ok(())
    }
}

fn open_below(root: &OwnedFd, path: &Path, how: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(how | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(root, path, how)?)
}

/// Removes all that is in `folder`, which stays. Follows no links.
///
/// # Errors
/// Whatever could not be removed.
pub(crate) fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    open_up(&path)?;
                    fs::remove_dir_all(&path)
                }
                removed => removed,
            }
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(|error| named(&path, &error))?;
    }
    Ok(())
}

/// Lets us write to our own folders, whatever a task made of them.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn link(entry: &Entry<'_, impl Read>) -> io::Result<PathBuf> {
    let to = entry.link_name()?;
    to.map(Cow::into_owned)
        .ok_or_else(|| invalid("it is a link to nothing"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
