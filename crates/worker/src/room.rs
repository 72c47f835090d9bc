//! The folder of one attempt.
//!
//! Owns `attempts/<ticket>.<attempt>`: made for one attempt, locked while its worker lives, removed
//! afterwards. Whatever a dead worker left there, and every process that still bears its key, is
//! swept by the next worker that starts on the same directory. Several workers may share one.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use distci_isolation::{Error, Site, kill_bearers, make_disk};
use distci_model::isolation::Size;
use distci_model::wire::Held;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The folder of what a driver makes.
const CELL: &str = "cell";
/// The folder of a disk of the room's own.
const DISK: &str = "disk";

/// The rooms of all attempts on this machine that share a directory.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    attempts: PathBuf,
}

/// The folder of one attempt, and the lock that shows that it is in use.
#[derive(Debug)]
pub(crate) struct Room {
    path: PathBuf,
    /// What the task may fill: the room itself, or a disk of its own.
    inner: PathBuf,
    _lock: Flock<File>,
}

impl Rooms {
    /// The rooms in `directory`, which is made if there is none.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        // Absolute and without links, because scripts see these paths.
        make_private(directory)?;
        let attempts = directory.canonicalize()?.join("attempts");
        make_private(&attempts)?;
        Ok(Self { attempts })
    }

    /// A fresh room, with a disk of its own if its size is said. Blocks.
    pub(crate) fn enter(&self, held: &Held, disk: Option<Size>) -> Result<Room, Error> {
        let path = self
            .attempts
            .join(format!("{}.{}", held.ticket, held.attempt));
        let door = self.door()?;
        if path.exists() {
            // Attempts are claimed once, so this one was left by a dead worker.
            Self::clear(&path)?;
        }
        make_private(&path)?;
        let lock = try_lock(&path)?.ok_or_else(|| io::Error::from(io::ErrorKind::ResourceBusy))?;
        drop(door);
        let mut room = Room {
            inner: path.clone(),
            path,
            _lock: lock,
        };
        if let Some(size) = disk {
            let folder = room.path.join(DISK);
            make_private(&folder)?;
            room.inner = make_disk(&folder, size)?;
        }
        for folder in [
            room.workspace(),
            room.temporary(),
            room.file(""),
            room.cell(),
        ] {
            make_private(&folder)?;
        }
        Ok(room)
    }

    /// Removes what dead workers left, and their processes. Gives how many rooms. Blocks.
    pub(crate) fn sweep(&self) -> io::Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(&self.attempts)? {
            let path = entry?.path();
            match self.sweep_one(&path) {
                Ok(abandoned) => swept += usize::from(abandoned),
                // It may hold what only root may remove. That is in nobody's way.
                Err(error) => tracing::warn!(room = %path.display(), "cannot be swept: {error}"),
            }
        }
        Ok(swept)
    }

    fn sweep_one(&self, path: &Path) -> io::Result<bool> {
        let _door = self.door()?;
        let abandoned = path.is_dir() && try_lock(path)?.is_some();
        if abandoned {
            Self::clear(path)?;
        }
        Ok(abandoned)
    }

    fn clear(path: &Path) -> io::Result<()> {
        let killed = kill_bearers(path.as_os_str());
        tracing::info!(room = %path.display(), killed, "sweeping what a dead worker left");
        empty(path)
    }

    /// Between making a room and locking it, nobody else may take it for abandoned.
    fn door(&self) -> io::Result<Flock<File>> {
        let file = File::create(self.attempts.join("door"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }
}

/// Undoes what was made on the machine for a room, and removes it.
fn empty(room: &Path) -> io::Result<()> {
    let disk = room.join(DISK);
    // What lies on the disk goes before the disk.
    for folder in [disk.join("mount").join(CELL), room.join(CELL), disk] {
        distci_isolation::sweep(&folder)?;
    }
    remove_tree(room)
}

fn try_lock(room: &Path) -> io::Result<Option<Flock<File>>> {
    let file = match File::create(room.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

impl Room {
    /// What every process of the attempt bears in its environment.
    pub(crate) fn key(&self) -> &OsStr {
        self.path.as_os_str()
    }

    /// What the tasks of a build hand on.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.inner.join("workspace")
    }

    /// For what the task needs only while it runs.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.inner.join("tmp")
    }

    /// A file between the worker and the script, outside of the workspace.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.inner.join("files").join(name)
    }

    /// Where the folders of caches are while the task runs.
    pub(crate) fn cache(&self, name: &str) -> PathBuf {
        self.inner.join("caches").join(name)
    }

    /// What a driver is given.
    pub(crate) fn site(&self) -> Site {
        let name = self.path.file_name().unwrap_or_default();
        // Two stores may have tickets of one name at work on one machine; their rooms differ.
        let place = blake3::hash(self.path.as_os_str().as_encoded_bytes()).to_hex();
        let place = place.get(..8).unwrap_or_default();
        Site {
            name: format!("{place}.{}", name.to_string_lossy()),
            folder: self.cell(),
            workspace: self.workspace(),
            temporary: self.temporary(),
            files: self.file(""),
            key: self.key().to_owned(),
        }
    }

    fn cell(&self) -> PathBuf {
        self.inner.join(CELL)
    }

    /// Where the console waits while the store is away.
    pub(crate) fn spool(&self) -> PathBuf {
        self.path.join("console")
    }

    /// Removes everything. Blocks.
    pub(crate) fn leave(self) {
        // A thread that was cut off in mid-work may still put a last file there.
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            match empty(&self.path) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(room = %self.path.display(), "cannot remove the room: {error}");
                }
            }
        }
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Removes a tree whose directories may forbid that to their owner, as some caches do.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

