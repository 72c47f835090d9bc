//! A job's state as a small picture, to stand on other pages.

use askama::Template;

use crate::state::State;

/// The badge of a job.
#[derive(Debug, Template)]
#[template(path = "badge.svg", escape = "html")]
pub struct Badge {
    /// What it says of what: the name of the job.
    pub label: String,
    /// How its latest build stands.
    pub state: State,
}

/// Units that a character is wide, roughly; the text is stretched to what was thought.
const CHARACTER: usize = 7;

impl Badge {
    /// A name that is not too long for a badge.
    fn name(&self) -> String {
        self.label.chars().take(40).collect()
    }

    fn left(&self) -> usize {
        self.name().chars().count() * CHARACTER
    }

    fn word(&self) -> &'static str {
        match self.state {
            State::None => "not built",
            state => state.word(),
        }
    }

    fn right(&self) -> usize {
        self.word().len() * CHARACTER
    }

    /// A badge stands on pages whose style nobody knows: its colours are its own.
    fn colour(&self) -> &'static str {
        match self.state {
            State::Success => "#166f43",
            State::Failure => "#bd2823",
            State::Fault => "#9a2f93",
            State::Running => "#1f62cf",
            State::Waiting => "#8a6000",
            State::Asking => "#6a3fc0",
            State::Cancelled | State::Skipped | State::None => "#5e6873",
        }
    }
}
