//! What can go wrong with a call, by what the caller can do about it.

use std::fmt;
use std::io;

use distci_model::wire::Problem;

/// Why a call gave no answer that helps.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What was asked for is not there: ask for something else.
    #[error("{}", Words(.0))]
    NotFound(Box<Problem>),
    /// This worker is asked to leave: finish what is held, and claim no more.
    #[error("{}", Words(.0))]
    Draining(Box<Problem>),
    /// The token is wrong: give another.
    #[error("the frontend does not accept the token")]
    Unauthorized,
    /// There is no token: give one.
    #[error("no token for {address}: give --token-file or DISTCI_TOKEN")]
    NoToken {
        /// The frontend that wants one.
        address: String,
    },
    /// Somebody else was faster, or a claim is over: look again before the next step.
    #[error("{}", Words(.0))]
    Conflict(Box<Problem>),
    /// The request itself is wrong: mend it.
    #[error("{}", Words(.0))]
    Refused(Box<Problem>),
    /// The console has another length than the append assumed: go on from there.
    #[error("the console has {length} bytes")]
    ConsoleAt {
        /// Its length.
        length: u64,
    },
    /// No frontend answered until the deadline: wait, or give other addresses. The call may have
    /// had its effect; repeating it with the same ids is safe.
    #[error("no frontend answered in {tried} tries: {last}")]
    Unreachable {
        /// How many tries.
        tried: u32,
        /// What happened at the last one.
        last: String,
    },
    /// Frontends answered, but their store did not, until the deadline: wait. Nobody can change
    /// anything meanwhile, claims included. The call may be repeated, as above.
    #[error("the store did not answer in {tried} tries: {last}")]
    StoreDown {
        /// How many tries.
        tried: u32,
        /// What happened at the last one.
        last: String,
    },
    /// What answers is not a frontend of this version: give another address, or update.
    #[error("the answer makes no sense: {detail}")]
    Strange {
        /// What was wrong with it.
        detail: String,
    },
    /// The address of a frontend is not one.
    #[error("{address:?} is not an address of a frontend: {detail}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        detail: String,
    },
    /// This machine could not do its part: a file could not be read, or there is no randomness.
    #[error(transparent)]
    Local(#[from] io::Error),
}

impl ClientError {
    /// Whether the same call may have another end later without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::StoreDown { .. })
    }

    /// The problem that the frontend described, if it did.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::NotFound(problem)
            | Self::Draining(problem)
            | Self::Conflict(problem)
            | Self::Refused(problem) => Some(problem),
            Self::Unauthorized
            | Self::NoToken { .. }
            | Self::ConsoleAt { .. }
            | Self::Unreachable { .. }
            | Self::StoreDown { .. }
            | Self::Strange { .. }
            | Self::Address { .. }
            | Self::Local(_) => None,
        }
    }
}

/// A problem in words: its detail, and each thing that is wrong with a job file on its own line.
struct Words<'a>(&'a Problem);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = self.0;
        let said = [&problem.detail, &problem.title]
            .into_iter()
            .find(|text| !text.is_empty());
        let said = said.map_or("no reason given", String::as_str);
        f.write_str(said)?;
        for problem in &problem.problems {
            let problem = problem.to_string();
            // The detail of a single problem is the problem.
            if said != problem {
                write!(f, "\n  {problem}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use distci_model::config::ConfigProblem;

    use super::*;

    #[test]
    fn an_error_says_what_the_frontend_said() {
        let problem = Problem {
            kind: "urn:distci:invalid-job".to_owned(),
            title: "invalid job".to_owned(),
            status: 400,
            detail: "the job file has 1 problem".to_owned(),
            request: None,
            problems: vec![ConfigProblem {
                file: None,
                path: "tasks".to_owned(),
                line: 3,
                column: 5,
                message: "a job needs at least one task".to_owned(),
                help: None,
            }],
        };
        assert_eq!(
            ClientError::Refused(Box::new(problem)).to_string(),
            "the job file has 1 problem\n  3:5: tasks: a job needs at least one task"
        );
    }
}
