//! What anybody tells who has the token of a job's generic webhook.
//!
//! Owns how a body becomes facts: each text, number and truth value by its path, `body.a.b.0`. What
//! stands nearer to the top counts more when there is too much.

use std::collections::VecDeque;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use data_encoding::HEXLOWER;
use distci_model::event::{Event, EventKind, Source};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::draft::Draft;
use super::text;

/// Most facts of one body, and most bytes of one and of all.
const MAX_FACTS: usize = 64;
const MAX_FACT: usize = 4 * 1024;
const MAX_BYTES: usize = 15 * 1024;
/// Longest path, and most values that are looked at.
const MAX_PATH: usize = 256;
const MAX_LOOKS: usize = 10_000;

/// The SHA-256, hex, of the token that the headers show.
pub(crate) fn token_hash(headers: &HeaderMap) -> Option<String> {
    let bearer = || {
        let (scheme, token) = text(headers, AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    };
    let token = text(headers, "x-distci-token").or_else(bearer)?.trim();
    (!token.is_empty()).then(|| HEXLOWER.encode(&Sha256::digest(token.as_bytes())))
}

/// The event of a call with this body, which may be empty.
pub(super) fn event(body: &[u8]) -> Result<Event, serde_json::Error> {
    let body = match body.trim_ascii() {
        [] => Value::Null,
        body => serde_json::from_slice(body)?,
    };
    let mut draft = Draft::new(Source::Generic, EventKind::Webhook);
    let (mut facts, mut bytes, mut looks) = (0, 0, 0);
    let mut rest = VecDeque::from([("body".to_owned(), &body)]);
    while let Some((path, value)) = rest.pop_front() {
        looks += 1;
        if looks > MAX_LOOKS || facts == MAX_FACTS {
            break;
        }
        let below = |name: &str| format!("{path}.{name}");
        let room = MAX_LOOKS.saturating_sub(rest.len());
        let scalar = match value {
            Value::Null => continue,
            Value::Object(members) => {
                let members = members.iter().take(room);
                rest.extend(members.map(|(name, value)| (below(name), value)));
                continue;
            }
            Value::Array(elements) => {
                let elements = elements.iter().enumerate().take(room);
                rest.extend(elements.map(|(index, value)| (below(&index.to_string()), value)));
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
        };
        let size = path.len() + scalar.len().min(MAX_FACT);
        if path.len() <= MAX_PATH && bytes + size <= MAX_BYTES {
            let cut = &scalar[..scalar.floor_char_boundary(MAX_FACT)];
            draft = draft.fact(&path, Some(cut));
            (facts, bytes) = (facts + 1, bytes + size);
        }
    }
    Ok(draft.event())
}
