//! The ways in which an attempt is ended from outside.

use std::fmt;

use tokio_util::sync::CancellationToken;

use crate::trouble::Trouble;

/// Why the attempt has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// The claim is over: what we do no longer counts.
    Lost,
    /// Somebody cancelled the build.
    Cancelled,
    /// Its console cannot be stored, so neither can what comes of it.
    Unstored,
    /// This worker has to leave.
    Stopped,
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "the claim is over",
            Self::Cancelled => "cancelled",
            Self::Unstored => "the console cannot be stored",
            Self::Stopped => "the worker has to stop",
        })
    }
}

/// What an attempt listens to. Clones hear the same.
#[derive(Debug, Clone, Default)]
pub struct Interrupts {
    /// See [`Interrupt::Lost`].
    pub lost: CancellationToken,
    /// See [`Interrupt::Cancelled`].
    pub cancel: CancellationToken,
    /// See [`Interrupt::Unstored`].
    pub unstored: CancellationToken,
    /// See [`Interrupt::Stopped`].
    pub halt: CancellationToken,
}

impl Interrupts {
    /// Waits for the first. Cancel-safe.
    pub async fn any(&self) -> Interrupt {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Interrupt::Lost,
            () = self.cancel.cancelled() => Interrupt::Cancelled,
            () = self.unstored.cancelled() => Interrupt::Unstored,
            () = self.halt.cancelled() => Interrupt::Stopped,
        }
    }

    /// Does `work` unless it is interrupted; then it is dropped where it stands.
    pub(crate) async fn unless<T>(
        &self,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        tokio::select! {
            biased;
            interrupt = self.any() => Err(interrupt.into()),
            done = work => done,
        }
    }
}
