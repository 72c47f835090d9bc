//! What was made on the machine for a cell, and how it is undone.
//!
//! Owns one file in the folder of the cell. It is written before what it tells of is made, so a cell
//! whose worker died at any point can be undone by whoever finds the folder. To undo something that
//! was never made, or was undone already, is no error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use distci_model::isolation::Driver;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::bridge::Lease;
use crate::cell::Site;
use crate::group::Group;

/// What was made, or is about to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Control groups.
    #[serde(default)]
    pub(crate) group: Option<Group>,
    /// Mounts of the machine, in the order of mounting.
    #[serde(default)]
    pub(crate) mounts: Vec<PathBuf>,
    /// A container that a daemon or a tool knows by this name, and the tool's command line up to it.
    #[serde(default)]
    pub(crate) container: Option<Container>,
    /// The right to an address of the machine's bridge, and an interface there.
    #[serde(default)]
    pub(crate) lease: Option<Lease>,
}

/// A container that is not ours alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Container {
    /// Whose.
    pub(crate) driver: Driver,
    /// The whole command that removes it, whatever its state.
    pub(crate) remove: Vec<String>,
}

impl Journal {
    /// Writes it down in `folder`, in place of what was written before.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let (path, fresh) = (path(folder), folder.join("journal.new"));
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }

    fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(path(folder)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Everything is tried, and the first thing that went wrong is told.
    fn undo(&self) -> io::Result<()> {
        let mut outcome = Ok(());
        if let Some(container) = &self.container {
            // Who still runs in it dies even if the tool that made it is of no use any more.
            if let Some(group) = &self.group {
                group.kill();
                group.signal(|_| true, Signal::SIGKILL);
            }
            outcome = outcome.and(container.remove());
        }
        if let Some(group) = &self.group {
            outcome = outcome.and(group.end());
        }
        if let Some(lease) = &self.lease {
            outcome = outcome.and(lease.end());
        }
        for mount in self.mounts.iter().rev() {
            outcome = outcome.and(unmount(mount));
        }
        outcome
    }
}

/// Undoes what was made for the cell in `folder`, whoever made it. The folder itself stays, and is
/// safe to remove if this succeeds: nothing is mounted there. Blocks.
///
/// # Errors
/// Whatever could not be undone.
pub fn sweep(folder: &Path) -> io::Result<()> {
    match Journal::read(folder)? {
        Some(journal) => {
            journal.undo()?;
            fs::remove_file(path(folder))
        }
        None => Ok(()),
    }
}

/// Undoes what was made for the cell of `site`.
pub(crate) async fn close(site: &Site) -> io::Result<()> {
    let folder = site.folder.clone();
    tokio::task::spawn_blocking(move || sweep(&folder))
        .await
        .map_err(io::Error::other)?
}

/// Whether there is something to undo for the cell in `folder`.
pub(crate) fn is_in(folder: &Path) -> bool {
    path(folder).exists()
}

fn path(folder: &Path) -> PathBuf {
    folder.join("journal.json")
}

fn unmount(mount: &Path) -> io::Result<()> {
    match umount2(mount, MntFlags::MNT_DETACH) {
        // It is no mount, or there is nothing there.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(io::Error::other(format!("{}: {errno}", mount.display()))),
    }
}

impl Container {
    /// Removes it. One that is not there is as good as removed. Blocks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        const ROUNDS: usize = 10;
        const PAUSE: Duration = Duration::from_millis(100);
        let mut outcome = Ok(());
        for round in 0..ROUNDS {
            // Podman cannot stop one that ends just then, and sees the next time that it has ended.
            if round > 0 {
                thread::sleep(PAUSE);
            }
            outcome = self.try_to_remove();
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn try_to_remove(&self) -> io::Result<()> {
        let Some((program, arguments)) = self.remove.split_first() else {
            return Ok(());
        };
        let done = std::process::Command::new(program)
            .args(arguments)
            .output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        if done.status.success() || said.to_lowercase().contains("no such container") {
            return Ok(());
        }
        let (driver, said) = (self.driver, said.trim());
        Err(io::Error::other(format!("{driver}: {said}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_made_is_undone_too() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal {
            mounts: vec![folder.path().join("none"), folder.path().to_owned()],
            ..Journal::default()
        };
        journal.write(folder.path()).unwrap();
        sweep(folder.path()).unwrap();
        sweep(folder.path()).unwrap();
    }
}
