//! Who may use the API and see the pages.
//!
//! Owns the check of the bearer token, and of the cookie by which a browser shows that its reader had
//! it. The cookie holds not the token but when it ends and a mark made with it, so that every frontend
//! of the same token knows it and none remembers anybody. Token and cookie are never logged, and are
//! compared in constant time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use distci_model::Timestamp;

use crate::app::App;
use crate::error::ApiError;

/// The header by which a script shows that it is of one of our pages.
pub(crate) const CSRF_HEADER: &str = "x-distci-csrf";
/// How long a reader stays signed in.
const SESSION: Duration = Duration::from_hours(24 * 30);
/// How long a pass may be used.
const PASS: Duration = Duration::from_mins(1);
/// What the cookie is called where anybody on the way may read it,
const PLAIN: &str = "distci";
/// and where nobody can: a browser takes this name over TLS from the very host only.
const HOST_ONLY: &str = "__Host-distci";

/// The one token that opens everything, as its hash and as a key.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Marks>);

struct Marks {
    token: blake3::Hash,
    session: [u8; 32],
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visitor {
    /// A program that shows the token.
    Program,
    /// A reader with a cookie. A browser sends that along with whatever any page makes it ask; what
    /// changes something must bring this too, which other sites cannot know.
    Reader {
        /// The mark.
        csrf: String,
    },
}

impl Visitor {
    /// What a form of a page for this visitor has to bring.
    pub(crate) fn csrf(&self) -> &str {
        match self {
            Self::Program => "",
            Self::Reader { csrf } => csrf,
        }
    }

    /// Whether a request with this mark was meant.
    pub(crate) fn meant(&self, mark: Option<&str>) -> bool {
        match self {
            Self::Program => true,
            Self::Reader { csrf } => mark.is_some_and(|mark| same(csrf, mark)),
        }
    }
}

impl Gate {
    pub(crate) fn new(token: &str) -> Self {
        Self(Arc::new(Marks {
            token: blake3::hash(token.as_bytes()),
            session: blake3::derive_key("distci session of a reader v1", token.as_bytes()),
        }))
    }

    /// Whether this is the token.
    pub(crate) fn opens(&self, token: &str) -> bool {
        // Hashes compare in constant time.
        blake3::hash(token.trim().as_bytes()) == self.0.token
    }

    /// Who asks, if it is somebody who may.
    pub(crate) fn visitor(&self, app: &App, headers: &HeaderMap) -> Option<Visitor> {
        if let Some(header) = headers.get(AUTHORIZATION) {
            let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
            let bears = scheme.eq_ignore_ascii_case("bearer") && self.opens(token);
            return bears.then_some(Visitor::Program);
        }
        let name = cookie_name(app, headers);
        let mut cookies = headers.get_all(COOKIE).iter().flat_map(pairs);
        cookies.find_map(|(known, value)| {
            (known == name && self.is_lasting("session", value, app.now())).then(|| {
                Visitor::Reader {
                    csrf: self.mark("csrf", value),
                }
            })
        })
    }

    /// A cookie that signs a reader in from now on.
    pub(crate) fn sign_in(&self, app: &App, headers: &HeaderMap) -> String {
        let value = self.lasting("session", app.now(), SESSION);
        cookie(app, headers, &value, SESSION)
    }

    /// What signs a reader in instead of the token, for a minute.
    pub(crate) fn pass(&self, now: Timestamp) -> String {
        self.lasting("pass", now, PASS)
    }

    /// Whether this is the token, or a pass that may still be used.
    pub(crate) fn admits(&self, shown: &str, now: Timestamp) -> bool {
        self.opens(shown) || self.is_lasting("pass", shown, now)
    }

    /// A text that every frontend of the token knows, until its time is over.
    pub(crate) fn lasting(&self, purpose: &str, now: Timestamp, age: Duration) -> String {
        let seconds = i64::try_from(age.as_secs()).unwrap_or_default();
        let end = (now.as_second() + seconds).to_string();
        format!("{end}.{}", self.mark(purpose, &end))
    }

