//! Job files in repositories: what a stored job says of the file that says the rest.
//!
//! Owns where the file is and what it may ask for. A pattern here has `*` for any text and nothing
//! else, so that what it lets through can be seen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scope::{Scope, replace};
use super::{Action, After, GitCheckout, TaskConfig, WorkspacePath, reference_of};
use crate::id::TaskName;
use crate::outcome::Failure;

/// The name of the task that reads the file.
pub const JOB_FILE_TASK: &str = "job-file";
/// The artifact of that task: the file, with what it includes.
pub const JOB_FILE_ARTIFACT: &str = "job.json";
/// Seconds in which the file must be read; most of them go into fetching.
const TIMEOUT: u64 = 60 * 60;

/// A file of a repository that says what a job does, and what it may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JobFile {
    /// Address or path of the repository, without credentials.
    pub repository: String,
    /// Branch, tag, full ref or commit id. Left out: the commit of the event that started the build,
    /// or else its ref, if it is of this repository, or else the default branch.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Where in the repository the file is.
    #[serde(default = "dot_distci")]
    pub path: WorkspacePath,
    /// Patterns of the labels that its tasks may ask for. Left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Patterns of the locks that its tasks may hold. Left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
    /// Patterns of the jobs that it may trigger. Left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstream: Vec<String>,
}

fn dot_distci() -> WorkspacePath {
    let path = ".distci.json".parse();
    path.unwrap_or_default()
}

impl JobFile {
    /// The task that reads the file.
    pub(super) fn task(&self) -> Option<TaskConfig> {
        Some(TaskConfig {
            name: JOB_FILE_TASK.parse::<TaskName>().ok()?,
            needs: Vec::new(),
            when: After::OnSuccess.into(),
            matrix: None,
            retry: None,
            allow_failure: false,
            env: std::collections::BTreeMap::new(),
            timeout: Some(TIMEOUT),
            locks: Vec::new(),
            priority: None,
            isolation: None,
            cache: Vec::new(),
            action: Action::JobFile(self.clone()),
        })
    }

    pub(super) fn resolve(&self, scope: &Scope<'_>) -> Result<Self, Failure> {
        let repository = scope.fill(&self.repository)?;
        let reference = reference_of(
            &repository,
            self.reference.as_deref(),
            &["sha", "ref"],
            scope,
        )?;
        Ok(Self {
            repository,
            reference: Some(reference),
            ..self.clone()
        })
    }

    /// The ref to read from, once values are filled in.
    pub fn wanted(&self) -> &str {
        let reference = self.reference.as_deref();
        reference.unwrap_or(GitCheckout::DEFAULT_REF)
    }
}

/// Whether one of the patterns lets a text through, whatever the references in it will stand for.
pub(super) fn allows(patterns: &[String], text: &str) -> bool {
    // What is not known yet is only let through by a `*`: no pattern holds a NUL.
    let unknown: Result<String, ()> = replace(text, |_| Ok("\0".to_owned()));
    let text = unknown.unwrap_or_default();
    patterns.iter().any(|pattern| fits(pattern, &text))
}

fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The earliest place for each part leaves the most for the others.
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_nothing_else_is_special() {
        for (pattern, text, expected) in [
            ("linux", "linux", true),
            ("linux", "linux2", false),
            ("linux*", "linux2", true),
            ("linux*", "linux", true),
            ("*64", "arm64", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*b", "ab", true),
            ("ab*b", "ab", false),
            ("*", "", true),
            ("**", "x/y", true),
            ("a?", "ab", false),
            ("[ab]", "a", false),
            ("", "", true),
            ("deploy-*", "deploy-${target}", true),
            ("deploy-*", "${target}", false),
            ("*target*", "${target}", false),
            ("*", "${target}", true),
        ] {
            let patterns = [pattern.to_owned()];
            assert_eq!(allows(&patterns, text), expected, "{pattern} {text}");
        }
        assert!(!allows(&[], "linux"));
    }

    proptest::proptest! {
        /// Whatever a reference will stand for, what was let through fits.
        #[test]
        fn what_is_let_through_fits_with_any_value(
            pattern in "[ab*]{0,6}", before in "[ab]{0,3}", after in "[ab]{0,3}", value in "[ab]{0,4}",
        ) {
            let (written, filled) = (format!("{before}${{x}}{after}"), format!("{before}{value}{after}"));
            let patterns = [pattern.clone()];
            proptest::prop_assert!(!allows(&patterns, &written) || fits(&pattern, &filled));
        }
    }
}
