//! What a console may show, of what is said to it.
//!
//! Owns the beginnings of lines, the hiding of secrets and the limit. What leaves here is final, so
//! no secret ever waits on a disk.

use bytes::{Bytes, BytesMut};

use super::{Mask, Piece};

/// What stands at the end of a console that is too long.
const CUT: &[u8] = b"\n[distci] the console is full and ends here; the task goes on\n";

pub(super) struct Text {
    mask: Mask,
    /// Bytes that may be shown before the notice of the cut.
    room: u64,
    full: bool,
    line_open: bool,
    /// What may be the beginning of a secret.
    waiting: BytesMut,
}

impl Text {
    pub(super) fn new(mask: Mask, limit: u64) -> Self {
        Self {
            mask,
            room: limit.saturating_sub(CUT.len() as u64),
            full: false,
            line_open: false,
            waiting: BytesMut::new(),
        }
    }

    /// What may be shown now.
    pub(super) fn take(&mut self, piece: Piece) -> Bytes {
        let bytes = match piece {
            Piece::Raw(bytes) => bytes,
            Piece::Line(line) => {
                if self.line_open {
                    self.waiting.extend_from_slice(b"\n");
                }
                line.into()
            }
        };
        if let Some(last) = bytes.last() {
            self.line_open = *last != b'\n';
        }
        self.waiting.extend_from_slice(&bytes);
        let shown = self.mask.apply(&mut self.waiting);
        self.cut(shown)
    }

    /// The rest: nothing follows.
    pub(super) fn finish(&mut self) -> Bytes {
        let shown = self.mask.finish(&mut self.waiting);
        self.cut(shown)
    }

    fn cut(&mut self, bytes: Bytes) -> Bytes {
        if self.full {
            return Bytes::new();
        }
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        if bytes.len() > room {
            self.full = true;
            return [bytes.get(..room).unwrap_or_default(), CUT].concat().into();
        }
        self.room -= bytes.len() as u64;
        bytes
    }
}
