//! The bytes of a console as HTML.
//!
//! Owns what becomes of terminal codes: colours and weight become classes, everything else that a
//! terminal would obey is left out. All text is escaped, whatever bytes it was.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;

use crate::json::escape;
use crate::words::Count;

/// Most bytes of a line that are shown.
const MAX_LINE: usize = 16 * 1024;

/// What characters may be beside their colours.
const BOLD: u8 = 1;
const FAINT: u8 = 2;
const ITALIC: u8 = 4;
const UNDER: u8 = 8;
const INVERSE: u8 = 16;

/// How characters look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Look {
    fore: Option<u8>,
    back: Option<u8>,
    /// Of [`BOLD`] and the others, those that are on.
    styles: u8,
}

/// One line as HTML, made by our own code from escaped text.
#[derive(Debug)]
pub(crate) struct Html(String);

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Html {
    /// The same, and that so many bytes of the line are not shown.
    pub(crate) fn cut(mut self, bytes: u64) -> Self {
        let note = format!(" <i>… {} more bytes</i>", Count(bytes));
        self.0.push_str(&note);
        self
    }
}

// `line` escapes every character that it takes over.
impl HtmlSafe for Html {}

/// A line as HTML. How it ends to look is how the next begins.
pub(crate) fn line(bytes: &[u8], look: &mut Look) -> Html {
    let is_cut = bytes.len() > MAX_LINE;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LINE)]);
    let mut writer = Writer::default();
    // What stands before a return was written over.
    let text = text.trim_end_matches('\r');
    let shown = text.rsplit_once('\r').map_or(text, |(before, last)| {
        writer.obey(before, look);
        last
    });
    writer.show(shown, look);
    if is_cut {
        writer.html.push('…');
    }
    Html(writer.html)
}

/// A text without what a terminal would obey, and without what only a terminal can show.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (shown, code) = rest.split_at(rest.find('\u{1b}').unwrap_or(rest.len()));
        plain.extend(shown.chars().filter(|c| is_shown(*c)));
        rest = skip_code(code).0;
    }
    plain
}

fn is_shown(character: char) -> bool {
    (!character.is_control() || character == '\t') && !turns_text(character)
}

#[derive(Default)]
struct Writer {
    html: String,
}

impl Writer {
    /// Obeys the codes of a text and shows nothing of it.
    fn obey(&mut self, text: &str, look: &mut Look) {
        let length = self.html.len();
        self.show(text, look);
        self.html.truncate(length);
    }

    fn show(&mut self, text: &str, look: &mut Look) {
        let mut rest = text;
        while !rest.is_empty() {
            let (plain, code) = rest.split_at(rest.find('\u{1b}').unwrap_or(rest.len()));
            self.text(plain, *look);
            let (next, colours) = skip_code(code);
            if let Some(colours) = colours {
                look.set(colours);
            }
            rest = next;
        }
    }

    fn text(&mut self, text: &str, look: Look) {
        let text: String = text.chars().filter(|c| is_shown(*c)).collect();
        if text.is_empty() {
            return;
        }
        let classes = look.classes();
        // Writing to a string cannot go wrong.
        let written = if classes.is_empty() {
            escape(&mut self.html, &text)
        } else {
            write!(self.html, "<span class=\"{classes}\">")
                .and_then(|()| escape(&mut self.html, &text))
                .and_then(|()| self.html.write_str("</span>"))
        };
        debug_assert!(written.is_ok());
    }
}

/// Whether a character changes the direction of those around it, so that a line shows what it does not
/// say.
fn turns_text(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What follows the code at the beginning, and its numbers if it is one of colours.
fn skip_code(text: &str) -> (&str, Option<&str>) {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        None => ("", None),
        Some((_, '[')) => match characters.find(|(_, c)| ('@'..='~').contains(c)) {
            Some((end, 'm')) => (&text[end + 1..], Some(&text[2..end])),
            Some((end, _)) => (&text[end + 1..], None),
            None => ("", None),
        },
        // Titles, links and the like end with a bell or with another code.
        Some((_, ']' | 'P' | '^' | '_' | 'X')) => {
            match characters.find(|(_, c)| matches!(c, '\u{7}' | '\u{1b}')) {
                Some((end, '\u{7}')) => (&text[end + 1..], None),
                Some((end, _)) => (
                    text[end + 1..].strip_prefix('\\').unwrap_or(&text[end..]),
                    None,
                ),
                None => ("", None),
            }
        }
        Some((at, '(' | ')' | '*' | '+' | '#' | '%')) => {
            let end = characters
                .next()
                .map_or(text.len(), |(end, c)| end + c.len_utf8());
            (&text[end.max(at + 1)..], None)
        }
        Some((at, other)) => (&text[at + other.len_utf8()..], None),
    }
}

