//! The console of one attempt, from the pipe to the store.
//!
//! Owns the order of its bytes and their offsets. A single line is on its way within milliseconds; a
//! stream of them travels in few large pieces. While the store is away the script goes on and its
//! console waits on the disk. Bounded all the way: who writes faster than the store takes, or more
//! than the disk may hold, is made to wait.

mod backlog;
mod mask;
mod spool;
mod text;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use distci_client::{Client, ClientError};
use distci_model::wire::{Held, MAX_CONSOLE};
use futures::future::{BoxFuture, OptionFuture};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::interrupt::{Interrupt, Interrupts};
use crate::trouble::Trouble;
use backlog::{Backlog, Store};
use text::Text;

pub(crate) use mask::Mask;
pub(crate) use spool::{MOST_SPOOLED, Spool};

/// From here on bytes do not wait for more.
const LARGE: usize = 64 * 1024;
/// Pieces on their way from the script: a quarter of a megabyte.
const PIECES: usize = 4;
/// How long the first byte after a pause waits for company.
const SHORT: Duration = Duration::from_millis(10);
/// Shortest time from one append to the next, unless there is much to say.
const PERIOD: Duration = Duration::from_millis(100);
/// A store that takes longer than this for one append is away.
const SLOW: Duration = Duration::from_secs(1);
/// Between two looks whether a disk that was nearly full has room again.
const LOOK: Duration = Duration::from_secs(1);

/// Where to write. Clones write to the same console.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    pieces: mpsc::Sender<Piece>,
    /// Nobody wants to hear any more.
    lost: CancellationToken,
}

/// The way to the store; awaited when the last writer is gone.
#[derive(Debug)]
pub(crate) struct Shipping {
    task: JoinSet<Shipped>,
}

/// What came of a console.
#[derive(Debug)]
struct Shipped {
    /// How much of it is stored.
    length: u64,
    /// Why that is not all.
    trouble: Option<ClientError>,
}

#[derive(Debug)]
enum Piece {
    /// Bytes as they came.
    Raw(Bytes),
    /// A line of the worker itself, which begins a line.
    Line(String),
}

/// One append: an offset and the bytes; gives the length afterwards.
type Append = Arc<dyn Fn(u64, Bytes) -> BoxFuture<'static, Result<u64, ClientError>> + Send + Sync>;

impl Console {
    /// The console of a claim. If it is refused, the interrupts say why: because the claim is over,
    /// or because it cannot be stored.
    pub(crate) fn open(
        client: Client,
        held: Held,
        mask: Mask,
        interrupts: &Interrupts,
        spool: Spool,
    ) -> (Self, Shipping) {
        let held = Arc::new(held);
        let append: Append = Arc::new(move |offset, bytes| {
            let (client, held) = (client.clone(), Arc::clone(&held));
            Box::pin(async move { client.append(&held, offset, bytes).await })
        });
        Self::over(append, Text::new(mask, MAX_CONSOLE), interrupts, spool)
    }

    fn over(append: Append, text: Text, interrupts: &Interrupts, spool: Spool) -> (Self, Shipping) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let shipper = Shipper {
            append,
            text,
            backlog: Backlog::new(spool),
            sent: 0,
            first: None,
            last: None,
        };
        let mut task = JoinSet::new();
        task.spawn(shipper.run(pieces, interrupts.clone()));
        let console = Self {
            pieces: sender,
            lost: interrupts.lost.clone(),
        };
        (console, Shipping { task })
    }

    /// Adds bytes; waits while there is no room for them.
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
        tokio::select! {
            biased;
            () = self.lost.cancelled() => {}
            // With nobody at the other end the console has come to its end, and said so.
            sent = self.pieces.send(piece) => drop(sent),
        }
    }
}

impl Shipping {
    /// Waits until everything is stored; every [`Console`] must be gone. Gives how much is, and what
    /// kept the rest from it.
    pub(crate) async fn finish(mut self) -> (u64, Result<(), Trouble>) {
        let shipped = match self.task.join_next().await {
            Some(Ok(shipped)) => shipped,
            Some(Err(error)) => return (0, Err(Trouble::worker(error.to_string()))),
            None => return (0, Ok(())),
        };
        let stored = match shipped.trouble {
            None => Ok(()),
            Some(error) if is_over(&error) => Err(Interrupt::Lost.into()),
            Some(error) => Err(error.into()),
        };
        (shipped.length, stored)
    }
}

/// Whether a console is refused because nobody wants it any more: another attempt has begun, or the
/// build is history.
fn is_over(error: &ClientError) -> bool {
    matches!(error, ClientError::Conflict(_) | ClientError::NotFound(_))
}

