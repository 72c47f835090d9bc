//! What starts builds of a job without anybody asking.
//!
//! Owns the form of `triggers`. Whether an event is wanted is decided in [`EventTrigger::wants`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::event::EventKind;
use crate::id::digest_text;

/// One or several of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One, written alone.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// What starts builds; the key that is there says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Trigger {
    /// Something happened at a forge, or a generic webhook was called.
    Event(EventTrigger),
    /// A time came.
    Schedule(ScheduleTrigger),
    /// A repository that tells nobody is looked at.
    Poll(PollTrigger),
}

/// Builds for events of a forge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub struct EventTrigger {
    /// Which events.
    pub on: OneOrMany<EventKind>,
    /// The repository, by its address or as `host/path`. Not for `webhook`, needed for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Patterns of refs, of which one must fit: `main`, `v*`, `refs/heads/release/**`; with `!` before,
    /// none may. Of a pull request, the branch to merge into. Left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<String>,
    /// Patterns of files, of which one must have changed; what fits a pattern with `!` before does
    /// not count. Left out: all. Where the forge does not say what changed, any fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Labels, of which the pull request must carry one. Left out: any or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// What was done to a pull request. Left out: `opened`, `synchronize`, `reopened`, and with
    /// `labels` also `labeled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// Whether pull requests from other repositories count. Their authors decide what is run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub forks: bool,
    /// For `webhook`: SHA-256 of the token that callers must show, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// Values for the job's parameters; `${event.sha}` stands for a fact of the event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// What to do about times that came while nobody was there to notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// Nothing.
    None,
    /// One build for the last of them, if it is not over an hour ago.
    #[default]
    Last,
    /// One build for each.
    All,
}

/// Builds at certain times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub struct ScheduleTrigger {
    /// Minute, hour, day of month, month, day of week: `30 4 * * 1-5`. `H` stands for a value that
    /// the job's name chooses, so that not all begin at once: `H H(0-5) * * *`.
    pub cron: String,
    /// The zone that the times are of, by its name in the IANA database.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    pub timezone: String,
    /// What to do about times that came while nobody was there to notice.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Values for the job's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn is_utc(zone: &str) -> bool {
    zone == "UTC"
}

/// Builds for commits that a look at a repository finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub struct PollTrigger {
    /// How often to look, at least every 10 s, at most once a day.
    pub poll: Span,
    /// Address or path of the repository, without credentials.
    pub repository: String,
    /// Patterns of refs, as in events. Left out: the default branch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<String>,
    /// Values for the job's parameters; `${event.sha}` stands for a fact of the event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

impl PollTrigger {
    /// How often to look, whatever is written.
    pub fn every(&self) -> Span {
        Span::from_seconds(self.poll.seconds().clamp(10, 24 * 3600))
    }

    /// What it is known by: two that look at the same are one.
    pub fn mark(&self) -> String {
        let mut looks_at = vec![self.repository.as_bytes()];
        looks_at.extend(self.refs.iter().map(String::as_bytes));
        digest_text("distci poll trigger v1", &looks_at, 16)
    }
}

impl Trigger {
    /// Values for the job's parameters.
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Event(trigger) => &trigger.parameters,
            Self::Schedule(trigger) => &trigger.parameters,
            Self::Poll(trigger) => &trigger.parameters,
        }
    }
}
