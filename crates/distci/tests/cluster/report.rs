//! How long everything took to recover, beside the bound of the design.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;

/// Requests are served again after a frontend or the leader of the ensemble has died.
pub(crate) const SERVED: &str = "≤ 5 s";
/// The attempt of a dead worker is restarted.
pub(crate) const RESTARTED: &str = "≤ 45 s";
/// Another decides in the place of a dead build control.
pub(crate) const DECIDED: &str = "≤ 30 s";
/// A frontend or the quorum of the ensemble is back.
pub(crate) const BACK: &str = "≤ 10 s";
/// The blobs are back: workers try again at growing distances.
pub(crate) const PAUSES: &str = "their pauses";

/// The figures of one test, printed as they come and never judged: the machine may be busy.
#[derive(Debug)]
pub(crate) struct Report {
    theme: &'static str,
}

impl Report {
    pub(crate) fn of(theme: &'static str) -> Self {
        Self { theme }
    }

    /// One fault: what became of it, how long that took, and the bound.
    pub(crate) fn measured(
        &self,
        fault: &str,
        what: &str,
        took: Duration,
        bound: &str,
    ) -> Result<()> {
        let took = took.as_secs_f32();
        self.noted(&format!("{fault:<46} {what:<18} {took:>6.2} s   {bound}"))
    }

    /// Something else worth knowing.
    pub(crate) fn noted(&self, what: &str) -> Result<()> {
        let line = format!("{:<10} {what}\n", self.theme);
        Ok(std::io::stdout().lock().write_all(line.as_bytes())?)
    }
}
