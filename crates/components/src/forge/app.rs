//! What GitHub insists on with apps: their signed claims, where they are installed, and their tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answer, FakeForge, Request, Shared, now, refused};

/// Longest that a claim may last, in seconds.
const MAX_CLAIM: i64 = 10 * 60;
/// How long a token lives, in seconds.
const TOKEN_LIFE: i64 = 60 * 60;
/// What an RSA key of 2048 bits is wrapped in by PKCS#8.
const WRAPPING: usize = 26;

/// An app with a key that was made for it.
#[derive(Debug, Clone)]
pub struct FakeApp {
    /// Its number.
    pub id: u64,
    /// Its other name.
    pub client_id: String,
    key: Arc<KeyPair>,
}

impl FakeApp {
    /// The app of this number, with a new key.
    pub fn new(id: u64) -> Result<Self> {
        let key = KeyPair::generate(KeySize::Rsa2048).context("no RSA key")?;
        Ok(Self {
            id,
            client_id: format!("Iv23li{id}"),
            key: Arc::new(key),
        })
    }

    /// Its private key as GitHub hands it out: PEM of PKCS#1.
    pub fn pem(&self) -> Result<String> {
        Ok(pem("RSA PRIVATE KEY", &self.pkcs8()?[WRAPPING..]))
    }

    /// The same as PEM of PKCS#8.
    pub fn pem_pkcs8(&self) -> Result<String> {
        Ok(pem("PRIVATE KEY", &self.pkcs8()?))
    }

    fn pkcs8(&self) -> Result<Vec<u8>> {
        let der: Pkcs8V1Der<'_> = self.key.as_der().context("no PKCS#8")?;
        Ok(der.as_ref().to_vec())
    }

    /// Looks at the claim in a header, as GitHub does.
    fn verify(&self, header: Option<&String>, now: Timestamp) -> Result<(), Answer> {
        let undecodable = || refused(401, "A JSON web token could not be decoded");
        let claim = header.and_then(|header| header.strip_prefix("Bearer "));
        let (signed, signature) = claim
            .and_then(|claim| claim.rsplit_once('.'))
            .ok_or_else(undecodable)?;
        let (head, claims) = signed.split_once('.').ok_or_else(undecodable)?;
        let (head, claims) = (parsed(head), parsed(claims));
        let (head, claims) = head.zip(claims).ok_or_else(undecodable)?;
        let issuer = match &claims["iss"] {
            Value::String(name) => name.clone(),
            other => other.to_string(),
        };
        if issuer != self.id.to_string() && issuer != self.client_id {
            return Err(refused(404, "Integration not found"));
        }
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes());
        let signature = signature.map_err(|_| undecodable())?;
        let public = self.key.public_key().as_ref();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
        let holds = public.verify(signed.as_bytes(), &signature).is_ok();
        if head["alg"] != "RS256" || !holds {
            return Err(undecodable());
        }
        in_time(&claims, now.as_second()).map_err(|message| refused(401, message))
    }
}

fn in_time(claims: &Value, now: i64) -> Result<(), &'static str> {
    let (issued, expires) = (claims["iat"].as_i64(), claims["exp"].as_i64());
    match (issued, expires) {
        (_, Some(expires)) if expires > now + MAX_CLAIM => {
            Err("'Expiration time' claim ('exp') is too far in the future")
        }
        (Some(issued), Some(expires)) if issued <= now && expires > now => Ok(()),
        (_, Some(expires)) if expires > now => Err(
            "'Issued at' claim ('iat') must be an Integer representing the time that the \
             assertion was issued",
        ),
        (_, _) => Err(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time \
             at which the assertion expires",
        ),
    }
}

fn parsed(part: &str) -> Option<Value> {
    let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn pem(name: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = format!("-----BEGIN {name}-----\n");
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem + &format!("\n-----END {name}-----\n")
}

/// Where the app is installed, and the tokens that it was given.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// The installation of each repository.
    installations: BTreeMap<String, u64>,
    /// Whether it may not write checks.
    no_checks: bool,
    /// The repositories of each token that is good.
    tokens: BTreeMap<String, BTreeSet<String>>,
    /// How many tokens there ever were.
    drawn: usize,
}

