//! Archives: what compresses them, and how a tar becomes a tree.
//!
//! Owns the meaning of every kind of entry. Device nodes, pipes and sockets are left out: a cell has
//! devices of its own. A layer's whiteouts remove what the layers below it brought.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;
use tar::{Archive, Entry, EntryType};
use tokio_util::sync::CancellationToken;

use super::tree::{Below, Rights, Tree};

/// A name that begins so says that something is gone.
const WHITEOUT: &str = ".wh.";
/// The one that says that everything else in its folder is.
const OPAQUE: &str = ".wh..wh..opq";
/// How much is written between two looks at the disk and at whether anybody still wants it.
const STRIDE: u64 = 16 * 1024 * 1024;
/// What has to stay free on the disk: others use it too.
const RESERVE: u64 = 256 * 1024 * 1024;

/// What an archive is laid on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// Nothing: names have no meaning of their own.
    Nothing,
    /// Other layers, which it may hide.
    Layers,
}

/// The bytes in a file, whatever compresses them.
pub(super) enum Plain {
    As(File),
    Zstd(Box<zstd::Decoder<'static, io::BufReader<File>>>),
    Tool {
        name: &'static str,
        child: Child,
        output: ChildStdout,
    },
}

impl Plain {
    /// Those of `file`, told by how it begins.
    pub(super) fn of(mut file: File) -> io::Result<Self> {
        let mut magic = Vec::new();
        file.by_ref().take(6).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        match magic.as_slice() {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd(Box::new(zstd::Decoder::new(file)?))),
            [0x1f, 0x8b, ..] => Self::through("gzip", file),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::through("xz", file),
            [b'B', b'Z', b'h', ..] => Self::through("bzip2", file),
            _ => Ok(Self::As(file)),
        }
    }

