//! What a forge is told.

use distci_model::errand::{Check, CommitState};

/// How a commit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The path of the repository at its host: `acme/app`.
    pub repository: String,
    /// The commit.
    pub sha: String,
    /// What the forge lists it as. The same again takes the place of what was said before.
    pub context: String,
    /// How it stands.
    pub state: CommitState,
    /// The same in words, as short as forges want it.
    pub description: String,
    /// The page that it leads to.
    pub url: Option<String>,
    /// What a check run says beyond that; a status says nothing of it.
    pub check: Option<Check>,
}
