//! The spelling of paths and queries.
//!
//! Owns percent-encoding. The `url` crate drops tabs and newlines from segments that it is given,
//! which would ask for another artifact than was meant; so everything is encoded before it sees it.

use std::fmt::Display;

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Where the API begins.
const ROOT: &str = "/api/v1";

/// A path of the API with its query, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    text: String,
    has_query: bool,
}

impl Path {
    /// `/api/v1` with these segments.
    pub(crate) fn api(segments: &[&str]) -> Self {
        Self::of(ROOT, segments)
    }

    /// A path outside of the versioned API.
    pub(crate) fn root(segments: &[&str]) -> Self {
        Self::of("", segments)
    }

    fn of(root: &str, segments: &[&str]) -> Self {
        let mut text = root.to_owned();
        for segment in segments {
            text.push('/');
            encode(segment, &mut text);
        }
        Self {
            text,
            has_query: false,
        }
    }

    /// The same with one more member in its query.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(name);
        self.text.push('=');
        encode(&value.to_string(), &mut self.text);
        self
    }

    /// The same with one more member in its query, if there is a value.
    pub(crate) fn with_some(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// As it follows the address of a frontend.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Adds `text` with everything but the unreserved characters of RFC 3986 encoded.
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(DIGITS[usize::from(byte >> 4)]));
            into.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one_segment_whatever_it_holds() {
        let path = Path::api(&["jobs", "a/b?c#d e\nf%ä"]);
        assert_eq!(path.as_str(), "/api/v1/jobs/a%2Fb%3Fc%23d%20e%0Af%25%C3%A4");
    }

    #[test]
    fn a_query_holds_what_was_given() {
        let path = Path::root(&["x"])
            .with("a", 1)
            .with_some("b", None::<u8>)
            .with("c", "&=");
        assert_eq!(path.as_str(), "/x?a=1&c=%26%3D");
    }
}
