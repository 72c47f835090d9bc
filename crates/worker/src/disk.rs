//! The disk that a worker works on: whether there is room for more.
//!
//! Owns the one measure of "nearly full". Whoever is about to write much asks here first; what the
//! worker does not write itself, a task may.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Below this much free space a task is likely to fill the disk: this part of the whole, within
/// these bounds. Without the upper one a large disk would be called full with a terabyte free.
const LEAST_PART: u64 = 20;
const LEAST_FREE: RangeInclusive<u64> = 64 * 1024 * 1024..=4 * 1024 * 1024 * 1024;
/// With no more than this free, somebody's write has been refused.
const NOTHING: u64 = 1024 * 1024;

/// The disk that holds a directory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    directory: PathBuf,
}

impl Disk {
    pub(crate) fn of(directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { directory }
    }

    /// Whether it would not be nearly full with so many bytes more. What cannot be measured is not
    /// held against it.
    pub(crate) fn has_space_for(&self, bytes: u64) -> bool {
        let Some((free, all)) = self.measure() else {
            return true;
        };
        free >= least_free(all).saturating_add(bytes)
    }

    /// Whether nothing can be written any more: a command that failed may have failed of that.
    pub(crate) fn is_full(&self) -> bool {
        self.measure().is_some_and(|(free, _)| free <= NOTHING)
    }

    /// The bytes that are free, and all.
    fn measure(&self) -> Option<(u64, u64)> {
        let disk = nix::sys::statvfs::statvfs(&self.directory).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        let free = match disk.files_available() {
            // Some file systems count no files at all.
            0 if disk.files() > 0 => 0,
            _ => bytes(disk.blocks_available()),
        };
        Some((free, bytes(disk.blocks())))
    }
}

/// How much of a disk with `all` bytes must be free.
fn least_free(all: u64) -> u64 {
    (all / LEAST_PART).clamp(*LEAST_FREE.start(), *LEAST_FREE.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_disk_has_to_be_emptier_than_a_task_needs() {
        const GIB: u64 = 1024 * 1024 * 1024;
        assert_eq!(least_free(0), GIB / 16);
        assert_eq!(least_free(20 * GIB), GIB);
        assert_eq!(least_free(20_000 * GIB), 4 * GIB);
    }
}
