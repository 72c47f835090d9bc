//! Why the work on a task ended before it was done, and whose doing it was.
//!
//! Owns the translation of every error of this crate into the closed lists of the model: theirs is
//! a failure, ours is a fault, and an interruption is nobody's.

use std::io;

use distci_client::ClientError;
use distci_model::outcome::{Failure, Fault};

use crate::interrupt::Interrupt;
use crate::workspace::layer::LayerError;
use crate::workspace::restore::RestoreError;
use crate::workspace::tree::TreeError;

/// Why the work on a task ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The user can mend it.
    #[error("{0}")]
    Failure(Failure),
    /// An operator can mend it, or time.
    #[error("{0}")]
    Fault(Fault),
    /// Somebody wants it to end.
    #[error("{0}")]
    Interrupted(Interrupt),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Interrupt> for Trouble {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match error {
            // What is written under a claim is refused only when the claim is over.
            ClientError::Conflict(_) => Self::Interrupted(Interrupt::Lost),
            ClientError::Local(error) => Self::local("request", &error),
            ClientError::Unreachable { .. } | ClientError::StoreDown { .. } => {
                Self::Fault(Fault::StoreDown {
                    detail: error.to_string(),
                })
            }
            ClientError::NotFound(_)
            | ClientError::Draining(_)
            | ClientError::Unauthorized
            | ClientError::NoToken { .. }
            | ClientError::Refused(_)
            | ClientError::ConsoleAt { .. }
            | ClientError::Strange { .. }
            | ClientError::Address { .. } => Self::worker(error.to_string()),
        }
    }
}

impl From<TreeError> for Trouble {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Escapes(path) => Self::Failure(Failure::EscapesWorkspace {
                path: path.to_string(),
            }),
            TreeError::Io { path, source } => Self::local(&format!("workspace: {path}"), &source),
            TreeError::Layer(source) => Self::local("workspace", &source),
        }
    }
}

impl From<RestoreError> for Trouble {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Conflict(path) => Self::Failure(Failure::WorkspaceConflict {
                path: path.to_string(),
            }),
            RestoreError::Tree(error) => error.into(),
            RestoreError::Layer(LayerError::Io(source)) => Self::local("layer", &source),
            RestoreError::Layer(error @ LayerError::Damaged(_)) => Self::worker(error.to_string()),
        }
    }
}

impl Trouble {
    /// An operation of ours on this machine did not work.
    pub(crate) fn local(what: &str, error: &io::Error) -> Self {
        let detail = format!("{what}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Fault(Fault::DiskFull { detail })
            }
            // Ours are short: a task has made longer ones.
            io::ErrorKind::InvalidFilename => Self::Failure(Failure::LimitExceeded { detail }),
            _ => Self::worker(detail),
        }
    }

    /// Something of ours did not work.
    pub(crate) fn worker(detail: String) -> Self {
        Self::Fault(Fault::Worker { detail })
    }
}

/// For `map_err`: what was being done when the machine said no.
pub(crate) fn doing(what: &'static str) -> impl FnOnce(io::Error) -> Trouble {
    move |error| Trouble::local(what, &error)
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Trouble>
where
    T: Send + 'static,
    E: Into<Trouble> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => Err(Trouble::worker(error.to_string())),
    }
}
