//! From console bytes to lines on a screen.
//!
//! Owns the splitting of one task's console: bytes come in any pieces, lines go out. Never changes
//! a byte by itself; [`display`] does, for terminals only.

/// Longest line that is kept waiting for its end.
const LONGEST: usize = 64 * 1024;

/// The lines of one console, as its bytes come.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// The lines that `bytes` completes, without their ends.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if self.begun.last() == Some(&b'\n') {
                self.begun.pop();
                lines.push(std::mem::take(&mut self.begun));
            } else if self.begun.len() >= LONGEST {
                lines.push(std::mem::take(&mut self.begun));
            }
        }
        lines
    }

    /// The line that never got its end.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        let begun = std::mem::take(&mut self.begun);
        (!begun.is_empty()).then_some(begun)
    }
}

/// A line as a terminal shows it: what a carriage return overwrote is gone, bytes that are not
/// UTF-8 are replaced, and of the control sequences only colours remain, so that a build cannot
/// move the cursor or rename the window of who looks at it.
pub(crate) fn display(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    let last = text.rsplit('\r').find(|part| !part.is_empty());
    let mut shown = String::with_capacity(text.len());
    let mut rest = last.unwrap_or_default();
    while let Some(character) = rest.chars().next() {
        if character == '\x1b' {
            let (sequence, after) = split_sequence(rest);
            if is_colour(sequence) {
                shown.push_str(sequence);
            }
            rest = after;
            continue;
        }
        if character == '\t' || !character.is_control() {
            shown.push(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    shown
}

/// Splits the escape sequence that `text` begins with from what follows.
fn split_sequence(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let end = match bytes.get(1) {
        // CSI: parameters, then one letter or the like.
        Some(b'[') => {
            let last = bytes[2..]
                .iter()
                .position(|byte| (0x40..=0x7e).contains(byte));
            last.map_or(text.len(), |last| last + 3)
        }
        // OSC: until BEL or ESC \.
        Some(b']') => text.find('\x07').map_or_else(
            || text.find("\x1b\\").map_or(text.len(), |end| end + 2),
            |end| end + 1,
        ),
        Some(byte) if byte.is_ascii() => 2,
        _ => 1,
    };
    text.split_at(end)
}

fn is_colour(sequence: &str) -> bool {
    let parameters = sequence
        .strip_prefix("\x1b[")
        .and_then(|rest| rest.strip_suffix('m'));
    parameters.is_some_and(|text| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || b";:".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_bytes_come() {
        let mut lines = Lines::default();
        assert!(lines.push(b"one").is_empty());
        assert_eq!(
            lines.push(b" more\ntwo\n\xff"),
            [b"one more".to_vec(), b"two".to_vec()]
        );
        assert_eq!(lines.push(b"\n"), [b"\xff".to_vec()]);
        assert_eq!(lines.push(b"\n"), [b"".to_vec()]);
        assert!(lines.finish().is_none());
        lines.push(b"no end");
        assert_eq!(lines.finish(), Some(b"no end".to_vec()));
    }

    #[test]
    fn a_line_without_end_does_not_grow_for_ever() {
        let mut lines = Lines::default();
        let got = lines.push(&vec![b'x'; LONGEST + 1]);
        assert_eq!(got.len() + usize::from(lines.finish().is_some()), 1);
        for _ in 0..10 {
            lines.push(&vec![b'x'; LONGEST - 1]);
            assert!(lines.begun.len() < 2 * LONGEST);
        }
    }

    #[test]
    fn a_terminal_sees_the_last_state_of_a_progress_line() {
        assert_eq!(display(b"10 %\r20 %\r100 %\r"), "100 %");
        assert_eq!(display(b"dos\r"), "dos");
        assert_eq!(display(b"\r\r"), "");
    }

    #[test]
    fn a_build_cannot_command_the_terminal() {
        assert_eq!(display(b"\x1b[1;31mred\x1b[0m"), "\x1b[1;31mred\x1b[0m");
        assert_eq!(
            display(b"a\x1b[2Jb\x1b]0;title\x07c\x1b]8;;x\x1b\\d\x08e\x1bcf"),
            "abcdef"
        );
        assert_eq!(display(b"ol\xe9"), "ol\u{fffd}");
        assert_eq!(display(b"\x1b["), "");
        assert_eq!(display("\x1bä".as_bytes()), "ä");
    }
}
