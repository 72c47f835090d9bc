//! Consoles as people look at them: by line, and searched.
//!
//! Owns the words between a frontend and whoever shows a console. Bytes that are no text are shown as
//! U+FFFD, so what must be exact is read by offset instead.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Attempt, BuildRef, TaskName};

/// Some lines of a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinesView {
    /// Whose console it is.
    pub attempt: Attempt,
    /// How many lines it has now, one that is not ended yet among them.
    pub total: u64,
    /// How many bytes.
    pub length: u64,
    /// Whether nothing will be added.
    pub complete: bool,
    /// The lines.
    pub lines: Vec<LineView>,
}

/// A line of a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LineView {
    /// Its number, from 1.
    pub line: u64,
    /// Where it begins.
    pub offset: u64,
    /// Its text, without the line end.
    pub text: String,
    /// How many bytes of a very long line are left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u64,
}

/// Lines of a console in which something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundView {
    /// Whose console it is.
    pub attempt: Attempt,
    /// The lines.
    pub lines: Vec<HitView>,
    /// The line from which on it was not searched, if there is a rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A line in which something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HitView {
    /// Its number, from 1.
    pub line: u64,
    /// Where it begins.
    pub offset: u64,
    /// What stands before the first place that fits,
    pub before: String,
    /// this place itself,
    pub found: String,
    /// and the rest of the line, as far as it is shown.
    pub after: String,
}

/// A line of any console in which something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrepView {
    /// Of which build.
    pub build: BuildRef,
    /// Of which task.
    pub task: TaskName,
    /// Of which attempt.
    pub attempt: Attempt,
    /// The line.
    #[serde(flatten)]
    pub hit: HitView,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
