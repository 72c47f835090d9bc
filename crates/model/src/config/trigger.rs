//! What starts builds of a job without anybody asking.
//!
//! Owns the form of `triggers`. Whether an event is wanted is decided in [`EventTrigger::wants`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns::{any_path_fits, ref_fits};
use super::span::Span;
use crate::event::{Event, EventKind, repository_name};
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

/// Why a trigger does not want an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unwanted {
    /// It waits for other kinds of events.
    #[error("it does not wait for such events")]
    Kind,
    /// It watches another repository, or none.
    #[error("it watches another repository")]
    Repository,
    /// The pull request is from a repository that others write to.
    #[error("the pull request is from a fork")]
    Fork,
    /// Its `refs` do not fit.
    #[error("its refs do not fit")]
    Ref,
    /// Its `actions` do not fit.
    #[error("it does not wait for this action")]
    Action,
    /// Its `labels` do not fit.
    #[error("its labels do not fit")]
    Label,
    /// Its `paths` do not fit.
    #[error("no file that it watches has changed")]
    Path,
    /// The commit asks not to be built.
    #[error("the commit asks to be skipped")]
    Skip,
}

impl EventTrigger {
    /// The actions on a pull request that count unless the trigger says which.
    pub const ACTIONS: [&str; 3] = ["opened", "synchronize", "reopened"];

    /// Whether it wants an event, or the first reason why not. What the source does not tell (the
    /// files that changed, the ref of a release) is taken to fit. The token of a generic webhook is
    /// looked at by whoever takes the call.
    ///
    /// # Errors
    /// [`Unwanted`].
    pub fn wants(&self, event: &Event) -> Result<(), Unwanted> {
        let fits = |fits: bool, otherwise| if fits { Ok(()) } else { Err(otherwise) };
        fits(self.on.as_slice().contains(&event.kind), Unwanted::Kind)?;
        if event.kind == EventKind::Webhook {
            return Ok(());
        }
        fits(self.is_of_repository(event), Unwanted::Repository)?;
        fits(self.forks || !event.is_from_fork(), Unwanted::Fork)?;
        fits(self.fits_ref(event), Unwanted::Ref)?;
        if event.kind == EventKind::PullRequest {
            fits(self.fits_action(event), Unwanted::Action)?;
            fits(self.fits_label(event), Unwanted::Label)?;
        }
        let changed = event.paths.as_deref().filter(|_| !self.paths.is_empty());
        let seen = changed.is_none_or(|changed| any_path_fits(&self.paths, changed));
        fits(seen, Unwanted::Path)?;
        // Somebody who asks again means it, whatever the commit says.
        let asked = event.kind == EventKind::Rerequest;
        fits(asked || !event.asks_to_skip(), Unwanted::Skip)
    }

    fn is_of_repository(&self, event: &Event) -> bool {
        let watched = self.repository.as_deref().map(repository_name);
        watched.is_some_and(|watched| event.fact("repository") == Some(&watched))
    }

    fn fits_ref(&self, event: &Event) -> bool {
        let into = matches!(event.kind, EventKind::PullRequest | EventKind::MergeGroup);
        let name = if into {
            let branch = event.fact("branch");
            branch.map(|branch| format!("refs/heads/{branch}"))
        } else {
            event.fact("ref").map(str::to_owned)
        };
        name.is_none_or(|name| ref_fits(&self.refs, &name))
    }

    fn fits_action(&self, event: &Event) -> bool {
        let action = event.fact("action").unwrap_or_default();
        if self.actions.is_empty() {
            let by_label = !self.labels.is_empty() && action == "labeled";
            return by_label || Self::ACTIONS.contains(&action);
        }
        self.actions.iter().any(|wanted| wanted == action)
    }

    /// One that has just been put on must itself be among them: else every further label would
    /// start a build of a pull request that carries one already.
    fn fits_label(&self, event: &Event) -> bool {
        let put_on = event.fact("label");
        match put_on.filter(|_| event.fact("action") == Some("labeled")) {
            _ if self.labels.is_empty() => true,
            Some(label) => self.labels.iter().any(|wanted| wanted == label),
            None => self
                .labels
                .iter()
                .any(|wanted| event.labels.contains(wanted)),
        }
    }
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

impl CatchUp {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Last => "last",
            Self::All => "all",
        }
    }
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

#[cfg(test)]
mod tests;
