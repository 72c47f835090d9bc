//! The job files of the manual: those that are marked run, and all others can be read.

use anyhow::{Context, Result, ensure};
use distci_model::config::JobConfig;

use crate::rig::{distci, project, run};

/// Whole job files in a document of the manual, and whether each is marked to be run.
fn job_files(document: &str) -> Result<Vec<(String, bool)>> {
    let text = std::fs::read_to_string(project().join("docs").join(document))?;
    let mut files = Vec::new();
    let (mut marked, mut faulty) = (false, false);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match line {
            "<!-- runs -->" => marked = true,
            // The one that shows how errors look holds a misspelt word.
            "<!-- # spelling:off -->" => faulty = true,
            "```json" | "```jsonc" => {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                let file = block.join("\n");
                if file.contains("\"job_id\"") && !std::mem::take(&mut faulty) {
                    files.push((file, std::mem::take(&mut marked)));
                }
            }
            _ => {}
        }
    }
    Ok(files)
}

#[test]
fn what_is_marked_runs_and_succeeds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut ran = 0;
    for (text, marked) in job_files("jobs.md")? {
        if !marked {
            continue;
        }
        let file = folder.path().join("job.json");
        std::fs::write(&file, &text)?;
        let (code, stdout, stderr) = run(distci().arg("exec").arg(&file))?;
        ensure!(code == 0, "exit code {code} of {text}\n{stdout}{stderr}");
        ran += 1;
    }
    ensure!(ran >= 5, "{ran} examples are marked");
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
        for (text, _) in job_files(document)? {
            let problems = JobConfig::parse(&text).err().unwrap_or_default();
            let first = problems.first().map(ToString::to_string);
            ensure!(
                problems.is_empty(),
                "{document}: {}\n{text}",
                first.context("why")?
            );
            read += 1;
        }
    }
    ensure!(read >= 8, "{read} examples are there");
    Ok(())
}
