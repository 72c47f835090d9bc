//! The edge where the program reads the clock.

use distci_model::Timestamp;

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the binary where the clock is read"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
