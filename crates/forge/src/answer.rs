//! What a forge's answer means for whoever wants to tell it something.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

/// Most bytes of a refusal that are looked at.
const MOST_READ: usize = 8 * 1024;
/// Most characters of it that are shown.
pub(crate) const MOST_SHOWN: usize = 200;

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

    /// The same with what was asked for in front of it.
    pub(crate) fn about(self, what: impl fmt::Display) -> Self {
        match self {
            Self::Passing { detail, after } => Self::Passing {
                detail: format!("{what}: {detail}"),
                after,
            },
            Self::Lasting { detail } => Self::Lasting {
                detail: format!("{what}: {detail}"),
            },
        }
    }
}

/// A refusal together with the status that it came with.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    pub(crate) refusal: Refusal,
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        denied.refusal
    }
}

/// The answer, if the forge took what it was asked.
pub(crate) async fn judge(answer: Response) -> Result<Response, Denied> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let headers = answer.headers();
    let (after, spent) = (asked(headers), is_spent(headers));
    let body = beginning(answer).await;
    let detail = format!("{status}: {}", shown(&body));
    let detail = detail.trim_end_matches([':', ' ']).to_owned();
    // GitHub answers 403 to whoever asks too often.
    let limited = status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::FORBIDDEN
            && (after.is_some() || spent || body.contains("rate limit"));
    let passing = limited || status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
    let refusal = if passing {
        Refusal::Passing { detail, after }
    } else {
        Refusal::Lasting { detail }
    };
    Err(Denied {
        status,
        body,
        refusal,
    })
}

/// How long the forge asks to be left alone: in so many words, or until the hour begins in which it
/// takes requests again. That is told by its own clock, and so is the time now.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(seconds) = text(RETRY_AFTER.as_str()).and_then(|after| after.parse().ok()) {
        return Some(Duration::from_secs(seconds));
    }
    if !is_spent(headers) {
        return None;
    }
    let reset: i64 = text("x-ratelimit-reset")?.parse().ok()?;
    let now = DateTimeParser::new().parse_timestamp(text(DATE.as_str())?);
    let left = reset.checked_sub(now.ok()?.as_second())?;
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

fn is_spent(headers: &HeaderMap) -> bool {
    let left = headers.get("x-ratelimit-remaining");
    left.is_some_and(|left| left.as_bytes() == b"0")
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
pub(crate) fn shown(body: &str) -> String {
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
    fn a_forge_is_left_alone_until_it_asks_to_be_heard_again() {
        let after = |given: &[(&'static str, &str)]| {
            let given = given.iter();
            asked(
                &given
                    .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
                    .collect(),
            )
        };
        let date = ("date", "Mon, 23 Nov 2026 00:00:00 GMT");
        let spent = ("x-ratelimit-remaining", "0");
        let reset = ("x-ratelimit-reset", "1795392090");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(after(&[date, spent, reset]), seconds(90));
        assert_eq!(
            after(&[date, spent, reset, ("retry-after", "7")]),
            seconds(7)
        );
        assert_eq!(
            after(&[date, spent, ("x-ratelimit-reset", "1")]),
            seconds(0)
        );
        assert_eq!(after(&[date, ("x-ratelimit-remaining", "9"), reset]), None);
        assert_eq!(after(&[spent, reset]), None);
        assert_eq!(after(&[("date", "now"), spent, reset]), None);
    }

    #[test]
    fn what_forges_say_is_found_in_what_they_send() {
        assert_eq!(shown(r#"{"message":"Bad credentials"}"#), "Bad credentials");
        assert_eq!(shown(r#"{"error":{"message":"No"}}"#), "No");
        assert_eq!(shown(r#"{"error":"invalid_token"}"#), "invalid_token");
        assert_eq!(shown("<html>\n502"), "<html> 502");
        assert_eq!(shown(&"x".repeat(9999)).len(), MOST_SHOWN);
    }
}
