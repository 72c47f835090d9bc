//! The folder of the store and the worker of an `exec`.
//!
//! Owns the temporary ones: made for one `exec`, locked while it lives, removed at its end. What a
//! killed one left there, the next one sweeps; never one that lives.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::connection::Home;

const PREFIX: &str = "distci-exec-";
/// Between being made and being locked, a folder belongs to somebody all the same.
const SETTLING: Duration = Duration::from_mins(1);

/// The folder of the store and the worker.
pub(super) enum Room {
    /// Removed at the end, and locked until then.
    Temporary(TempDir, File),
    /// As given; it stays.
    Given(PathBuf),
}

impl Room {
    pub(super) fn make(given: Option<&Path>) -> Result<Self> {
        if let Some(directory) = given {
            Home::at(directory.to_owned()).create()?;
            return Ok(Self::Given(directory.to_owned()));
        }
        let temporary = std::env::temp_dir();
        sweep(&temporary);
        Self::temporary(&temporary).context("temporary folder")
    }

    fn temporary(parent: &Path) -> io::Result<Self> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = File::open(made.path())?;
        lock.try_lock()?;
        Ok(Self::Temporary(made, lock))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory, _) => directory.path(),
            Self::Given(directory) => directory,
        }
    }

    pub(super) fn clear(self) -> Result<()> {
        match self {
            Self::Temporary(directory, _lock) => directory.close().context("temporary folder"),
            Self::Given(_) => Ok(()),
        }
    }
}

/// Removes what killed ones left in `temporary`. What cannot be removed is in nobody's way.
fn sweep(temporary: &Path) {
    let Ok(entries) = std::fs::read_dir(temporary) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
            && let Err(error) = sweep_one(&path)
        {
            tracing::debug!("{} was not swept: {error}", path.display());
        }
    }
}

fn sweep_one(path: &Path) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    let ours = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw();
    let settled = found.modified()?.elapsed().is_ok_and(|age| age > SETTLING);
    if !ours || !settled {
        return Ok(());
    }
    // Held until all is gone, so that two do not sweep the same.
    let lock = File::open(path)?;
    lock.try_lock()?;
    std::fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::time::SystemTime;

    use super::*;

    fn make_old(path: &Path) {
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        File::open(path).unwrap().set_times(times).unwrap();
    }

    #[test]
    fn only_what_a_dead_one_left_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("lock"), "").unwrap();
            path
        };
        let living = Room::temporary(parent.path()).unwrap();
        let (dead, other) = (make("distci-exec-dead"), make("other"));
        for path in [living.path(), &dead, &other] {
            make_old(path);
        }
        let young = make("distci-exec-young");
        let link = parent.path().join("distci-exec-link");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(living.path().exists() && other.exists() && young.exists() && link.exists());
        living.clear().unwrap();
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 3);
    }
}
