//! The connections to one forge's API.
//!
//! Owns how long anything may take, how much of an answer is read, and that nobody is followed
//! elsewhere with a secret in hand.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::Refusal;
use crate::forge::InvalidForge;

/// Longest that a connection may take, and an answer with it.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
/// Most bytes of an answer: a hundred check runs with what they say, and more.
const MOST_READ: usize = 16 * 1024 * 1024;

/// A header that shows a secret.
pub(crate) type Secret = (HeaderName, HeaderValue);

/// A forge's API. Clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    api: Url,
    http: Client,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) address: Url,
    pub(crate) secret: &'a Secret,
    pub(crate) body: Option<&'a Value>,
}

impl Connection {
    pub(crate) fn new(address: String) -> Result<Self, InvalidForge> {
        let parsed = address.parse().ok().filter(|url: &Url| {
            let plain = url.username().is_empty() && url.password().is_none();
            plain && matches!(url.scheme(), "http" | "https")
        });
        let api = parsed.ok_or(InvalidForge::Address { address })?;
        // Whoever is sent elsewhere would show the token there.
        let http = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .user_agent(concat!("distci/", env!("CARGO_PKG_VERSION")))
            .build();
        let connections = |error: reqwest::Error| InvalidForge::Connections(error.to_string());
        let http = http.map_err(connections)?;
        Ok(Self { api, http })
    }

    /// The address below the API's that these names lead to, each of them one step.
    pub(crate) fn below<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Url, Refusal> {
        let mut url = self.api.clone();
        {
            let mut path = url.path_segments_mut().map_err(|()| Refusal::Lasting {
                detail: format!("{} can have nothing below it", self.api),
            })?;
            path.pop_if_empty().extend(names);
        }
        Ok(url)
    }

    /// The answer, whatever it is.
    pub(crate) async fn send(&self, ask: Ask<'_>) -> Result<Response, Refusal> {
        let (name, value) = ask.secret.clone();
        let request = self
            .http
            .request(ask.method, ask.address)
            .header(name, value)
            .header(ACCEPT, "application/json");
        let request = match ask.body {
            Some(body) => request.json(body),
            None => request,
        };
        let sent = request.send().await;
        sent.map_err(|error| Refusal::of_error(&error.without_url()))
    }
}

/// What an answer that is no refusal says.
pub(crate) async fn read<T: DeserializeOwned>(mut answer: Response) -> Result<T, Refusal> {
    let mut body = Vec::new();
    loop {
        let chunk = answer.chunk().await;
        let chunk = chunk.map_err(|error| Refusal::of_error(&error.without_url()))?;
        let Some(chunk) = chunk else { break };
        body.extend_from_slice(&chunk);
        if body.len() > MOST_READ {
            let detail = format!("an answer of more than {MOST_READ} bytes");
            return Err(Refusal::Lasting { detail });
        }
    }
    // Its text may hold a token: only the place is told.
    serde_json::from_slice(&body).map_err(|error| Refusal::Lasting {
        detail: format!(
            "an answer that is not of this API, at line {} column {}",
            error.line(),
            error.column()
        ),
    })
}
