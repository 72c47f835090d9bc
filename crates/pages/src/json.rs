//! JSON in colours.
//!
//! Owns a small scanner that knows nothing but the shapes of tokens, so that any text is shown whole,
//! also one that is no JSON.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;

/// A text as HTML, with each token in a span that says what it is.
pub(crate) struct Coloured<'a>(pub(crate) &'a str);

impl fmt::Display for Coloured<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(first) = rest.chars().next() {
            let (class, length) = match first {
                '"' => {
                    let length = string(rest);
                    let is_key = rest[length..].trim_start().starts_with(':');
                    (if is_key { "key" } else { "string" }, length)
                }
                '-' | '0'..='9' => (
                    "number",
                    span(rest, |c| {
                        matches!(c, '-' | '+' | '.' | '0'..='9' | 'e' | 'E')
                    }),
                ),
                'a'..='z' => ("word", span(rest, |c| c.is_ascii_lowercase())),
                _ => (
                    "",
                    span(rest, |c| !matches!(c, '"' | '-' | '0'..='9' | 'a'..='z')),
                ),
            };
            let (token, after) = rest.split_at(length);
            if class.is_empty() {
                escape(f, token)?;
            } else {
                write!(f, "<span class=\"{class}\">")?;
                escape(f, token)?;
                f.write_str("</span>")?;
            }
            rest = after;
        }
        Ok(())
    }
}

// Every character of the text goes through `escape`.
impl HtmlSafe for Coloured<'_> {}

/// Writes a text so that HTML shows it as it is.
pub(crate) fn escape(to: &mut impl Write, text: &str) -> fmt::Result {
    for character in text.chars() {
        match character {
            '&' => to.write_str("&amp;")?,
            '<' => to.write_str("&lt;")?,
            '>' => to.write_str("&gt;")?,
            '"' => to.write_str("&quot;")?,
            '\'' => to.write_str("&#39;")?,
            other => to.write_char(other)?,
        }
    }
    Ok(())
}

/// How many bytes the string at the beginning has, its quotes included.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    for (position, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return position + 1,
            _ => {}
        }
    }
    text.len()
}

/// How many bytes at the beginning fit; the first character counts in any case.
fn span(text: &str, fits: impl Fn(char) -> bool) -> usize {
    let mut characters = text.char_indices().skip(1);
    let end = characters.find(|(_, character)| !fits(*character));
    end.map_or(text.len(), |(position, _)| position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart() {
        let html = Coloured("{\"a\": [-1.5e3, true, \"x\\\"y\"]}").to_string();
        assert_eq!(
            html,
            "{<span class=\"key\">&quot;a&quot;</span>: [<span class=\"number\">-1.5e3</span>, \
             <span class=\"word\">true</span>, \
             <span class=\"string\">&quot;x\\&quot;y&quot;</span>]}"
        );
    }

    #[test]
    fn any_text_is_shown_whole_and_runs_nowhere() {
        for text in [
            "",
            "\"",
            "\"\\",
            "<script>",
            "\"</span><img>\"",
            "é\"ü\":1",
            "--",
            "\u{0}<",
        ] {
            let html = Coloured(text).to_string();
            assert!(
                !html.contains("<script") && !html.contains("<img"),
                "{html}"
            );
            let shown: String = html
                .split('<')
                .map(|part| part.split_once('>').map_or(part, |part| part.1))
                .collect();
            let shown = shown
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"");
            assert_eq!(shown, text);
        }
    }
}
