//! Check runs: what GitHub lists for a commit when an app tells it.
//!
//! Owns that a build has one check run, however often it is told of: nobody remembers its number, so
//! it is looked for by the build's name before anything is done. What is under way never takes the
//! place of what has ended, because it only ever makes a check run that is not there.

use distci_model::Timestamp;
use distci_model::errand::{Check, Conclusion};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::answer::{Denied, Refusal, judge};
use crate::app::App;
use crate::connection::{Ask, Connection, Secret, read};
use crate::said::Said;

/// Check runs of one answer: as many as GitHub gives.
const PAGE: usize = 100;
/// Most answers that are looked at: of one name at a commit, GitHub keeps so many.
const PAGES: usize = 10;

#[derive(Debug, Deserialize)]
struct Listed {
    check_runs: Vec<Run>,
}

/// A check run as it is listed.
#[derive(Debug, Deserialize)]
struct Run {
    id: u64,
    #[serde(default)]
    external_id: Option<String>,
    #[serde(default)]
    app: Option<Owner>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    id: u64,
    #[serde(default)]
    client_id: Option<String>,
}

/// Why it was not told: the token, or anything else.
enum Hindered {
    Token(Refusal),
    Other(Refusal),
}

impl From<Refusal> for Hindered {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal)
    }
}

impl From<Denied> for Hindered {
    fn from(denied: Denied) -> Self {
        if denied.status == StatusCode::UNAUTHORIZED {
            Self::Token(denied.refusal)
        } else {
            Self::Other(denied.refusal)
        }
    }
}

/// Sets the check run of what is said, once; with a new token, if the one that is kept is not taken
/// any more.
pub(crate) async fn tell(connection: &Connection, app: &App, said: &Said) -> Result<(), Refusal> {
    let Some(check) = &said.check else {
        // It was written by an older program; a newer one will tell the end.
        let detail = "the frontend does not say what a check needs: bring it up to date".to_owned();
        let after = None;
        return Err(Refusal::Passing { detail, after });
    };
    let mut renewed = false;
    loop {
        let secret = app.token(connection, &said.repository).await?;
        let told = Telling {
            connection,
            app: app.id(),
            said,
            check,
            secret: &secret,
        };
        match told.set().await {
            Ok(()) => return Ok(()),
            Err(Hindered::Token(_)) if !renewed => {
                renewed = true;
                app.forget(&said.repository);
            }
            Err(Hindered::Token(refusal) | Hindered::Other(refusal)) => return Err(refusal),
        }
    }
}

struct Telling<'a> {
    connection: &'a Connection,
    app: &'a str,
    said: &'a Said,
    check: &'a Check,
    secret: &'a Secret,
}