impl Grants {
    /// The repositories that a token is good for.
    pub(super) fn of_token(&self, header: Option<&String>) -> Option<&BTreeSet<String>> {
        let token = header?.strip_prefix("Bearer ")?;
        self.tokens.get(token)
    }

    fn installed(&self, repository: &str) -> Answer {
        match self.installations.get(repository) {
            Some(id) => (200, json!({ "id": id }), Vec::new()),
            None => refused(404, "Not Found"),
        }
    }

    fn draw(&mut self, id: &str, wish: &Value, now: Timestamp) -> Answer {
        let ours = self.installations.iter();
        let ours = ours.filter(|(_, known)| known.to_string() == id);
        let all: BTreeSet<String> = ours.map(|(repository, _)| repository.clone()).collect();
        if all.is_empty() {
            return refused(404, "Not Found");
        }
        let names = wish["repositories"].as_array();
        let is_named = |repository: &&String| {
            names.is_none_or(|names| {
                let (_, name) = repository.split_once('/').unwrap_or_default();
                names.iter().any(|wanted| wanted == name)
            })
        };
        let given: BTreeSet<String> = all.iter().filter(is_named).cloned().collect();
        if names.is_some_and(|names| names.len() != given.len()) {
            return refused(
                422,
                "There is at least one repository that does not exist or is not accessible to \
                 the parent installation.",
            );
        }
        let wants_checks = wish["permissions"]["checks"] == "write";
        if self.no_checks && wants_checks {
            return refused(
                422,
                "The permissions requested are not granted to this installation.",
            );
        }
        self.drawn += 1;
        let token = format!("ghs_neverfoundinalog{}", self.drawn);
        self.tokens.insert(token.clone(), given);
        let until = Timestamp::from_second(now.as_second() + TOKEN_LIFE).unwrap_or(now);
        let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let drawn =
            json!({ "token": token, "expires_at": until, "permissions": wish["permissions"] });
        (201, drawn, Vec::new())
    }
}

impl FakeForge {
    /// Installs the app at a repository. Gives the installation.
    pub fn install(&self, repository: &str) -> u64 {
        let mut state = self.shared.state();
        let id = 1000 + state.grants.installations.len() as u64;
        state.grants.installations.insert(repository.to_owned(), id);
        id
    }

    /// Whether the app may write checks from now on.
    pub fn permit_checks(&self, permitted: bool) {
        self.shared.state().grants.no_checks = !permitted;
    }

    /// From now on no token is good that was given before.
    pub fn expire_tokens(&self) {
        self.shared.state().grants.tokens.clear();
    }

    /// How many tokens it has given to the app.
    pub fn drawn(&self) -> usize {
        self.shared.state().grants.drawn
    }
}

impl Shared {
    /// What an app, or one of its tokens, is answered.
    pub(super) fn answer_app(&self, app: &FakeApp, request: &Request) -> Answer {
        if request.header("user-agent").is_none() {
            return refused(403, "Request forbidden by administrative rules.");
        }
        let path = request.path.strip_prefix("/api/").unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.split('/').collect();
        let (header, now) = (request.header("authorization"), now());
        let verify = || app.verify(header, now);
        let mut state = self.state();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["repos", owner, name, "installation"]) => match verify() {
                Ok(()) => state.grants.installed(&format!("{owner}/{name}")),
                Err(refusal) => refusal,
            },
            ("POST", ["app", "installations", id, "access_tokens"]) => match verify() {
                Ok(()) => state.grants.draw(id, &request.body, now),
                Err(refusal) => refusal,
            },
            (method, ["repos", owner, name, rest @ ..]) => {
                let repository = format!("{owner}/{name}");
                match state.grants.of_token(header) {
                    None => refused(401, "Bad credentials"),
                    Some(given) if !given.contains(&repository) => refused(404, "Not Found"),
                    Some(_) => {
                        let asked = (method, rest, query);
                        state.answer_check(app, &repository, asked, &request.body)
                    }
                }
            }
            _ => refused(404, "Not Found"),
        }
    }
}
