//! Exit codes: what a script can learn without reading.

use std::io;
use std::process::ExitCode;

use distci_client::ClientError;
use distci_model::outcome::{Outcome, Verdict};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything went well.
    Ok,
    /// The build failed, or the job file is wrong.
    Failed,
    /// DistCI or the machines below it could not do their part.
    Infrastructure,
    /// Somebody cancelled the build.
    Cancelled,
    /// The token is missing or wrong.
    Authentication,
    /// There is no such job, build, task or artifact.
    NotFound,
    /// The build took longer than the caller would wait.
    TimedOut,
    /// Whoever read our output has left, as the shell tells it of SIGPIPE.
    Unheard,
    /// Interrupted from the keyboard, as the shell tells it of SIGINT.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Infrastructure => 2,
            Self::Cancelled => 3,
            Self::Authentication => 4,
            Self::NotFound => 5,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
            Self::Unheard => 141,
        }
    }

    /// The end of one build.
    pub(crate) fn of_outcome(outcome: Option<&Outcome>) -> Self {
        match outcome {
            Some(outcome) if outcome.is_cancelled() => Self::Cancelled,
            Some(outcome) => match outcome.verdict() {
                Verdict::Success => Self::Ok,
                Verdict::Failure => Self::Failed,
                Verdict::Fault => Self::Infrastructure,
            },
            // A build that is over has an outcome.
            None => Self::Infrastructure,
        }
    }

    /// The end of several builds: a failure counts before a fault, and that before a cancellation.
    pub(crate) fn of_all(exits: impl IntoIterator<Item = Self>) -> Self {
        let rank = |exit: &Self| match exit {
            Self::Ok => 0,
            Self::Cancelled => 1,
            Self::Infrastructure => 2,
            _ => 3,
        };
        exits.into_iter().max_by_key(rank).unwrap_or(Self::Ok)
    }

    /// The end by an error.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        if let Some(error) = error.downcast_ref::<ClientError>() {
            return match error {
                ClientError::NotFound(_) => Self::NotFound,
                ClientError::Unauthorized | ClientError::NoToken { .. } => Self::Authentication,
                ClientError::Conflict(_) | ClientError::Refused(_) => Self::Failed,
                ClientError::ConsoleAt { .. }
                | ClientError::Unreachable { .. }
                | ClientError::StoreDown { .. }
                | ClientError::Draining(_)
                | ClientError::Strange { .. }
                | ClientError::Address { .. }
                | ClientError::Local(_) => Self::Infrastructure,
            };
        }
        let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        if error.downcast_ref().is_some_and(broken) {
            return Self::Unheard;
        }
        error
            .downcast_ref::<Ended>()
            .map_or(Self::Infrastructure, |ended| ended.exit)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that knows its exit code.
#[derive(Debug)]
pub(crate) struct Ended {
    exit: Exit,
    message: String,
}

impl Ended {
    /// An error that is the caller's to mend.
    pub(crate) fn failed(message: impl Into<String>) -> anyhow::Error {
        Self::with(Exit::Failed, message)
    }

    /// An error of whoever runs DistCI.
    pub(crate) fn unusable(message: impl Into<String>) -> anyhow::Error {
        Self::with(Exit::Infrastructure, message)
    }

    /// An error about something that is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> anyhow::Error {
        Self::with(Exit::NotFound, message)
    }

    fn with(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        let message = message.into();
        anyhow::Error::new(Self { exit, message })
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Ended {}

#[cfg(test)]
mod tests {
    use distci_model::outcome::{Failure, Fault};

    use super::*;

    #[test]
    fn a_build_ends_the_program_with_its_verdict() {
        let code = |outcome: &Outcome| Exit::of_outcome(Some(outcome)).code();
        assert_eq!(code(&Outcome::Success), 0);
        let reason = Failure::Exit { exit: 7 };
        assert_eq!(code(&Outcome::Failure { reason }), 1);
        let reason = Fault::WorkerStopped;
        assert_eq!(code(&Outcome::Fault { reason }), 2);
        let reason = Failure::Cancelled;
        assert_eq!(code(&Outcome::Failure { reason }), 3);
    }

    #[test]
    fn of_several_builds_the_failure_counts() {
        use Exit::{Cancelled, Failed, Infrastructure, Ok};
        assert_eq!(Exit::of_all([]), Ok);
        assert_eq!(Exit::of_all([Ok, Cancelled]), Cancelled);
        assert_eq!(
            Exit::of_all([Infrastructure, Cancelled, Ok]),
            Infrastructure
        );
        assert_eq!(Exit::of_all([Infrastructure, Failed, Cancelled]), Failed);
    }

    #[test]
    fn an_error_keeps_its_code_under_any_context() {
        let error = anyhow::Error::new(ClientError::Unauthorized).context("while asking");
        assert_eq!(Exit::of_error(&error).code(), 4);
        let error = Ended::not_found("no artifact").context("in hello#1");
        assert_eq!(Exit::of_error(&error).code(), 5);
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(Exit::of_error(&error), Exit::Unheard);
    }
}
