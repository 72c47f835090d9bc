//! The kind `build-control`: deciding what a build does next.
//!
//! Owns the loop decide, commit, decide again. Remembers nothing: everything that a decision depends
//! on comes with the order, and the commit is refused if it was made on an older state.

use distci_client::{Client, ClientError};
use distci_model::decide::{Decision, decide};
use distci_model::wire::{CommitReply, CommitRequest, ControlOrder, Held};

use crate::interrupt::Interrupts;

/// Decides until there is nothing left to decide.
///
/// # Errors
/// Whatever kept a commit from being made; the claim lapses then, and another worker decides.
pub async fn control(
    client: &Client,
    held: &Held,
    first: ControlOrder,
    interrupts: &Interrupts,
) -> Result<(), ClientError> {
    let mut order = first;
    loop {
        let request = CommitRequest {
            mailbox: order.mailbox,
            decision: decision(&order),
        };
        let reply = tokio::select! {
            reply = client.commit(held, &request) => reply,
            _ = interrupts.any() => return Ok(()),
        };
        match reply {
            Ok(CommitReply::Again { order: next }) => order = *next,
            // Somebody else holds the claim, or has ended it: either way it is in good hands.
            Ok(CommitReply::Over) | Err(ClientError::Conflict(_) | ClientError::NotFound(_)) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

fn decision(order: &ControlOrder) -> Decision {
    let ControlOrder {
        config,
        build,
        mailbox: _,
        events,
    } = order;
    decide(config, build, events)
}
