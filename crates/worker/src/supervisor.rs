//! The process between a worker and a script: the same binary, executed again.
//!
//! Owns every process that the script starts, directly or not: it is their subreaper, leads a
//! session of its own, and is gone only when they are. It holds one end of a pipe from the worker,
//! the lifeline; the worker's death closes it, however the worker dies. Never touches the network
//! or the workspace, and never outlives its last descendant.
//!
//! Standard input is the lifeline: `t` asks every descendant to end, `k` or its end kills them.
//! Standard output is the console; the script gets it as its output and as its errors, so their
//! order is kept. Standard error takes one line of JSON at the end: how it went.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::processes::{Round, signal_descendants};

/// Asks every descendant to end.
pub(crate) const TERMINATE: u8 = b't';
/// Kills every descendant.
pub(crate) const KILL: u8 = b'k';

/// How the script ended, as the supervisor tells the worker: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// With this exit code.
    Exit(u8),
    /// By this signal.
    Signal(u8),
    /// It never began.
    NotStarted(String),
}

/// Runs the command after `--` on this process's command line and reports how it ended.
///
/// To be called first thing in `main`: it closes every file but the standard three, and it stays a
/// small process only as long as nothing else has been set up.
pub fn main() -> ExitCode {
    let command: Vec<OsString> = std::env::args_os()
        .skip_while(|argument| argument != "--")
        .skip(1)
        .collect();
    let report = match supervise(&command) {
        Ok(report) => report,
        Err(error) => Report::NotStarted(format!("the supervisor: {error}")),
    };
    match tell(&report) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens any more: the worker is gone, and so is all that we were to guard.
        Err(_) => ExitCode::FAILURE,
    }
}

fn tell(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    io::stderr().write_all(&line)
}

fn supervise(command: &[OsString]) -> io::Result<Report> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(Report::NotStarted("no command after --".to_owned()));
    };
    close_strangers();
    // What the worker was started with is nothing that a script should notice.
    SigSet::empty().thread_set_mask()?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    nix::sys::prctl::set_child_subreaper(true)?;
    match nix::unistd::setsid() {
        // Already the leader of a group: somebody started us by hand, which is as good.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    let output = || io::stdout().as_fd().try_clone_to_owned().map(Stdio::from);
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output()?)
        .stderr(output()?)
        // A group of its own can be killed as a whole without killing the supervisor.
        .process_group(0)
        .spawn();
    let mut script = match started {
        Ok(script) => script,
        Err(error) => return Ok(not_started(program, &error)),
    };
    deafen();
    // Begun only now, so that a signal sent early waits in the pipe for somebody to receive it.
    thread::spawn(obey);
    let status = wait_for(&mut script)?;
    end_descendants();
    Ok(report_of(status))
}

/// Closes whatever the worker was started with and never knew of, so that no script gets it.
fn close_strangers() {
    let names = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let open = names.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for handle in open.filter(|handle| *handle > 2).collect::<Vec<_>>() {
        // The directory just read is among them, and closed already.
        nix::unistd::close(handle).ok();
    }
}

/// Whoever tells all processes of a service to end means the worker, which tells us. Done after the
/// script has begun, because it would inherit this.
fn deafen() {
    use Signal::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let deaf: SigSet = [SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]
        .into_iter()
        .collect();
    // Refused, we are merely easier to kill.
    deaf.thread_block().ok();
}

fn not_started(program: &OsString, error: &io::Error) -> Report {
    let program = program.display();
    Report::NotStarted(match error.kind() {
        io::ErrorKind::NotFound => format!("{program}: no such program"),
        _ => format!("{program}: {error}"),
    })
}

/// Does what the lifeline says, until there is nothing left to do it to.
fn obey() {
    let mut lifeline = io::stdin().lock();
    let mut order = [0];
    loop {
        match lifeline.read(&mut order) {
            Ok(1) if order[0] == TERMINATE => {
                signal_descendants(Signal::SIGTERM);
                // A stopped process notices only once it goes on.
                signal_descendants(Signal::SIGCONT);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    // The main thread ends this process as soon as nobody is left. Until then, whatever a fork
    // brought out of one round falls in the next.
    loop {
        signal_descendants(Signal::SIGKILL);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reaps whatever dies until the script has.
fn wait_for(script: &mut Child) -> io::Result<ExitStatus> {
    loop {
        // Look before reaping: only std can tell every signal by which the script may have ended.
        let died = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        match died.map(|status| status.pid()) {
            Ok(Some(pid)) if !is(script, pid) => reap(pid),
            Ok(_) => return script.wait(),
            Err(Errno::EINTR) => {}
            // nix has no name for real-time signals, so it cannot say whom this one ended.
            Err(Errno::EINVAL) => match script.try_wait()? {
                Some(status) => return Ok(status),
                None => reap(Pid::from_raw(-1)),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

fn is(script: &Child, pid: Pid) -> bool {
    i32::try_from(script.id()) == Ok(pid.as_raw())
}

/// Takes note of a death that concerns nobody.
fn reap(pid: Pid) {
    // Gone already is as good.
    waitpid(pid, Some(WaitPidFlag::WNOHANG)).ok();
}

/// Kills and reaps until no descendant is left, or only such as we have no power over.
fn end_descendants() {
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                // No children means no descendants: their orphans would be our children. Most
                // scripts leave nobody, and then the processes of the machine are not even read.
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) | Err(_) => {}
            }
        }
        if signal_descendants(Signal::SIGKILL) == Round::Forbidden {
            return;
        }
        // Death takes the kernel a moment.
        thread::sleep(Duration::from_millis(1));
    }
}

fn report_of(status: ExitStatus) -> Report {
    let small = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(code), _) => Report::Exit(small(code)),
        (None, signal) => Report::Signal(small(signal.unwrap_or_default())),
    }
}
