//! What a tool said last.
//!
//! Owns the first bytes of an output on their way: when a tool fails before the command begins, all
//! that was said is the tool's.

use async_trait::async_trait;

use crate::cell::Output;

/// Most bytes that are kept.
const MOST: usize = 2048;

/// Output that is passed on, and whose beginning is remembered.
pub(crate) struct Heard<'a> {
    output: &'a mut dyn Output,
    first: Vec<u8>,
}

impl<'a> Heard<'a> {
    /// On the way to `output`.
    pub(crate) fn new(output: &'a mut dyn Output) -> Self {
        Self {
            output,
            first: Vec::new(),
        }
    }

    /// What was said first, if anything was.
    pub(crate) fn words(&self) -> String {
        let words = String::from_utf8_lossy(&self.first);
        match words.trim() {
            "" => "it said nothing".to_owned(),
            words => words.to_owned(),
        }
    }
}

#[async_trait]
impl Output for Heard<'_> {
    async fn take(&mut self, bytes: &[u8]) {
        let room = MOST.saturating_sub(self.first.len());
        self.first.extend(bytes.iter().take(room));
        self.output.take(bytes).await;
    }
}
