//! Console bytes that wait on the disk for a store that is away.
//!
//! Owns one file of the room, which exists only while there is something in it: the first byte that
//! went in is the first that comes out. It never grows beyond its limit, nor fills the disk; what it
//! does not take, its caller keeps.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;

/// Most bytes that one attempt may leave on the disk while the store is away.
pub(crate) const MOST_SPOOLED: u64 = 256 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    disk: Disk,
    limit: u64,
    file: Option<Arc<File>>,
    /// What is in it is between these two.
    start: u64,
    end: u64,
}

impl Spool {
    /// An empty spool, whose file will be `path`, with at most `limit` bytes.
    pub(crate) fn new(path: PathBuf, disk: Disk, limit: u64) -> Self {
        Self {
            path,
            disk,
            limit,
            file: None,
            start: 0,
            end: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether so many bytes more may go in. What came out leaves no room until all has.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.end.saturating_add(bytes) <= self.limit && self.disk.has_space_for(bytes)
    }

    /// Adds bytes; on an error, none of them.
    pub(super) async fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        let (length, at, path) = (bytes.len() as u64, self.end, self.path.clone());
        let file = self.file.clone();
        let written = blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(create(&path)?),
            };
            file.write_all_at(&bytes, at)?;
            Ok(file)
        });
        self.file = Some(written.await?);
        self.end += length;
        Ok(())
    }

    /// Takes the first bytes, `most` at most; none if there are none.
    pub(super) async fn pop(&mut self, most: usize) -> io::Result<Bytes> {
        let Some(file) = self.file.clone() else {
            return Ok(Bytes::new());
        };
        let at = self.start;
        let length = usize::try_from(self.len()).unwrap_or(usize::MAX).min(most);
        let bytes = blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, at)?;
            Ok(bytes)
        });
        let bytes = bytes.await?;
        self.start += length as u64;
        if self.start == self.end {
            (self.file, self.start, self.end) = (None, 0, 0);
            let path = self.path.clone();
            blocking(move || fs::remove_file(path)).await?;
        }
        Ok(bytes.into())
    }
}

fn create(path: &PathBuf) -> io::Result<File> {
    let mut options = File::options();
    // A file that could not be written to the first time may be there already.
    options.read(true).write(true).create(true).truncate(true);
    options.mode(0o600).open(path)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
