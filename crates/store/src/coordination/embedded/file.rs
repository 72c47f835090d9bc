//! The file under redb.
//!
//! Owns the difference between a write that found no room and a sync that failed. Never hides an
//! error. Invariant: a failed sync never looks like a full disk, even if that is what it says.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// Opens the file at `path`, making it if need be.
pub(super) fn open(path: &Path) -> Result<Guarded<FileBackend>, DatabaseError> {
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    Ok(Guarded(FileBackend::new(file)?))
}

/// A file whose failed syncs are told from its failed writes.
///
/// After a write without room the file is as it was, so the store goes on once there is some.
/// After a failed sync the system shows pages that the disk may not hold, and does not write them
/// again.
#[derive(Debug)]
pub(super) struct Guarded<B>(pub(super) B);

impl<B: StorageBackend> StorageBackend for Guarded<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.0.sync_data();
        synced.map_err(|error| io::Error::other(SyncFailed(error)))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    // The one lock of the mode in which we open; it keeps other users of redb out.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("written data did not reach the disk")]
struct SyncFailed(#[source] io::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Full;

    impl StorageBackend for Full {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Ok(())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn a_failed_sync_never_looks_like_a_full_disk() {
        let full = Guarded(Full);
        let kind = |done: io::Result<()>| done.unwrap_err().kind();
        assert_eq!(io::ErrorKind::StorageFull, kind(full.write(0, b"x")));
        assert_eq!(io::ErrorKind::StorageFull, kind(full.set_len(1)));
        assert_eq!(io::ErrorKind::Other, kind(full.sync_data()));
    }
}
