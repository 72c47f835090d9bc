//! Webhooks: from what a forge sends to what happened, in one form for all.
//!
//! Owns who is believed (`proof`), and the reading of each forge's payloads into [`Event`]s, one
//! file a forge, as pure functions of headers and body. Only the fields that an event needs are
//! read, and whatever else a forge sends is passed over: a new field must not cost a build. What
//! becomes of an event is `dispatch`'s.

mod bitbucket;
pub(crate) mod dispatch;
mod draft;
pub(crate) mod generic;
mod gitea;
mod github;
mod gitlab;
mod proof;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use axum::body::Bytes;
use axum::http::HeaderMap;
use distci_model::event::{Event, Source};
use tokio::sync::Semaphore;

pub(crate) use proof::proofs;

/// Most bodies of webhooks that are held in memory at once; the next ones wait for their turn.
const MOST_BODIES: usize = 16;
/// Longest name of an event or a delivery.
const MAX_NAME: usize = 128;

/// The secrets with which forges sign. Several of one forge count alike, so that one can be
/// replaced without a gap. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HookSecrets(BTreeMap<Source, Vec<String>>);

impl HookSecrets {
    /// Adds the secrets of a forge: one a line.
    pub fn add(&mut self, source: Source, lines: &str) {
        let secrets = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        let known = self.0.entry(source).or_default();
        known.extend(secrets.map(str::to_owned));
    }

    /// The secrets of a forge; none if its webhooks are not taken.
    pub(crate) fn of(&self, source: Source) -> &[String] {
        self.0.get(&source).map_or(&[], Vec::as_slice)
    }
}

impl fmt::Debug for HookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What receiving webhooks needs.
#[derive(Debug)]
pub(crate) struct Hooks {
    pub(crate) secrets: HookSecrets,
    /// Whoever reads a body holds one of these: it may be large, and is not believed yet.
    pub(crate) bodies: Semaphore,
}

impl Hooks {
    pub(crate) fn new(secrets: HookSecrets) -> Self {
        Self {
            secrets,
            bodies: Semaphore::new(MOST_BODIES),
        }
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self::new(HookSecrets::default())
    }
}

/// What the source calls an event, and this telling of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) event: String,
    /// The same when it is delivered again.
    pub(crate) delivery: String,
}

/// What a delivery tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// What happened; of Bitbucket, there may be several things in one delivery.
    Events(Vec<Event>),
    /// The forge only asks whether we are there.
    Ping,
    /// Nothing that starts builds.
    Nothing(&'static str),
}

/// What is said of an event that no forge's file knows.
const UNKNOWN: &str = "no trigger waits for such events";

/// The source of this name in a webhook's address.
pub(crate) fn source(name: &str) -> Option<Source> {
    let mut all = Source::FORGES.into_iter().chain([Source::Generic]);
    all.find(|source| source.to_string() == name)
}

/// The name of the event, as the headers have it.
pub(crate) fn event_name(source: Source, headers: &HeaderMap) -> Option<String> {
    let names: &[&str] = match source {
        Source::Github => &["x-github-event"],
        Source::Gitlab => &["x-gitlab-event"],
        Source::Gitea => &["x-forgejo-event", "x-gitea-event"],
        Source::Bitbucket => &["x-event-key"],
        Source::Generic | Source::Own => &[],
    };
    first(headers, names)
}

/// The name of the delivery, as the headers have it; else that of the body, for what a forge tells
/// has commits and times in it.
pub(crate) fn delivery_name(source: Source, headers: &HeaderMap, body: &[u8]) -> String {
    let names: &[&str] = match source {
        Source::Github => &["x-github-delivery"],
        Source::Gitlab => &["idempotency-key", "webhook-id", "x-gitlab-event-uuid"],
        Source::Gitea => &["x-forgejo-delivery", "x-gitea-delivery"],
        Source::Bitbucket => &["x-request-uuid"],
        Source::Generic | Source::Own => &["idempotency-key"],
    };
    let given = first(headers, names);
    given.unwrap_or_else(|| format!("body-{}", blake3::hash(body).to_hex()))
}

fn first(headers: &HeaderMap, names: &[&str]) -> Option<String> {
    let mut values = names.iter().filter_map(|name| text(headers, name));
    let value = values.find(|value| !value.is_empty())?;
    // A name that is too long is as good by its hash.
    Some(if value.len() > MAX_NAME {
        blake3::hash(value.as_bytes()).to_hex().to_string()
    } else {
        value.to_owned()
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The JSON of a body, which GitHub and Gitea also send as a form. `None` if the form has none.
pub(crate) fn payload(headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    let kind = text(headers, "content-type").unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Some(body.clone());
    }
    let mut fields = form_urlencoded::parse(body);
    let (_, payload) = fields.find(|(name, _)| name == "payload")?;
    Some(match payload {
        Cow::Borrowed(payload) => Bytes::copy_from_slice(payload.as_bytes()),
        Cow::Owned(payload) => payload.into(),
    })
}

/// What a forge's delivery tells.
///
/// # Errors
/// The payload is not the JSON that this event has.
pub(crate) fn told(source: Source, label: &Label, body: &[u8]) -> Result<Told, serde_json::Error> {
    let told = match source {
        Source::Github => github::told(&label.event, body),
        Source::Gitlab => gitlab::told(body),
        Source::Gitea => gitea::told(&label.event, body),
        Source::Bitbucket => bitbucket::told(&label.event, body),
        Source::Generic => generic::event(body).map(|event| Told::Events(vec![event])),
        Source::Own => Ok(Told::Nothing(UNKNOWN)),
    };
    told.map(|told| match told {
        Told::Events(mut events) => {
            for (index, event) in events.iter_mut().enumerate() {
                let delivery = &label.delivery;
                event.delivery = Some(match index {
                    0 => delivery.clone(),
                    more => format!("{delivery}#{more}"),
                });
            }
            Told::Events(events)
        }
        Told::Ping | Told::Nothing(_) => told,
    })
}

#[cfg(test)]
mod tests;