/// The one that carries pieces to the store.
struct Shipper {
    append: Append,
    text: Text,
    backlog: Backlog,
    sent: u64,
    /// When the first byte came that waits.
    first: Option<Instant>,
    /// When the last append ended.
    last: Option<Instant>,
}

/// An append that is on its way.
struct Transit {
    sending: BoxFuture<'static, Result<u64, ClientError>>,
    since: Instant,
}

impl Shipper {
    async fn run(mut self, pieces: mpsc::Receiver<Piece>, interrupts: Interrupts) -> Shipped {
        let trouble = self.ship(pieces).await.err();
        if let Some(error) = &trouble {
            if is_over(error) {
                tracing::debug!("the console is cut off: {error}");
                interrupts.lost.cancel();
            } else {
                tracing::warn!("the console cannot be stored: {error}");
                interrupts.unstored.cancel();
            }
        }
        let length = self.sent;
        Shipped { length, trouble }
    }

    /// Takes and sends until nothing follows, both at the same time: a script shall not have to wait
    /// for an append.
    async fn ship(&mut self, mut pieces: mpsc::Receiver<Piece>) -> Result<(), ClientError> {
        let (mut open, mut transit) = (true, None);
        loop {
            let now = Instant::now();
            let due = self.due(open);
            if transit.is_none() && due.is_some_and(|due| due <= now) {
                transit = Some(self.depart().await?);
            }
            if transit.is_none() && !open {
                return Ok(());
            }
            let takes_more = open && self.backlog.takes_more(store(transit.as_ref()));
            let alarm = match &transit {
                None => due,
                // Later the store may be known to be away, or the disk have room.
                Some(_) if open && !takes_more => Some(now + LOOK),
                Some(_) => None,
            };
            let sending = transit.as_mut().map(|transit| &mut transit.sending);
            tokio::select! {
                Some(length) = OptionFuture::from(sending) => {
                    self.sent = length?;
                    self.last = Some(Instant::now());
                    transit = None;
                }
                piece = pieces.recv(), if takes_more => {
                    open = piece.is_some();
                    self.take(piece).await;
                }
                Some(()) = OptionFuture::from(alarm.map(sleep_until)) => {}
            }
        }
    }

    async fn take(&mut self, piece: Option<Piece>) {
        let bytes = match piece {
            Some(piece) => self.text.take(piece),
            None => self.text.finish(),
        };
        if !bytes.is_empty() {
            self.first.get_or_insert_with(Instant::now);
            self.backlog.push(bytes).await;
        }
    }

    /// When the next append should begin; `None` if there is nothing to send.
    fn due(&self, open: bool) -> Option<Instant> {
        let first = self.first?;
        if !open || self.backlog.len() >= LARGE as u64 {
            return Some(first);
        }
        let soon = first + SHORT;
        Some(self.last.map_or(soon, |last| soon.max(last + PERIOD)))
    }

    async fn depart(&mut self) -> Result<Transit, ClientError> {
        let bytes = self.backlog.pop().await?;
        let since = Instant::now();
        self.first = (!self.backlog.is_empty()).then_some(since);
        let sending = Box::pin(send(Arc::clone(&self.append), self.sent, bytes));
        Ok(Transit { sending, since })
    }
}

/// How the store looks from an append that is on its way.
fn store(transit: Option<&Transit>) -> Store {
    match transit {
        Some(transit) if transit.since.elapsed() >= SLOW => Store::Away,
        Some(_) | None => Store::Near,
    }
}

