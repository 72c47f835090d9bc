//! The console of one attempt, from the pipe to the store.
//!
//! Owns the order of its bytes, their offsets and their limit. A single line is on its way within
//! milliseconds; a stream of them travels in few large pieces. Bounded all the way: who writes
//! faster than the store takes is made to wait.

mod mask;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use distci_client::{Client, ClientError};
use distci_model::wire::{Held, MAX_CONSOLE};
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub(crate) use mask::Mask;

/// From here on a piece does not wait for more. Far below the most that one append may hold, and
/// with one piece on top still below.
const LARGE: usize = 64 * 1024;
/// Pieces that wait for the store: half a megabyte, then the script waits.
const PIECES: usize = 8;
/// How long the first byte after a pause waits for company.
const SHORT: Duration = Duration::from_millis(10);
/// Shortest time from one append to the next, unless there is much to say.
const PERIOD: Duration = Duration::from_millis(100);
/// What stands at the end of a console that is too long.
const CUT: &[u8] = b"\n[distci] the console is full and ends here; the task goes on\n";

/// Where to write. Clones write to the same console.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    pieces: mpsc::Sender<Piece>,
}

/// The way to the store; awaited when the last writer is gone.
#[derive(Debug)]
pub(crate) struct Shipping {
    task: JoinSet<u64>,
}

#[derive(Debug)]
enum Piece {
    /// Bytes as they came.
    Raw(Bytes),
    /// A line of the worker itself, which begins a line.
    Line(String),
}

/// One append: an offset and the bytes; gives the length afterwards.
type Append = Box<dyn Fn(u64, Bytes) -> BoxFuture<'static, Result<u64, ClientError>> + Send + Sync>;

impl Console {
    /// The console of a claim. What is refused because the claim is over says so to `lost`.
    pub(crate) fn open(
        client: Client,
        held: Held,
        mask: Mask,
        lost: CancellationToken,
    ) -> (Self, Shipping) {
        let held = Arc::new(held);
        let append: Append = Box::new(move |offset, bytes| {
            let (client, held) = (client.clone(), Arc::clone(&held));
            Box::pin(async move { client.append(&held, offset, bytes).await })
        });
        Self::over(append, mask, lost, MAX_CONSOLE)
    }

    fn over(append: Append, mask: Mask, lost: CancellationToken, limit: u64) -> (Self, Shipping) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let shipper = Shipper {
            append,
            mask,
            lost,
            room: limit.saturating_sub(CUT.len() as u64),
            sent: 0,
            full: false,
            line_open: false,
            waiting: BytesMut::new(),
        };
        let mut task = JoinSet::new();
        task.spawn(shipper.ship(pieces));
        (Self { pieces: sender }, Shipping { task })
    }

    /// Adds bytes; waits while the store is slow.
    pub(crate) async fn write(&self, bytes: &[u8]) {
        for piece in bytes.chunks(LARGE) {
            self.send(Piece::Raw(Bytes::copy_from_slice(piece))).await;
        }
    }

    /// Adds a line of the worker's own.
    pub(crate) async fn say(&self, text: &str) {
        self.send(Piece::Line(format!("[distci] {text}\n"))).await;
    }

    async fn send(&self, piece: Piece) {
        // With nobody at the other end the attempt is lost, and so is what it says.
        drop(self.pieces.send(piece).await);
    }
}

impl Shipping {
    /// Waits until everything is stored; every [`Console`] must be gone. Gives the length.
    pub(crate) async fn finish(mut self) -> u64 {
        let length = self.task.join_next().await;
        length.and_then(Result::ok).unwrap_or_default()
    }
}

/// The one that carries pieces to the store.
struct Shipper {
    append: Append,
    mask: Mask,
    lost: CancellationToken,
    /// Bytes that may be stored before the notice of the cut.
    room: u64,
    sent: u64,
    full: bool,
    line_open: bool,
    waiting: BytesMut,
}

impl Shipper {
    async fn ship(mut self, mut pieces: mpsc::Receiver<Piece>) -> u64 {
        let mut last: Option<Instant> = None;
        while let Some(piece) = pieces.recv().await {
            self.take(piece);
            let soon = Instant::now() + SHORT;
            let due = last.map_or(soon, |last| soon.max(last + PERIOD));
            while self.waiting.len() < LARGE {
                match timeout_at(due, pieces.recv()).await {
                    Ok(Some(piece)) => self.take(piece),
                    Ok(None) | Err(_) => break,
                }
            }
            let bytes = self.mask.apply(&mut self.waiting);
            if self.store(bytes).await.is_err() {
                return self.sent;
            }
            last = Some(Instant::now());
        }
        let rest = self.mask.finish(&mut self.waiting);
        // An error has been noted; either way this is the end.
        self.store(rest).await.unwrap_or_default();
        self.sent
    }

