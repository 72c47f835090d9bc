//! Searching a console.
//!
//! Owns the walk through the chunks of one console, and which lines match. Nothing is held but a few
//! chunks and the beginning of a line that goes on in the next one.

use bytes::{Bytes, BytesMut};
use futures::stream::{StreamExt, TryStreamExt, iter};
use regex::bytes::{Regex, RegexBuilder};

use super::ConsoleHome;
use super::lines::{From, MAX_LINE};
use crate::error::StoreError;
use crate::store::Store;

/// Chunks that are read ahead.
const AHEAD: usize = 8;
/// Longest line that is searched as one; of a longer one, each part of this length by itself.
const LONGEST: usize = 64 * 1024;
/// Most memory that a pattern may take.
const PATTERN: usize = 1024 * 1024;

/// What is searched for.
#[derive(Debug, Clone)]
pub struct Search(Regex);

/// A line that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Its number, from 0.
    pub line: u64,
    /// Where it begins.
    pub offset: u64,
    /// Its bytes, at most [`MAX_LINE`] of them.
    pub bytes: Bytes,
    /// Where in it the first match is.
    pub found: std::ops::Range<usize>,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The lines, in order.
    pub matches: Vec<Match>,
    /// The line from which on the rest was not searched, if there is a rest.
    pub next: Option<u64>,
}

impl Search {
    /// A pattern: a regular expression, or a text as it is.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn new(pattern: &str, is_text: bool, ignore_case: bool) -> Result<Self, String> {
        let pattern = if is_text {
            regex::escape(pattern)
        } else {
            pattern.to_owned()
        };
        let regex = RegexBuilder::new(&pattern)
            .case_insensitive(ignore_case)
            .multi_line(true)
            .size_limit(PATTERN)
            .build();
        regex.map(Self).map_err(|error| error.to_string())
    }
}

impl Store {
    /// The first `most` lines from the line `from` on that match.
    pub async fn search_console(
        &self,
        home: &ConsoleHome,
        search: &Search,
        from: u64,
        most: usize,
    ) -> Result<Found, StoreError> {
        let first = self.console_lines(home, From::Line(from), 1).await?;
        let Some(start) = first.lines.first().map(|line| line.offset) else {
            return Ok(Found::default());
        };
        let (chunks, _) = self.chunks_of(home, start, usize::MAX).await?;
        let reading = iter(chunks).map(async |(chunk, range)| {
            let bytes = self.chunk(home, chunk).await?;
            let from = usize::try_from(range.start).unwrap_or(usize::MAX);
            Ok::<_, StoreError>(bytes.slice(from.min(bytes.len())..))
        });
        let mut reading = std::pin::pin!(reading.buffered(AHEAD));
        let mut walk = Walk {
            search,
            most,
            line: from,
            offset: start,
            open: BytesMut::new(),
            found: Found::default(),
        };
        while let Some(bytes) = reading.try_next().await? {
            if walk.take(&bytes) {
                return Ok(walk.found);
            }
        }
        walk.end();
        Ok(walk.found)
    }
}

/// Begins whatever a terminal would obey.
const ESCAPE: u8 = 0x1b;

/// Adds a text to `plain` without the codes that a terminal would obey: `ESC [ … letter`, `ESC ] … BEL`
/// or `… ESC \`, and `ESC` with one character.
fn without_codes(text: &[u8], plain: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(ESCAPE, rest) {
        plain.extend_from_slice(&rest[..at]);
        let code = &rest[at + 1..];
        let length = match code.first() {
            Some(b'[') => code[1..]
                .iter()
                .position(|byte| (0x40..=0x7e).contains(byte))
                .map_or(code.len(), |end| end + 2),
            Some(b']') => memchr::memchr2(0x07, ESCAPE, code).map_or(code.len(), |end| {
                let is_long = code.get(end) == Some(&ESCAPE) && code.get(end + 1) == Some(&b'\\');
                end + 1 + usize::from(is_long)
            }),
            Some(_) => 1,
            None => 0,
        };
        rest = &code[length.min(code.len())..];
    }
    plain.extend_from_slice(rest);
}

/// A search on its way.
struct Walk<'a> {
    search: &'a Search,
    most: usize,
    /// The line that comes next, and where it begins.
    line: u64,
    offset: u64,
    /// What is there of it already.
    open: BytesMut,
    found: Found,
}

impl Walk<'_> {
    /// Searches the next bytes. `true`, if enough was found.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let Some(last) = memchr::memrchr(b'\n', bytes) else {
            self.open.extend_from_slice(bytes);
            if self.open.len() >= LONGEST {
                return self.part();
            }
            return false;
        };
        let (whole, rest) = bytes.split_at(last + 1);
        let enough = if self.open.is_empty() {
            self.lines(whole)
        } else {
            let mut block = self.open.split();
            block.extend_from_slice(whole);
            self.lines(&block)
        };
        self.open.extend_from_slice(rest);
        enough
    }

    /// Searches whole lines.
    fn lines(&mut self, block: &[u8]) -> bool {
        if memchr::memchr(ESCAPE, block).is_some() {
            return self.coloured(block);
        }
        let mut position = 0;
        while let Some(hit) = self.search.0.find_at(block, position) {
            let start = memchr::memrchr(b'\n', &block[..hit.start()]).map_or(0, |end| end + 1);
            // An empty match behind the last line end is on no line of the block.
            if start >= block.len() {
                break;
            }
            let end = memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |end| start + end);
            let before = memchr::memchr_iter(b'\n', &block[position..start]).count();
            self.line += before as u64;
            let line = &block[start..end];
            // What begins before the line end and goes on behind it is told as far as the line.
            let found = hit.start() - start..hit.end().min(end) - start;
            if self.note(line, self.offset + start as u64, found) {
                return true;
            }
            position = (end + 1).min(block.len());
            self.line += 1;
            if position >= block.len() {
                break;
            }
        }
        self.line += memchr::memchr_iter(b'\n', &block[position..]).count() as u64;
        self.offset += block.len() as u64;
        false
    }

    /// Searches whole lines as a reader sees them: without what a terminal would obey.
    fn coloured(&mut self, block: &[u8]) -> bool {
        let mut plain = Vec::new();
        for line in block.split_inclusive(|&byte| byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let text = if memchr::memchr(ESCAPE, text).is_some() {
                plain.clear();
                without_codes(text, &mut plain);
                &plain
            } else {
                text
            };
            if let Some(hit) = self.search.0.find(text)
                && self.note(text, self.offset, hit.range())
            {
                return true;
            }
            self.offset += line.len() as u64;
            self.line += 1;
        }
        false
    }

    /// Searches a part of a line that does not end for long.
    fn part(&mut self) -> bool {
        let block = self.open.split();
        let mut plain = Vec::new();
        without_codes(&block, &mut plain);
        let hit = self.search.0.find(&plain);
        let enough = hit.is_some_and(|hit| self.note(&plain, self.offset, hit.range()));
        self.offset += block.len() as u64;
        enough
    }

    /// Searches the last line, which has no end.
    fn end(&mut self) {
        if !self.open.is_empty() {
            self.part();
        }
    }

    fn note(&mut self, line: &[u8], offset: u64, found: std::ops::Range<usize>) -> bool {
        if self.found.matches.len() == self.most {
            self.found.next = Some(self.line);
            return true;
        }
        let shown = line.len().min(MAX_LINE);
        self.found.matches.push(Match {
            line: self.line,
            offset,
            bytes: Bytes::copy_from_slice(&line[..shown]),
            found: found.start.min(shown)..found.end.min(shown),
        });
        false
    }
}