    /// Whether it is such a text, of this purpose.
    pub(crate) fn is_lasting(&self, purpose: &str, value: &str, now: Timestamp) -> bool {
        let Some((end, mark)) = value.split_once('.') else {
            return false;
        };
        let is_ours = same(&self.mark(purpose, end), mark);
        is_ours && end.parse().is_ok_and(|end: i64| now.as_second() < end)
    }

    /// What only frontends of this token can make of a text.
    fn mark(&self, purpose: &str, text: &str) -> String {
        let text = format!("{purpose} {text}");
        let hash = blake3::keyed_hash(&self.0.session, text.as_bytes());
        hash.to_hex()[..32].to_owned()
    }
}

/// A cookie that signs a reader out.
pub(crate) fn sign_out(app: &App, headers: &HeaderMap) -> String {
    cookie(app, headers, "", Duration::ZERO)
}

/// Whether a browser says that another site made it ask.
pub(crate) fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("sec-fetch-site") {
        Some(site) => !matches!(site, "same-origin" | "none"),
        None => text(ORIGIN.as_str()).is_some_and(|origin| {
            let host = origin.split_once("://").map(|(_, host)| host);
            host != text(HOST.as_str())
        }),
    }
}

fn cookie(app: &App, headers: &HeaderMap, value: &str, age: Duration) -> String {
    let (name, age) = (cookie_name(app, headers), age.as_secs());
    let secure = if name == HOST_ONLY { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}")
}

/// Over TLS, which ends before us, the reader asks for the host of the public address.
fn cookie_name(app: &App, headers: &HeaderMap) -> &'static str {
    let public = app.public_url.as_deref().unwrap_or_default();
    let host = public.strip_prefix("https://").map(|rest| {
        let end = rest.find('/').unwrap_or(rest.len());
        &rest[..end]
    });
    let asked = headers.get(HOST).and_then(|asked| asked.to_str().ok());
    if host.is_some() && asked == host {
        HOST_ONLY
    } else {
        PLAIN
    }
}

fn pairs(header: &HeaderValue) -> impl Iterator<Item = (&str, &str)> {
    let text = header.to_str().unwrap_or_default();
    text.split(';')
        .filter_map(|pair| pair.trim().split_once('='))
}

/// Whether two texts are the same, in a time that tells nothing of them.
fn same(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

/// Whether a browser fetches this for a page to look at or to save: never as a part of the page that
/// runs, or that shows it as its own. Builds made some of what the API gives.
fn is_data(headers: &HeaderMap) -> bool {
    let purpose = headers.get("sec-fetch-dest");
    let purpose = purpose.and_then(|purpose| purpose.to_str().ok());
    purpose.is_none_or(|purpose| matches!(purpose, "empty" | "document"))
}

/// Lets a request pass that carries the token, or a reader's cookie; what changes something only if
/// it was meant.
pub(crate) async fn require(
    State((gate, app)): State<(Gate, App)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let headers = request.headers();
    let visitor = gate
        .visitor(&app, headers)
        .ok_or_else(ApiError::unauthorized)?;
    let asks = matches!(*request.method(), Method::GET | Method::HEAD);
    let mark = headers.get(CSRF_HEADER).and_then(|mark| mark.to_str().ok());
    let is_reader = matches!(visitor, Visitor::Reader { .. });
    if (!asks && !visitor.meant(mark)) || (is_reader && !is_data(headers)) {
        return Err(ApiError::not_meant());
    }
    request.extensions_mut().insert(visitor);
    Ok(next.run(request).await)
}

/// Lets whoever is known see a page. Forms say for themselves that they are meant.
pub(crate) async fn recognise(
    State((gate, app)): State<(Gate, App)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let visitor = gate.visitor(&app, request.headers());
    let visitor = visitor.ok_or_else(ApiError::unauthorized)?;
    request.extensions_mut().insert(gate);
    request.extensions_mut().insert(visitor);
    Ok(next.run(request).await)
}
