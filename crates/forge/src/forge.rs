//! One forge, to be told of commits.

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::answer::{Refusal, judge};
use crate::api::Kind;
use crate::said::Said;

/// Longest that a connection may take, and an answer with it.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// A token of a forge. Never shown.
#[derive(Clone)]
pub struct Credential(String);

impl Credential {
    /// The token as the forge gave it out.
    pub fn new(token: String) -> Self {
        Self(token)
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
    /// Nothing can be connected to at all.
    #[error("no connections: {0}")]
    Connections(String),
}

/// A forge. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Forge {
    kind: Kind,
    api: Url,
    header: (HeaderName, HeaderValue),
    http: Client,
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
        let parsed = address.parse().ok().filter(|url: &Url| {
            let plain = url.username().is_empty() && url.password().is_none();
            plain && matches!(url.scheme(), "http" | "https")
        });
        let api = parsed.ok_or(InvalidForge::Address { address })?;
        let (name, value) = kind.header(&credential.0);
        let mut value = HeaderValue::from_str(&value).map_err(|_| InvalidForge::Token)?;
        value.set_sensitive(true);
        // Whoever is sent elsewhere would show the token there.
        let http = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .user_agent(concat!("distci/", env!("CARGO_PKG_VERSION")))
            .build();
        let connections = |error: reqwest::Error| InvalidForge::Connections(error.to_string());
        Ok(Self {
            kind,
            api,
            header: (HeaderName::from_static(name), value),
            http: http.map_err(connections)?,
        })
    }

    /// Tells how a commit stands, once.
    ///
    /// # Errors
    /// [`Refusal`]. If it is a passing one, the forge may have heard it nevertheless.
    ///
    /// # Idempotence
    /// The same said again changes nothing that people see.
    pub async fn tell(&self, said: &Said) -> Result<(), Refusal> {
        let Some(address) = self.kind.address(&self.api, said) else {
            let detail = format!("{} can have nothing below it", self.api);
            return Err(Refusal::Lasting { detail });
        };
        let (name, value) = self.header.clone();
        let sent = self
            .http
            .post(address)
            .header(name, value)
            .header(ACCEPT, "application/json")
            .json(&self.kind.body(said))
            .send()
            .await;
        match sent {
            Ok(response) => judge(self.kind, response).await,
            Err(error) => Err(Refusal::of_error(&error.without_url())),
        }
    }
}
