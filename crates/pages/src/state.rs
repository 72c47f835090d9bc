//! How things stand, in one word, one colour and one shape.
//!
//! Owns the only map from outcomes, phases and task states to what people see of them. A state is never
//! told by its colour alone: each has a shape and a word of its own.

use std::fmt;

use askama::filters::HtmlSafe;
use distci_model::outcome::{Outcome, Verdict};
use distci_model::wire::{BuildPhase, BuildSummary, BuildView, TaskState};

/// How a build or a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It did what it should.
    Success,
    /// The user's side said no.
    Failure,
    /// Our side could not.
    Fault,
    /// A worker has it.
    Running,
    /// Nobody has it yet.
    Waiting,
    /// Somebody has to agree.
    Asking,
    /// Somebody ended it.
    Cancelled,
    /// It did not run, and will not.
    Skipped,
    /// There is nothing yet.
    None,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::Failure,
        Self::Fault,
        Self::Running,
        Self::Waiting,
        Self::Asking,
        Self::Cancelled,
        Self::Skipped,
        Self::None,
    ];

    /// How something that ended stands.
    pub fn of_outcome(outcome: &Outcome) -> Self {
        match outcome.verdict() {
            _ if outcome.is_cancelled() => Self::Cancelled,
            Verdict::Success => Self::Success,
            Verdict::Failure => Self::Failure,
            Verdict::Fault => Self::Fault,
        }
    }

    fn of_phase(phase: BuildPhase, outcome: Option<&Outcome>) -> Self {
        match (outcome, phase) {
            (Some(outcome), _) => Self::of_outcome(outcome),
            (None, BuildPhase::Queued) => Self::Waiting,
            (None, BuildPhase::Running | BuildPhase::Finished) => Self::Running,
        }
    }

    /// How a build of a list stands.
    pub fn of_summary(build: &BuildSummary) -> Self {
        Self::of_phase(build.phase, build.outcome.as_ref())
    }

    /// How a build stands; one that asks somebody says so first.
    pub fn of_build(build: &BuildView) -> Self {
        let state = Self::of_phase(build.phase, build.outcome.as_ref());
        let asks = |state: &TaskState| matches!(state, TaskState::Asking { .. });
        if state == Self::Running && build.tasks.iter().any(|task| asks(&task.state)) {
            return Self::Asking;
        }
        state
    }

    /// How a task stands.
    pub fn of_task(state: &TaskState) -> Self {
        match state {
            TaskState::Waiting | TaskState::Queued { .. } | TaskState::Backoff { .. } => {
                Self::Waiting
            }
            TaskState::Running { .. } => Self::Running,
            TaskState::Asking { .. } => Self::Asking,
            TaskState::Skipped { .. } => Self::Skipped,
            TaskState::Finished { run } => Self::of_outcome(&run.result.outcome),
        }
    }

    /// The word for it, which is the name of its class and shape too.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Fault => "fault",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Asking => "asking",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::None => "none",
        }
    }

    /// Its shape in its colour.
    pub(crate) fn icon(self) -> Icon {
        Icon(self)
    }

    /// Whether it will be another without anybody doing anything.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Waiting | Self::Asking)
    }
}

/// The shape of a state. The shapes themselves are once on each page, in its frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Icon(State);

impl fmt::Display for Icon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.0.word();
        write!(
            f,
            "<svg class=\"icon {word}\" role=\"img\" aria-label=\"{word}\"><use href=\"#{word}\"/></svg>"
        )
    }
}

// It is made of our own words alone.
impl HtmlSafe for Icon {}