/// Gives the owner back what it may do with its directories, each before it is read.
fn open_up(root: &Path) -> io::Result<()> {
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use distci_model::id::{Attempt, TicketKey};
    use distci_model::wire::Standing;

    use super::*;

    fn held(attempt: u32) -> Held {
        let ticket: TicketKey = format!("{}.{}", "b".repeat(16), "t".repeat(16))
            .parse()
            .unwrap();
        Held {
            ticket,
            attempt: Attempt::new(attempt),
            standing: Standing::Held,
        }
    }

    #[test]
    fn only_abandoned_rooms_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        let rooms = Rooms::open(directory.path()).unwrap();
        let (kept, left) = (
            rooms.enter(&held(1), None).unwrap(),
            rooms.enter(&held(2), None).unwrap(),
        );
        for (name, mode) in [("read-only", 0o555), ("closed", 0o000)] {
            let directory = left.workspace().join(name);
            fs::create_dir_all(directory.join("in")).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        }
        let gone = left.path.clone();
        drop(left);
        assert_eq!(rooms.sweep().unwrap(), 1);
        assert!(kept.workspace().is_dir());
        assert!(!gone.exists());
        kept.leave();
        assert_eq!(rooms.sweep().unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_swept_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let rooms = Rooms::open(directory.path()).unwrap();
        let (stuck, left) = (
            rooms.enter(&held(1), None).unwrap(),
            rooms.enter(&held(2), None).unwrap(),
        );
        let (lock, gone) = (stuck.path.join("lock"), left.path.clone());
        drop((stuck, left));
        // Not even root can open a directory as the file of a lock.
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        assert_eq!(rooms.sweep().unwrap(), 1);
        assert!(!gone.exists());
    }

    #[test]
    fn a_sweep_ends_what_still_runs_in_an_abandoned_room() {
        let directory = tempfile::tempdir().unwrap();
        let rooms = Rooms::open(directory.path()).unwrap();
        let room = rooms.enter(&held(1), None).unwrap();
        let mut left = std::process::Command::new("sleep")
            .arg("1000")
            .env(distci_isolation::KEY_VARIABLE, room.key())
            .spawn()
            .unwrap();
        drop(room);
        rooms.sweep().unwrap();
        let status = left.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }

    #[test]
    fn a_room_begins_empty() {
        let directory = tempfile::tempdir().unwrap();
        let rooms = Rooms::open(directory.path()).unwrap();
        let room = rooms.enter(&held(1), None).unwrap();
        fs::write(room.workspace().join("old"), "").unwrap();
        drop(room);
        let room = rooms.enter(&held(1), None).unwrap();
        assert_eq!(fs::read_dir(room.workspace()).unwrap().count(), 0);
    }
}