/// Appends `bytes` to a console of `sent` bytes. Gives its new length.
///
/// # Errors
/// [`ClientError::ConsoleAt`] if the console lacks what was acknowledged, or holds what we never
/// sent: whatever followed would stand in the wrong place.
async fn send(append: Append, mut sent: u64, mut bytes: Bytes) -> Result<u64, ClientError> {
    let end = sent.saturating_add(bytes.len() as u64);
    while sent < end {
        let length = match append(sent, bytes.clone()).await {
            // A part was stored by a try whose answer was lost.
            Ok(length) | Err(ClientError::ConsoleAt { length }) => length,
            Err(error) => return Err(error),
        };
        if length <= sent || length > end {
            return Err(ClientError::ConsoleAt { length });
        }
        let stored = usize::try_from(length - sent).unwrap_or(usize::MAX);
        bytes = bytes.slice(stored.min(bytes.len())..);
        sent = length;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use distci_model::outcome::Fault;
    use distci_model::wire::Problem;
    use tokio::time::timeout;

    use super::*;
    use crate::disk::Disk;

    type Stored = Arc<Mutex<Vec<(Duration, Vec<u8>)>>>;

    /// A store that notes when what came.
    fn store(delay: Duration) -> (Append, Stored) {
        let stored = Stored::default();
        let (noted, start) = (Arc::clone(&stored), Instant::now());
        let append: Append = Arc::new(move |offset, bytes| {
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
        // The spool's folder is missing, so nothing of these goes to a disk.
        let spool = spool(Path::new("/nonexistent"), 0);
        Console::over(
            append,
            Text::new(mask, limit),
            &Interrupts::default(),
            spool,
        )
    }

    fn spool(directory: &Path, limit: u64) -> Spool {
        Spool::new(directory.join("spool"), Disk::of(directory), limit)
    }

    async fn all(console: Console, shipping: Shipping, stored: &Stored) -> String {
        drop(console);
        let (length, done) = shipping.finish().await;
        done.unwrap();
        let stored = stored.lock().unwrap();
        let bytes: Vec<u8> = stored.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!(length, bytes.len() as u64);
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
        let wrote = timeout(Duration::from_secs(30), console.write(&megabyte)).await;
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
    async fn while_the_store_is_away_the_script_goes_on_and_nothing_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (append, stored) = store(Duration::from_mins(1));
        let spool = spool(directory.path(), MOST_SPOOLED);
        let text = Text::new(Mask::default(), u64::MAX);
        let (console, shipping) = Console::over(append, text, &Interrupts::default(), spool);
        let lines: Vec<String> = (0..500_000).map(|line| line.to_string()).collect();
        let said = lines.join("\n");
        let begun = Instant::now();
        console.write(said.as_bytes()).await;
        assert!(begun.elapsed() < Duration::from_mins(1));
        assert!(directory.path().join("spool").exists());
        assert!(all(console, shipping, &stored).await == said);
        assert!(!directory.path().join("spool").exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_spool_makes_the_writer_wait_and_then_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let (append, stored) = store(Duration::from_mins(1));
        let spool = spool(directory.path(), 1 << 20);
        let text = Text::new(Mask::default(), u64::MAX);
        let (console, shipping) = Console::over(append, text, &Interrupts::default(), spool);
        let said = vec![b'x'; 4 << 20];
        {
            let mut writing = std::pin::pin!(console.write(&said));
            let early = timeout(Duration::from_secs(50), &mut writing).await;
            assert!(early.is_err());
            let size = std::fs::metadata(directory.path().join("spool")).unwrap();
            assert!(size.len() <= 1 << 20);
            writing.await;
        }
        assert_eq!(all(console, shipping, &stored).await.len(), said.len());
    }

    /// Writes to a console whose every append ends like this, and gives how that ends.
    async fn refused(
        error: impl Fn() -> ClientError + Send + Sync + 'static,
    ) -> (Interrupt, Trouble) {
        let error = Arc::new(error);
        let append: Append = Arc::new(move |_, _| {
            let error = error();
            Box::pin(async move { Err(error) })
        });
        let (interrupts, text) = (Interrupts::default(), Text::new(Mask::default(), 1000));
        let spool = spool(Path::new("/nonexistent"), 0);
        let (console, shipping) = Console::over(append, text, &interrupts, spool);
        console.write(b"x").await;
        let interrupt = interrupts.any().await;
        // Nobody waits for what nobody takes.
        console.write(&vec![b'x'; 1 << 20]).await;
        drop(console);
        let (length, stored) = shipping.finish().await;
        assert_eq!(length, 0);
        (interrupt, stored.unwrap_err())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_claim_that_is_over_is_lost_by_a_refused_append() {
        let problem = || {
            Box::new(Problem {
                kind: "urn:distci:attempt-over".to_owned(),
                title: String::new(),
                status: 409,
                detail: String::new(),
                request: None,
                problems: Vec::new(),
            })
        };
        let (interrupt, trouble) = refused(move || ClientError::Conflict(problem())).await;
        assert_eq!(interrupt, Interrupt::Lost);
        assert!(matches!(trouble, Trouble::Interrupted(Interrupt::Lost)));
        let (interrupt, trouble) = refused(|| ClientError::Unauthorized).await;
        assert_eq!(interrupt, Interrupt::Unstored);
        assert!(matches!(trouble, Trouble::Fault(Fault::Worker { .. })));
        let down = || ClientError::StoreDown {
            tried: 9,
            last: String::new(),
        };
        let (interrupt, trouble) = refused(down).await;
        assert_eq!(interrupt, Interrupt::Unstored);
        assert!(matches!(trouble, Trouble::Fault(Fault::StoreDown { .. })));
        // Somebody else's bytes, or ours are gone: neither is made good by going on.
        for length in [2, 0] {
            let (interrupt, _) = refused(move || ClientError::ConsoleAt { length }).await;
            assert_eq!(interrupt, Interrupt::Unstored);
        }
    }
}
