//! Writing a job's configuration: the text, and what is wrong with it beside the place.

use askama::Template;
use distci_model::config::ConfigProblem;
use distci_model::id::JobId;

use crate::assets::Asset;
use crate::frame::Frame;

/// Longest part of a line that is shown with a problem.
const EXCERPT: usize = 120;

/// The editor of a job file.
#[derive(Debug, Template)]
#[template(path = "edit.html")]
pub struct Edit {
    /// What surrounds it.
    pub frame: Frame,
    /// Whose configuration it is; none for a new job.
    pub job: Option<JobId>,
    /// The revision that it is to take the place of; 0 for a new job.
    pub revision: u32,
    /// The earlier revision that the text is of, if it is to be restored.
    pub restored: Option<u32>,
    /// The text.
    pub text: String,
    /// What is wrong with it, in the order of the text.
    pub problems: Vec<ConfigProblem>,
    /// Why it was refused, if it was for something else.
    pub refused: Option<String>,
}

/// A problem with the line that it is in.
struct Shown<'a> {
    problem: &'a ConfigProblem,
    line: String,
}

impl Edit {
    fn address(&self) -> String {
        match &self.job {
            Some(job) => format!("/jobs/{job}/edit"),
            None => "/new".to_owned(),
        }
    }

    fn back(&self) -> String {
        match &self.job {
            Some(job) => format!("/jobs/{job}"),
            None => "/".to_owned(),
        }
    }

    fn shown(&self) -> Vec<Shown<'_>> {
        let line = |problem: &ConfigProblem| {
            let line = self.text.lines().nth(problem.line.saturating_sub(1));
            let line = line.unwrap_or_default().trim();
            line.chars().take(EXCERPT).collect()
        };
        let problems = self.problems.iter();
        problems
            .map(|problem| Shown {
                problem,
                line: line(problem),
            })
            .collect()
    }
}
