//! The job files of the manual: those that are marked run, and all others can be read.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use distci_model::config::{ConfigProblem, Files};

use crate::rig::{distci, project, run};

/// In examples that run, the folder of the example is the repository at this address.
const REPOSITORY: &str = "https://example.org/app.git";

/// A whole job file in a document of the manual.
struct Example {
    text: String,
    /// Whether it is marked to be run.
    runs: bool,
    /// The files that it includes, which are shown before it: their paths and texts.
    beside: Vec<(String, String)>,
}

impl Example {
    /// What is wrong with it.
    fn problems(&self) -> Vec<ConfigProblem> {
        let mut files = Files::of("job.json", &self.text);
        while let Some(wanted) = files.wanted().map(ToOwned::to_owned) {
            let shown = self.beside.iter().find(|(path, _)| *path == wanted);
            let text = shown.map(|(_, text)| text.clone());
            files.add(
                &wanted,
                text.ok_or_else(|| format!("{wanted} is not shown")),
            );
        }
        files.job().err().unwrap_or_default()
    }
}

fn examples(document: &str) -> Result<Vec<Example>> {
    let text = std::fs::read_to_string(project().join("docs").join(document))?;
    let (mut examples, mut beside) = (Vec::new(), Vec::new());
    let (mut runs, mut faulty, mut named) = (false, false, None);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match line {
            "<!-- runs -->" => runs = true,
            // The one that shows how errors look holds a misspelt word.
            "<!-- # spelling:off -->" => faulty = true,
            "```json" | "```jsonc" => {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                let text = block.join("\n");
                if let Some(path) = named.take() {
                    beside.push((path, text));
                } else if text.contains("\"job_id\"") && !std::mem::take(&mut faulty) {
                    examples.push(Example {
                        text,
                        runs: std::mem::take(&mut runs),
                        beside: std::mem::take(&mut beside),
                    });
                }
            }
            _ => {
                let path = line.strip_prefix("<!-- file ");
                let path = path.and_then(|rest| rest.strip_suffix(" -->"));
                named = path.map(ToOwned::to_owned).or(named);
            }
        }
    }
    Ok(examples)
}

#[test]
fn what_is_marked_runs_and_succeeds() -> Result<()> {
    let mut ran = 0;
    for example in examples("jobs.md")? {
        if !example.runs {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("job.json");
        let address = folder.path().display().to_string();
        let placed = |text: &str| text.replace(REPOSITORY, &address);
        std::fs::write(&file, placed(&example.text))?;
        for (path, text) in &example.beside {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().context("no folder")?)?;
            std::fs::write(path, placed(text))?;
        }
        if example.text.contains(REPOSITORY) {
            commit(folder.path())?;
        }
        let (code, stdout, stderr) = run(distci().arg("exec").arg(&file))?;
        let text = &example.text;
        ensure!(code == 0, "exit code {code} of {text}\n{stdout}{stderr}");
        ran += 1;
    }
    ensure!(ran >= 7, "{ran} examples are marked");
    Ok(())
}

/// Makes a repository of a folder.
fn commit(folder: &Path) -> Result<()> {
    let script = "git init -q; git add -A; git -c user.name=a -c user.email=a@b commit -qm a";
    let mut command = Command::new("sh");
    let (code, _, stderr) = run(command.args(["-ec", script]).current_dir(folder))?;
    ensure!(code == 0, "{stderr}");
    Ok(())
}

#[test]
fn what_is_shown_can_be_read() -> Result<()> {
    let mut read = 0;
    for document in [
        "jobs.md",
        "locks.md",
        "schedules.md",
        "webhooks.md",
        "statuses.md",
    ] {
        for example in examples(document)? {
            let problems = example.problems();
            let first = problems.first().map(ToString::to_string);
            ensure!(
                problems.is_empty(),
                "{document}: {}\n{}",
                first.context("why")?,
                example.text
            );
            read += 1;
        }
    }
    ensure!(read >= 8, "{read} examples are there");
    Ok(())
}
