//! The corpus of small repositories, each broken in a named way (`tests/repos`).

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use distci_model::wire::{BuildView, TaskState};

use crate::rig::{builds, distci, processes_with, project, run};

macro_rules! cases {
    ($($test:ident: $case:literal,)*) => {
        $(
            #[test]
            fn $test() -> Result<()> {
                check($case)
            }
        )*

        #[test]
        fn every_case_is_run() -> Result<()> {
            let mut there = Vec::new();
            for entry in std::fs::read_dir(project().join("tests/repos"))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    there.push(entry.file_name().into_string().ok().context("odd name")?);
                }
            }
            there.sort();
            let mut run = vec![$($case.to_owned()),*];
            run.sort();
            assert_eq!(there, run);
            Ok(())
        }
    };
}

cases! {
    absent_build: "absent-build",
    artifact_is_link_outside: "artifact-is-link-outside",
    artifact_missing: "artifact-missing",
    artifact_optional: "artifact-optional",
    closes_its_output: "closes-its-output",
    daemon_left_behind: "daemon-left-behind",
    environment_is_clean: "environment-is-clean",
    exports: "exports",
    fifty_megabytes: "fifty-megabytes",
    invalid_utf8: "invalid-utf8",
    killed_by_signal: "killed-by-signal",
    kills_its_supervisor: "kills-its-supervisor",
    log_after_failure: "log-after-failure",
    many_processes: "many-processes",
    may_fail: "may-fail",
    missing_ref: "missing-ref",
    missing_repository: "missing-repository",
    modes_kept: "modes-kept",
    no_such_directory: "no-such-directory",
    no_such_shell: "no-such-shell",
    odd_names: "odd-names",
    other_shells: "other-shells",
    parallel_conflict: "parallel-conflict",
    parallel_merge: "parallel-merge",
    reads_input: "reads-input",
    refs_of_all_kinds: "refs-of-all-kinds",
    repository_has_link_outside: "repository-has-link-outside",
    script_fails: "script-fails",
    script_hangs: "script-hangs",
    script_ignores_term: "script-ignores-term",
    submodule: "submodule",
}

fn check(name: &str) -> Result<()> {
    let case = project().join("tests/repos").join(name);
    let scratch = tempfile::tempdir()?;
    // A link on the way would make two spellings of one path.
    let place = scratch.path().canonicalize()?;
    let repository = place.join("repo");
    make_repository(&case, &repository)?;
    let mut command = distci();
    command.arg("exec").arg(case.join("job.json")).arg("--json");
    command
        .arg("-p")
        .arg(format!("repository={}", repository.display()));
    let (code, stdout, stderr) = run(command.env("TMPDIR", &place))?;
    let mut verdicts = format!("exit {code}\n");
    for build in builds(&stdout).with_context(|| stderr.clone())? {
        write_verdicts(&build, &mut verdicts)?;
    }
    let verdicts = verdicts.replace(&*repository.to_string_lossy(), "$REPO");
    compare(&case.join("golden"), &verdicts).with_context(|| format!("console:\n{stderr}"))?;
    if let Ok(lines) = std::fs::read_to_string(case.join("console")) {
        check_console(&lines, &stderr)?;
    }
    let left = processes_with(&place.to_string_lossy())?;
    ensure!(left.is_empty(), "processes outlived the build: {left:?}");
    Ok(())
}

fn make_repository(case: &Path, repository: &Path) -> Result<()> {
    let script = r#"
        set -e
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
        export GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z
        cp -R "$1/repo" "$2"
        cd "$2"
        git init -q -b main
        if [ -f "$1/make.sh" ]; then sh -e "$1/make.sh"; fi
        git add -A
        git -c user.name=t -c user.email=t@example.org commit -q --allow-empty -m case
    "#;
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(case.canonicalize()?)
        .arg(repository);
    let (code, _, stderr) = run(&mut command)?;
    ensure!(code == 0, "the repository could not be made: {stderr}");
    Ok(())
}

fn write_verdicts(build: &BuildView, text: &mut String) -> Result<()> {
    let outcome = build.outcome.as_ref().context("the build has no outcome")?;
    writeln!(text, "{}: {outcome}", build.build)?;
    for task in &build.tasks {
        match &task.state {
            TaskState::Skipped { why } => writeln!(text, "  {}: skipped: {why}", task.name)?,
            TaskState::Finished { run } => {
                let result = &run.result;
                write!(text, "  {}: {}", task.name, result.outcome)?;
                if result.artifacts > 0 {
                    write!(text, ", {} artifacts", result.artifacts)?;
                }
                for (name, value) in &result.outputs {
                    write!(text, ", {name}={value}")?;
                }
                writeln!(text)?;
            }
            other => writeln!(text, "  {}: {other:?}", task.name)?,
        }
    }
    Ok(())
}

fn compare(golden: &Path, found: &str) -> Result<()> {
    if std::env::var_os("DISTCI_GOLDEN").is_some_and(|value| value == "write") {
        return Ok(std::fs::write(golden, found)?);
    }
    let expected = std::fs::read_to_string(golden).context("the case has no golden file")?;
    ensure!(expected == found, "expected:\n{expected}\nfound:\n{found}");
    Ok(())
}

/// Every line of `wanted` must be part of a line of the console, in this order.
fn check_console(wanted: &str, console: &str) -> Result<()> {
    let mut lines = console.lines();
    for part in wanted.lines() {
        ensure!(
            lines.any(|line| line.contains(part)),
            "no {part:?} (in order) in:\n{console}"
        );
    }
    Ok(())
}
