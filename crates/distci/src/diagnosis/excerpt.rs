//! A job file as a diagnosis shows it.
//!
//! Owns the cutting of long lines: nobody reads half a megabyte on one line. Lines keep their
//! numbers, and the mark its column in the file.

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Most characters of a line that are shown.
const WIDEST: usize = 160;
/// How many of them come before the mark.
const BEFORE: usize = 60;

/// The lines of a file, each as far as it is shown.
#[derive(Debug)]
pub(super) struct Excerpt {
    text: String,
    /// Where the mark is in the text, and its length.
    pub(super) span: (usize, usize),
    /// Its column in the file, from 0.
    column: usize,
}

impl Excerpt {
    /// What shows the line and column, both from 1, of `text`.
    pub(super) fn of(text: &str, line: usize, column: usize) -> Self {
        let (start, length) = span(text, line, column);
        let mut excerpt = Self {
            text: String::new(),
            span: (0, 0),
            column: column.saturating_sub(1),
        };
        let mut before = 0;
        for line in text.split_inclusive('\n') {
            let mark = start.checked_sub(before).filter(|mark| *mark < line.len());
            let (shown, at) = cut(line, mark.unwrap_or_default());
            if mark.is_some() {
                let length = length.min(shown.trim_end().len().saturating_sub(at));
                excerpt.span = (excerpt.text.len() + at, length);
            }
            excerpt.text.push_str(&shown);
            before += line.len();
        }
        if start == before {
            excerpt.span = (excerpt.text.len(), 0);
        }
        excerpt
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let read = self.text.read_span(span, before, after)?;
        // Without lines around it, it is the mark itself whose place is asked for.
        let column = if before + after == 0 {
            self.column
        } else {
            read.column()
        };
        Ok(Box::new(MietteSpanContents::new(
            read.data(),
            *read.span(),
            read.line(),
            column,
            read.line_count(),
        )))
    }
}

/// What is shown of a line, and where in it is what was at `mark`.
fn cut(line: &str, mark: usize) -> (String, usize) {
    let (body, end) = line
        .strip_suffix('\n')
        .map_or((line, ""), |body| (body, "\n"));
    if body.chars().count() <= WIDEST {
        return (line.to_owned(), mark);
    }
    let mark = mark.min(body.len());
    let (head, tail) = body.split_at(mark);
    let kept = head.char_indices().rev().nth(BEFORE).map(|(at, _)| at);
    let head = kept.map_or_else(|| head.to_owned(), |at| format!("…{}", &head[at..]));
    let most = tail.char_indices().nth(WIDEST - BEFORE).map(|(at, _)| at);
    let tail = most.map_or_else(|| tail.to_owned(), |at| format!("{}…", &tail[..at]));
    (format!("{head}{tail}{end}"), head.len())
}

/// The bytes of the value or word at a line and column, both from 1.
fn span(text: &str, line: usize, column: usize) -> (usize, usize) {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let rest = text.get(before..).unwrap_or_default();
    let within: usize = rest
        .chars()
        .take(column.saturating_sub(1))
        .map(char::len_utf8)
        .sum();
    let start = (before + within).min(text.len());
    (start, word_length(text.get(start..).unwrap_or_default()))
}

/// The bytes of the string, number or word that `text` begins with; at least one, if there is one.
fn word_length(text: &str) -> usize {
    let line = text.lines().next().unwrap_or_default();
    let length = match line.strip_prefix('"') {
        Some(rest) => rest.find('"').map_or(line.len(), |end| end + 2),
        None => line
            .find(|c: char| c.is_whitespace() || ",:[]{}".contains(c))
            .unwrap_or(line.len()),
    };
    let first = line.chars().next().map_or(0, char::len_utf8);
    length.max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_covers_the_word_and_stays_in_the_text() {
        let text = "ä \"wörd\", 12\n";
        assert_eq!(span(text, 1, 3), (3, 7));
        assert_eq!(span(text, 1, 11), (12, 2));
        assert_eq!(span(text, 9, 9), (text.len(), 0));
        assert_eq!(span("", 1, 1), (0, 0));
    }
}
