//! What happened outside that may start a build, in one form for all sources.
//!
//! Owns the facts that a build is told about its event, and their names. Reading what a forge sends
//! is the frontend's; which jobs want an event is `config`'s to say.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What happened.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Commits came to a branch, or the branch came to be.
    Push,
    /// A tag came to be, or moved.
    Tag,
    /// A branch or tag went.
    Delete,
    /// A pull request (a merge request) changed.
    PullRequest,
    /// A release was published.
    Release,
    /// A merge queue asks about the commit that it would merge.
    MergeGroup,
    /// Somebody asked the forge to check a commit again.
    Rerequest,
    /// A generic webhook was called.
    Webhook,
    /// A schedule's time came.
    Schedule,
    /// A poll of a repository found a new commit.
    Poll,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Push,
        Self::Tag,
        Self::Delete,
        Self::PullRequest,
        Self::Release,
        Self::MergeGroup,
        Self::Rerequest,
        Self::Webhook,
        Self::Schedule,
        Self::Poll,
    ];

    /// The wire form, which tasks see in `DISTCI_EVENT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::Delete => "delete",
            Self::PullRequest => "pull_request",
            Self::Release => "release",
            Self::MergeGroup => "merge_group",
            Self::Rerequest => "rerequest",
            Self::Webhook => "webhook",
            Self::Schedule => "schedule",
            Self::Poll => "poll",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who told of it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// GitHub.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea or Forgejo.
    Gitea,
    /// Bitbucket.
    Bitbucket,
    /// Anybody with the token of a generic webhook.
    Generic,
    /// DistCI itself: a schedule or a poll.
    Own,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
            Self::Generic => "generic",
            Self::Own => "own",
        })
    }
}

/// An event that may start builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Who told of it.
    pub source: Source,
    /// What happened.
    pub kind: EventKind,
    /// What the source calls this telling of it; told again, it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// What is known, by the names of [`FACTS`]; of a generic webhook, the values of its body as
    /// `body.PATH`.
    pub facts: BTreeMap<String, String>,
    /// The files that it changed; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// The labels of the pull request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// The facts that forges tell, with what each is. A task sees `sha` as `DISTCI_SHA`.
pub const FACTS: &[(&str, &str)] = &[
    ("repository", "host and path: github.com/acme/app"),
    ("clone_url", "address to clone from"),
    ("ref", "full name of the ref: refs/heads/main"),
    (
        "branch",
        "name of the branch; of a pull request, the one to merge into",
    ),
    ("tag", "name of the tag"),
    ("sha", "the commit"),
    ("before", "the commit that the ref was at before"),
    ("base_sha", "of a pull request, the commit to merge into"),
    ("head_branch", "of a pull request, the branch to merge"),
    (
        "head_repository",
        "of a pull request, the repository to merge from",
    ),
    ("fork", "`true` if that is another repository"),
    ("pr", "number of the pull request"),
    ("action", "what was done to it: opened, synchronize, …"),
    ("sender", "who did it"),
    (
        "title",
        "of the pull request, or first line of the commit's message",
    ),
    ("message", "the commit's message"),
    ("url", "page of the change"),
    ("forced", "`true` if the ref did not move forward"),
    ("created", "`true` if the ref is new"),
];

impl Event {
    /// `text` with each `${event.FACT}` replaced by that fact.
    ///
    /// # Errors
    /// What this event does not tell.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, following) = after.split_once('}').unwrap_or((after, ""));
            let fact = name.strip_prefix("event.");
            let fact = fact.ok_or_else(|| format!("`${{{name}}}` is no fact of an event"))?;
            let value = self.fact(fact);
            let kind = self.kind;
            let value = value.ok_or_else(|| format!("this {kind} event tells no {fact:?}"))?;
            filled.push_str(before);
            filled.push_str(value);
            rest = following;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// A fact, if it is known.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// Whether it comes from a repository that others than the owners of this one write to.
    pub fn is_from_fork(&self) -> bool {
        self.fact("fork") == Some("true")
    }

    /// Whether the commit's message asks not to be built.
    pub fn asks_to_skip(&self) -> bool {
        let markers = ["[skip ci]", "[ci skip]", "[no ci]", "[skip distci]"];
        let text = self.fact("message").or_else(|| self.fact("title"));
        text.is_some_and(|text| {
            let text = text.to_lowercase();
            markers.iter().any(|marker| text.contains(marker))
        })
    }
}

/// Host and path of a repository, however its address is written: `github.com/acme/app` for
/// `https://github.com/Acme/app.git`, `git@github.com:acme/app` and `ssh://git@github.com/acme/app/`.
/// A local path stays what it is, without a last `.git`.
pub fn repository_name(address: &str) -> String {
    let bare = address.trim().trim_end_matches('/');
    let bare = bare.strip_suffix(".git").unwrap_or(bare);
    let name = match bare.split_once("://") {
        Some(("file", path)) => return path.to_owned(),
        Some((_, rest)) => without_user(rest).to_owned(),
        None if bare.starts_with(['/', '.']) => return bare.to_owned(),
        None => {
            let bare = without_user(bare);
            match bare.split_once(':') {
                // The short form of ssh, unless what follows is a port.
                Some((host, path)) if !host.contains('/') && !begins_with_port(path) => {
                    format!("{host}/{}", path.trim_start_matches('/'))
                }
                _ => bare.to_owned(),
            }
        }
    };
    name.to_lowercase()
}

fn without_user(address: &str) -> &str {
    let host = address.find('/').unwrap_or(address.len());
    let user = address[..host].rfind('@').map_or(0, |at| at + 1);
    &address[user..]
}

fn begins_with_port(path: &str) -> bool {
    let port = path.split('/').next().unwrap_or_default();
    port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_one_name_however_it_is_written() {
        for address in [
            "https://github.com/Acme/App.git",
            "https://token@github.com/acme/app",
            "git@github.com:acme/app.git",
            "ssh://git@github.com/acme/app/",
            "git://github.com/acme/app",
        ] {
            assert_eq!(repository_name(address), "github.com/acme/app", "{address}");
        }
        assert_eq!(repository_name("/srv/git/App.git"), "/srv/git/App");
        assert_eq!(repository_name("file:///srv/git/App.git"), "/srv/git/App");
        assert_eq!(
            repository_name("github.com/acme/app"),
            "github.com/acme/app"
        );
        assert_eq!(repository_name("localhost:3000/a/b"), "localhost:3000/a/b");
        assert_eq!(
            repository_name("http://localhost:3000/A/b"),
            "localhost:3000/a/b"
        );
    }

    #[test]
    fn a_commit_may_ask_to_be_skipped() {
        let event = |message: &str| Event {
            source: Source::Github,
            kind: EventKind::Push,
            delivery: None,
            facts: [("message".to_owned(), message.to_owned())].into(),
            paths: None,
            labels: Vec::new(),
        };
        assert!(event("Docs [Skip CI]").asks_to_skip());
        assert!(event("a\n\n[ci skip]").asks_to_skip());
        assert!(!event("skip ci").asks_to_skip());
    }
}
