//! Why the typed store could not do what was asked.
//!
//! Owns the one error of the typed layer. A variant names what the caller can do; the frontend
//! chooses status codes from it.

use crate::blobs::BlobError;
use crate::coordination::{CommitError, ReadError};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The caller's picture is out of date; read again and decide anew.
    #[error("{detail}")]
    Stale {
        /// What has changed.
        detail: String,
    },
    /// The caller's attempt is over; somebody else has the ticket, or nobody.
    #[error("the attempt is over; the ticket is at attempt {current}")]
    AttemptOver {
        /// The latest attempt; 0 if the ticket is gone.
        current: u32,
    },
    /// A console append does not begin where the console ends.
    #[error("the console ends at byte {length}")]
    Offset {
        /// Where the next append has to begin.
        length: u64,
    },
    /// What was asked cannot be.
    #[error("{detail}")]
    Refused {
        /// Why not.
        detail: String,
    },
    /// What was sent is larger than allowed.
    #[error("more than {limit} bytes")]
    TooLarge {
        /// What is allowed.
        limit: u64,
    },
    /// The sender of an upload went away.
    #[error("the upload broke off")]
    Interrupted(#[source] std::io::Error),
    /// There is no room. Repeating does not help.
    #[error("no space left in the store")]
    Full,
    /// The store cannot be reached, or an outcome could not be learnt. Repeat the request.
    #[error("the store is down")]
    Down(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is stored cannot be read: a fault of ours.
    #[error("{what} cannot be read")]
    Corrupt {
        /// What.
        what: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// There is no such thing.
    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    /// What was asked cannot be.
    pub(crate) fn refused(detail: impl Into<String>) -> Self {
        Self::Refused {
            detail: detail.into(),
        }
    }

    /// Something stored cannot be read.
    pub(crate) fn corrupt(
        what: impl std::fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt {
            what: what.to_string(),
            source: source.into(),
        }
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        Self::Down(Box::new(error))
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        use crate::coordination::Outage;
        match error {
            CommitError::Down(Outage::Full) => Self::Full,
            CommitError::TooLarge { .. } => Self::TooLarge {
                limit: crate::coordination::MAX_COMMIT_BYTES as u64,
            },
            error => Self::Down(Box::new(error)),
        }
    }
}

impl From<BlobError> for StoreError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Full => Self::Full,
            BlobError::TooLarge { limit } => Self::TooLarge { limit },
            BlobError::Interrupted(source) => Self::Interrupted(source),
            BlobError::Taken { ref key, .. } => Self::corrupt(key.clone(), error),
            BlobError::Down(source) => Self::Down(source),
        }
    }
}
