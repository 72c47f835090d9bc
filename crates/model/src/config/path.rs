//! A path inside the workspace.
//!
//! Owns the rule that no setting names a place outside of it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A relative path of plain segments; empty for the workspace itself. Never absolute, no `..`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct WorkspacePath(String);

/// Text that is no path inside the workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {reason}")]
pub struct InvalidPath {
    text: String,
    reason: &'static str,
}

impl WorkspacePath {
    /// With `/` between segments.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkspacePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let refuse = |reason| {
            Err(InvalidPath {
                text: text.chars().take(80).collect(),
                reason,
            })
        };
        if text.starts_with('/') {
            return refuse("is absolute; paths are relative to the workspace");
        }
        if text.len() > 1024 || text.contains('\0') {
            return refuse("is longer than 1024 bytes or holds a NUL");
        }
        let segments: Vec<&str> = text
            .split('/')
            .filter(|segment| !matches!(*segment, "" | "."))
            .collect();
        if segments.contains(&"..") {
            return refuse("leaves the workspace by '..'");
        }
        Ok(Self(segments.join("/")))
    }
}

impl TryFrom<String> for WorkspacePath {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<WorkspacePath> for String {
    fn from(path: WorkspacePath) -> String {
        path.0
    }
}

impl fmt::Display for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
