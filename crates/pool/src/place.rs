//! Where workers of a pool live on the machine.
//!
//! Owns the pool's folder: one pool at a time uses it, and what a pool that was killed left there is
//! undone by the next.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use distci_isolation::{Site, kill_bearers};
use distci_model::id::WorkerName;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The folder of a pool.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl Place {
    /// Takes the folder, which is made if there is none. Blocks.
    ///
    /// # Errors
    /// What the machine says; [`io::ErrorKind::ResourceBusy`], if another pool has it.
    pub(crate) fn take(folder: &Path) -> io::Result<Self> {
        make(&folder.join("workers"))?;
        let folder = folder.canonicalize()?;
        let file = File::create(folder.join("lock"))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => {
                let why = "another pool works there; give each its own";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
            Err((_, errno)) => return Err(errno.into()),
        };
        let place = Self {
            folder,
            _lock: lock,
        };
        for entry in fs::read_dir(place.folder.join("workers"))? {
            let left = entry?.path();
            tracing::info!(worker = %left.display(), "undoing what a dead pool left");
            if let Err(error) = remove(&left) {
                tracing::warn!(worker = %left.display(), "not all of it is gone: {error}");
            }
        }
        Ok(place)
    }

    /// What the workers on this machine share: their folder of caches and of attempts.
    pub(crate) fn shared(&self) -> PathBuf {
        self.folder.join("machine")
    }

    /// For what the trying of drivers needs.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.clone()
    }

    /// The site of a fresh worker. Blocks.
    pub(crate) fn site(&self, worker: &WorkerName) -> io::Result<Site> {
        let root = self.folder.join("workers").join(worker.as_str());
        make(&root)?;
        Site::make(&root)
    }
}

/// Removes the site of a worker that is gone, with whatever of it is left on the machine. Blocks.
pub(crate) fn leave(site: &Site) -> io::Result<()> {
    match site.folder.parent() {
        Some(root) => remove(root),
        None => Ok(()),
    }
}

fn remove(root: &Path) -> io::Result<()> {
    kill_bearers(root.as_os_str());
    distci_isolation::sweep(&root.join("cell"))?;
    fs::remove_dir_all(root)
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pool_at_a_time_and_the_next_clears_up() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::take(folder.path()).unwrap();
        let site = place.site(&"w".parse().unwrap()).unwrap();
        fs::write(site.workspace.join("left"), "").unwrap();
        let error = Place::take(folder.path()).unwrap_err();
        assert!(error.to_string().contains("another pool"), "{error}");
        assert!(site.workspace.exists());
        drop(place);
        let place = Place::take(folder.path()).unwrap();
        assert!(!site.workspace.exists());
        let again = place.site(&"w".parse().unwrap()).unwrap();
        leave(&again).unwrap();
        assert!(!again.workspace.exists());
    }
}
