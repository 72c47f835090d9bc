//! The binary under test as a process, and waiting for what it does.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest that anything here may take, where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(100);

/// The binary, with nothing of the developer's own settings.
pub(crate) fn distci() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distci"));
    for name in [
        "DISTCI_URL",
        "DISTCI_TOKEN",
        "DISTCI_DATA",
        "DISTCI_LOG",
        "DISTCI_WORKER_NAME",
        "DISTCI_WORKER_SESSION",
        "NO_COLOR",
    ] {
        command.env_remove(name);
    }
    // Whatever a script finds of this, it has inherited.
    command
        .env("DISTCI_TEST_LEAK", "leaked")
        .stdin(Stdio::null());
    command
}

/// Looks again until there is something.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, look)
}

/// Looks again until there is something, for at most `limit`.
pub(crate) fn within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A long-running process of the binary. Dropped, it is killed.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts `distci` with these arguments.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(
            command
                .stdout(Stdio::null())
                .spawn()
                .context("starting distci")?,
        ))
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
