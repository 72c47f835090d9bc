//! What must hold of this crate's parsers for any bytes. Tests and `cargo xtask fuzz` call it.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::answer::{MOST_SHOWN, asked, shown};

/// Of a refusal, headers first, a line each, and then its body: what is shown of it is a short line.
///
/// # Panics
/// If it is not.
pub fn refusal(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or(("", &text));
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let value = HeaderValue::from_str(value).ok()?;
        Some((name.parse::<HeaderName>().ok()?, value))
    };
    let headers: HeaderMap = head.lines().filter_map(pair).collect();
    let shown = shown(body);
    assert!(shown.chars().count() <= MOST_SHOWN, "{shown}");
    assert!(!shown.contains(char::is_control), "{shown}");
    // However long the forge asks to be left alone, it can be told.
    drop(format!("{:?}", asked(&headers)));
}

#[cfg(test)]
mod tests {
    use distci_hostile::rounds;

    use super::*;

    #[test]
    fn refusals_hold_for_any_bytes() {
        let spent = b"date: Mon, 23 Nov 2026 00:00:00 GMT\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1795392090\n\n{\"message\":\"slow down\"}";
        let asked = b"retry-after: 60\n\n<html>\x1b[31mno</html>";
        let words = [
            "18446744073709551615",
            "-9223372036854775808",
            "\"error\":",
            "\n\n",
        ];
        rounds(&[spent, asked], &words, 20_000, refusal);
    }
}
