//! What may be wrong with a cell.

use std::io;

/// Why there is no cell, or none any more. Never the doing of what runs in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine cannot do what was asked; another may.
    #[error("{0}")]
    Unsupported(String),
    /// The image is not there, or is no good.
    #[error("image {image}: {detail}")]
    Image {
        /// Its name.
        image: String,
        /// What is wrong.
        detail: String,
    },
    /// The driver could not do its part.
    #[error("{doing}: {detail}")]
    Driver {
        /// What it was doing.
        doing: &'static str,
        /// What it said.
        detail: String,
    },
    /// The machine could not do its part.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// The error of a driver in the midst of `doing`.
    pub(crate) fn driver(doing: &'static str, detail: &impl ToString) -> Self {
        Self::Driver {
            doing,
            detail: detail.to_string(),
        }
    }
}
