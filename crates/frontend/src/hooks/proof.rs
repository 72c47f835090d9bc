//! Who is believed.
//!
//! Owns the ways in which a sender shows that it knows the secret. Every comparison takes the same
//! time whatever differs, and all secrets are tried, so that time tells nothing of them.

use axum::http::HeaderMap;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use distci_model::Timestamp;
use distci_model::event::Source;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::text;

/// How far the time of a signed delivery may be from ours, in seconds.
const TOLERANCE: i64 = 5 * 60;
/// What begins a key of the Standard Webhooks scheme.
const KEY_PREFIX: &str = "whsec_";
/// Most signatures of one delivery that are tried.
const MAX_SIGNATURES: usize = 8;

/// What a sender shows, still to be verified.
pub(crate) enum Proof {
    /// HMAC-SHA-256 over the body.
    Body(Vec<u8>),
    /// The secret itself.
    Token(String),
    /// Standard Webhooks: HMAC-SHA-256 over id, time and body.
    Signed {
        id: String,
        at: i64,
        signatures: Vec<Vec<u8>>,
    },
}

/// What the headers show; nothing, if they show nothing of the right form.
pub(crate) fn proofs(source: Source, headers: &HeaderMap) -> Vec<Proof> {
    let hex = |name| body_proof(text(headers, name)?);
    match source {
        Source::Github => hex("x-hub-signature-256").into_iter().collect(),
        Source::Bitbucket => hex("x-hub-signature").into_iter().collect(),
        Source::Gitea => [
            "x-forgejo-signature",
            "x-gitea-signature",
            "x-hub-signature-256",
        ]
        .into_iter()
        .find_map(hex)
        .into_iter()
        .collect(),
        Source::Gitlab => {
            let token = text(headers, "x-gitlab-token").filter(|token| !token.is_empty());
            let token = token.map(|token| Proof::Token(token.to_owned()));
            token.into_iter().chain(signed(headers)).collect()
        }
        Source::Generic | Source::Own => Vec::new(),
    }
}

/// `sha256=` may stand before the digits.
fn body_proof(header: &str) -> Option<Proof> {
    let digits = header.strip_prefix("sha256=").unwrap_or(header);
    let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
    (bytes.len() == 32).then_some(Proof::Body(bytes))
}

fn signed(headers: &HeaderMap) -> Option<Proof> {
    let id = text(headers, "webhook-id")?;
    let at = text(headers, "webhook-timestamp")?.parse().ok()?;
    let listed = text(headers, "webhook-signature")?;
    let known = listed
        .split_whitespace()
        .filter_map(|one| one.strip_prefix("v1,"));
    let decoded = known.filter_map(|one| BASE64.decode(one.as_bytes()).ok());
    Some(Proof::Signed {
        id: id.to_owned(),
        at,
        signatures: decoded.take(MAX_SIGNATURES).collect(),
    })
}

impl Proof {
    /// Whether it shows one of the secrets.
    pub(crate) fn holds(&self, secrets: &[String], body: &[u8], now: Timestamp) -> bool {
        let any = |shown: &dyn Fn(&str) -> bool| {
            // Without leaving early.
            secrets
                .iter()
                .fold(false, |held, secret| held | shown(secret))
        };
        match self {
            Self::Body(mac) => any(&|secret| is_mac(secret.as_bytes(), &[body], mac)),
            // Hashes compare in constant time. A key for signatures is never sent.
            Self::Token(token) => any(&|secret| {
                let same = blake3::hash(secret.as_bytes()) == blake3::hash(token.as_bytes());
                same && !secret.starts_with(KEY_PREFIX)
            }),
            Self::Signed { id, at, signatures } => {
                let near = now.as_second().abs_diff(*at) <= TOLERANCE.unsigned_abs();
                let head = format!("{id}.{at}.");
                let parts = [head.as_bytes(), body];
                let fits = |secret: &str| {
                    let key = key(secret);
                    let fits = |mac: &Vec<u8>| is_mac(&key, &parts, mac);
                    signatures.iter().fold(false, |held, mac| held | fits(mac))
                };
                near && any(&fits)
            }
        }
    }
}

/// The key of the Standard Webhooks scheme: its base64, or the text as it is.
fn key(secret: &str) -> Vec<u8> {
    let encoded = secret.strip_prefix(KEY_PREFIX);
    let decoded = encoded.and_then(|text| BASE64.decode(text.as_bytes()).ok());
    decoded.unwrap_or_else(|| secret.as_bytes().to_vec())
}

fn is_mac(key: &[u8], parts: &[&[u8]], mac: &[u8]) -> bool {
    // HMAC takes keys of any length.
    let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(key) else {
        return false;
    };
    for part in parts {
        hmac.update(part);
    }
    hmac.verify_slice(mac).is_ok()
}
