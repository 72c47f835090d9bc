//! Consoles: the output of each attempt as numbered chunks.
//!
//! Owns appending and reading. A chunk is a write-once blob named by the offset of its first byte,
//! below its ticket and attempt, so that attempts never mix and a repeated append changes nothing.
//! What is remembered of a console's chunks is only a cache of their names.

mod lines;
mod search;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use distci_model::build::{Build, Progress};
use distci_model::id::{Attempt, BuildKey, BuildRef, TaskName, TicketId, TicketKey};
use distci_model::ticket::{Ticket, TicketState};
use distci_model::wire::{MAX_CONSOLE, MAX_CONSOLE_CHUNK};
use lru::LruCache;

use crate::blobs::BlobError;
use crate::builds::Found;
use crate::error::StoreError;
use crate::keys::{self, AttemptBlobs};
use crate::store::Store;
use crate::tickets::attempt_blobs;
use crate::transaction::{Child, Read, Tried, read, until_done};

pub use self::lines::{From as LinesFrom, Line, Lines, MAX_LINE};
pub use self::search::{Found as FoundLines, Match, Search};

/// Consoles whose chunks are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

/// Where a console is, and whether it may still grow.
#[derive(Debug, Clone)]
pub struct ConsoleHome {
    /// Its ticket, by which appends to it are announced.
    pub ticket: TicketKey,
    /// The attempt.
    pub attempt: Attempt,
    /// Whether nothing will be added.
    pub complete: bool,
    /// How many bytes whoever wrote it said that it has, once that counts.
    said: u64,
    blobs: AttemptBlobs,
}

/// A part of a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsolePart {
    /// The bytes from the offset asked for.
    pub bytes: Bytes,
    /// How long the console is now.
    pub length: u64,
}

/// The chunks of one console: where each begins, and where the last ends.
#[derive(Debug, Default)]
struct Index {
    starts: Vec<u64>,
    length: u64,
    listed: bool,
    /// Whether it was looked at after the attempt was over: nothing is added any more.
    whole: bool,
    ends: lines::Ends,
}

/// The chunks of recently used consoles.
#[derive(Debug)]
pub(crate) struct ConsoleIndexes(Mutex<LruCache<AttemptBlobs, Arc<tokio::sync::Mutex<Index>>>>);

impl Default for ConsoleIndexes {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl ConsoleIndexes {
    fn of(&self, blobs: &AttemptBlobs) -> Arc<tokio::sync::Mutex<Index>> {
        let mut indexes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(indexes.get_or_insert(blobs.clone(), Arc::default))
    }
}

impl Index {
    /// Finds chunks that were not known: all at first, later those that others have added.
    async fn refresh(&mut self, store: &Store, blobs: &AttemptBlobs) -> Result<(), StoreError> {
        if !self.listed {
            for (name, size) in store.blobs.list(&blobs.console()).await? {
                if let Some(start) = keys::parse_chunk(&name) {
                    self.starts.push(start);
                    self.length = start + size;
                }
            }
            self.listed = true;
            return Ok(());
        }
        while let Some(size) = store.blobs.head(&blobs.console_chunk(self.length)).await? {
            self.add(size);
        }
        Ok(())
    }

    /// The answer to an append that is there already, or does not begin at the end.
    fn knows(&self, offset: u64, size: u64) -> Option<Result<u64, StoreError>> {
        let length = self.length;
        if offset + size <= length {
            return Some(Ok(length));
        }
        (offset != length).then_some(Err(StoreError::Offset { length }))
    }

    fn add(&mut self, size: u64) {
        self.starts.push(self.length);
        self.length += size;
    }

