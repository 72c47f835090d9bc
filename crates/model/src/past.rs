//! The flight recorder: the claims of a ticket that are over.
//!
//! Owns what is remembered of each. An entry is written by the very commit that ends the claim, so
//! there is one for exactly what has happened. Never grows without bounds: of very many claims the
//! first and the last are kept, and the attempts' numbers show where some are left out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::id::{Attempt, WorkerName};
use crate::outcome::Outcome;

/// Most claims of one ticket that are remembered,
const MOST: usize = 32;
/// and how many of these are the first.
const FIRST: usize = 8;

/// A claim that is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Past {
    /// Which claim of the ticket it was.
    pub attempt: Attempt,
    /// When the ticket was queued for it, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Timestamp>,
    /// Who held it.
    pub worker: WorkerName,
    /// When it began.
    pub since: Timestamp,
    /// When it ended.
    pub until: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub end: End,
}

/// How a claim ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum End {
    /// Its worker was not heard of for the time of its lease, or did not know of it.
    Lost,
    /// Its worker handed the ticket back undone.
    Released,
    /// What was claimed ended, and is tried again.
    Ended {
        /// How it ended, in words.
        outcome: String,
    },
    /// The build was decided about.
    Decided,
}

impl End {
    /// That what was claimed ended with this.
    pub fn ended(outcome: &Outcome) -> Self {
        Self::Ended {
            outcome: outcome.to_string(),
        }
    }
}

/// Remembers a claim with those before it.
pub fn remember(past: &mut Vec<Past>, claim: Past) {
    past.push(claim);
    if past.len() > MOST {
        past.remove(FIRST);
    }
}

/// Remembers several, in their order.
pub fn remember_all(past: &mut Vec<Past>, claims: impl IntoIterator<Item = Past>) {
    for claim in claims {
        remember(past, claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(attempt: u32) -> Past {
        Past {
            attempt: Attempt::new(attempt),
            queued: None,
            worker: "w".parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            end: End::Lost,
        }
    }

    #[test]
    fn of_very_many_claims_the_first_and_the_last_are_kept() {
        let mut past = Vec::new();
        remember_all(&mut past, (1..=1000).map(claim));
        let kept: Vec<_> = past.iter().map(|claim| claim.attempt.get()).collect();
        let expected: Vec<_> = (1..=8).chain(977..=1000).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn a_claim_reads_as_it_is_written() {
        let claim = Past {
            queued: Some(Timestamp::UNIX_EPOCH),
            end: End::Ended {
                outcome: "exit 1".to_owned(),
            },
            ..claim(3)
        };
        let text = serde_json::to_string(&claim).unwrap();
        assert_eq!(serde_json::from_str::<Past>(&text).unwrap(), claim);
        assert!(
            text.contains(r#""end":"ended","outcome":"exit 1""#),
            "{text}"
        );
    }
}
