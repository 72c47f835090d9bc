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

use distci_model::wire::Held;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::processes::kill_bearers;

/// The rooms of all attempts on this machine that share a directory.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    attempts: PathBuf,
}

/// The folder of one attempt, and the lock that shows that it is in use.
#[derive(Debug)]
pub(crate) struct Room {
    path: PathBuf,
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

    /// A fresh room. Blocks.
    pub(crate) fn enter(&self, held: &Held) -> io::Result<Room> {
        let path = self
            .attempts
            .join(format!("{}.{}", held.ticket, held.attempt));
        let door = self.door()?;
        if path.exists() {
            // Attempts are claimed once, so this one was left by a dead worker.
            Self::clear(&path)?;
        }
        make_private(&path)?;
        let lock = try_lock(&path)?.ok_or(io::ErrorKind::ResourceBusy)?;
        drop(door);
        let room = Room { path, _lock: lock };
        for folder in [room.workspace(), room.temporary(), room.file("")] {
            make_private(&folder)?;
        }
        Ok(room)
    }

    /// Removes what dead workers left, and their processes. Gives how many rooms. Blocks.
    pub(crate) fn sweep(&self) -> io::Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(&self.attempts)? {
            let path = entry?.path();
            let door = self.door()?;
            let abandoned = path.is_dir() && try_lock(&path)?.is_some();
            if abandoned {
                Self::clear(&path)?;
                swept += 1;
            }
            drop(door);
        }
        Ok(swept)
    }

    fn clear(path: &Path) -> io::Result<()> {
        let killed = kill_bearers(path.as_os_str());
        tracing::info!(room = %path.display(), killed, "sweeping what a dead worker left");
        remove_tree(path)
    }

    /// Between making a room and locking it, nobody else may take it for abandoned.
    fn door(&self) -> io::Result<Flock<File>> {
        let file = File::create(self.attempts.join("door"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }
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
        self.path.join("workspace")
    }

    /// For what the task needs only while it runs.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// A file between the worker and the script, outside of the workspace.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join("files").join(name)
    }

    /// Removes everything. Blocks.
    pub(crate) fn leave(self) {
        // A thread that was cut off in mid-work may still put a last file there.
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            match remove_tree(&self.path) {
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
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            for entry in walkdir::WalkDir::new(path) {
                // Read-only directories are opened up before walkdir reads them.
                if let Ok(entry) = entry
                    && entry.file_type().is_dir()
                {
                    fs::set_permissions(entry.path(), Permissions::from_mode(0o700))?;
                }
            }
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
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
            rooms.enter(&held(1)).unwrap(),
            rooms.enter(&held(2)).unwrap(),
        );
        let closed = left.workspace().join("closed");
        fs::create_dir_all(closed.join("in")).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
        let gone = left.path.clone();
        drop(left);
        assert_eq!(rooms.sweep().unwrap(), 1);
        assert!(kept.workspace().is_dir());
        assert!(!gone.exists());
        kept.leave();
        assert_eq!(rooms.sweep().unwrap(), 0);
    }

    #[test]
    fn a_sweep_ends_what_still_runs_in_an_abandoned_room() {
        let directory = tempfile::tempdir().unwrap();
        let rooms = Rooms::open(directory.path()).unwrap();
        let room = rooms.enter(&held(1)).unwrap();
        let mut left = std::process::Command::new("sleep")
            .arg("1000")
            .env(crate::processes::KEY_VARIABLE, room.key())
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
        let room = rooms.enter(&held(1)).unwrap();
        fs::write(room.workspace().join("old"), "").unwrap();
        drop(room);
        let room = rooms.enter(&held(1)).unwrap();
        assert_eq!(fs::read_dir(room.workspace()).unwrap().count(), 0);
    }
}
