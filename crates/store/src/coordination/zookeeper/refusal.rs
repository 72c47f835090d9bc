//! What errors of the client mean for a request.
//!
//! Owns the one question that matters: may it have happened? Never decides by the text of an error.

use std::sync::Arc;

use zookeeper_client::Error;

use crate::coordination::{ConflictKind, Outage};

/// Whether the servers have refused the request for good: it did not happen, and asking again in
/// the same way gives the same answer. Everything else is a lost connection in one of its many
/// forms, after which nobody knows.
pub(super) const fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::BadArguments(_)
            | Error::InvalidAcl
            | Error::MarshallingError
            | Error::NoAuth
            | Error::NotReadOnly
            | Error::QuotaExceeded
            | Error::Throttled
            | Error::Unimplemented
    )
}

/// A final refusal, as callers see it.
pub(super) fn outage(error: Error) -> Outage {
    match error {
        // Both pass: a leader is elected, the load goes down.
        Error::NotReadOnly | Error::Throttled => Outage::Disconnected,
        error => Outage::Refused(Arc::new(error)),
    }
}

/// The rule that a step of a commit broke, if it is one of ours.
pub(super) const fn conflict(error: &Error) -> Option<ConflictKind> {
    match error {
        Error::NodeExists => Some(ConflictKind::Exists),
        Error::NoNode | Error::NoChildrenForEphemerals => Some(ConflictKind::Missing),
        Error::BadVersion => Some(ConflictKind::Version),
        Error::NotEmpty => Some(ConflictKind::NotEmpty),
        _ => None,
    }
}
