//! One forge, to be told of commits.

use std::fmt;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};

use crate::answer::{Refusal, judge};
use crate::api::Kind;
use crate::app::App;
use crate::checks;
use crate::connection::{Ask, Connection, Secret};
use crate::said::Said;

/// By what a forge knows us. Never shown.
#[derive(Clone)]
pub struct Credential(Shown);

#[derive(Clone)]
enum Shown {
    Token(String),
    App(App),
}

impl Credential {
    /// A token as the forge gave it out.
    pub fn new(token: String) -> Self {
        Self(Shown::Token(token))
    }

    /// An app of GitHub, which may set checks.
    pub fn app(app: App) -> Self {
        Self(Shown::App(app))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// A forge that cannot be spoken to as it is described.
#[derive(Debug, thiserror::Error)]
pub enum InvalidForge {
    /// Its address is none.
    #[error("{address:?} is no http:// or https:// address without credentials")]
    Address {
        /// What was given.
        address: String,
    },
    /// Its token has bytes that no header can have.
    #[error("the token holds characters that no token has")]
    Token,
    /// It has no apps.
    #[error("{kind:?} has no apps of this kind: give a token")]
    NoApps {
        /// Whose API it speaks.
        kind: Kind,
    },
    /// Nothing can be connected to at all.
    #[error("no connections: {0}")]
    Connections(String),
}

/// How we come in.
#[derive(Debug, Clone)]
enum Access {
    /// By one token for everything: commits get statuses.
    Token(Secret),
    /// By an app, which gets a token for each repository: commits get checks.
    App(App),
}

/// A forge. Clones share their connections, and the tokens of an app.
#[derive(Debug, Clone)]
pub struct Forge {
    kind: Kind,
    connection: Connection,
    access: Access,
}

impl Forge {
    /// The forge at `host`, whose API is at `api` or where such forges usually have it.
    ///
    /// # Errors
    /// [`InvalidForge`].
    pub fn new(
        kind: Kind,
        host: &str,
        api: Option<&str>,
        credential: &Credential,
    ) -> Result<Self, InvalidForge> {
        let address = api.map_or_else(|| kind.usual_api(host), str::to_owned);
        let access = match &credential.0 {
            Shown::Token(token) => {
                let (name, value) = kind.header(token);
                let value = secret(&value).ok_or(InvalidForge::Token)?;
                Access::Token((HeaderName::from_static(name), value))
            }
            Shown::App(app) if kind == Kind::Github => Access::App(app.clone()),
            Shown::App(_) => return Err(InvalidForge::NoApps { kind }),
        };
        Ok(Self {
            kind,
            connection: Connection::new(address)?,
            access,
        })
    }

    /// Tells how a commit stands, once: by a status, or with an app's credentials by a check run.
    ///
    /// # Errors
    /// [`Refusal`]. If it is a passing one, the forge may have heard it nevertheless.
    ///
    /// # Idempotence
    /// The same said again changes nothing that people see.
    pub async fn tell(&self, said: &Said) -> Result<(), Refusal> {
        match &self.access {
            Access::Token(secret) => self.post_status(secret, said).await,
            Access::App(app) => checks::tell(&self.connection, app, said).await,
        }
    }

    async fn post_status(&self, secret: &Secret, said: &Said) -> Result<(), Refusal> {
        let names = self.kind.place(said);
        let ask = Ask {
            method: Method::POST,
            address: self.connection.below(names)?,
            secret,
            body: Some(&self.kind.body(said)),
        };
        let answer = self.connection.send(ask).await?;
        match judge(answer).await {
            Err(denied) if self.kind.is_repetition(&denied) => Ok(()),
            judged => Ok(judged.map(drop)?),
        }
    }
}

/// A header's value that no log shows.
pub(crate) fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
