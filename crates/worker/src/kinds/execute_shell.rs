//! The kind `execute-shell`: running a script.
//!
//! Owns the script's environment: what the order says, what only this machine knows, and nothing
//! that the worker itself was started with. What the script wants to tell, it writes to files.

mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use distci_isolation::{Command, Place};
use distci_model::config::{ExecuteShell, is_free_variable};
use distci_model::outcome::{Failure, Outcome, TaskResult};
use distci_model::wire::MAX_SUMMARY;
use nix::fcntl::OFlag;

use super::{Assignment, Perform};
use crate::cell::{Ended, Output, Ran};
use crate::trouble::{Trouble, doing};
use values::Values;

/// Where programs are, unless the job says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes that are read of a file of values. What exceeds the limit of values is dropped with a
/// word; this only keeps an absurd file out of memory.
const MOST_VALUES: u64 = 1024 * 1024;
/// The files between worker and script, and the variables that name them.
const FILES: [(&str, &str); 3] = [
    ("DISTCI_ENV", "env"),
    ("DISTCI_OUTPUT", "output"),
    ("DISTCI_SUMMARY", "summary"),
];

#[async_trait]
impl Perform for ExecuteShell {
    async fn perform(&self, assignment: &Assignment<'_>) -> Result<TaskResult, Trouble> {
        let directory = working_directory(self, assignment)?;
        let script = assignment.room.file("script");
        tokio::fs::write(&script, &self.script)
            .await
            .map_err(doing("script"))?;
        for (_, file) in FILES {
            tokio::fs::write(assignment.room.file(file), "")
                .await
                .map_err(doing("script"))?;
        }
        let script = assignment.cell.path(Place::Files).join("script");
        let argv = command_line(&self.shell, &script)?;
        let command = Command {
            argv,
            directory,
            env: environment(assignment),
        };
        let mut output = Output::shown(assignment.console, 0);
        let ran = assignment
            .cell
            .run(&command, &mut output, &assignment.limits)
            .await?;
        let outcome = outcome(ran, assignment).await?;
        let mut result = TaskResult::of(outcome);
        take_values(assignment, &mut result).await;
        take_summary(assignment).await?;
        Ok(result)
    }
}

fn working_directory(
    shell: &ExecuteShell,
    assignment: &Assignment<'_>,
) -> Result<PathBuf, Failure> {
    let name = shell.working_directory.as_str();
    if assignment.room.workspace().join(name).is_dir() {
        Ok(assignment.cell.path(Place::Workspace).join(name))
    } else {
        Err(Failure::NotStarted {
            detail: format!("the workspace has no directory {name:?}"),
        })
    }
}

/// `sh` and `bash` stop at the first error; whoever writes options or another shell wants those.
fn command_line(shell: &str, script: &Path) -> Result<Vec<OsString>, Failure> {
    let mut argv: Vec<OsString> = shell.split_whitespace().map(OsString::from).collect();
    if argv.is_empty() {
        return Err(Failure::NotStarted {
            detail: "no shell is named".to_owned(),
        });
    }
    if matches!(shell.trim(), "sh" | "bash") {
        argv.push("-e".into());
    }
    argv.push(script.into());
    Ok(argv)
}

fn environment(assignment: &Assignment<'_>) -> Vec<(OsString, OsString)> {
    let mut env: BTreeMap<OsString, OsString> = defaults(assignment);
    let image = assignment.cell.env().iter();
    env.extend(image.map(|(name, value)| (name.into(), value.into())));
    let ordered = assignment.order.env.iter();
    env.extend(ordered.map(|(name, value)| (name.into(), value.into())));
    env.extend(facts(assignment));
    env.into_iter().collect()
}

/// What the job may change.
fn defaults(assignment: &Assignment<'_>) -> BTreeMap<OsString, OsString> {
    let mut env = BTreeMap::from([
        ("PATH".into(), PATH.into()),
        (
            "TMPDIR".into(),
            assignment.cell.path(Place::Temporary).into(),
        ),
    ]);
    let account = assignment.cell.account();
    env.insert("HOME".into(), account.home.into());
    env.insert("SHELL".into(), account.shell.into());
    env.insert("USER".into(), account.name.clone().into());
    env.insert("LOGNAME".into(), account.name.into());
    env
}

