//! The simplest cell: processes of this machine under a supervisor, and nothing between them and
//! the rest of it.
//!
//! Owns the worker's end of the supervisor's pipes. Promises that nothing is left behind, not that
//! nothing is reached.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Cell, Command, Ended, Isolation, Limits, Output};
use crate::interrupt::Interrupt;
use crate::processes::{KEY_VARIABLE, kill_bearers, kill_descendants};
use crate::room::Room;
use crate::supervisor::{KILL, Report, TERMINATE};

/// How long a script that was asked to end may take to do so.
const GRACE: Duration = Duration::from_secs(10);
/// The same when the worker itself has to leave.
const SHORT_GRACE: Duration = Duration::from_secs(3);
/// How long a supervisor may take to kill all that it guards. A script may have stopped it, and then
/// it obeys nobody.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(5);
/// How long the rest of the output may take when all who could write are gone: longer than the store
/// may be away.
const REST_IN_THE_PIPE: Duration = Duration::from_mins(16);
/// The same when the supervisor was killed.
const REST_OF_NOBODY: Duration = Duration::from_secs(5);
/// A pipe holds this much by default.
const PIPE: usize = 64 * 1024;
/// Most bytes of a report; what the supervisor says fits in far fewer.
const MOST_REPORT: u64 = 64 * 1024;

/// Runs commands as processes of this machine.
#[derive(Debug)]
pub(crate) struct Process {
    /// The command that becomes the supervisor.
    pub(crate) supervisor: Vec<OsString>,
}

struct ProcessCell {
    supervisor: Vec<OsString>,
    key: OsString,
}

/// A running supervisor.
struct Supervisor {
    child: Child,
    report: ChildStderr,
    /// It did not do what it was told, and has to go.
    given_up: CancellationToken,
}

#[async_trait]
impl Isolation for Process {
    async fn open(&self, room: &Room) -> io::Result<Box<dyn Cell>> {
        let (supervisor, key) = (self.supervisor.clone(), room.key().to_owned());
        Ok(Box::new(ProcessCell { supervisor, key }))
    }
}

#[async_trait]
impl Cell for ProcessCell {
    async fn run(
        &self,
        command: &Command,
        output: &mut Output,
        limits: &Limits,
    ) -> io::Result<Ended> {
        let mut child = self.spawn(command)?;
        let (Some(mut lifeline), Some(console), Some(report)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the supervisor has no pipes"));
        };
        let supervisor = Supervisor {
            child,
            report,
            given_up: CancellationToken::new(),
        };
        let given_up = supervisor.given_up.clone();
        let mut ending = std::pin::pin!(self.watch(supervisor, console, output));
        let why = tokio::select! {
            report = &mut ending => return report.map(Ended::from),
            why = interrupted(limits) => why,
        };
        // However it ends now, and whether or not a supervisor is left to tell, this is why.
        let report = tokio::select! {
            report = &mut ending => report,
            () = stop(&mut lifeline, &why) => {
                given_up.cancel();
                ending.await
            }
        };
        if let Err(error) = report {
            tracing::warn!("{error}");
        }
        Ok(why)
    }

    async fn close(self: Box<Self>) {
        // Each run has ended all that it began, also when its supervisor was killed.
    }
}

impl ProcessCell {
    fn spawn(&self, command: &Command) -> io::Result<Child> {
        let Some((program, arguments)) = self.supervisor.split_first() else {
            return Err(io::Error::other(
                "no command for the supervisor is configured",
            ));
        };
        tokio::process::Command::new(program)
            .args(arguments)
            .arg("--")
            .args(&command.argv)
            .current_dir(&command.directory)
            .env_clear()
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .env(KEY_VARIABLE, &self.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// Carries the output until the supervisor has ended and nothing more can come.
    async fn watch(
        &self,
        supervisor: Supervisor,
        console: ChildStdout,
        output: &mut Output,
    ) -> io::Result<Report> {
        let mut reading = std::pin::pin!(pump(console, output));
        let mut finishing = std::pin::pin!(self.finish(supervisor));
        let report = tokio::select! {
            report = &mut finishing => report,
            () = &mut reading => return finishing.await,
        };
        // A process that we may not kill, or that hid from the sweep, may hold the pipe open.
        let rest = if report.is_ok() {
            REST_IN_THE_PIPE
        } else {
            REST_OF_NOBODY
        };
        if timeout(rest, reading).await.is_err() {
            tracing::warn!("somebody outside of our power still holds the console open");
        }
        report
    }

    /// Waits for the supervisor, and does its work if it was killed.
    async fn finish(&self, supervisor: Supervisor) -> io::Result<Report> {
        let Supervisor {
            mut child,
            report,
            given_up,
        } = supervisor;
        let (mut report, mut said) = (report.take(MOST_REPORT), Vec::new());
        tokio::select! {
            read = report.read_to_end(&mut said) => drop(read?),
            () = given_up.cancelled() => kill_with_descendants(&mut child).await?,
        }
        let status = child.wait().await?;
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().next_back().unwrap_or_default();
        if let Ok(report) = serde_json::from_str(last) {
            return Ok(report);
        }
        self.sweep().await;
        let said = if last.is_empty() { "nothing" } else { last };
        Err(io::Error::other(format!(
            "the supervisor ended ({status}) and said {said}"
        )))
    }

    async fn sweep(&self) {
        let key = self.key.clone();
        let killed = tokio::task::spawn_blocking(move || kill_bearers(&key)).await;
        if let Ok(killed @ 1..) = killed {
            tracing::warn!(killed, "processes were left without a supervisor");
        }
    }
}

/// Those below go first: without their supervisor nobody could tell any more that they belong here.
async fn kill_with_descendants(supervisor: &mut Child) -> io::Result<()> {
    if let Some(pid) = supervisor.id() {
        let killing = tokio::task::spawn_blocking(move || kill_descendants(pid));
        killing.await.map_err(io::Error::other)?;
    }
    supervisor.start_kill()
}

async fn pump(mut from: ChildStdout, to: &mut Output) {
    let mut buffer = vec![0; PIPE];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return,
            Ok(read) => to.take(buffer.get(..read).unwrap_or_default()).await,
            Err(error) => {
                tracing::warn!("the output of a script cannot be read: {error}");
                return;
            }
        }
    }
}

async fn interrupted(limits: &Limits) -> Ended {
    tokio::select! {
        interrupt = limits.interrupts.any() => Ended::Interrupted(interrupt),
        () = sleep_until(limits.deadline) => Ended::TimedOut,
    }
}

/// Asks everything in the cell to end, then makes it. Returns when that was of no use.
async fn stop(lifeline: &mut ChildStdin, why: &Ended) {
    let grace = match why {
        Ended::Interrupted(Interrupt::Lost) => Duration::ZERO,
        Ended::Interrupted(Interrupt::Stopped) => SHORT_GRACE,
        _ => GRACE,
    };
    if !grace.is_zero() && lifeline.write_all(&[TERMINATE]).await.is_ok() {
        sleep(grace).await;
    }
    // A broken pipe means that nobody is left to kill.
    drop(lifeline.write_all(&[KILL]).await);
    sleep(SUPERVISOR_GRACE).await;
}

impl From<Report> for Ended {
    fn from(report: Report) -> Self {
        match report {
            Report::Exit(code) => Self::Exit(code),
            Report::Signal(signal) => Self::Signal(signal),
            Report::NotStarted(why) => Self::NotStarted(why),
        }
    }
}
