//! The process between a worker and a script: the same binary, executed again.
//!
//! Owns every process that the script starts, directly or not: it is their subreaper, leads a
//! session of its own, and is gone only when they are. It holds one end of a pipe from the worker,
//! the lifeline; the worker's death closes it, however the worker dies. Never touches the network
//! or the workspace, and never outlives its last descendant.
//!
//! Its first argument is its charge, in JSON; what follows is the command. Standard input is the
//! lifeline: `t` asks every descendant to end, `k` or its end kills them. Standard output is the
//! console; the script gets it as its output and as its errors, so their order is kept. Standard
//! error takes one line of JSON at the end: how it went.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use distci_model::isolation::Usage;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cell::Excess;
use crate::group::Group;
use crate::processes::{Round, Whom, is_contained, signal_descendants};
use crate::stage::Stage;
use crate::view::View;

/// Asks every descendant to end.
pub(crate) const TERMINATE: u8 = b't';
/// Kills every descendant.
pub(crate) const KILL: u8 = b'k';

/// The number of the first of [`Charge::files`]; the others follow.
pub(crate) const FIRST_FILE: i32 = 10;

/// What a supervisor has to know beside the command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// The group that the command begins in.
    #[serde(default)]
    pub(crate) group: Option<Group>,
    /// The group of what somebody else makes for the command: not entered, but counted and killed.
    #[serde(default)]
    pub(crate) others: Option<Group>,
    /// Whether the command makes a container, and only those in it are asked to end.
    #[serde(default)]
    pub(crate) container: bool,
    /// What is mounted before, for this process and the command.
    #[serde(default)]
    pub(crate) stage: Option<Stage>,
    /// Files that the command finds open to read and write, from [`FIRST_FILE`] on.
    #[serde(default)]
    pub(crate) files: Vec<PathBuf>,
    /// What the command finds when it begins.
    #[serde(default)]
    pub(crate) view: View,
}

impl Charge {
    /// The group in which that is what matters.
    fn counted(&self) -> Option<&Group> {
        self.others.as_ref().or(self.group.as_ref())
    }
}

/// What the supervisor tells the worker at the end: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// How the command ended.
    pub(crate) end: End,
    /// What it and all that it started took.
    pub(crate) usage: Usage,
    /// The limits of its group that it ran into.
    pub(crate) excess: Excess,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// With this exit code.
    Exit(u8),
    /// By this signal.
    Signal(u8),
    /// It never began.
    NotStarted(String),
    /// It never began, because what it was to find here could not be made.
    NoStage(String),
}

/// Runs the command on this process's command line and reports how it ended.
///
/// To be called first thing in `main`, when the first argument is the word that makes this program a
/// supervisor: it closes every file but the standard three, and it stays a small process only as
/// long as nothing else has been set up.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let charge = arguments.next().unwrap_or_default();
    let command: Vec<OsString> = arguments.collect();
    let report = match serde_json::from_slice(charge.as_encoded_bytes()) {
        Ok(charge) => supervise(&charge, &command),
        Err(error) => Report::of(End::NotStarted(format!("the supervisor's charge: {error}"))),
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

fn supervise(charge: &Charge, command: &[OsString]) -> Report {
    close_strangers();
    let alarm = charge.others.as_ref().map(Group::listen).transpose();
    let end = match alarm.as_ref().map(|_| run(charge, command)) {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => End::NotStarted(format!("the supervisor: {error}")),
        Err(error) => End::NoStage(format!("memory cannot be watched: {error}")),
    };
    let mut report = report(end, charge.counted());
    if let Ok(Some(Some(alarm))) = alarm {
        report.excess.memory |= alarm.rang();
    }
    report
}

/// What there is to say when all are dead and reaped, so that all that they took is known.
pub(crate) fn report(end: End, group: Option<&Group>) -> Report {
    Report {
        end,
        usage: usage(group),
        excess: group.map(Group::excess).unwrap_or_default(),
    }
}

fn run(charge: &Charge, command: &[OsString]) -> io::Result<End> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(End::NotStarted("there is no command".to_owned()));
    };
    // What the worker was started with is nothing that a script should notice.
    SigSet::empty().thread_set_mask()?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    nix::sys::prctl::set_child_subreaper(true)?;
    match nix::unistd::setsid() {
        // Already the leader of a group: somebody started us by hand, which is as good.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    if let Err(error) = set_the_stage(charge) {
        return Ok(End::NoStage(error.to_string()));
    }
    let output = || io::stdout().as_fd().try_clone_to_owned().map(Stdio::from);
    let mut command = Command::new(program);
    command.args(arguments).stdout(output()?).stderr(output()?);
    guard(charge, command, io::stdin())
}

