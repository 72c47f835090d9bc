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
        let Ok(disk) = nix::sys::statvfs::statvfs(&self.directory) else {
            return true;
        };
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        let all = disk.blocks().saturating_mul(disk.fragment_size());
        free >= least_free(all).saturating_add(bytes)
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