    /// The chunk that holds byte `offset`: where it begins and ends.
    fn chunk(&self, offset: u64) -> Option<(u64, u64)> {
        let after = self.starts.partition_point(|&start| start <= offset);
        let start = *self.starts.get(after.checked_sub(1)?)?;
        let end = self.starts.get(after).copied().unwrap_or(self.length);
        (offset < end).then_some((start, end))
    }
}

impl Store {
    /// Appends to the console of a claimed ticket. Gives the console's new length.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim; [`StoreError::Offset`] if `offset` is not the
    /// console's end.
    ///
    /// # Idempotence
    /// What was appended before is not appended again.
    pub async fn append_console(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, StoreError> {
        let blobs = self.claimed_blobs(key, attempt).await?;
        let size = bytes.len() as u64;
        if bytes.len() > MAX_CONSOLE_CHUNK {
            return Err(StoreError::TooLarge {
                limit: MAX_CONSOLE_CHUNK as u64,
            });
        }
        if offset.saturating_add(size) > MAX_CONSOLE {
            return Err(StoreError::TooLarge { limit: MAX_CONSOLE });
        }
        let index = self.consoles.of(&blobs);
        let mut index = index.lock().await;
        // Most consoles begin here, and asking what is there costs more than being refused: what is
        // written to the beginning of one that has begun was written before, or is no beginning.
        let begins = !index.listed && offset == 0;
        if !begins && (!index.listed || index.length != offset) {
            // Another frontend may have taken what we did not hear of.
            index.refresh(self, &blobs).await?;
        }
        if let Some(answer) = index.knows(offset, size) {
            return answer;
        }
        let ends = lines::count(&bytes);
        match self
            .blobs
            .put_new(&blobs.console_chunk(offset), bytes)
            .await
        {
            // It has begun already, and may have gone on.
            Ok(false) | Err(BlobError::Taken { .. }) if begins => {
                index.refresh(self, &blobs).await?;
                let length = index.length;
                let answer = index.knows(offset, size);
                return answer.unwrap_or(Err(StoreError::Offset { length }));
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        index.listed = true;
        if index.ends.counted() == index.starts.len() {
            index.ends.add(ends.0, ends.1);
        }
        index.add(size);
        Ok(index.length)
    }

    /// Where the console of a task is: of the given attempt, or of the last.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the task has not begun, or has no such attempt.
    pub async fn console(
        &self,
        id: &BuildRef,
        task: &TaskName,
        attempt: Option<Attempt>,
    ) -> Result<ConsoleHome, StoreError> {
        until_done!(self.coordination, self.try_console(id, task, attempt))
    }

    async fn try_console(
        &self,
        id: &BuildRef,
        task: &TaskName,
        attempt: Option<Attempt>,
    ) -> Result<Tried<ConsoleHome>, StoreError> {
        let job = self.read_job_as_seen(&id.job).await?;
        let (build, archived) = match self.find_build_as_seen(&job, id).await? {
            Found::Active(build) => (build.record, false),
            Found::Archived(archived) => (archived.build, true),
        };
        let config = self.config(&job.key, &build.config).await?;
        let position = config.tasks.iter().position(|known| known.name == *task);
        let progress = position.and_then(|task| build.checkpoint.tasks.get(task));
        let unknown = || StoreError::missing(format!("task \"{task}\" in {id}"));
        let unstarted = || StoreError::missing(format!("console of {task} in {id} yet"));
        let (mut number, mut said) = (id.number, 0);
        let (ticket, last, over) = match progress.ok_or_else(unknown)? {
            // What it had to do with workers, if anything, it had in earlier runs.
            Progress::Waiting | Progress::Asking { .. } | Progress::Skipped { .. } => {
                (TicketId::control(), Attempt::default(), true)
            }
            Progress::Finished(run) => {
                number = run.build.unwrap_or(number);
                said = run.result.console_bytes;
                (run.ticket.clone(), run.attempt, true)
            }
            Progress::Backoff { last, .. } => (last.ticket.clone(), last.attempt, true),
            Progress::Posted { ticket, .. } => {
                let build = BuildKey::derive(&job.key, id.number);
                let key = TicketKey {
                    build,
                    ticket: ticket.clone(),
                };
                let child: Option<Read<Child>> =
                    read(&*self.coordination, &keys::anchor(&key)).await?;
                // Consumed between the two reads: the build says by now how the task ended.
                let Some(child) = child else {
                    return Ok(Tried::Again);
                };
                let Ticket { attempt, state, .. } = child.record.ticket;
                let over = matches!(state, TicketState::Done(_));
                (ticket.clone(), attempt, over)
            }
        };
        let ends = position.map_or(&[][..], |task| build.checkpoint.runs_of(task));
        let last = ends.last().map_or(last, |end| last.max(*end));
        let attempt = attempt.unwrap_or(last);
        if attempt == Attempt::default() || attempt > last {
            return Err(unstarted());
        }
        let earlier = position.and_then(|task| earlier_run(&build, task, attempt));
        let key = BuildKey::derive(&job.key, number);
        let ticket = earlier.map_or(ticket, |run| TicketId::derive(&key, task, run));
        let ticket = TicketKey {
            build: BuildKey::derive(&job.key, id.number),
            ticket,
        };
        let blobs = attempt_blobs(&build.ticket, &ticket, attempt);
        Ok(Tried::Done(ConsoleHome {
            blobs: AttemptBlobs { number, ..blobs },
            complete: archived || over || attempt < last,
            said: if attempt == last { said } else { 0 },
            ticket,
            attempt,
        }))
    }

    /// Reads at most `most` bytes of a console from `offset` on; fewer where chunks end.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a part of it is gone: nobody shall take what is left for the whole.
    pub async fn read_console(
        &self,
        home: &ConsoleHome,
        offset: u64,
        most: usize,
    ) -> Result<ConsolePart, StoreError> {
        let (chunks, length) = self.chunks_of(home, offset, most).await?;
        let mut part = BytesMut::new();
        for (start, range) in chunks {
            let key = home.blobs.console_chunk(start);
            let bytes = self.blobs.get_range(&key, range).await?;
            part.extend_from_slice(&bytes.ok_or_else(|| StoreError::corrupt(&key, "it is gone"))?);
        }
        Ok(ConsolePart {
            bytes: part.freeze(),
            length,
        })
    }

    /// The parts of chunks that hold these bytes, and the length of the whole. Nobody else's append
    /// waits while they are read.
    async fn chunks_of(
        &self,
        home: &ConsoleHome,
        offset: u64,
        most: usize,
    ) -> Result<(Vec<(u64, Range<u64>)>, u64), StoreError> {
        let index = self.consoles.of(&home.blobs);
        let mut index = index.lock().await;
        let end = offset.saturating_add(most as u64);
        // Where a console that is over ends must not be told by one who saw it only grow.
        let ends_here = home.complete && !index.whole && index.length <= end;
        if !index.listed || index.length <= offset || ends_here {
            index.refresh(self, &home.blobs).await?;
            index.whole |= home.complete;
        }
        if index.whole && index.length < home.said {
            let why = format!("{} bytes of {} are there", index.length, home.said);
            return Err(StoreError::corrupt(home.blobs.console(), why));
        }
        let (mut chunks, mut position) = (Vec::new(), offset);
        while position < end {
            let Some((start, chunk_end)) = index.chunk(position) else {
                break;
            };
            chunks.push((start, position - start..chunk_end.min(end) - start));
            position = chunk_end;
        }
        Ok((chunks, index.length))
    }
}

/// The run that an attempt belongs to, if it is not the last run of the task.
fn earlier_run(build: &Build, task: usize, attempt: Attempt) -> Option<u32> {
    let runs = build.checkpoint.runs_of(task).iter();
    let run = runs.clone().position(|last| attempt <= *last)?;
    u32::try_from(run + 1).ok()
}
