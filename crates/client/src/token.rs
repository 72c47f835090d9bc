//! The bearer token.
//!
//! Owns its form: visible ASCII, so that it fits a header. Never shows it: neither `Debug` nor any
//! error holds it, and it has no `Display`.

use std::fmt;
use std::str::FromStr;

use reqwest::header::HeaderValue;

/// What proves to a frontend who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Text that cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is one line of visible ASCII characters")]
pub struct InvalidToken;

impl Token {
    /// The token itself: for the header, never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The header that carries it, which logs of HTTP know to hide.
    pub(crate) fn into_authorization(self) -> Option<HeaderValue> {
        let mut text = self.0;
        text.insert_str(0, "Bearer ");
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    /// Reads a token as files hold it: space around it, as an editor's last newline, is ignored.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        let visible = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        visible.then(|| Self(text.to_owned())).ok_or(InvalidToken)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let token: Token = " s3cret\n".parse().unwrap();
        assert_eq!(token.reveal(), "s3cret");
        assert_eq!(format!("{token:?}"), "Token(hidden)");
    }

    #[test]
    fn a_token_fits_a_header() {
        for bad in ["", "\n", "two words", "two\nlines", "ключ"] {
            assert!(bad.parse::<Token>().is_err(), "{bad:?} was accepted");
        }
    }
}
