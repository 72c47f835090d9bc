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

impl Source {
    /// Those that sign what they tell with a secret that they share with us.
    pub const FORGES: [Self; 4] = [Self::Github, Self::Gitlab, Self::Gitea, Self::Bitbucket];
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
    ("label", "the label that was just put on it"),
    ("sender", "who did it"),
    (
        "title",
        "of the pull request, or first line of the commit's message",
    ),
    ("message", "the commit's message"),
    (
        "check",
        "of a request to check again, the check as its app calls it: JOB#N",
    ),
    ("url", "page of the change"),
    ("forced", "`true` if the ref did not move forward"),
    ("created", "`true` if the ref is new"),
    ("scheduled", "of a schedule, the time that came"),
];

/// Most bytes of the message and of the title that are kept, of any other fact, and of the names of
/// the changed files and the labels together.
const MAX_MESSAGE: usize = 4 * 1024;
const MAX_TITLE: usize = 256;
const MAX_FACT: usize = 4 * 1024;
const MAX_PATHS: usize = 8 * 1024;
const MAX_LABELS: usize = 2 * 1024;
/// Most bytes of all facts: an event is in its build's anchor, which has to fit into one commit.
const MAX_FACTS: usize = 16 * 1024;

/// Whether an event may have a fact of this name.
pub fn is_fact(name: &str) -> bool {
    let body = name.strip_prefix("body.");
    body.is_some_and(|path| !path.is_empty()) || FACTS.iter().any(|(fact, _)| *fact == name)
}

impl Event {
    /// The same without what does not fit into a build: texts are cut, NULs go, and if the changed
    /// files are many they are not known. Whoever makes an event does this; jobs are asked with the
    /// whole list before.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.facts = bounded_facts(std::mem::take(&mut self.facts));
        let bytes = |texts: &[String]| texts.iter().map(|text| text.len() + 3).sum::<usize>();
        self.paths = self.paths.filter(|paths| bytes(paths) <= MAX_PATHS);
        while bytes(&self.labels) > MAX_LABELS {
            self.labels.pop();
        }
        self
    }

    /// What a task sees of it: `DISTCI_SHA` for `sha`. The labels are one a line.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        let variable = |fact: &str| match fact {
            // The command line takes this name for the address of a frontend.
            "url" => "DISTCI_EVENT_URL".to_owned(),
            fact => format!("DISTCI_{}", fact.chars().map(plain).collect::<String>()),
        };
        let facts = self.facts.iter();
        let mut variables: BTreeMap<String, String> = facts
            .map(|(fact, value)| (variable(fact), value.clone()))
            .collect();
        if !self.labels.is_empty() {
            variables.insert("DISTCI_PR_LABELS".to_owned(), self.labels.join("\n"));
        }
        variables
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

fn bounded_facts(facts: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut left = MAX_FACTS;
    let mut kept = BTreeMap::new();
    for (name, value) in facts {
        let most = match name.as_str() {
            "message" => MAX_MESSAGE,
            "title" => MAX_TITLE,
            _ => MAX_FACT,
        };
        let mut value = value.replace('\0', "");
        value.truncate(value.floor_char_boundary(most));
        let bytes = name.len() + value.len();
        if bytes <= left && !value.is_empty() {
            left -= bytes;
            kept.insert(name, value);
        }
    }
    kept
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

    fn push(facts: &[(&str, &str)]) -> Event {
        let facts = facts.iter();
        Event {
            source: Source::Github,
            kind: EventKind::Push,
            delivery: None,
            facts: facts
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            paths: None,
            labels: Vec::new(),
        }
    }

    #[test]
    fn tasks_see_facts_as_variables() {
        let event = Event {
            labels: vec!["a".to_owned(), "b c".to_owned()],
            ..push(&[("sha", "abc"), ("url", "u"), ("body.a-b.c", "d")])
        };
        let seen: Vec<_> = event.environment().into_iter().collect();
        let expected = [
            ("DISTCI_BODY_A_B_C", "d"),
            ("DISTCI_EVENT_URL", "u"),
            ("DISTCI_PR_LABELS", "a\nb c"),
            ("DISTCI_SHA", "abc"),
        ];
        assert_eq!(seen, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn an_event_is_cut_to_what_a_build_can_hold() {
        let long = "ä".repeat(10_000);
        let event = push(&[
            ("message", &long),
            ("title", &long),
            ("sha", "a\0b"),
            ("tag", ""),
        ]);
        let event = Event {
            paths: Some(vec!["p".repeat(100); 500]),
            labels: vec!["l".repeat(100); 500],
            ..event
        };
        let event = event.bounded();
        assert_eq!(event.fact("message").map(str::len), Some(MAX_MESSAGE));
        assert_eq!(event.fact("title").map(str::len), Some(MAX_TITLE));
        assert_eq!(event.fact("sha"), Some("ab"));
        assert_eq!(event.fact("tag"), None);
        assert_eq!(event.paths, None);
        assert!(event.labels.len() < 20);
        let facts: Vec<_> = (0..200)
            .map(|i| (format!("body.{i}"), "x".repeat(4000)))
            .collect();
        let facts: Vec<_> = facts
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let text = serde_json::to_string(&push(&facts).bounded()).unwrap();
        assert!(text.len() < 32 * 1024, "{}", text.len());
    }

    #[test]
    fn a_commit_may_ask_to_be_skipped() {
        let event = |message: &str| push(&[("message", message)]);
        assert!(event("Docs [Skip CI]").asks_to_skip());
        assert!(event("a\n\n[ci skip]").asks_to_skip());
        assert!(!event("skip ci").asks_to_skip());
    }
}
