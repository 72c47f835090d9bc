//! Console bytes between a script and the store, in their order.
//!
//! Owns where they wait: in memory while the store keeps up, and on the disk when it is away. Never
//! holds more than is bounded here and in the spool: what it does not take, the script keeps.

use std::io;

use bytes::{Bytes, BytesMut};
use distci_model::wire::MAX_CONSOLE_CHUNK;

use super::LARGE;
use super::spool::Spool;

/// How much waits in memory: a quarter of a megabyte, as much as may be on its way to the store.
const MOST_IN_MEMORY: usize = 4 * LARGE;

/// Whether the store takes what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// It does: who is faster than it has to wait.
    Near,
    /// It has not for a while: nobody can say how long one would have to wait.
    Away,
}

#[derive(Debug)]
pub(super) struct Backlog {
    /// The oldest.
    memory: BytesMut,
    /// Came after what is in memory.
    spool: Spool,
    /// What the disk refused, the latest; nothing is taken until the spool is empty again.
    refused: BytesMut,
}

impl Backlog {
    pub(super) fn new(spool: Spool) -> Self {
        Self {
            memory: BytesMut::new(),
            spool,
            refused: BytesMut::new(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.spool.len() + (self.memory.len() + self.refused.len()) as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is room for another piece.
    pub(super) fn takes_more(&self, store: Store) -> bool {
        if !self.refused.is_empty() {
            return false;
        }
        match (self.spool.len(), store) {
            (0, _) if self.memory.len() < MOST_IN_MEMORY => true,
            (0, Store::Near) => false,
            // What is on the disk goes first, so everything after it has to go there too.
            (_, Store::Near | Store::Away) => self.spool.has_room_for(2 * LARGE),
        }
    }

    /// Adds bytes at the end.
    pub(super) async fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        if !self.refused.is_empty() {
            self.refused.extend_from_slice(&bytes);
        } else if self.spool.len() == 0 && self.memory.len() < MOST_IN_MEMORY {
            self.memory.extend_from_slice(&bytes);
        } else if let Err(error) = self.spool.push(bytes.clone()).await {
            tracing::warn!("a console cannot wait on the disk: {error}");
            self.refused.extend_from_slice(&bytes);
        }
    }

    /// Takes the first bytes: as many as one append may have.
    ///
    /// # Errors
    /// When the disk does not give back what it took.
    pub(super) async fn pop(&mut self) -> io::Result<Bytes> {
        if self.memory.is_empty() && self.spool.len() > 0 {
            return self.spool.pop(MAX_CONSOLE_CHUNK).await;
        }
        if self.memory.is_empty() {
            self.memory = self.refused.split();
        }
        let length = self.memory.len().min(MAX_CONSOLE_CHUNK);
        Ok(self.memory.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::Disk;

    fn backlog(directory: &Path, limit: u64) -> Backlog {
        let path = directory.join("spool");
        Backlog::new(Spool::new(path, Disk::of(directory), limit))
    }

    /// A piece that is unlike the others.
    fn piece(number: usize) -> Bytes {
        let small = |number: usize| u8::try_from(number % 251).unwrap();
        let bytes = (0..LARGE).map(|byte| small(number) ^ small(byte));
        bytes.collect()
    }

    #[tokio::test]
    async fn bytes_leave_in_the_order_in_which_they_came() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = backlog(directory.path(), u64::MAX);
        let (mut given, mut taken) = (Vec::new(), Vec::new());
        for number in 0..100 {
            given.extend_from_slice(&piece(number));
            backlog.push(piece(number)).await;
            assert_eq!(backlog.len(), (given.len() - taken.len()) as u64);
            if number % 10 == 9 {
                taken.extend_from_slice(&backlog.pop().await.unwrap());
            }
        }
        assert!(directory.path().join("spool").exists());
        while !backlog.is_empty() {
            taken.extend_from_slice(&backlog.pop().await.unwrap());
        }
        assert!(given == taken, "{} of {}", taken.len(), given.len());
        assert!(!directory.path().join("spool").exists());
    }

    #[tokio::test]
    async fn a_near_store_never_costs_the_disk_anything() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = backlog(directory.path(), u64::MAX);
        let mut taken = 0;
        while backlog.takes_more(Store::Near) {
            backlog.push(piece(taken)).await;
            taken += 1;
        }
        assert_eq!(taken * LARGE, MOST_IN_MEMORY);
        assert!(!directory.path().join("spool").exists());
        assert!(backlog.takes_more(Store::Away));
    }

    #[tokio::test]
    async fn a_full_spool_takes_nothing_until_it_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let limit = 4 * LARGE;
        let mut backlog = backlog(directory.path(), limit as u64);
        let mut taken = 0;
        while backlog.takes_more(Store::Away) {
            backlog.push(piece(taken)).await;
            taken += 1;
        }
        assert!(taken * LARGE <= MOST_IN_MEMORY + limit);
        while !backlog.is_empty() {
            assert!(!backlog.takes_more(Store::Near));
            backlog.pop().await.unwrap();
        }
        assert!(backlog.takes_more(Store::Near));
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_kept_and_is_the_last_to_leave() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = backlog(&directory.path().join("missing"), u64::MAX);
        let mut given = Vec::new();
        for number in 0..10 {
            given.extend_from_slice(&piece(number));
            backlog.push(piece(number)).await;
        }
        assert!(!backlog.takes_more(Store::Away));
        let mut taken = Vec::new();
        while !backlog.is_empty() {
            taken.extend_from_slice(&backlog.pop().await.unwrap());
        }
        assert!(given == taken, "{} of {}", taken.len(), given.len());
        assert!(backlog.takes_more(Store::Near));
    }
}
