//! Whose caches a build may read and write.
//!
//! Owns the law of trust: what anybody may send (a pull request) never gets into a cache that a build
//! of the repository's own branches reads.

use std::fmt;

use crate::build::Cause;
use crate::event::Event;
use crate::id::BuildRef;

/// Most bytes of all caches of a job together; the oldest go first.
pub const MAX_JOB_CACHES: u64 = 20 * 1024 * 1024 * 1024;
/// Most bytes of one cache, packed.
pub const MAX_CACHE: u64 = 5 * 1024 * 1024 * 1024;

/// A place for caches: what is written there is read by builds of the same place, and if it is
/// trusted by all of the job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheScope {
    /// Whether only those who may write to the repository get there.
    pub trusted: bool,
    /// What it is of.
    name: String,
}

impl CacheScope {
    fn trusted(name: String) -> Self {
        Self {
            trusted: true,
            name,
        }
    }

    fn untrusted(name: String) -> Self {
        Self {
            trusted: false,
            name,
        }
    }

    /// Where a build that exists because of `cause` reads first, and writes.
    pub fn of(cause: &Cause) -> Self {
        match cause {
            Cause::Manual => Self::trusted("manual".to_owned()),
            // What that build was of is not known here, so nothing is taken on trust.
            Cause::Upstream {
                build: BuildRef { job, .. },
            } => Self::untrusted(format!("upstream {job}")),
            Cause::Event { told } => Self::of_event(told),
            Cause::Rerun { cause, .. } => Self::of(cause),
        }
    }

    fn of_event(told: &Event) -> Self {
        let fact = |name: &str| told.facts.get(name).map(String::as_str);
        let repository = fact("repository").unwrap_or_default();
        if let Some(number) = fact("pr") {
            return Self::untrusted(format!("pr {repository} {number}"));
        }
        if fact("fork") == Some("true") {
            let head = fact("head_repository").unwrap_or_default();
            return Self::untrusted(format!("fork {head}"));
        }
        match fact("ref") {
            Some(reference) => Self::trusted(format!("ref {repository} {reference}")),
            None => Self::trusted(told.kind.to_string()),
        }
    }
}

/// As it is written into the name of a blob: nothing that a forge said is in there.
impl fmt::Display for CacheScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trust = if self.trusted { "t" } else { "u" };
        let hash = blake3::hash(self.name.as_bytes()).to_hex();
        write!(f, "{trust}-{}", hash.get(..16).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::{EventKind, Source};

    fn event(kind: EventKind, facts: &[(&str, &str)]) -> Cause {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Cause::Event {
            told: Box::new(Event {
                source: Source::Github,
                kind,
                delivery: None,
                facts: facts.iter().map(own).collect::<BTreeMap<_, _>>(),
                paths: None,
                labels: Vec::new(),
            }),
        }
    }

    #[test]
    fn what_anybody_may_send_is_apart() {
        let own = [("repository", "h/a"), ("ref", "refs/heads/main")];
        let main = CacheScope::of(&event(EventKind::Push, &own));
        assert!(main.trusted);
        let request = [
            ("repository", "h/a"),
            ("ref", "refs/heads/main"),
            ("pr", "7"),
        ];
        let request = CacheScope::of(&event(EventKind::PullRequest, &request));
        let fork = [
            ("ref", "refs/heads/main"),
            ("fork", "true"),
            ("head_repository", "h/b"),
        ];
        let fork = CacheScope::of(&event(EventKind::Push, &fork));
        let upstream = Cause::Upstream {
            build: "up#1".parse().unwrap(),
        };
        let upstream = CacheScope::of(&upstream);
        for untrusted in [&request, &fork, &upstream] {
            assert!(!untrusted.trusted && *untrusted != main);
        }
        let again = Cause::Rerun {
            of: "a#1".parse().unwrap(),
            cause: Box::new(event(EventKind::Push, &own)),
        };
        assert_eq!(CacheScope::of(&again), main);
        assert!(main.to_string().starts_with("t-"));
        assert_eq!(request.to_string().len(), 18);
    }
}