/// Runs `command` and does what `lifeline` says until neither it nor any other descendant of this
/// process is left.
pub(crate) fn guard(
    charge: &Charge,
    mut command: Command,
    lifeline: impl Read + Send + 'static,
) -> io::Result<End> {
    let mut script = match spawn(charge, &mut command)? {
        Ok(script) => script,
        Err(error) => return Ok(not_started(command.get_program(), &error)),
    };
    // It holds the other end of a pipe that somebody may read to its end.
    drop(command);
    deafen();
    let order = charge.clone();
    // Begun only now, so that a signal sent early waits in the pipe for somebody to receive it.
    thread::spawn(move || obey(&order, lifeline));
    let status = wait_for(&mut script)?;
    end_all(charge);
    Ok(end_of(status))
}

/// Makes what the command is to find.
fn set_the_stage(charge: &Charge) -> io::Result<()> {
    for (number, path) in (FIRST_FILE..).zip(&charge.files) {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // Duplicated so, it stays open in the command, which std would not let it.
        if fcntl(&file, FcntlArg::F_DUPFD(number))? != number {
            return Err(io::Error::other(format!("the file {number} is taken")));
        }
    }
    charge.stage.as_ref().map_or(Ok(()), Stage::enter)
}

/// Starts the command in its group. This process itself is in it for that moment only: the limits
/// are not for us, and who is out of memory must not be killed instead of a script.
fn spawn(charge: &Charge, command: &mut Command) -> io::Result<io::Result<Child>> {
    // A group of its own can be killed as a whole without killing the supervisor.
    command.process_group(0);
    if let Some(group) = &charge.group {
        group.enter()?;
    }
    let started = charge.view.spawn(command);
    if let Some(group) = &charge.group {
        group.leave()?;
    }
    started
}

/// What all who lived below this process took: the kernel adds up the dead when they are reaped. A
/// group knows more: also of those who lived elsewhere, and nothing of tools outside of it.
fn usage(group: Option<&Group>) -> Usage {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let counted = |word: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(word));
        line.and_then(|number| number.trim().parse().ok())
            .unwrap_or_default()
    };
    let children = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
    let milliseconds = |time: TimeVal| u64::try_from(time.num_milliseconds()).unwrap_or_default();
    let cpu_ms = children.map_or(0, |children| {
        milliseconds(children.user_time() + children.system_time())
    });
    let cpu_ms = group.and_then(Group::cpu_ms).unwrap_or(cpu_ms);
    // In KiB, and of the largest process alone; a group knows better.
    let largest = children.map_or(0, |children| children.max_rss());
    let largest = u64::try_from(largest).unwrap_or_default() * 1024;
    Usage {
        cpu_ms,
        memory_peak: group.and_then(Group::memory_peak).unwrap_or(largest),
        read: counted("read_bytes:"),
        written: counted("write_bytes:"),
    }
}

impl Report {
    fn of(end: End) -> Self {
        Self {
            end,
            usage: Usage::default(),
            excess: Excess::default(),
        }
    }
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

fn not_started(program: &OsStr, error: &io::Error) -> End {
    let program = program.display();
    End::NotStarted(match error.kind() {
        io::ErrorKind::NotFound => format!("{program}: no such program"),
        _ => format!("{program}: {error}"),
    })
}

/// Does what the lifeline says, until there is nothing left to do it to.
fn obey(charge: &Charge, mut lifeline: impl Read) {
    let mut order = [0];
    loop {
        match lifeline.read(&mut order) {
            Ok(1) if order[0] == TERMINATE => {
                ask(charge, Signal::SIGTERM);
                // A stopped process notices only once it goes on.
                ask(charge, Signal::SIGCONT);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    // The main thread ends this process as soon as nobody is left. Until then, whatever a fork
    // brought out of one round falls in the next.
    loop {
        kill_all(charge);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to those who matter.
fn ask(charge: &Charge, signal: Signal) {
    match (&charge.others, charge.container) {
        (Some(group), _) => group.signal(is_contained, signal),
        (None, true) => drop(signal_descendants(Whom::Contained, signal)),
        (None, false) => drop(signal_descendants(Whom::All, signal)),
    }
}

/// Kills every descendant, and whoever else is in the groups.
fn kill_all(charge: &Charge) -> Round {
    if let Some(group) = &charge.group {
        group.kill();
    }
    if let Some(group) = &charge.others {
        group.kill();
        group.signal(|_| true, Signal::SIGKILL);
    }
    if Pid::this().as_raw() == 1 {
        // A machine of our own, and all in it descend from us, whatever they made of `/proc`.
        return match kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) => Round::Signalled,
            Err(_) => Round::Nobody,
        };
    }
    signal_descendants(Whom::All, Signal::SIGKILL)
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
fn end_all(charge: &Charge) {
    if let Some(group) = &charge.others {
        // They need not be descendants, so their death is not waited for below.
        group.signal(|_| true, Signal::SIGKILL);
    }
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
        if kill_all(charge) == Round::Forbidden {
            return;
        }
        // Death takes the kernel a moment.
        thread::sleep(Duration::from_millis(1));
    }
}

fn end_of(status: ExitStatus) -> End {
    let small = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(small(code)),
        (None, signal) => End::Signal(small(signal.unwrap_or_default())),
    }
}
