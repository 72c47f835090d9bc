//! One task's console on our output.
//!
//! Owns how its bytes are shown: with or without the task's name before each line, made harmless
//! for a terminal, or exactly as they came.

use std::io;

use distci_model::id::Attempt;
use owo_colors::{AnsiColors, Style};

use crate::lines::{Lines, display};
use crate::out::Out;

/// Colours of names, none of which means success or failure.
const COLOURS: [AnsiColors; 6] = [
    AnsiColors::Cyan,
    AnsiColors::Blue,
    AnsiColors::Magenta,
    AnsiColors::BrightCyan,
    AnsiColors::BrightBlue,
    AnsiColors::BrightMagenta,
];

/// What is shown of a console so far.
#[derive(Debug)]
pub(crate) struct Console {
    /// The name before each line; none if there is only one console to see.
    name: Option<String>,
    style: Style,
    lines: Lines,
}

impl Console {
    /// The console number `position` of those that are shown.
    pub(crate) fn new(name: Option<String>, position: usize) -> Self {
        let colour = COLOURS[position % COLOURS.len()];
        Self {
            name,
            style: Style::new().color(colour),
            lines: Lines::default(),
        }
    }

    /// Shows bytes, as far as they are whole lines.
    pub(crate) fn show(&mut self, bytes: &[u8], out: &mut Out) -> io::Result<()> {
        if self.name.is_none() && out.is_exact() {
            return out.bytes(bytes);
        }
        for line in self.lines.push(bytes) {
            self.line(&line, out)?;
        }
        out.flush()
    }

    /// Shows what is left at the end of an attempt.
    pub(crate) fn finish(&mut self, out: &mut Out) -> io::Result<()> {
        match self.lines.finish() {
            Some(line) => self.line(&line, out),
            None => Ok(()),
        }
    }

    /// Shows that another attempt begins. Without names it is talk, and the data stays exact.
    pub(crate) fn attempt(&mut self, attempt: Attempt, out: &mut Out) -> io::Result<()> {
        let mark = format!("── attempt {attempt} ──");
        match self.name {
            Some(_) => self.line(mark.as_bytes(), out),
            None => out.say(mark),
        }
    }

    fn line(&self, line: &[u8], out: &mut Out) -> io::Result<()> {
        let paint = out.data_paint();
        if let Some(name) = &self.name {
            let name = paint.paint(format_args!("[{name}]"), self.style);
            out.bytes(name.as_bytes())?;
            out.bytes(b" ")?;
        }
        if out.is_exact() {
            out.bytes(line)?;
        } else {
            out.bytes(display(line).as_bytes())?;
            if paint.is_on() && line.contains(&b'\x1b') {
                // A colour that a line leaves on must not run into the next task's.
                out.bytes(b"\x1b[0m")?;
            }
        }
        out.bytes(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(name: Option<&str>, exact: bool, pieces: &[&[u8]]) -> Vec<u8> {
        let kept = Kept::default();
        let mut out = Out::to(kept.clone(), exact);
        let mut console = Console::new(name.map(str::to_owned), 0);
        for piece in pieces {
            console.show(piece, &mut out).unwrap();
        }
        console.finish(&mut out).unwrap();
        console.attempt(Attempt::new(2), &mut out).unwrap();
        kept.0.lock().unwrap().clone()
    }

    #[test]
    fn a_lone_console_keeps_every_byte_in_a_pipe() {
        let pieces: [&[u8]; 2] = [b"a\r\n\xff", b"\x1b[2J no end"];
        assert_eq!(shown(None, true, &pieces), pieces.concat());
    }

    #[test]
    fn named_lines_keep_their_bytes_in_a_pipe() {
        let got = shown(Some("t"), true, &[b"a\r\n\xff", b"b"]);
        let mark = "[t] ── attempt 2 ──\n".as_bytes();
        assert_eq!(got, [b"[t] a\r\n[t] \xffb\n", mark].concat());
    }

    #[test]
    fn a_terminal_gets_text() {
        let got = shown(Some("t"), false, &[b"10 %\r20 %\r\n\xff\n"]);
        assert_eq!(
            String::from_utf8(got).unwrap(),
            "[t] 20 %\n[t] \u{fffd}\n[t] ── attempt 2 ──\n"
        );
    }
}
