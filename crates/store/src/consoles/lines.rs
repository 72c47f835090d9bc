//! Consoles by line: any part of a long one without reading the rest.
//!
//! Owns the count of line ends before each chunk. It is a cache like the names of the chunks: what is
//! appended here is counted as it passes, the rest is read and counted once, when somebody first asks
//! for a line.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use distci_model::Timestamp;
use distci_model::wire::MAX_CONSOLE_CHUNK;
use futures::stream::{StreamExt, TryStreamExt, iter};

use super::{ConsoleHome, Index};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;

/// Most bytes of a line that are given; the rest is told by its count.
pub const MAX_LINE: usize = 4096;
/// Chunks that are read at once to be counted.
const PARALLEL: usize = 8;

/// A line of a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 0.
    pub number: u64,
    /// Where it begins.
    pub offset: u64,
    /// Its bytes without the line end, at most [`MAX_LINE`].
    pub bytes: Bytes,
    /// How many bytes are left out.
    pub cut: u64,
}

/// Some lines of a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// The lines, in order.
    pub lines: Vec<Line>,
    /// How many the console has now, one that is not ended yet among them.
    pub total: u64,
    /// How many bytes it has now.
    pub length: u64,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// From this one on.
    Line(u64),
    /// From the one that holds this byte on.
    Offset(u64),
    /// The last ones.
    End,
}

/// The line ends of the chunks that were counted, which are the first ones.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// How many there are before each chunk, and then in all.
    before: Vec<u64>,
    /// Whether the last byte that was counted ends a line.
    closed: bool,
}

impl Ends {
    /// How many chunks are counted.
    pub(super) fn counted(&self) -> usize {
        self.before.len().saturating_sub(1)
    }

    /// All that were counted.
    pub(super) fn total(&self) -> u64 {
        self.before.last().copied().unwrap_or_default()
    }

    /// Counts the next chunk.
    pub(super) fn add(&mut self, count: u64, closes: bool) {
        if self.before.is_empty() {
            self.before.push(0);
        }
        self.before.push(self.total() + count);
        self.closed = closes;
    }
}

/// What a chunk adds to the count.
pub(super) fn count(bytes: &[u8]) -> (u64, bool) {
    let ends = memchr::memchr_iter(b'\n', bytes).count();
    (ends as u64, bytes.last() == Some(&b'\n'))
}

/// The chunks of a console and their line ends, as they were at one moment.
struct Map {
    starts: Vec<u64>,
    length: u64,
    before: Vec<u64>,
    closed: bool,
}

impl Map {
    fn ends(&self) -> u64 {
        self.before.last().copied().unwrap_or_default()
    }

    fn total(&self) -> u64 {
        self.ends() + u64::from(!self.closed && self.length > 0)
    }

    /// The chunk in which the line end of this number is, from 0, and how many are before it.
    fn chunk_of(&self, end: u64) -> Option<(usize, u64)> {
        let after = self.before.partition_point(|&before| before <= end);
        let chunk = after.checked_sub(1)?;
        (after < self.before.len()).then(|| (chunk, self.before[chunk]))
    }

    fn chunk_at(&self, offset: u64) -> usize {
        let after = self.starts.partition_point(|&start| start <= offset);
        after.saturating_sub(1)
    }
}

impl Store {
    /// At most `most` lines of a console.
    pub async fn console_lines(
        &self,
        home: &ConsoleHome,
        from: From,
        most: usize,
    ) -> Result<Lines, StoreError> {
        let map = self.map(home).await?;
        let mut reader = Reader::new(self, home, &map);
        let first = match from {
            From::Line(line) => line,
            From::Offset(offset) => reader.line_at(offset).await?,
            From::End => map.total().saturating_sub(most as u64),
        };
        let last = first.saturating_add(most as u64).min(map.total());
        let mut lines = Vec::new();
        let mut offset = reader.start_of(first).await?;
        for number in first..last {
            let end = reader.end_of(number).await?;
            lines.push(reader.line(number, offset, end).await?);
            offset = end + 1;
        }
        Ok(Lines {
            lines,
            total: map.total(),
            length: map.length,
        })
    }

    /// When the lines of a console came, as far as its chunks tell: from which line on, and when that
    /// was stored. Whoever prints for a second or two is in one chunk.
    pub async fn console_times(
        &self,
        home: &ConsoleHome,
    ) -> Result<Vec<(u64, Timestamp)>, StoreError> {
        let map = self.map(home).await?;
        let times = self.blobs.times(&home.blobs.console()).await?;
        let times: HashMap<u64, Timestamp> = times
            .into_iter()
            .filter_map(|(name, at)| Some((keys::parse_chunk(&name)?, at)))
            .collect();
        let starts = map.starts.iter().zip(&map.before);
        Ok(starts
            .filter_map(|(start, before)| Some((*before, *times.get(start)?)))
            .collect())
    }

