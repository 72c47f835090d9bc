//! Errands: looking at repositories, telling forges.
//!
//! Owns the way from a claimed errand to what came of it. Nothing of it is shown on a console, and
//! nothing is tried twice here: the errand's law says when it is tried again.

mod poll;
mod report;

use distci_client::ClientError;
use distci_model::errand::{ErrandOrder, ErrandResult};
use distci_model::outcome::Failure;
use distci_model::wire::Held;

use crate::interrupt::{Interrupt, Interrupts};
use crate::trouble::Trouble;
use crate::worker::Worker;

/// A claimed errand in the hands of this worker.
pub(crate) struct Errand<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) held: &'a Held,
    pub(crate) order: &'a ErrandOrder,
    pub(crate) interrupts: Interrupts,
}

impl Errand<'_> {
    /// Does it, and says what came of it.
    pub(crate) async fn run(self) {
        let ticket = &self.held.ticket;
        let done = match self.order {
            ErrandOrder::Poll { repository, refs } => self.poll(repository, refs).await,
            ErrandOrder::Report { .. } => self.interrupts.unless(self.report()).await,
        };
        if let Err(error) = self.end(done).await {
            tracing::warn!(%ticket, "what came of an errand was not accepted: {error}");
        }
    }

    async fn end(&self, done: Result<ErrandResult, Trouble>) -> Result<(), ClientError> {
        let client = &self.worker.patient;
        let result = match done {
            Ok(result) => result,
            Err(Trouble::Interrupted(Interrupt::Lost)) => return Ok(()),
            Err(Trouble::Interrupted(_)) => return client.release(self.held).await,
            Err(Trouble::Failure(Failure::Checkout { detail })) => {
                nothing(&self.shown(detail).await)
            }
            Err(trouble @ (Trouble::Failure(_) | Trouble::Fault(_))) => {
                nothing(&self.shown(trouble.to_string()).await)
            }
        };
        if let ErrandResult::Nothing { detail, .. } = &result {
            tracing::info!(ticket = %self.held.ticket, "an errand came to nothing: {detail}");
        }
        tokio::select! {
            done = client.complete_errand(self.held, &result) => match done {
                // Somebody else holds it by now.
                Err(ClientError::Conflict(_)) => Ok(()),
                done => done,
            },
            () = self.interrupts.lost.cancelled() => Ok(()),
        }
    }
}

/// A try that came to nothing, and may fare better another time.
fn nothing(detail: &str) -> ErrandResult {
    ErrandResult::Nothing {
        detail: detail.to_owned(),
        after: None,
        hopeless: false,
    }
}