/// What is so, whatever the job says.
fn facts(assignment: &Assignment<'_>) -> BTreeMap<OsString, OsString> {
    let labels: Vec<String> = assignment
        .worker
        .settings
        .labels
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut env = BTreeMap::from([
        (
            "WORKSPACE".into(),
            assignment.cell.path(Place::Workspace).into(),
        ),
        (
            "DISTCI_ATTEMPT".into(),
            assignment.held.attempt.to_string().into(),
        ),
        ("DISTCI_LABELS".into(), labels.join(",").into()),
    ]);
    let files = assignment.cell.path(Place::Files);
    for (variable, file) in FILES {
        env.insert(variable.into(), files.join(file).into());
    }
    if let Some(frontend) = assignment.worker.patient.frontends().first() {
        let build = &assignment.order.build;
        let page = format!(
            "{frontend}/api/v1/jobs/{}/builds/{}",
            build.job, build.number
        );
        env.insert("DISTCI_API_URL".into(), frontend.into());
        env.insert("BUILD_URL".into(), page.into());
    }
    env
}

async fn outcome(ran: Ran, assignment: &Assignment<'_>) -> Result<Outcome, Trouble> {
    let excess = ran.excess(&assignment.order.isolation);
    let reason = match ran.ended {
        Ended::Exit(0) => {
            if ran.excess.memory {
                let what = "something of it was killed for want of memory";
                assignment.console.say(what).await;
            }
            return Ok(Outcome::Success);
        }
        Ended::Interrupted(interrupt) => return Err(interrupt.into()),
        Ended::Exit(exit) => Failure::Exit { exit },
        Ended::Signal(signal) => Failure::Signal { signal },
        Ended::NotStarted(detail) => Failure::NotStarted { detail },
        Ended::TimedOut => assignment.timed_out(),
    };
    if let Some(excess) = excess {
        // How it ended is told too: it may say more of where.
        assignment.console.say(&reason.to_string()).await;
        return Ok(Outcome::Failure { reason: excess });
    }
    Ok(Outcome::Failure { reason })
}

/// Takes over what the script wrote for later tasks and for people; says what it cannot take.
async fn take_values(assignment: &Assignment<'_>, result: &mut TaskResult) {
    let mut room = TaskResult::MAX_VALUES;
    let exports = read(&assignment.room.file("env"), MOST_VALUES);
    let exports = Values::parse(&exports, is_free_variable, &mut room);
    let outputs = read(&assignment.room.file("output"), MOST_VALUES);
    let outputs = Values::parse(&outputs, |_| true, &mut room);
    for (file, refused) in [
        ("DISTCI_ENV", &exports.refused),
        ("DISTCI_OUTPUT", &outputs.refused),
    ] {
        for why in refused {
            assignment.console.say(&format!("{file}: {why}")).await;
        }
    }
    result.exports = exports.taken;
    result.outputs = outputs.taken;
}

async fn take_summary(assignment: &Assignment<'_>) -> Result<(), Trouble> {
    let mut summary = read(&assignment.room.file("summary"), MAX_SUMMARY as u64 + 1);
    if summary.is_empty() {
        return Ok(());
    }
    if summary.len() > MAX_SUMMARY {
        summary.truncate(MAX_SUMMARY);
        let what = &format!("DISTCI_SUMMARY: only the first {MAX_SUMMARY} bytes are kept");
        assignment.console.say(what).await;
    }
    assignment
        .limits
        .interrupts
        .unless(async {
            Ok(assignment
                .worker
                .patient
                .put_summary(assignment.held, summary.into())
                .await?)
        })
        .await
}

/// What the script left in a file. It may have left anything in its place: a link, a pipe, nothing.
fn read(path: &Path, most: u64) -> Vec<u8> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let mut content = Vec::new();
    match opened.and_then(|file| {
        let is_file = file.metadata()?.is_file();
        if is_file {
            file.take(most).read_to_end(&mut content)
        } else {
            Ok(0)
        }
    }) {
        Ok(_) => content,
        Err(error) => {
            tracing::debug!("{} cannot be read: {error}", path.display());
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_sh_and_bash_are_told_to_stop_at_errors() {
        let line = |shell: &str| command_line(shell, Path::new("/s")).unwrap();
        assert_eq!(line("sh"), ["sh", "-e", "/s"]);
        assert_eq!(line("bash"), ["bash", "-e", "/s"]);
        assert_eq!(line("bash -u"), ["bash", "-u", "/s"]);
        assert_eq!(line("python3"), ["python3", "/s"]);
        assert!(command_line("  ", Path::new("/s")).is_err());
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert_eq!(read(&link, 100), b"");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&pipe, 100), b"");
        assert_eq!(read(folder.path(), 100), b"");
    }
}
