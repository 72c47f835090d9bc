//! The law of a lease: how long a claim is believed without news, and for how long news can be read.
//!
//! Owns the times that frontends must agree on for it, and why they fit together. Never knows what
//! time it is: how long a claim was silent is an argument, measured by whoever asks on a clock of its
//! own.

use std::time::Duration;

use crate::ticket::Duty;

/// How often a frontend names the claims that it has heard of: one turn.
pub const DIGEST: Duration = Duration::from_secs(5);
/// After how many turns what a frontend has named is written over.
pub const TURNS: u64 = 9;
/// How long it may take to learn all that the others had named, before a claim is given up.
pub const FRESH: Duration = Duration::from_secs(10);
/// How much later each frontend gives a claim up than the one before it in the order of duty.
pub const RANK: Duration = Duration::from_secs(5);

// A frontend that lags behind may read nothing for as long as a lease, and begin to ask then. What
// was named within the lease must still be there when it has learnt everything, or it would give up
// a claim that was heard of.
const _: () = assert!(
    DIGEST.as_secs() * TURNS > Duty::Task.lease().as_secs() + FRESH.as_secs(),
    "what was named is written over before it is certainly read"
);

/// Which of a frontend's nodes names the claims that it heard of in this turn.
pub const fn node_of(turn: u64) -> u64 {
    turn % TURNS
}

/// Whether a claim is to be given up that was silent for so long, by the frontend that so many others
/// come before.
pub const fn has_lapsed(lease: Duration, silent: Duration, rank: u32) -> bool {
    silent.as_millis() > lease.saturating_add(RANK.saturating_mul(rank)).as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_lapses_after_its_lease_and_later_for_the_next_in_rank() {
        let lease = Duty::Task.lease();
        let moment = Duration::from_millis(1);
        assert!(!has_lapsed(lease, lease, 0));
        assert!(has_lapsed(lease, lease + moment, 0));
        assert!(!has_lapsed(lease, lease + RANK, 1));
        assert!(has_lapsed(lease, lease + RANK + moment, 1));
    }

    #[test]
    fn a_node_is_used_again_after_all_others() {
        let nodes: Vec<_> = (1..=TURNS).map(node_of).collect();
        let mut different = nodes.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), nodes.len());
        assert_eq!(node_of(TURNS + 1), nodes[0]);
    }
}
