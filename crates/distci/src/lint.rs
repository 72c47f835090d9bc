//! `distci lint FILE…`: what is wrong with job files, without asking anybody.

use anyhow::Result;
use distci_model::config::ConfigProblem;
use serde::Serialize;

use crate::cli::Lint;
use crate::diagnosis::{JobFile, count};
use crate::exit::Exit;
use crate::out::Out;

/// A file and what is wrong with it.
#[derive(Debug, Serialize)]
struct Linted {
    file: String,
    problems: Vec<ConfigProblem>,
}

pub(crate) fn run(arguments: &Lint, out: &mut Out) -> Result<Exit> {
    let reader = arguments.reader.as_deref().map(JobFile::read).transpose()?;
    let reader = reader.as_ref().map(|file| file.config(out)).transpose()?;
    let mut all = Vec::new();
    for path in &arguments.files {
        let file = JobFile::read_for(path, reader)?;
        let problems = file.parsed.as_ref().err().cloned().unwrap_or_default();
        if !arguments.json {
            show(&file, &problems, out)?;
        }
        all.push(Linted {
            file: path.display().to_string(),
            problems,
        });
    }
    if arguments.json {
        out.json(&all)?;
    }
    let clean = all.iter().all(|linted| linted.problems.is_empty());
    Ok(if clean { Exit::Ok } else { Exit::Failed })
}

/// What a linter says is its data.
fn show(file: &JobFile, problems: &[ConfigProblem], out: &mut Out) -> Result<()> {
    if problems.is_empty() {
        out.say(format_args!("{} is fine", file.path.display()))?;
        return Ok(());
    }
    let paint = out.data_paint();
    out.line(file.diagnosis(problems, paint))?;
    out.say(format_args!("{} {}", file.path.display(), count(problems)))?;
    Ok(())
}
