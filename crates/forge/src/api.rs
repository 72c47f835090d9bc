//! The four APIs: where a status goes, in which form, and how a token is shown.
//!
//! Owns the differences between the forges; all of them take one `POST` for a status. Which words
//! they have for a state is in [`Kind::word`].

use std::iter;

use distci_model::errand::CommitState;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use crate::Said;
use crate::answer::Denied;

/// Whose API a host speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// GitHub, or GitHub Enterprise.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea or Forgejo.
    Gitea,
    /// Bitbucket Cloud.
    Bitbucket,
}

impl Kind {
    /// Where the API of such a forge usually is.
    pub(crate) fn usual_api(self, host: &str) -> String {
        match self {
            Self::Github if host == "github.com" => "https://api.github.com".to_owned(),
            Self::Github => format!("https://{host}/api/v3"),
            Self::Gitlab => format!("https://{host}/api/v4"),
            Self::Gitea => format!("https://{host}/api/v1"),
            Self::Bitbucket if host == "bitbucket.org" => {
                "https://api.bitbucket.org/2.0".to_owned()
            }
            Self::Bitbucket => format!("https://api.{host}/2.0"),
        }
    }

    /// Where a status is posted, step by step.
    pub(crate) fn place(self, said: &Said) -> Vec<&str> {
        let (repository, sha) = (said.repository.as_str(), said.sha.as_str());
        let names = repository.split('/');
        match self {
            Self::Github | Self::Gitea => {
                let place = iter::once("repos").chain(names);
                place.chain(["statuses", sha]).collect()
            }
            // One step, however deep the groups are.
            Self::Gitlab => vec!["projects", repository, "statuses", sha],
            Self::Bitbucket => iter::once("repositories")
                .chain(names)
                .chain(["commit", sha, "statuses", "build"])
                .collect(),
        }
    }

    /// What is posted. Left out is what is not known: none of them takes an empty address.
    pub(crate) fn body(self, said: &Said) -> Value {
        let mut body = Map::new();
        let mut say = |key: &str, value: &str| {
            body.insert(key.to_owned(), json!(value));
        };
        say("state", self.word(said.state));
        say("description", &said.description);
        let (context, url) = match self {
            Self::Github | Self::Gitea => ("context", "target_url"),
            Self::Gitlab => ("name", "target_url"),
            Self::Bitbucket => ("name", "url"),
        };
        say(context, &said.context);
        if self == Self::Bitbucket {
            say("key", &bitbucket_key(&said.context));
        }
        match (&said.url, self) {
            (Some(address), _) => say(url, address),
            // Bitbucket alone insists.
            (None, Self::Bitbucket) => say(url, "https://bitbucket.org"),
            (None, Self::Github | Self::Gitlab | Self::Gitea) => {}
        }
        Value::Object(body)
    }

    /// What the forge calls a state. None but GitHub and Gitea know that nobody is to blame.
    pub(crate) fn word(self, state: CommitState) -> &'static str {
        match (self, state) {
            (Self::Github | Self::Gitea, CommitState::Error) => "error",
            (Self::Github | Self::Gitea, CommitState::Failure) => "failure",
            (Self::Gitlab, CommitState::Error) => "canceled",
            (Self::Gitlab, CommitState::Failure) => "failed",
            (Self::Bitbucket, CommitState::Pending) => "INPROGRESS",
            (Self::Bitbucket, CommitState::Success) => "SUCCESSFUL",
            (Self::Bitbucket, CommitState::Failure) => "FAILED",
            (Self::Bitbucket, CommitState::Error) => "STOPPED",
            (_, CommitState::Pending) => "pending",
            (_, CommitState::Success) => "success",
        }
    }

    /// The header that shows a token.
    pub(crate) fn header(self, token: &str) -> (&'static str, String) {
        match self {
            Self::Github | Self::Bitbucket => ("authorization", format!("Bearer {token}")),
            Self::Gitlab => ("private-token", token.to_owned()),
            Self::Gitea => ("authorization", format!("token {token}")),
        }
    }

    /// Whether a refusal says that the status is there already: GitLab takes no state twice.
    pub(crate) fn is_repetition(self, denied: &Denied) -> bool {
        let of_state = denied.body.contains("Cannot transition status");
        self == Self::Gitlab && denied.status == StatusCode::BAD_REQUEST && of_state
    }
}

/// Bitbucket's keys have at most 40 characters.
fn bitbucket_key(context: &str) -> String {
    const MOST: usize = 40;
    if context.chars().count() <= MOST {
        return context.to_owned();
    }
    // Two long contexts that begin alike must not take each other's place.
    let (head, sum) = (context.chars().take(MOST - 9), checksum(context));
    format!("{}-{sum:08x}", head.collect::<String>())
}

/// FNV-1a: to tell a few names apart, and always the same.
fn checksum(text: &str) -> u32 {
    let mix = |sum: u32, byte: u8| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    text.bytes().fold(0x811c_9dc5, mix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;

    fn said(repository: &str, context: &str) -> Said {
        Said {
            repository: repository.to_owned(),
            sha: "a".repeat(40),
            context: context.to_owned(),
            state: CommitState::Pending,
            description: "build 1 is under way".to_owned(),
            url: None,
            check: None,
        }
    }

    fn address(kind: Kind, base: &str, repository: &str) -> String {
        let connection = Connection::new(base.to_owned()).unwrap();
        let url = connection
            .below(kind.place(&said(repository, "c")))
            .unwrap();
        url.to_string().replace(&"a".repeat(40), "SHA")
    }

    #[test]
    fn each_forge_has_its_place_for_a_status() {
        for (kind, base, repository, expected) in [
            (
                Kind::Github,
                "https://api.github.com",
                "acme/app",
                "https://api.github.com/repos/acme/app/statuses/SHA",
            ),
            (
                Kind::Gitlab,
                "https://gitlab.com/api/v4/",
                "acme/deep/app",
                "https://gitlab.com/api/v4/projects/acme%2Fdeep%2Fapp/statuses/SHA",
            ),
            (
                Kind::Gitea,
                "http://localhost:3000/api/v1",
                "a/b",
                "http://localhost:3000/api/v1/repos/a/b/statuses/SHA",
            ),
            (
                Kind::Bitbucket,
                "https://api.bitbucket.org/2.0",
                "a/b",
                "https://api.bitbucket.org/2.0/repositories/a/b/commit/SHA/statuses/build",
            ),
        ] {
            assert_eq!(address(kind, base, repository), expected);
        }
        // A repository cannot lead elsewhere.
        let sly = address(Kind::Github, "https://h", "a/../b?c#d");
        assert!(sly.starts_with("https://h/repos/a/"), "{sly}");
        assert!(sly.ends_with("/b%3Fc%23d/statuses/SHA"), "{sly}");
    }

    #[test]
    fn long_contexts_have_keys_of_their_own() {
        let (one, two) = ("x".repeat(60) + "1", "x".repeat(60) + "2");
        let (one, two) = (bitbucket_key(&one), bitbucket_key(&two));
        assert_eq!((one.len(), two.len()), (40, 40));
        assert_ne!(one, two);
        assert_eq!(bitbucket_key("distci/app"), "distci/app");
    }
}