    fn take(&mut self, piece: Piece) {
        let bytes = match piece {
            Piece::Raw(bytes) => bytes,
            Piece::Line(line) => {
                if self.line_open {
                    self.waiting.extend_from_slice(b"\n");
                }
                line.into()
            }
        };
        if let Some(last) = bytes.last() {
            self.line_open = *last != b'\n';
        }
        self.waiting.extend_from_slice(&bytes);
    }

    async fn store(&mut self, mut bytes: Bytes) -> Result<(), ()> {
        if self.full || bytes.is_empty() {
            return Ok(());
        }
        let room = usize::try_from(self.room.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        if bytes.len() > room {
            self.full = true;
            bytes = [bytes.get(..room).unwrap_or_default(), CUT].concat().into();
        }
        self.append(bytes).await.map_err(|error| {
            tracing::debug!("the console is cut off: {error}");
            self.lost.cancel();
        })
    }

    async fn append(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let sent = (self.append)(self.sent, bytes.clone()).await;
            let length = match sent {
                // A part was stored by a try whose answer was lost.
                Err(ClientError::ConsoleAt { length }) if length > self.sent => length,
                sent => sent?,
            };
            let stored = usize::try_from(length.saturating_sub(self.sent)).unwrap_or(usize::MAX);
            bytes = bytes.slice(stored.min(bytes.len())..);
            self.sent = length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Stored = Arc<Mutex<Vec<(Duration, Vec<u8>)>>>;

    /// A store that notes when what came.
    fn store(delay: Duration) -> (Append, Stored) {
        let stored = Stored::default();
        let (noted, start) = (Arc::clone(&stored), Instant::now());
        let append: Append = Box::new(move |offset, bytes| {
            let noted = Arc::clone(&noted);
            Box::pin(async move {
                tokio::time::sleep(delay).await;
                let length = offset + bytes.len() as u64;
                noted
                    .lock()
                    .unwrap()
                    .push((start.elapsed(), bytes.to_vec()));
                Ok(length)
            })
        });
        (append, stored)
    }

    fn open(append: Append, mask: Mask, limit: u64) -> (Console, Shipping) {
        Console::over(append, mask, CancellationToken::new(), limit)
    }

    async fn all(console: Console, shipping: Shipping, stored: &Stored) -> String {
        drop(console);
        shipping.finish().await;
        let stored = stored.lock().unwrap();
        let bytes: Vec<u8> = stored.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_line_does_not_wait() {
        let (append, stored) = store(Duration::ZERO);
        let (console, shipping) = open(append, Mask::default(), 1000);
        console.write(b"hello\n").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(stored.lock().unwrap()[0].0 <= Duration::from_millis(15));
        assert_eq!(all(console, shipping, &stored).await, "hello\n");
    }

    #[tokio::test(start_paused = true)]
    async fn many_lines_travel_together() {
        let (append, stored) = store(Duration::ZERO);
        let (console, shipping) = open(append, Mask::default(), 100_000);
        for _ in 0..1000 {
            console.write(b"line\n").await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(all(console, shipping, &stored).await, "line\n".repeat(1000));
        assert!(stored.lock().unwrap().len() <= 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_makes_the_writer_wait() {
        let (append, stored) = store(Duration::from_mins(1));
        let (console, shipping) = open(append, Mask::default(), u64::MAX);
        let megabyte = vec![b'x'; 1 << 20];
        let wrote = tokio::time::timeout(Duration::from_secs(30), console.write(&megabyte)).await;
        assert!(wrote.is_err());
        drop(all(console, shipping, &stored).await);
    }

    #[tokio::test(start_paused = true)]
    async fn too_long_a_console_says_so_at_its_end() {
        let (append, stored) = store(Duration::ZERO);
        let (console, shipping) = open(append, Mask::default(), 100);
        for _ in 0..100 {
            console.write(b"0123456789").await;
        }
        let text = all(console, shipping, &stored).await;
        assert_eq!(text.len(), 100);
        assert!(text.starts_with("0123456789"));
        assert!(text.ends_with("the task goes on\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_workers_own_lines_begin_lines() {
        let (append, stored) = store(Duration::ZERO);
        let (console, shipping) = open(append, Mask::default(), 1000);
        console.say("one").await;
        console.write(b"no end").await;
        console.say("two").await;
        let text = all(console, shipping, &stored).await;
        assert_eq!(text, "[distci] one\nno end\n[distci] two\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_append_loses_the_attempt() {
        let append: Append = Box::new(|_, _| Box::pin(async { Err(ClientError::Unauthorized) }));
        let lost = CancellationToken::new();
        let (console, shipping) = Console::over(append, Mask::default(), lost.clone(), 1000);
        console.write(b"x").await;
        lost.cancelled().await;
        // Nobody waits for what nobody takes.
        console.write(&vec![b'x'; 1 << 20]).await;
        drop(console);
        assert_eq!(shipping.finish().await, 0);
    }
}
