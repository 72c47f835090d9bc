//! Waiting for something that another process does.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a server may take to serve. A loaded machine needs ten times what an idle one does.
pub(crate) const LONG: Duration = Duration::from_mins(2);

/// Asks until `answer` has one, for at most `limit`; an error of its own ends the waiting at once.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut answer: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = answer()? {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        sleep(Duration::from_millis(20));
    }
}
