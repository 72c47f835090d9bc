//! Requests to stop: SIGINT, SIGTERM and SIGHUP.

use anyhow::{Context, Result};
use distci_worker::ignores;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for all. From here on none kills the process by itself.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None under `nohup`, which wants it to be no request.
    hangup: Option<Signal>,
}

impl Signals {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let hangup = SignalKind::hangup();
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: if ignores(hangup) {
                None
            } else {
                Some(listen(hangup)?)
            },
        })
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// No signal is lost if this is dropped.
    pub(crate) async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}
