//! What is wrong with a job file, shown on its own lines.
//!
//! Owns the reading of job files by every subcommand, so that each shows the same marks.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use distci_model::config::{ConfigProblem, Files, JobConfig, MAX_BYTES};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};

use crate::exit::Ended;
use crate::out::{Out, Paint};

mod excerpt;
mod fragments;

use excerpt::Excerpt;

/// A job file that was read.
#[derive(Debug)]
pub(crate) struct JobFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The folder that nothing it includes is outside of.
    folder: PathBuf,
    /// The file and what it includes, as they are written.
    files: Files,
    /// The text to store: the file's own, or one that says the same and includes nothing.
    pub(crate) text: String,
    /// What it says, or what is wrong with it.
    pub(crate) parsed: Result<JobConfig, Vec<ConfigProblem>>,
}

impl JobFile {
    /// Reads a job file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::read_for(path, None)
    }

    /// Reads a file that a `reader` reads from a repository, if there is one.
    pub(crate) fn read_for(path: &Path, reader: Option<&JobConfig>) -> Result<Self> {
        let bytes = if path == Path::new("-") {
            read_limited(io::stdin())
        } else {
            File::open(path).and_then(read_limited)
        };
        let bytes = bytes.with_context(|| format!("job file {}", path.display()))?;
        Ok(Self::of(path, bytes, reader))
    }

    fn of(path: &Path, bytes: Vec<u8>, reader: Option<&JobConfig>) -> Self {
        let path = path.to_owned();
        if bytes.len() > MAX_BYTES {
            let problem = problem(1, 1, format!("the file has more than {MAX_BYTES} bytes"));
            return Self::unreadable(path, "", problem);
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::whole(path, text, reader),
            Err(error) => {
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                // Replacement characters stand only behind the valid part.
                let valid = text.get(..error.utf8_error().valid_up_to());
                let (line, column) = end_of(valid.unwrap_or_default());
                let problem = problem(line, column, "the file is not UTF-8".to_owned());
                Self::unreadable(path, &text, problem)
            }
        }
    }

    fn whole(path: PathBuf, text: String, reader: Option<&JobConfig>) -> Self {
        let within = reader.and_then(|reader| reader.job_file.as_ref());
        let (folder, name) = fragments::place(&path, within.map(|file| file.path.as_str()));
        let files = fragments::gather((&folder, &name), &text);
        let job = match reader {
            None => files.job(),
            Some(reader) => files.job_of(reader),
        };
        let (parsed, text) = match job {
            Ok((job, whole)) if files.has_fragments() => (Ok(job), whole),
            Ok((job, _)) => (Ok(job), text),
            Err(problems) => (Err(problems), text),
        };
        Self {
            path,
            folder,
            files,
            text,
            parsed,
        }
    }

    fn unreadable(path: PathBuf, text: &str, problem: ConfigProblem) -> Self {
        Self {
            path,
            folder: PathBuf::new(),
            files: Files::of("", text),
            text: String::new(),
            parsed: Err(vec![problem]),
        }
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
        let place = |problem: &ConfigProblem| {
            let path = match &problem.file {
                Some(fragment) => self.folder.join(fragment),
                None => self.path.clone(),
            };
            (path, self.files.text(problem.file.as_deref()))
        };
        diagnosis(problems, paint, place)
    }
}

/// Each problem with the line that it is about; `place` says in which file it is, and what that says.
pub(crate) fn diagnosis<'a>(
    problems: &[ConfigProblem],
    paint: Paint,
    place: impl Fn(&ConfigProblem) -> (PathBuf, &'a str),
) -> String {
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
        let (path, text) = place(problem);
        let report = report(&path, text, problem);
        if handler.render_report(&mut shown, report.as_ref()).is_err() {
            // A mark that cannot be drawn is no reason to hide the problem.
            let line = format!("{}:{problem}\n", path.display());
            shown.push_str(&line);
        }
    }
    shown.truncate(shown.trim_end().len());
    shown
}

fn report(path: &Path, text: &str, problem: &ConfigProblem) -> miette::Report {
    let title = if problem.path.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.path, problem.message)
    };
    let excerpt = Excerpt::of(text, problem.line, problem.column);
    let (start, length) = excerpt.span;
    let mut diagnostic = MietteDiagnostic::new(title)
        .with_label(LabeledSpan::new_primary_with_span(None, (start, length)));
    if let Some(help) = &problem.help {
        diagnostic = diagnostic.with_help(help);
    }
    let name = path.display().to_string();
    miette::Report::new(diagnostic).with_source_code(NamedSource::new(name, excerpt))
}

/// As much as shows whether it is too much.
fn read_limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn problem(line: usize, column: usize, message: String) -> ConfigProblem {
    ConfigProblem {
        file: None,
        path: String::new(),
        line,
        column,
        message,
        help: None,
    }
}

/// The line and column behind `text`, both from 1.
fn end_of(text: &str) -> (usize, usize) {
    let line = text.matches('\n').count() + 1;
    let last = text.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count() + 1)
}

/// How many problems there are, in words.
pub(crate) fn count(problems: &[ConfigProblem]) -> String {
    match problems.len() {
        1 => "has 1 problem".to_owned(),
        many => format!("has {many} problems"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_marked_where_it_is() {
        let text = "{\n  \"job_id\": \"hello\",\n  \"taks\": []\n}\n"; // spelling:ignore-line
        let file = JobFile::of(Path::new("hello.json"), text.into(), None);
        let problems = file.parsed.as_ref().unwrap_err();
        let shown = file.diagnosis(problems, Paint::OFF);
        assert!(shown.contains("hello.json:3:"), "{shown}");
        assert!(shown.contains("\"taks\": []"), "{shown}"); // spelling:ignore-line
        assert!(shown.contains("tasks"), "{shown}");
        assert!(!shown.contains('\x1b'), "{shown}");
    }

    fn said(bytes: &[u8]) -> (ConfigProblem, String) {
        let file = JobFile::of(Path::new("x.json"), bytes.to_vec(), None);
        let problems = file.parsed.as_ref().unwrap_err();
        (problems[0].clone(), file.diagnosis(problems, Paint::OFF))
    }

    #[test]
    fn what_is_no_text_is_refused_where_it_stops_to_be() {
        let (problem, shown) = said("{\n \"ä".as_bytes().split_last().unwrap().1);
        assert_eq!((problem.line, problem.column), (2, 3));
        assert!(
            shown.contains("x.json:2:3") && shown.contains("not UTF-8"),
            "{shown}"
        );
        let (problem, _) = said(&vec![b' '; MAX_BYTES + 1]);
        assert!(
            problem.message.contains("more than 524288 bytes"),
            "{problem}"
        );
    }

    #[test]
    fn a_mark_before_the_text_is_no_part_of_it() {
        let (problem, shown) = said("\u{feff}{\"job_id\": \"a\", \"tasks\": 3}".as_bytes());
        assert_eq!((problem.line, problem.column), (1, 26));
        assert!(!shown.contains('\u{feff}'), "{shown}");
    }

    #[test]
    fn a_long_line_is_shown_around_the_mark() {
        let text = format!("[\n{}, nope, {}\n]", "1, ".repeat(9999), "2, ".repeat(9999));
        let (problem, shown) = said(text.as_bytes());
        assert!(shown.contains("nope"), "{problem}: {shown}");
        assert!(
            shown.contains(&format!("x.json:2:{}", problem.column)),
            "{shown}"
        );
        assert!(
            shown.lines().all(|line| line.chars().count() < 200),
            "{shown}"
        );
    }
}
