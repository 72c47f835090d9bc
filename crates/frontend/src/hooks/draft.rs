//! An event in the making.
//!
//! Owns what all forges have in common: names of refs, the absent commit, lists of changed files.

use std::collections::{BTreeMap, BTreeSet};

use distci_model::event::{Event, EventKind, Source, repository_name};
use serde::Deserialize;

use super::Told;

/// An event in the making.
pub(super) struct Draft(Event);

impl Draft {
    pub(super) fn new(source: Source, kind: EventKind) -> Self {
        Self(Event {
            source,
            kind,
            delivery: None,
            facts: BTreeMap::new(),
            paths: None,
            labels: Vec::new(),
        })
    }

    /// Adds a fact, if it is known.
    pub(super) fn fact(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.facts.insert(name.to_owned(), value.to_owned());
        }
        self
    }

    /// Adds a commit, if there is one.
    pub(super) fn commit(self, name: &str, sha: Option<&str>) -> Self {
        self.fact(name, sha.filter(|sha| !is_no_commit(sha)))
    }

    /// Adds a fact that is either true or not worth telling.
    pub(super) fn flag(self, name: &str, value: bool) -> Self {
        self.fact(name, value.then_some("true"))
    }

    /// Adds where the repository is, by the address of its page.
    pub(super) fn repository(self, page: Option<&str>, clone_url: Option<&str>) -> Self {
        let name = page.or(clone_url).map(repository_name);
        self.fact("repository", name.as_deref())
            .fact("clone_url", clone_url)
    }

    /// Adds a ref by its full name, and the branch or tag that it is.
    pub(super) fn reference(self, full: Option<&str>) -> Self {
        let short = |prefix| full.and_then(|full| full.strip_prefix(prefix));
        let (branch, tag) = (short("refs/heads/"), short("refs/tags/"));
        self.fact("ref", full)
            .fact("branch", branch)
            .fact("tag", tag)
    }

    /// Adds a commit's message, and its first line as the title.
    pub(super) fn message(self, message: Option<&str>) -> Self {
        let title = message.and_then(|message| message.lines().next());
        self.fact("message", message).fact("title", title)
    }

    pub(super) fn paths(mut self, paths: Option<BTreeSet<&str>>) -> Self {
        let owned = |paths: BTreeSet<&str>| paths.into_iter().map(str::to_owned).collect();
        self.0.paths = paths.map(owned);
        self
    }

    pub(super) fn labels<'l>(mut self, labels: impl Iterator<Item = &'l str>) -> Self {
        self.0.labels = labels.map(str::to_owned).collect();
        self
    }

    pub(super) fn event(self) -> Event {
        self.0
    }

    pub(super) fn told(self) -> Told {
        Told::Events(vec![self.0])
    }
}

/// Whether it stands for a ref that is not there.
pub(super) fn is_no_commit(sha: &str) -> bool {
    !sha.is_empty() && sha.bytes().all(|byte| byte == b'0')
}

/// The kind of a change of a ref, by its full name.
pub(super) fn kind_of_push(full: &str, deleted: bool) -> EventKind {
    match (deleted, full.starts_with("refs/tags/")) {
        (true, _) => EventKind::Delete,
        (false, true) => EventKind::Tag,
        (false, false) => EventKind::Push,
    }
}

/// A commit of a push, as GitHub, GitLab and Gitea all have it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Commit {
    pub(super) id: Option<String>,
    pub(super) message: Option<String>,
    added: Option<Vec<String>>,
    modified: Option<Vec<String>>,
    removed: Option<Vec<String>>,
}

/// The files that these commits have changed; `None` if one of them does not say.
pub(super) fn changed(commits: &[Commit]) -> Option<BTreeSet<&str>> {
    let mut paths = BTreeSet::new();
    for commit in commits {
        for list in [&commit.added, &commit.modified, &commit.removed] {
            paths.extend(list.as_ref()?.iter().map(String::as_str));
        }
    }
    Some(paths)
}
