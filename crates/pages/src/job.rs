//! A job: its builds, how to ask for one, and what it is.

use std::collections::BTreeMap;

use askama::Template;
use distci_model::Timestamp;
use distci_model::config::{Parameter, ParameterKind, Scalar};
use distci_model::id::BuildNumber;
use distci_model::outcome::Verdict;
use distci_model::wire::{BuildSummary, JobView, PollView, ScheduleView};

use crate::assets::Asset;
use crate::chart::Chart;
use crate::frame::Frame;
use crate::json::Coloured;
use crate::state::State;
use crate::time::{Ago, Moment, Took};
use crate::words;

/// A job.
#[derive(Debug, Template)]
#[template(path = "job.html")]
pub struct Job {
    /// What surrounds it.
    pub frame: Frame,
    /// When it is made.
    pub now: Timestamp,
    /// The job.
    pub view: JobView,
    /// A page of its builds, latest first.
    pub builds: Vec<BuildSummary>,
    /// The next page begins before this build.
    pub next: Option<String>,
    /// Whether this is a later page.
    pub is_later: bool,
    /// When it comes by itself.
    pub schedules: Vec<ScheduleView>,
    /// What it looks at.
    pub polls: Vec<PollView>,
    /// The form to ask for a build.
    pub wish: Wish,
}

/// The form by which one asks for a build, as it was sent, if it was.
#[derive(Debug)]
pub struct Wish {
    /// The id of the wish: sent twice, it is one.
    pub request: String,
    /// The values that were given.
    pub given: BTreeMap<String, String>,
    /// Why it was refused.
    pub refused: Option<String>,
}

/// A parameter as a field of the form.
struct Field<'a> {
    name: &'a str,
    parameter: &'a Parameter,
    value: &'a str,
}

impl Field<'_> {
    /// The values to choose from; none if any may be given.
    fn choices(&self) -> Vec<&str> {
        match self.parameter.kind {
            _ if !self.parameter.choices.is_empty() => self
                .parameter
                .choices
                .iter()
                .map(|Scalar(value)| value.as_str())
                .collect(),
            ParameterKind::Boolean => vec!["true", "false"],
            ParameterKind::String | ParameterKind::Integer => Vec::new(),
        }
    }

    fn has(&self, value: &str) -> bool {
        self.value == value
    }

    fn is_number(&self) -> bool {
        self.parameter.kind == ParameterKind::Integer
    }

    fn is_required(&self) -> bool {
        self.parameter.default.is_none()
    }
}

impl Job {
    fn state(&self) -> State {
        self.builds.first().map_or(State::None, State::of_summary)
    }

    fn fields(&self) -> Vec<Field<'_>> {
        let parameters = self.view.configuration.parameters.iter();
        parameters
            .map(|(name, parameter)| {
                let default = parameter
                    .default
                    .as_ref()
                    .map(|Scalar(value)| value.as_str());
                let given = self.wish.given.get(name).map(String::as_str);
                Field {
                    name,
                    parameter,
                    value: given.or(default).unwrap_or_default(),
                }
            })
            .collect()
    }

    fn chart(&self) -> Chart {
        Chart::of(self.view.job.as_str(), &self.builds, self.now)
    }

    fn ago(&self, at: &Timestamp) -> Ago {
        Ago {
            at: *at,
            now: self.now,
        }
    }

    fn moment(at: &Timestamp) -> Moment {
        Moment(*at)
    }

    fn took(&self, build: &BuildSummary) -> Took {
        Took::between(build.created, build.finished.unwrap_or(self.now))
    }

    /// How a build ended, in words; that it failed is told by its state.
    fn outcome(build: &BuildSummary) -> String {
        let Some(outcome) = &build.outcome else {
            return State::of_summary(build).word().to_owned();
        };
        let words = outcome.to_string();
        words.strip_prefix("failure: ").unwrap_or(&words).to_owned()
    }

    fn configuration(&self) -> String {
        serde_json::to_string_pretty(&self.view.configuration).unwrap_or_default()
    }

    fn before(&self) -> &str {
        self.next.as_deref().unwrap_or_default()
    }

    /// After which ends of its builds another job is triggered.
    fn ends(verdicts: &[Verdict]) -> String {
        let words: Vec<String> = verdicts.iter().map(ToString::to_string).collect();
        words.join(" or ")
    }

    /// The number of the latest build that is over and succeeded, if it is on this page.
    fn last_success(&self) -> Option<BuildNumber> {
        let mut builds = self.builds.iter();
        let good = builds.find(|build| State::of_summary(build) == State::Success);
        good.map(|build| build.number)
    }
}