    /// It ends by itself when we do: it reads a file and writes to us.
    fn through(name: &'static str, file: File) -> io::Result<Self> {
        let spawned = Command::new(name)
            .args(["-d", "-c"])
            .stdin(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = spawned.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        let output = child.stdout.take();
        let output = output.ok_or_else(|| io::Error::other("a pipe is missing"))?;
        Ok(Self::Tool {
            name,
            child,
            output,
        })
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, name, child) = match self {
            Self::As(file) => return file.read(buffer),
            Self::Zstd(decoder) => return decoder.read(buffer),
            Self::Tool {
                name,
                child,
                output,
            } => (output.read(buffer)?, name, child),
        };
        if read == 0 && !buffer.is_empty() && !child.wait()?.success() {
            let why = format!("{name} says that the archive is damaged");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(read)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if let Self::Tool { child, .. } = self {
            // Ended already, as a rule.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Lays a tar on a tree, and reads it to its last byte.
pub(super) struct Laying<'a> {
    pub(super) tree: &'a Tree,
    pub(super) base: Base,
    pub(super) stop: &'a CancellationToken,
    /// What this archive brought: its whiteouts are not for that.
    brought: HashSet<Below>,
    written: u64,
}

impl<'a> Laying<'a> {
    pub(super) fn on(tree: &'a Tree, base: Base, stop: &'a CancellationToken) -> Self {
        Self {
            tree,
            base,
            stop,
            brought: HashSet::new(),
            written: 0,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// Of kind `InvalidData`, if the archive is no good or wants out of the tree; `StorageFull`, if
    /// it does not fit on the disk; `Interrupted`, if it was stopped.
    pub(super) fn lay(mut self, from: &mut impl Read) -> io::Result<()> {
        let mut archive = Archive::new(&mut *from);
        let mut any = false;
        for entry in archive.entries()? {
            let mut entry = entry.map_err(|error| {
                let why = format!("it is no tar archive, or a damaged one: {error}");
                invalid(&why)
            })?;
            any = true;
            self.check()?;
            let path = entry.path().map_err(|error| invalid(&error.to_string()))?;
            let path = path.into_owned();
            let laid = self.entry(&path, &mut entry);
            laid.map_err(|error| named(&path, error))?;
        }
        if !any && self.base == Base::Nothing {
            return Err(invalid("there is nothing in it, or it is no tar archive"));
        }
        io::copy(from, &mut io::sink())?;
        Ok(())
    }

    fn entry(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let header = entry.header();
        let number = |number: io::Result<u64>| number.map(|id| u32::try_from(id).unwrap_or(0));
        let rights = Rights {
            owner: number(header.uid())?,
            group: number(header.gid())?,
            mode: header.mode()?,
        };
        let kind = header.entry_type();
        let Some(below) = Below::of(path)? else {
            if kind == EntryType::Directory {
                self.tree.set_root(rights)?;
            }
            return Ok(());
        };
        if self.base == Base::Layers && below.name().starts_with(WHITEOUT) {
            return self.whiteout(&below);
        }
        match kind {
            EntryType::Directory => self.tree.folder(&below, rights)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let modified = entry.header().mtime()?;
                self.file(&below, rights, modified, entry)?;
            }
            EntryType::Symlink => {
                let to = entry.link_name()?.ok_or_else(|| invalid("no target"))?;
                self.tree.link(&below, &to, rights)?;
            }
            EntryType::Link => {
                let of = entry.link_name()?.ok_or_else(|| invalid("no target"))?;
                let of = Below::of(&of)?.ok_or_else(|| invalid("a link to the root"))?;
                let linked = self.tree.hard_link(&below, &of);
                let to = of.as_path().display();
                linked.map_err(|error| invalid(&format!("a link to {to}: {error}")))?;
            }
            // Devices and pipes, and what other archivers note for themselves.
            _ => return Ok(()),
        }
        if self.base == Base::Layers {
            self.note(below);
        }
        Ok(())
    }

    /// With all folders on the way: they have to stay too.
    fn note(&mut self, path: Below) {
        let mut next = Some(path);
        while let Some(path) = next {
            next = path.parent();
            if !self.brought.insert(path) {
                return;
            }
        }
    }

    fn file(
        &mut self,
        path: &Below,
        rights: Rights,
        modified: u64,
        from: &mut impl Read,
    ) -> io::Result<()> {
        let tree = self.tree;
        tree.file(path, rights, |file| {
            loop {
                let copied = io::copy(&mut from.by_ref().take(STRIDE), file)?;
                self.written += copied;
                if copied < STRIDE {
                    break;
                }
                self.check()?;
                room(file)?;
            }
            if self.written >= STRIDE {
                self.written = 0;
                room(file)?;
            }
            let modified = std::time::Duration::from_secs(modified);
            let modified = std::time::UNIX_EPOCH.checked_add(modified);
            modified.map_or(Ok(()), |time| file.set_modified(time))
        })
    }

    fn whiteout(&self, path: &Below) -> io::Result<()> {
        if path.name() == OPAQUE {
            let mut hidden = self.tree.list(path.parent().as_ref())?;
            while let Some(path) = hidden.pop() {
                if self.brought.contains(&path) {
                    // What it holds of the layers below is hidden nevertheless.
                    if self.tree.is_folder(&path)? {
                        hidden.extend(self.tree.list(Some(&path))?);
                    }
                } else {
                    self.tree.remove(&path)?;
                }
            }
            return Ok(());
        }
        let hidden = path.sibling(path.name().strip_prefix(WHITEOUT).unwrap_or_default());
        match hidden.name() {
            "" | "." | ".." => Err(invalid("it hides nothing")),
            // Notes of the file system that layers come from.
            name if name.starts_with(WHITEOUT) => Ok(()),
            _ if self.brought.contains(&hidden) => Ok(()),
            _ => self.tree.remove(&hidden),
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

/// An archive may unpack to more than any disk holds.
fn room(file: &File) -> io::Result<()> {
    let disk = fstatvfs(file)?;
    if disk.blocks_available() * disk.fragment_size() < RESERVE {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

fn named(path: &Path, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::Interrupted => error,
        kind => {
            let kind = if is_of_archive(&error) {
                io::ErrorKind::InvalidData
            } else {
                kind
            };
            io::Error::new(kind, format!("{}: {error}", path.display()))
        }
    }
}

/// Whether an archive is to blame for an error: its names and numbers, which do not fit each other or this
/// system. What the machine is to blame for, it says itself.
fn is_of_archive(error: &io::Error) -> bool {
    let said = error.raw_os_error().map(Errno::from_raw);
    said.is_none_or(|said| {
        use Errno::{
            EEXIST, EINVAL, EISDIR, ELOOP, EMLINK, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EXDEV,
        };
        matches!(
            said,
            EEXIST
                | EINVAL
                | EISDIR
                | ELOOP
                | EMLINK
                | ENAMETOOLONG
                | ENOENT
                | ENOTDIR
                | ENOTEMPTY
                | EXDEV
        )
    })
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
