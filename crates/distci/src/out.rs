//! What the program says: data to standard output, talk to standard error.
//!
//! Owns both streams and the decision about colours, which are for terminals only. Standard output
//! that is no terminal gets every byte as it came.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use owo_colors::{OwoColorize, Style};
use serde::Serialize;

/// The two streams of the program.
pub(crate) struct Out {
    data: Box<dyn Write + Send>,
    talk: Box<dyn Write + Send>,
    data_paint: Paint,
    talk_paint: Paint,
    exact: bool,
}

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Never colours.
    #[cfg(test)]
    pub(crate) const OFF: Self = Self { on: false };

    /// `text` in `style`, if colours are wanted.
    pub(crate) fn paint(self, text: impl Display, style: Style) -> String {
        if self.on {
            text.style(style).to_string()
        } else {
            text.to_string()
        }
    }

    /// Whether colours are wanted.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }
}

impl Out {
    /// The streams of the process.
    pub(crate) fn of_process() -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let wanted = |choice: ColorChoice| Paint {
            on: choice != ColorChoice::Never,
        };
        let data_paint = wanted(AutoStream::choice(&stdout));
        let talk_paint = wanted(AutoStream::choice(&stderr));
        let exact = !stdout.is_terminal();
        let data: Box<dyn Write + Send> = if exact {
            Box::new(stdout)
        } else {
            Box::new(AutoStream::auto(stdout))
        };
        Self {
            data,
            talk: Box::new(AutoStream::auto(stderr)),
            data_paint,
            talk_paint,
            exact,
        }
    }

    /// The same with data sent to standard error, for when standard output has another use.
    pub(crate) fn with_data_as_talk(self) -> Self {
        Self {
            data: Box::new(AutoStream::auto(io::stderr())),
            data_paint: self.talk_paint,
            exact: false,
            ..self
        }
    }

    /// Streams that the caller keeps.
    #[cfg(test)]
    pub(crate) fn to(data: impl Write + Send + 'static, exact: bool) -> Self {
        Self {
            data: Box::new(data),
            talk: Box::new(io::sink()),
            data_paint: Paint::OFF,
            talk_paint: Paint::OFF,
            exact,
        }
    }

    /// Whether data is for a program or a file, which get bytes as they are.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// How to colour data.
    pub(crate) fn data_paint(&self) -> Paint {
        self.data_paint
    }

    /// How to colour talk.
    pub(crate) fn talk_paint(&self) -> Paint {
        self.talk_paint
    }

    /// Writes data as it is.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all(bytes)
    }

    /// Writes a line of data.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.data, "{text}")
    }

    /// Writes a document of data.
    pub(crate) fn json(&mut self, document: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.data, document)?;
        self.data.write_all(b"\n")
    }

    /// Sees to it that what was written can be seen.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.data.flush()
    }

    /// Tells the person at the terminal.
    pub(crate) fn say(&mut self, text: impl Display) -> io::Result<()> {
        self.data.flush()?;
        writeln!(self.talk, "{text}")
    }
}
