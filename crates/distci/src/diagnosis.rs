//! What is wrong with a job file, shown on its own lines.
//!
//! Owns the reading of job files by every subcommand, so that each shows the same marks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use distci_model::config::{ConfigProblem, JobConfig};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};

use crate::exit::Ended;
use crate::out::{Out, Paint};

/// A job file that was read.
#[derive(Debug)]
pub(crate) struct JobFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
    /// What it says, or what is wrong with it.
    pub(crate) parsed: Result<JobConfig, Vec<ConfigProblem>>,
}

impl JobFile {
    /// Reads a job file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = if path == Path::new("-") {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(path)
        };
        let text = text.with_context(|| format!("job file {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            parsed: JobConfig::parse(&text),
            text,
        })
    }

    /// The configuration. What is wrong with it is shown before it is an error.
    pub(crate) fn config(&self, out: &mut Out) -> Result<&JobConfig> {
        match &self.parsed {
            Ok(config) => Ok(config),
            Err(problems) => {
                let paint = out.talk_paint();
                out.say(self.diagnosis(problems, paint))?;
                Err(Ended::failed(format!(
                    "{} {}",
                    self.path.display(),
                    count(problems)
                )))
            }
        }
    }

    /// Each problem with the line that it is about.
    pub(crate) fn diagnosis(&self, problems: &[ConfigProblem], paint: Paint) -> String {
        let theme = if paint.is_on() {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false);
        let mut shown = String::new();
        for problem in problems {
            if !shown.is_empty() {
                shown.push('\n');
            }
            let report = self.report(problem);
            if handler.render_report(&mut shown, report.as_ref()).is_err() {
                // A mark that cannot be drawn is no reason to hide the problem.
                let line = format!("{}:{problem}\n", self.path.display());
                shown.push_str(&line);
            }
        }
        shown.truncate(shown.trim_end().len());
        shown
    }

    fn report(&self, problem: &ConfigProblem) -> miette::Report {
        let title = if problem.path.is_empty() {
            problem.message.clone()
        } else {
            format!("{}: {}", problem.path, problem.message)
        };
        let (start, length) = span(&self.text, problem.line, problem.column);
        let mut diagnostic = MietteDiagnostic::new(title)
            .with_label(LabeledSpan::new_primary_with_span(None, (start, length)));
        if let Some(help) = &problem.help {
            diagnostic = diagnostic.with_help(help);
        }
        let name = self.path.display().to_string();
        miette::Report::new(diagnostic).with_source_code(NamedSource::new(name, self.text.clone()))
    }
}

/// How many problems there are, in words.
pub(crate) fn count(problems: &[ConfigProblem]) -> String {
    match problems.len() {
        1 => "has 1 problem".to_owned(),
        many => format!("has {many} problems"),
    }
}

/// The bytes of the value or word at a line and column, both from 1.
fn span(text: &str, line: usize, column: usize) -> (usize, usize) {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let rest = text.get(before..).unwrap_or_default();
    let within: usize = rest
        .chars()
        .take(column.saturating_sub(1))
        .map(char::len_utf8)
        .sum();
    let start = (before + within).min(text.len());
    (start, word_length(text.get(start..).unwrap_or_default()))
}

/// The bytes of the string, number or word that `text` begins with; at least one, if there is one.
fn word_length(text: &str) -> usize {
    let line = text.lines().next().unwrap_or_default();
    let length = match line.strip_prefix('"') {
        Some(rest) => rest.find('"').map_or(line.len(), |end| end + 2),
        None => line
            .find(|c: char| c.is_whitespace() || ",:[]{}".contains(c))
            .unwrap_or(line.len()),
    };
    let first = line.chars().next().map_or(0, char::len_utf8);
    length.max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_marked_where_it_is() {
        let text = "{\n  \"job_id\": \"hello\",\n  \"taks\": []\n}\n"; // spelling:ignore-line
        let file = JobFile {
            path: "hello.json".into(),
            text: text.to_owned(),
            parsed: JobConfig::parse(text),
        };
        let problems = file.parsed.as_ref().unwrap_err();
        let shown = file.diagnosis(problems, Paint::OFF);
        assert!(shown.contains("hello.json:3:"), "{shown}");
        assert!(shown.contains("\"taks\": []"), "{shown}"); // spelling:ignore-line
        assert!(shown.contains("tasks"), "{shown}");
        assert!(!shown.contains('\x1b'), "{shown}");
    }

    #[test]
    fn a_mark_covers_the_word_and_stays_in_the_text() {
        let text = "ä \"wörd\", 12\n";
        assert_eq!(span(text, 1, 3), (3, 7));
        assert_eq!(span(text, 1, 11), (12, 2));
        assert_eq!(span(text, 9, 9), (text.len(), 0));
        assert_eq!(span("", 1, 1), (0, 0));
    }
}