    /// Counts what was not counted, without keeping anybody from appending meanwhile.
    async fn map(&self, home: &ConsoleHome) -> Result<Map, StoreError> {
        // Learns of chunks that others have added.
        self.chunks_of(home, u64::MAX, 0).await?;
        let shared = self.consoles.of(&home.blobs);
        loop {
            let missing: Vec<u64> = {
                let index = shared.lock().await;
                if index.ends.counted() == index.starts.len() {
                    return Ok(index.map());
                }
                index.starts[index.ends.counted()..].to_vec()
            };
            let first = missing.first().copied();
            let counting = iter(missing).map(async |start| {
                let bytes = self.chunk(home, start).await?;
                Ok::<_, StoreError>((start, count(&bytes)))
            });
            let counted: Vec<_> = counting.buffered(PARALLEL).try_collect().await?;
            let mut index = shared.lock().await;
            // Somebody else may have counted the same meanwhile.
            if index.starts.get(index.ends.counted()).copied() == first {
                for (_, (ends, closes)) in counted {
                    index.ends.add(ends, closes);
                }
            }
        }
    }

    /// A whole chunk.
    pub(super) async fn chunk(&self, home: &ConsoleHome, start: u64) -> Result<Bytes, StoreError> {
        let key = home.blobs.console_chunk(start);
        let bytes = self.blobs.get(&key, MAX_CONSOLE_CHUNK as u64).await?;
        bytes.ok_or_else(|| StoreError::corrupt(&key, "it is gone"))
    }
}

impl Index {
    fn map(&self) -> Map {
        Map {
            starts: self.starts.clone(),
            length: self.length,
            before: self.ends.before.clone(),
            closed: self.ends.closed,
        }
    }
}

/// Reads lines, and keeps the chunk that was read last: the next line is mostly there.
struct Reader<'a> {
    store: &'a Store,
    home: &'a ConsoleHome,
    map: &'a Map,
    held: Option<(usize, Bytes)>,
}

impl<'a> Reader<'a> {
    fn new(store: &'a Store, home: &'a ConsoleHome, map: &'a Map) -> Self {
        Self {
            store,
            home,
            map,
            held: None,
        }
    }

    async fn chunk(&mut self, at: usize) -> Result<(u64, Bytes), StoreError> {
        let start = self.map.starts.get(at).copied().unwrap_or_default();
        if let Some((held, bytes)) = &self.held
            && *held == at
        {
            return Ok((start, bytes.clone()));
        }
        let bytes = self.store.chunk(self.home, start).await?;
        self.held = Some((at, bytes.clone()));
        Ok((start, bytes))
    }

    /// Where a line begins.
    async fn start_of(&mut self, line: u64) -> Result<u64, StoreError> {
        match line.checked_sub(1) {
            Some(before) => Ok(self.end_of(before).await? + 1),
            None => Ok(0),
        }
    }

    /// Where the end of a line is; of one without an end, where the console ends.
    async fn end_of(&mut self, line: u64) -> Result<u64, StoreError> {
        let Some((at, before)) = self.map.chunk_of(line) else {
            return Ok(self.map.length);
        };
        let (start, bytes) = self.chunk(at).await?;
        let nth = usize::try_from(line - before).unwrap_or(usize::MAX);
        let place = memchr::memchr_iter(b'\n', &bytes).nth(nth);
        Ok(start + place.unwrap_or(bytes.len()) as u64)
    }

    /// The line that holds a byte.
    async fn line_at(&mut self, offset: u64) -> Result<u64, StoreError> {
        if offset >= self.map.length {
            return Ok(self.map.total().saturating_sub(1));
        }
        let at = self.map.chunk_at(offset);
        let before = self.map.before.get(at).copied().unwrap_or_default();
        let (start, bytes) = self.chunk(at).await?;
        let until = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let (within, _) = count(bytes.get(..until).unwrap_or(&bytes));
        Ok(before + within)
    }

    /// The line between two places, cut if it is long.
    async fn line(&mut self, number: u64, offset: u64, end: u64) -> Result<Line, StoreError> {
        let most = end.min(offset.saturating_add(MAX_LINE as u64));
        let mut bytes = BytesMut::new();
        let mut position = offset;
        while position < most {
            let (start, chunk) = self.chunk(self.map.chunk_at(position)).await?;
            let from = usize::try_from(position - start).unwrap_or(usize::MAX);
            let to = usize::try_from(most - start).unwrap_or(usize::MAX);
            let part = chunk.get(from..to.min(chunk.len())).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            bytes.extend_from_slice(part);
            position += part.len() as u64;
        }
        Ok(Line {
            number,
            offset,
            bytes: bytes.freeze(),
            cut: end.saturating_sub(position),
        })
    }
}
