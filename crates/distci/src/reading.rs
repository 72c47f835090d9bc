//! The console of one attempt, as it is read from the frontends.
//!
//! Owns the offset, and the rule when there is nothing more to read.

use std::time::Duration;

use bytes::Bytes;
use distci_client::{Client, ClientError, ConsoleFrom};
use distci_model::id::{Attempt, BuildRef, TaskName};

/// A console that is being read.
pub(crate) struct Reading<'a> {
    client: &'a Client,
    build: &'a BuildRef,
    task: &'a TaskName,
    from: ConsoleFrom,
    over: bool,
}

impl<'a> Reading<'a> {
    /// The console of an attempt, from its beginning.
    pub(crate) fn of(
        client: &'a Client,
        build: &'a BuildRef,
        task: &'a TaskName,
        attempt: Attempt,
    ) -> Self {
        let from = ConsoleFrom {
            attempt: Some(attempt),
            offset: 0,
        };
        Self {
            client,
            build,
            task,
            from,
            over: false,
        }
    }

    /// The next bytes. With a `wait` until the console is complete, each question held for so long
    /// at most; without one, as far as it is now.
    pub(crate) async fn next(&mut self, wait: Duration) -> Result<Option<Bytes>, ClientError> {
        while !self.over {
            let read = self.client.console(self.build, self.task, self.from, wait);
            let chunk = match read.await {
                Ok(chunk) => chunk,
                // The attempt ended before it said anything.
                Err(ClientError::NotFound(_)) => break,
                Err(error) => return Err(error),
            };
            self.from.offset += chunk.bytes.len() as u64;
            self.over = chunk.complete && self.from.offset >= chunk.length;
            if !chunk.bytes.is_empty() {
                return Ok(Some(chunk.bytes));
            }
            if wait.is_zero() {
                break;
            }
        }
        Ok(None)
    }
}
