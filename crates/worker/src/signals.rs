//! Signals that this process was told to ignore.
//!
//! Owns that no script inherits that: whoever starts a worker with `nohup`, or in the background of
//! a shell, means the worker.

use tokio::signal::unix::{SignalKind, signal};

/// Those by which people and programs ask for something. Never those of job control: to hear what a
/// terminal tells a process in the background would stop it.
const ASKING: [fn() -> SignalKind; 8] = [
    SignalKind::alarm,
    SignalKind::child,
    SignalKind::hangup,
    SignalKind::interrupt,
    SignalKind::quit,
    SignalKind::terminate,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];

/// Whether this process ignores a signal, as `nohup` tells it to.
pub fn ignores(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.unwrap_or_default() >> (kind.as_raw_value() - 1) & 1 == 1
}

/// Hears what is ignored, and does nothing about it: the same for this process, but what is heard
/// is not inherited.
pub(crate) fn hear_ignored() {
    for kind in ASKING.map(|kind| kind()) {
        if ignores(kind)
            && let Err(error) = signal(kind)
        {
            tracing::warn!(
                "scripts will ignore signal {}: {error}",
                kind.as_raw_value()
            );
        }
    }
}