impl Look {
    fn set(&mut self, numbers: &str) {
        let mut numbers = numbers.split([';', ':']).map(|number| match number {
            "" => Some(0),
            number => number.parse::<u16>().ok(),
        });
        while let Some(number) = numbers.next() {
            match number.unwrap_or(u16::MAX) {
                0 => *self = Self::default(),
                1 => self.styles |= BOLD,
                2 => self.styles |= FAINT,
                3 => self.styles |= ITALIC,
                4 => self.styles |= UNDER,
                7 => self.styles |= INVERSE,
                22 => self.styles &= !(BOLD | FAINT),
                23 => self.styles &= !ITALIC,
                24 => self.styles &= !UNDER,
                27 => self.styles &= !INVERSE,
                number @ 30..=37 => self.fore = narrow(number - 30),
                38 => self.fore = extended(&mut numbers),
                39 => self.fore = None,
                number @ 40..=47 => self.back = narrow(number - 40),
                48 => self.back = extended(&mut numbers),
                49 => self.back = None,
                number @ 90..=97 => self.fore = narrow(number - 82),
                number @ 100..=107 => self.back = narrow(number - 92),
                _ => {}
            }
        }
    }

    fn classes(self) -> String {
        let (fore, back) = if self.styles & INVERSE != 0 {
            (Some(self.back.unwrap_or(0)), Some(self.fore.unwrap_or(7)))
        } else {
            (self.fore, self.back)
        };
        let mut classes: Vec<String> = Vec::new();
        classes.extend(fore.map(|colour| format!("f{colour}")));
        classes.extend(back.map(|colour| format!("g{colour}")));
        let names = [
            (BOLD, "bold"),
            (FAINT, "faint"),
            (ITALIC, "italic"),
            (UNDER, "under"),
        ];
        let on = names.iter().filter(|(style, _)| self.styles & style != 0);
        classes.extend(on.map(|(_, name)| (*name).to_owned()));
        classes.join(" ")
    }
}

fn narrow(number: u16) -> Option<u8> {
    u8::try_from(number).ok()
}

/// A colour out of 256, or by its parts, as the nearest of the sixteen that there are.
fn extended(numbers: &mut impl Iterator<Item = Option<u16>>) -> Option<u8> {
    let part = |number: Option<Option<u16>>| number.flatten().unwrap_or(0).min(255);
    match part(numbers.next()) {
        5 => Some(match part(numbers.next()) {
            number @ 0..=15 => narrow(number)?,
            number @ 16..=231 => {
                let cube = number - 16;
                let level = |step: u16| step * 51;
                nearest(level(cube / 36), level(cube / 6 % 6), level(cube % 6))
            }
            grey => nearest((grey - 232) * 10, (grey - 232) * 10, (grey - 232) * 10),
        }),
        2 => {
            let (red, green, blue) = (
                part(numbers.next()),
                part(numbers.next()),
                part(numbers.next()),
            );
            Some(nearest(red, green, blue))
        }
        _ => None,
    }
}

fn nearest(red: u16, green: u16, blue: u16) -> u8 {
    let most = red.max(green).max(blue);
    let least = red.min(green).min(blue);
    if most - least < 40 {
        return match most {
            0..64 => 0,
            64..144 => 8,
            144..216 => 7,
            _ => 15,
        };
    }
    let half = u16::midpoint(most, least);
    let bit = |part: u16, value: u8| if part > half { value } else { 0 };
    let colour = bit(red, 1) + bit(green, 2) + bit(blue, 4);
    if most > 200 { colour + 8 } else { colour }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(bytes: &[u8]) -> String {
        line(bytes, &mut Look::default()).to_string()
    }

    #[test]
    fn colours_become_classes() {
        assert_eq!(
            html(b"\x1b[1;31mno\x1b[0m yes"),
            "<span class=\"f1 bold\">no</span> yes"
        );
        assert_eq!(
            html(b"\x1b[92;44mx\x1b[m"),
            "<span class=\"f10 g4\">x</span>"
        );
        assert_eq!(html(b"\x1b[38;5;196mx"), "<span class=\"f9\">x</span>");
        assert_eq!(html(b"\x1b[38;2;0;0;180mx"), "<span class=\"f4\">x</span>");
        assert_eq!(html(b"\x1b[7mx"), "<span class=\"f0 g7\">x</span>");
    }

    #[test]
    fn a_look_lasts_into_the_next_line() {
        let mut look = Look::default();
        line(b"\x1b[32m", &mut look);
        assert_eq!(
            line(b"ok", &mut look).to_string(),
            "<span class=\"f2\">ok</span>"
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_left_out() {
        for bytes in [
            &b"\x1b]0;title\x07ok"[..],
            b"\x1b]8;;https://evil.example\x1b\\ok",
            b"\x1b[2J\x1b[1;1Hok",
            b"\x1b(Bok\x00\x08\x7f",
            b"\x1bcok\x1b",
            b"\x1b[31mfirst\r\x1b[0mok\r",
            b"\x1bPq#0\x1b\\ok\x1b[",
            "\u{202e}ok\u{2066}".as_bytes(),
        ] {
            assert_eq!(html(bytes), "ok", "{bytes:?}");
        }
    }

    #[test]
    fn nothing_of_a_console_runs() {
        assert_eq!(
            html(b"<script>alert(\"1\")</script>&'"),
            "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"
        );
        assert_eq!(html(b"\x1b[\"><img src=x>m"), "mg src=x&gt;m");
        assert_eq!(html(b"a\xffb\xc3"), "a\u{fffd}b\u{fffd}");
        assert!(html(&vec![b'x'; 1 << 20]).len() < 20_000);
        assert_eq!(html("\u{1b}é".as_bytes()), "");
        assert_eq!(html("\u{1b}(é".as_bytes()), "");
    }
}