impl Telling<'_> {
    async fn set(&self) -> Result<(), Hindered> {
        let runs = self.runs().await?;
        match (runs.as_slice(), &self.check.end) {
            ([], _) => self.create().await,
            // It is there, and perhaps has ended: what is under way has nothing to add.
            (_, None) => Ok(()),
            // One, unless a worker was taken for dead while its request was under way.
            (runs, Some(_)) => {
                for id in runs {
                    self.update(*id).await?;
                }
                Ok(())
            }
        }
    }

    /// The check runs of this very build at the commit.
    async fn runs(&self) -> Result<Vec<u64>, Hindered> {
        let mut address = self.below(["commits", &self.said.sha, "check-runs"])?;
        let mut ours = Vec::new();
        for page in 1..=PAGES {
            address
                .query_pairs_mut()
                .clear()
                .append_pair("check_name", &self.said.context)
                .append_pair("filter", "all")
                .append_pair("per_page", &PAGE.to_string())
                .append_pair("page", &page.to_string());
            let answer = self.ask(Method::GET, address.clone(), None).await?;
            let listed: Listed = read(judge(answer).await?).await?;
            let count = listed.check_runs.len();
            let found = listed.check_runs.into_iter();
            ours.extend(found.filter(|run| self.is_ours(run)).map(|run| run.id));
            if count < PAGE {
                break;
            }
        }
        Ok(ours)
    }

    fn is_ours(&self, run: &Run) -> bool {
        let named = run.external_id.as_deref() == Some(&self.check.id);
        named && run.app.as_ref().is_none_or(|app| app.is(self.app))
    }

    async fn create(&self) -> Result<(), Hindered> {
        let mut body = self.body();
        body.insert("head_sha".to_owned(), json!(self.said.sha));
        self.write(Method::POST, self.below(["check-runs"])?, body)
            .await
    }

    async fn update(&self, id: u64) -> Result<(), Hindered> {
        let address = self.below(["check-runs", &id.to_string()])?;
        self.write(Method::PATCH, address, self.body()).await
    }

    async fn write(
        &self,
        method: Method,
        address: Url,
        body: Map<String, Value>,
    ) -> Result<(), Hindered> {
        let body = Value::Object(body);
        let answer = self.ask(method, address, Some(&body)).await?;
        judge(answer).await?;
        Ok(())
    }

    async fn ask(
        &self,
        method: Method,
        address: Url,
        body: Option<&Value>,
    ) -> Result<reqwest::Response, Refusal> {
        let ask = Ask {
            method,
            address,
            secret: self.secret,
            body,
        };
        self.connection.send(ask).await
    }

    fn below<'n, const N: usize>(&'n self, names: [&'n str; N]) -> Result<Url, Refusal> {
        let repository = self.said.repository.split('/');
        let place = ["repos"].into_iter().chain(repository).chain(names);
        self.connection.below(place)
    }

    /// What a new check run and a changed one have in common.
    fn body(&self) -> Map<String, Value> {
        let (said, check) = (self.said, self.check);
        let mut body = Map::new();
        let mut say = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
        say("name", json!(said.context));
        say("external_id", json!(check.id));
        if let Some(url) = &said.url {
            say("details_url", json!(url));
        }
        say("started_at", json!(second(check.began)));
        match check.end {
            None => say("status", json!("in_progress")),
            Some(end) => {
                say("status", json!("completed"));
                say("conclusion", json!(word(end.conclusion)));
                say("completed_at", json!(second(end.at.max(check.began))));
            }
        }
        let summary = plain(&check.summary, &said.description);
        say(
            "output",
            json!({ "title": said.description, "summary": summary }),
        );
        body
    }
}

impl Owner {
    /// Whether it is the app of this id or client id; if GitHub does not tell that one, it may be.
    fn is(&self, id: &str) -> bool {
        match id.parse::<u64>() {
            Ok(number) => self.id == number,
            Err(_) => self.client_id.as_deref().is_none_or(|known| known == id),
        }
    }
}

/// GitHub's word. A required check passes with `success` and `skipped` alone; a fault asks for
/// somebody's help, because it says nothing of the code and must not pass.
fn word(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Success => "success",
        Conclusion::Failure => "failure",
        Conclusion::TimedOut => "timed_out",
        Conclusion::Cancelled => "cancelled",
        Conclusion::Fault => "action_required",
        Conclusion::Skipped => "skipped",
    }
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Sentences as Markdown that shows them as they are, a line each.
fn plain(sentences: &str, otherwise: &str) -> String {
    let sentences = if sentences.is_empty() {
        otherwise
    } else {
        sentences
    };
    let mut markdown = String::with_capacity(sentences.len() * 2);
    for c in sentences.chars() {
        match c {
            // Two blanks at its end break a line.
            '\n' => markdown.push_str("  \n"),
            c if c.is_ascii_punctuation() => markdown.extend(['\\', c]),
            c => markdown.push(c),
        }
    }
    markdown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_says_is_shown_and_not_obeyed() {
        assert_eq!(plain("", "all *is* well"), "all \\*is\\* well");
        assert_eq!(
            plain("a#1 <b>\n[c](d)", ""),
            "a\\#1 \\<b\\>  \n\\[c\\]\\(d\\)"
        );
    }

    #[test]
    fn a_check_run_of_another_app_is_not_ours() {
        let owner = |client: Option<&str>| Owner {
            id: 7,
            client_id: client.map(str::to_owned),
        };
        for (client, id, expected) in [
            (None, "7", true),
            (None, "8", false),
            (Some("Iv1.a"), "Iv1.a", true),
            (Some("Iv1.b"), "Iv1.a", false),
            // Older servers tell no client id.
            (None, "Iv1.a", true),
        ] {
            assert_eq!(owner(client).is(id), expected, "{client:?} {id}");
        }
    }
}
