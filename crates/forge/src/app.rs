//! An app of GitHub: how it proves that it is one, and the tokens that it is given.
//!
//! Owns the signed claim that an app shows (a JSON web token), and the tokens of its installations,
//! which live an hour and are kept in memory until shortly before. A token is drawn for one
//! repository, and may do nothing there but set checks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use distci_model::Timestamp;
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Denied, Refusal, judge};
use crate::connection::{Ask, Connection, Secret, read};
use crate::forge::secret;
use crate::key::AppKey;

/// So much before now a claim begins: the clocks of two machines differ.
const CLAIMED_BEFORE: Duration = Duration::from_mins(1);
/// So long after now it ends; GitHub takes none that ends more than 10 minutes after.
const CLAIMED_FOR: Duration = Duration::from_mins(9);
/// So much before its end a token is not shown any more.
const SPARE: Duration = Duration::from_mins(5);

/// Gives the time now.
pub type Clock = fn() -> Timestamp;

/// An app of GitHub. Clones share their tokens. Neither key nor token is ever shown.
#[derive(Clone)]
pub struct App {
    id: String,
    key: AppKey,
    installation: Option<u64>,
    clock: Clock,
    /// By repository.
    tokens: Arc<Mutex<BTreeMap<String, Token>>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("id", &self.id)
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Token {
    secret: Secret,
    until: Timestamp,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

#[derive(Deserialize)]
struct Drawn {
    token: String,
    expires_at: Timestamp,
}

impl App {
    /// The app of this id, a number, or of this client id. Without an installation, each repository
    /// is asked for its own.
    pub fn new(id: String, key: AppKey, installation: Option<u64>, clock: Clock) -> Self {
        Self {
            id,
            key,
            installation,
            clock,
            tokens: Arc::default(),
        }
    }

    /// The id, or the client id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// A token for a repository: one that is kept, or a new one.
    pub(crate) async fn token(
        &self,
        connection: &Connection,
        repository: &str,
    ) -> Result<Secret, Refusal> {
        let now = (self.clock)();
        let kept = self.tokens().get(repository).cloned();
        if let Some(token) = kept.filter(|token| now < token.until) {
            return Ok(token.secret);
        }
        let claim = self.claim(now)?;
        let installation = match self.installation {
            Some(id) => id,
            None => self.installed(connection, repository, &claim).await?,
        };
        let drawn = self.draw(connection, (repository, installation), &claim);
        let drawn = drawn.await?;
        let token = Token {
            secret: bearer(&drawn.token)?,
            until: drawn.expires_at.saturating_sub(SPARE).unwrap_or(now),
        };
        let shown = token.secret.clone();
        let mut tokens = self.tokens();
        tokens.retain(|_, token| now < token.until);
        tokens.insert(repository.to_owned(), token);
        Ok(shown)
    }

    /// Forgets the token of a repository: GitHub does not take it any more.
    pub(crate) fn forget(&self, repository: &str) {
        self.tokens().remove(repository);
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<String, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What proves that we are the app: the claim to be it, signed with its key.
    fn claim(&self, now: Timestamp) -> Result<Secret, Refusal> {
        let (since, for_) = (CLAIMED_BEFORE.as_secs(), CLAIMED_FOR.as_secs());
        let now = now.as_second();
        let claims = json!({
            "iat": now.saturating_sub_unsigned(since),
            "exp": now.saturating_add_unsigned(for_),
            "iss": self.id,
        });
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let head = json!({ "alg": "RS256", "typ": "JWT" });
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = self.key.sign(signed.as_bytes());
        let signature = signature.ok_or_else(|| lasting("the app's key cannot sign"))?;
        bearer(&format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }

    /// The installation that a repository is in.
    async fn installed(
        &self,
        connection: &Connection,
        repository: &str,
        claim: &Secret,
    ) -> Result<u64, Refusal> {
        let names = ["repos"].into_iter().chain(repository.split('/'));
        let ask = Ask {
            method: Method::GET,
            address: connection.below(names.chain(["installation"]))?,
            secret: claim,
            body: None,
        };
        let answer = judge(connection.send(ask).await?).await;
        let answer = answer.map_err(|denied| match denied.status {
            StatusCode::NOT_FOUND => {
                let install = format!("the app is not installed at {repository}: install it there");
                denied.refusal.about(install)
            }
            _ => self.not_known(denied),
        })?;
        let found: Installation = read(answer).await?;
        Ok(found.id)
    }

    async fn draw(
        &self,
        connection: &Connection,
        (repository, installation): (&str, u64),
        claim: &Secret,
    ) -> Result<Drawn, Refusal> {
        let number = installation.to_string();
        let name = repository.rsplit('/').next().unwrap_or(repository);
        let wish = json!({ "repositories": [name], "permissions": { "checks": "write" } });
        let names = ["app", "installations", &number, "access_tokens"];
        let ask = Ask {
            method: Method::POST,
            address: connection.below(names)?,
            secret: claim,
            body: Some(&wish),
        };
        let answer = judge(connection.send(ask).await?).await;
        let answer = answer.map_err(|denied| match denied.status {
            StatusCode::NOT_FOUND => denied.refusal.about(format!(
                "the app has no installation {number}: look its number up, or leave it out"
            )),
            StatusCode::UNPROCESSABLE_ENTITY => denied.refusal.about(format!(
                "installation {number} of the app may not write checks of {repository}: add the \
                 repository to it, or accept the permission"
            )),
            _ => self.not_known(denied),
        })?;
        read(answer).await
    }

    /// GitHub does not take us for the app, or is in trouble.
    fn not_known(&self, denied: Denied) -> Refusal {
        if denied.status != StatusCode::UNAUTHORIZED {
            return denied.refusal;
        }
        let id = &self.id;
        let check = format!(
            "the key is not taken for one of app {id}: compare both, and this machine's clock"
        );
        denied.refusal.about(check)
    }
}

fn bearer(token: &str) -> Result<Secret, Refusal> {
    let value = secret(&format!("Bearer {token}"));
    let value = value.ok_or_else(|| lasting("a token that no header can hold"))?;
    Ok((AUTHORIZATION, value))
}

fn lasting(detail: &str) -> Refusal {
    let detail = detail.to_owned();
    Refusal::Lasting { detail }
}
