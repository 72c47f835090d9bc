//! What a forge's answer means for whoever wants to tell it something.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use crate::api::Kind;

/// Most bytes of a refusal that are looked at.
const MOST_READ: usize = 8 * 1024;
/// Most characters of it that are shown.
const MOST_SHOWN: usize = 200;

/// Why a forge was not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was not reached, is in trouble, or asks to be left alone: later it may take it.
    #[error("{detail}")]
    Passing {
        /// What happened.
        detail: String,
        /// How long it asks to be left alone.
        after: Option<Duration>,
    },
    /// It does not know the token, the repository or the commit, or takes no such status: somebody
    /// has to mend that.
    #[error("{detail}")]
    Lasting {
        /// What it said.
        detail: String,
    },
}

impl Refusal {
    /// What went wrong below HTTP.
    pub(crate) fn of_error(error: &reqwest::Error) -> Self {
        let mut innermost: &dyn Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let detail = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            innermost.to_string()
        };
        Self::Passing {
            detail,
            after: None,
        }
    }
}

/// Whether the forge took it.
pub(crate) async fn judge(kind: Kind, response: Response) -> Result<(), Refusal> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let after = asked(response.headers());
    let body = beginning(response).await;
    if kind.is_repetition(status.as_u16(), &body) {
        return Ok(());
    }
    let detail = format!("{status}: {}", shown(&body));
    let detail = detail.trim_end_matches([':', ' ']).to_owned();
    // GitHub answers 403 to whoever asks too often.
    let limited = status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::FORBIDDEN && (after.is_some() || body.contains("rate limit"));
    Err(
        if limited || status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            Refusal::Passing { detail, after }
        } else {
            Refusal::Lasting { detail }
        },
    )
}

fn asked(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    seconds.ok().map(Duration::from_secs)
}

/// As much of the answer as matters, however long it is.
async fn beginning(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= MOST_READ {
            break;
        }
    }
    body.truncate(MOST_READ);
    String::from_utf8_lossy(&body).into_owned()
}

/// What the forge says is wrong, in one line.
fn shown(body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = parsed.as_ref().and_then(|body| {
        let keys = ["/message", "/error/message", "/error"];
        keys.iter().find_map(|key| body.pointer(key)?.as_str())
    });
    let line = |c: char| if c.is_control() { ' ' } else { c };
    let text = message.unwrap_or(body).chars();
    text.map(line).take(MOST_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forges_say_is_found_in_what_they_send() {
        assert_eq!(shown(r#"{"message":"Bad credentials"}"#), "Bad credentials");
        assert_eq!(shown(r#"{"error":{"message":"No"}}"#), "No");
        assert_eq!(shown(r#"{"error":"invalid_token"}"#), "invalid_token");
        assert_eq!(shown("<html>\n502"), "<html> 502");
        assert_eq!(shown(&"x".repeat(9999)).len(), MOST_SHOWN);
    }
}
