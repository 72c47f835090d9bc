//! The laws by name, and what is said of a history.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A promise of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Law {
    /// Every build that was acknowledged has finished, once.
    BuildsFinish,
    /// A request has one build, and a build one request; numbers have no gaps.
    NumbersAreDense,
    /// A build ends as its tasks did.
    AnswersAreRight,
    /// A result that was accepted counts for ever.
    ResultsStay,
    /// What is shown of a task is what its accepted attempt did.
    ResultsAreTrue,
    /// A console has every byte that the attempt wrote, once and in order.
    ConsolesAreWhole,
    /// A workspace holds what the tasks before have left in it, and an artifact what was published.
    WorkspacesAreTrue,
    /// No lock is held by more than may hold it.
    LocksHold,
    /// What a dead worker held is begun anew soon.
    RestartsAreSoon,
    /// Nothing is left in the store that nobody knows.
    NothingIsLeft,
    /// While all is well, workers hardly ever want the same ticket.
    ClaimsSucceed,
    /// A ticket's claims follow each other, and each has an end.
    JournalsAreLawful,
}

impl Law {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 12] = [
        Self::BuildsFinish,
        Self::NumbersAreDense,
        Self::AnswersAreRight,
        Self::ResultsStay,
        Self::ResultsAreTrue,
        Self::ConsolesAreWhole,
        Self::WorkspacesAreTrue,
        Self::LocksHold,
        Self::RestartsAreSoon,
        Self::NothingIsLeft,
        Self::ClaimsSucceed,
        Self::JournalsAreLawful,
    ];

    /// The promise as a sentence.
    pub fn promise(self) -> &'static str {
        match self {
            Self::BuildsFinish => "every acknowledged build has finished, once",
            Self::NumbersAreDense => "a request has one build, and numbers have no gaps",
            Self::AnswersAreRight => "a build ends as its tasks did",
            Self::ResultsStay => "an accepted result counts for ever",
            Self::ResultsAreTrue => "what is shown is what the accepted attempt did",
            Self::ConsolesAreWhole => "a console has every byte, once and in order",
            Self::WorkspacesAreTrue => {
                "workspaces and artifacts hold what the tasks before have left in them"
            }
            Self::LocksHold => "no lock is held by more than may hold it",
            Self::RestartsAreSoon => "what a dead worker held is begun anew soon",
            Self::NothingIsLeft => "nothing is left in the store that nobody knows",
            Self::ClaimsSucceed => "in calm, claims are hardly ever lost to others",
            Self::JournalsAreLawful => "a ticket's claims follow each other, and each has an end",
        }
    }
}

/// A law that was broken, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// Which law.
    pub law: Law,
    /// Where, and what was seen.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not so: {}: {}", self.law.promise(), self.what)
    }
}

/// What is said of a history.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// How often each law was put to the test: a law without a case has not been shown to hold.
    pub cases: BTreeMap<Law, u64>,
    /// Where it was broken.
    pub breaches: Vec<Breach>,
}

impl Verdict {
    /// Whether no law was broken.
    pub fn is_clean(&self) -> bool {
        self.breaches.is_empty()
    }

    /// Puts a law to the test in one case.
    pub(crate) fn case(&mut self, law: Law, holds: bool, what: impl FnOnce() -> String) {
        *self.cases.entry(law).or_default() += 1;
        if !holds {
            let what = what();
            self.breaches.push(Breach { law, what });
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for law in Law::ALL {
            let cases = self.cases.get(&law).copied().unwrap_or(0);
            let broken = self.breaches.iter().filter(|breach| breach.law == law);
            let mark = match (broken.count(), cases) {
                (1.., _) => "BROKEN",
                (0, 0) => "no case",
                (0, _) => "holds",
            };
            writeln!(f, "{mark:8} {cases:>8}  {}", law.promise())?;
        }
        for breach in &self.breaches {
            writeln!(f, "{breach}")?;
        }
        Ok(())
    }
}
