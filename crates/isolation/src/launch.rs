//! The worker's end of a supervised command.
//!
//! Owns the pipes to the supervisor: the lifeline, the console, the report. Every driver that runs
//! something on the machine, be it a script or the tool that makes a container around it, does so
//! here, so that nothing of it outlives its worker.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use distci_model::isolation::Usage;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cell::{Ended, Excess, Finished, Output, Stop};
use crate::error::Error;
use crate::group::Group;
use crate::processes::{KEY_VARIABLE, kill_bearers, kill_descendants};
use crate::stage::Stage;
use crate::supervisor::{Charge, End, KILL, Report, TERMINATE};
use crate::view::View;

/// How long a supervisor may take to kill all that it guards. A script may have stopped it, and then
/// it obeys nobody.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(5);
/// How long the rest of the output may take when all who could write are gone: longer than whoever
/// takes it may be kept from storing it.
const REST_IN_THE_PIPE: Duration = Duration::from_mins(16);
/// The same when the supervisor was killed.
const REST_OF_NOBODY: Duration = Duration::from_secs(5);
/// A pipe holds this much by default.
const PIPE: usize = 64 * 1024;
/// Most bytes of a report; what the supervisor says fits in far fewer.
const MOST_REPORT: u64 = 64 * 1024;

/// What to run on the machine, and under whose eyes.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The command that becomes the supervisor.
    pub(crate) supervisor: &'a [OsString],
    /// See [`crate::Site::key`].
    pub(crate) key: &'a OsString,
    /// The program and its arguments.
    pub(crate) argv: Vec<OsString>,
    /// Where.
    pub(crate) directory: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The group that it runs in; made already.
    pub(crate) group: Option<&'a Group>,
    /// The group of what somebody else makes for the program; made already.
    pub(crate) others: Option<&'a Group>,
    /// Whether the program makes a container around what matters: then those in it are asked to end,
    /// not the program.
    pub(crate) container: bool,
    /// What it finds when it begins.
    pub(crate) view: View,
    /// What the supervisor mounts before, for itself and the program.
    pub(crate) stage: Option<&'a Stage>,
    /// Files that the program finds open, see [`Charge::files`].
    pub(crate) files: Vec<PathBuf>,
}

/// The environment of a tool that makes a cell. The script's own could make a program of the machine
/// load what is the script's.
pub(crate) fn tool_environment() -> Vec<(OsString, OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    vec![("PATH".into(), path)]
}

/// A running supervisor.
struct Supervisor {
    child: Child,
    report: ChildStderr,
    /// It did not do what it was told, and has to go.
    given_up: CancellationToken,
}

impl Launch<'_> {
    /// Runs it to its end.
    ///
    /// # Errors
    /// [`Error::Io`], if the supervisor could not be started or died, [`Error::Driver`], if it could
    /// not make what the program needs. Nothing that it started is left then either.
    ///
    /// # Cancel safety
    /// Dropped, it closes the lifeline, and the supervisor kills what it guards.
    pub(crate) async fn run(
        &self,
        output: &mut dyn Output,
        stop: Stop<'_>,
    ) -> Result<Finished, Error> {
        let mut child = self.spawn()?;
        let (Some(mut lifeline), Some(console), Some(report)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the supervisor has no pipes").into());
        };
        let supervisor = Supervisor {
            child,
            report,
            given_up: CancellationToken::new(),
        };
        let given_up = supervisor.given_up.clone();
        let mut ending = std::pin::pin!(self.watch(supervisor, console, output));
        let grace = tokio::select! {
            report = &mut ending => return report?.try_into(),
            grace = stop => grace,
        };
        // However it ends now, and whether or not a supervisor is left to tell, this is why.
        let report = tokio::select! {
            report = &mut ending => report,
            () = end(&mut lifeline, grace) => {
                given_up.cancel();
                ending.await
            }
        };
        let (usage, excess) = match report {
            Ok(report) => (report.usage, report.excess),
            Err(error) => {
                tracing::warn!("{error}");
                (Usage::default(), Excess::default())
            }
        };
        Ok(Finished {
            ended: Ended::Stopped,
            usage,
            excess,
        })
    }

    fn spawn(&self) -> io::Result<Child> {
        let Some((program, arguments)) = self.supervisor.split_first() else {
            return Err(io::Error::other(
                "no command for the supervisor is configured",
            ));
        };
        let charge = Charge {
            group: self.group.cloned(),
            others: self.others.cloned(),
            container: self.container,
            stage: self.stage.cloned(),
            files: self.files.clone(),
            view: self.view.clone(),
        };
        tokio::process::Command::new(program)
            .args(arguments)
            .arg(serde_json::to_string(&charge)?)
            .args(&self.argv)
            .current_dir(&self.directory)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env(KEY_VARIABLE, self.key)
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
        output: &mut dyn Output,
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
        for group in [self.group, self.others].into_iter().flatten() {
            group.kill();
            group.signal(|_| true, Signal::SIGKILL);
        }
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

async fn pump(mut from: ChildStdout, to: &mut dyn Output) {
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

/// Asks everything to end, then makes it. Returns when that was of no use.
async fn end(lifeline: &mut ChildStdin, grace: Duration) {
    if !grace.is_zero() && lifeline.write_all(&[TERMINATE]).await.is_ok() {
        sleep(grace).await;
    }
    // A broken pipe means that nobody is left to kill.
    drop(lifeline.write_all(&[KILL]).await);
    sleep(SUPERVISOR_GRACE).await;
}

impl TryFrom<Report> for Finished {
    type Error = Error;

    fn try_from(report: Report) -> Result<Self, Error> {
        Ok(Self {
            ended: match report.end {
                End::Exit(code) => Ended::Exit(code),
                End::Signal(signal) => Ended::Signal(signal),
                End::NotStarted(why) => Ended::NotStarted(why),
                End::NoStage(why) => return Err(Error::driver("making the cell", &why)),
            },
            usage: report.usage,
            excess: report.excess,
        })
    }
}
