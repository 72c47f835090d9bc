//! When a test is flaky: when it ends now so and now so though nothing changed.
//!
//! Owns the rule, as a function of what became of the test in some builds. Knows nothing of where
//! that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::TestOutcome;
use crate::id::BuildNumber;

/// From so many changes between passing and failing on, among the builds that are looked at, a test
/// flips: one that is broken, mended, broken and mended again by people changes three times.
pub const FLIPS: u32 = 4;

/// What became of a test in a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// Which build.
    pub build: BuildNumber,
    /// What was built, with which values, by which configuration: builds with the same text here
    /// should end alike. None if it is not known what was built.
    pub inputs: Option<String>,
    /// How it ended.
    pub outcome: TestOutcome,
    /// Whether it failed first, and passed when the tool ran it again.
    pub repeated: bool,
}

/// Why a test is flaky.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Flaky {
    /// It both passed and failed within one build.
    WithinBuild {
        /// The latest such build.
        build: BuildNumber,
    },
    /// It passed in one build and failed in another of the same inputs.
    SameInputs {
        /// The latest in which it passed,
        passed: BuildNumber,
        /// and the latest in which it failed, of these inputs.
        failed: BuildNumber,
    },
    /// It changes often.
    Flips {
        /// How often it changed between passing and failing,
        flips: u32,
        /// in how many builds.
        builds: u32,
    },
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WithinBuild { build } => write!(f, "passed and failed in #{build}"),
            Self::SameInputs { passed, failed } => {
                write!(
                    f,
                    "passed in #{passed} and failed in #{failed} of the same inputs"
                )
            }
            Self::Flips { flips, builds } => write!(f, "changed {flips} times in {builds} builds"),
        }
    }
}

/// Which ends of a test were seen together.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    passed: Option<BuildNumber>,
    failed: Option<BuildNumber>,
}

impl Seen {
    fn note(&mut self, build: BuildNumber, is_bad: bool) {
        let place = if is_bad {
            &mut self.failed
        } else {
            &mut self.passed
        };
        *place = (*place).max(Some(build));
    }
}

/// Why a test is flaky that has gone like this, in whatever order; none if it is not. The most certain
/// sign counts. Where it was skipped, it tells nothing.
pub fn flaky(runs: &[TestRun]) -> Option<Flaky> {
    let told = || {
        let told = runs.iter();
        told.filter(|run| run.outcome != TestOutcome::Skipped)
    };
    let mut builds: BTreeMap<BuildNumber, Seen> = BTreeMap::new();
    let mut inputs: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut repeated = BTreeSet::new();
    for run in told() {
        let is_bad = run.outcome.is_bad();
        builds.entry(run.build).or_default().note(run.build, is_bad);
        if let Some(same) = &run.inputs {
            inputs.entry(same).or_default().note(run.build, is_bad);
        }
        if run.repeated {
            repeated.insert(run.build);
        }
    }
    within(&builds, &repeated)
        .or_else(|| same_inputs(&inputs))
        .or_else(|| flips(&builds))
}

fn within(builds: &BTreeMap<BuildNumber, Seen>, repeated: &BTreeSet<BuildNumber>) -> Option<Flaky> {
    let both = |(_, seen): &(&BuildNumber, &Seen)| seen.passed.is_some() && seen.failed.is_some();
    let both = builds.iter().rev().find(both).map(|(build, _)| *build);
    let build = both.max(repeated.last().copied())?;
    Some(Flaky::WithinBuild { build })
}

fn same_inputs(inputs: &BTreeMap<&str, Seen>) -> Option<Flaky> {
    let both = inputs.values().filter_map(|seen| {
        let (passed, failed) = (seen.passed?, seen.failed?);
        Some((passed.max(failed), passed, failed))
    });
    let (_, passed, failed) = both.max()?;
    Some(Flaky::SameInputs { passed, failed })
}

fn flips(builds: &BTreeMap<BuildNumber, Seen>) -> Option<Flaky> {
    let ends: Vec<bool> = builds.values().map(|seen| seen.failed.is_some()).collect();
    let flips = ends.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let flips = u32::try_from(flips).unwrap_or(u32::MAX);
    let builds = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    (flips >= FLIPS).then_some(Flaky::Flips { flips, builds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u64) -> BuildNumber {
        BuildNumber::new(number).unwrap()
    }

    /// Builds as they follow each other: `p`assed, `f`ailed, `e`rrored, `s`kipped, `r`epeated; and
    /// behind it a letter for the inputs, `-` for none.
    fn runs(text: &str) -> Vec<TestRun> {
        let words = text.split_whitespace().zip(1..);
        let run = |(word, build): (&str, u64)| {
            let inputs = &word[1..];
            TestRun {
                build: number(build),
                inputs: (inputs != "-").then(|| inputs.to_owned()),
                outcome: match &word[..1] {
                    "p" | "r" => TestOutcome::Passed,
                    "f" => TestOutcome::Failed,
                    "e" => TestOutcome::Errored,
                    _ => TestOutcome::Skipped,
                },
                repeated: word.starts_with('r'),
            }
        };
        words.map(run).collect()
    }

    #[test]
    fn what_is_flaky_and_what_is_not() {
        let same = |passed, failed| {
            let (passed, failed) = (number(passed), number(failed));
            Some(Flaky::SameInputs { passed, failed })
        };
        let flips = |flips, builds| Some(Flaky::Flips { flips, builds });
        for (history, expected) in [
            ("", None),
            ("fa", None),
            ("pa pa", None),
            // Somebody broke it, and mended it.
            ("pa fb pc", None),
            ("pa fb pc fd", None),
            // The same commit, built again.
            ("pa fa", same(1, 2)),
            ("fa pb pa", same(3, 1)),
            ("pa ea", same(1, 2)),
            ("pa fa pb fb", same(3, 4)),
            // Nobody knows what was built.
            ("p- f-", None),
            ("p- f- p- f-", None),
            ("p- f- p- f- p-", flips(4, 5)),
            ("pa fb pc fd pe", flips(4, 5)),
            // What did not run tells nothing.
            ("pa sa", None),
            ("pa sb pc sd pe sf pg", None),
            ("pa sb fc sd pe sf fg sh pi", flips(4, 5)),
            // The tool itself ran it twice.
            ("pa rb pc", Some(Flaky::WithinBuild { build: number(2) })),
            ("pa fa rb", Some(Flaky::WithinBuild { build: number(3) })),
        ] {
            let mut runs = runs(history);
            assert_eq!(flaky(&runs), expected, "{history}");
            runs.reverse();
            assert_eq!(flaky(&runs), expected, "{history}, backwards");
        }
    }

    #[test]
    fn both_ends_within_one_build_are_flaky() {
        let mut runs = runs("pa fb pc");
        runs[1].build = number(1);
        let within = Flaky::WithinBuild { build: number(1) };
        assert_eq!(flaky(&runs), Some(within));
        runs[0].outcome = TestOutcome::Skipped;
        assert_eq!(flaky(&runs), None);
    }
}
