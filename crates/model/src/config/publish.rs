//! Settings of `publish-artifacts`: what is kept of a workspace, and which files of it are reports of
//! tests.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;

/// Settings of `publish-artifacts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PublishArtifacts {
    /// Patterns of files: `*`, `?`, `[…]`, `{a,b}`, and `**` for any directories. May be left out
    /// where there are patterns of reports.
    #[serde(default)]
    pub artifacts: Vec<String>,
    /// Whether a pattern may match nothing.
    #[serde(default)]
    pub optional: bool,
    /// Patterns of test reports in the XML of JUnit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub junit: Vec<String>,
    /// Patterns of test reports in TAP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tap: Vec<String>,
    /// Patterns of test reports in the JSON lines of Rust's libtest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libtest: Vec<String>,
    /// What follows when a report tells of tests that failed. Left out: `fail`.
    #[serde(default = "fail", skip_serializing_if = "is_fail")]
    #[schemars(extend("default" = "fail"))]
    pub failed_tests: Consequence,
    /// What follows when a report cannot be read, or breaks off. Left out: `ignore`; it is told of in
    /// the console, and what could be read counts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub broken_reports: Consequence,
}

/// What follows from something that is not as it should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// The task fails.
    Fail,
    /// The task goes on.
    #[default]
    Ignore,
}

fn fail() -> Consequence {
    Consequence::Fail
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_fail(consequence: &Consequence) -> bool {
    *consequence == Consequence::Fail
}

/// The form of a test report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// The XML that JUnit's tasks began to write.
    Junit,
    /// The Test Anything Protocol.
    Tap,
    /// The JSON lines of Rust's libtest.
    Libtest,
}

impl fmt::Display for ReportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Junit => "junit",
            Self::Tap => "tap",
            Self::Libtest => "libtest",
        })
    }
}

impl PublishArtifacts {
    /// The patterns of test reports, by their form, which is the key that they have in the file.
    pub fn reports(&self) -> [(ReportFormat, &[String]); 3] {
        [
            (ReportFormat::Junit, &self.junit),
            (ReportFormat::Tap, &self.tap),
            (ReportFormat::Libtest, &self.libtest),
        ]
    }

    /// Whether any files are to be read as test reports.
    pub fn has_reports(&self) -> bool {
        self.reports()
            .iter()
            .any(|(_, patterns)| !patterns.is_empty())
    }

    /// The same with other patterns in the place of each list of them.
    ///
    /// # Errors
    /// The first of `change`.
    pub(super) fn with_patterns<E>(
        self,
        change: &impl Fn(&[String]) -> Result<Vec<String>, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            artifacts: change(&self.artifacts)?,
            junit: change(&self.junit)?,
            tap: change(&self.tap)?,
            libtest: change(&self.libtest)?,
            ..self
        })
    }
}
