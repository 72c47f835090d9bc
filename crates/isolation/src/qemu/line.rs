//! The worker's end of the port.
//!
//! Owns the conversation about one command: the order, the output, the word to stop, the report.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::wire::{Fault, Frame, Head, Order, length};
use crate::cell::{Output, Stop};
use crate::supervisor::{KILL, Report, TERMINATE};

/// The socket, in the folder in which QEMU runs.
pub(super) const SOCKET: &str = "port";
/// How long a machine may take to hand back what there is, when its command was killed.
const STOP_PATIENCE: Duration = Duration::from_mins(1);

/// How long QEMU may take to end when it has hung up: only then it says how the machine ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Where a machine is going to call.
pub(super) struct Line {
    listener: UnixListener,
    /// How long it may take.
    patience: Duration,
    /// The machine is no more.
    pub(super) gone: CancellationToken,
}

/// What came of a conversation.
pub(super) enum Talk {
    /// The command ended.
    Ended(Report),
    /// The agent could not do its part.
    Fault(Fault),
    /// It had to stop. There is nothing to tell if it had not begun, or did not obey.
    Stopped(Option<Report>),
    /// The machine did not get as far as to speak.
    Silent(String),
    /// The machine fell silent.
    Lost {
        /// Whether the command had begun.
        started: bool,
    },
}

impl Line {
    /// One in `folder`.
    pub(super) fn open(folder: &Path, patience: Duration) -> io::Result<Self> {
        match fs::remove_file(folder.join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Addresses of sockets are short, and folders may be deep.
        let folder = File::open(folder)?;
        let way = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        Ok(Self {
            listener: UnixListener::bind(way)?,
            patience,
            gone: CancellationToken::new(),
        })
    }

    /// Waits for the agent's first word.
    pub(super) async fn answer(&self) -> Result<UnixStream, String> {
        let called = async {
            let (mut stream, _) = self.listener.accept().await?;
            match next(&mut stream).await? {
                Frame::Hello => Ok(stream),
                other => Err(io::Error::other(format!("it began with {other:?}"))),
            }
        };
        let patience = self.patience.as_secs_f64();
        tokio::select! {
            called = timeout(self.patience, called) => match called {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => {
                    drop(timeout(LAST_WORDS, self.gone.cancelled()).await);
                    Err(error.to_string())
                }
                Err(_) => Err(format!("it did not boot in {patience} s")),
            },
            () = self.gone.cancelled() => Err("it ended before it had booted".to_owned()),
        }
    }

    /// Lets the machine do `order`.
    pub(super) async fn talk(
        &self,
        order: &Order,
        output: &mut dyn Output,
        mut stop: Stop<'_>,
    ) -> Talk {
        let answered = tokio::select! {
            answered = self.answer() => answered,
            _ = &mut stop => return Talk::Stopped(None),
        };
        let (from, mut to) = match answered {
            Ok(stream) => stream.into_split(),
            Err(why) => return Talk::Silent(why),
        };
        let told = match order.to_bytes() {
            Ok(bytes) => to.write_all(&bytes).await,
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            return Talk::Silent(error.to_string());
        }
        let mut listening = std::pin::pin!(async {
            let talk = listen(from, output).await;
            if let Talk::Lost { .. } = talk {
                drop(timeout(LAST_WORDS, self.gone.cancelled()).await);
            }
            talk
        });
        tokio::select! {
            talk = &mut listening => talk,
            grace = stop => tokio::select! {
                // However it ends now, this is why.
                talk = &mut listening => match talk {
                    Talk::Ended(report) => Talk::Stopped(Some(report)),
                    _ => Talk::Stopped(None),
                },
                () = end(&mut to, grace) => Talk::Stopped(None),
            },
        }
    }
}

async fn listen(mut from: OwnedReadHalf, output: &mut dyn Output) -> Talk {
    let mut started = false;
    loop {
        match next(&mut from).await {
            Ok(Frame::Started) => started = true,
            Ok(Frame::Output(bytes)) => output.take(&bytes).await,
            Ok(Frame::Ended(report)) => return Talk::Ended(report),
            Ok(Frame::Fault(fault)) => return Talk::Fault(fault),
            Ok(Frame::Hello) => {}
            Err(error) => {
                tracing::debug!("a virtual machine fell silent: {error}");
                return Talk::Lost { started };
            }
        }
    }
}

/// Asks everything to end, then makes it. Returns when that was of no use.
async fn end(to: &mut OwnedWriteHalf, grace: Duration) {
    if !grace.is_zero() && to.write_all(&[TERMINATE]).await.is_ok() {
        sleep(grace).await;
    }
    // A broken pipe means that the machine is gone.
    drop(to.write_all(&[KILL]).await);
    sleep(STOP_PATIENCE).await;
}

async fn next(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Frame> {
    let mut head = Head::default();
    from.read_exact(&mut head).await?;
    let mut body = vec![0; length(head)?];
    from.read_exact(&mut body).await?;
    Frame::from_bytes(head, body)
}
