//! The only retry loop of the project.
//!
//! Owns when to try again and where: the next frontend at once, and when all have failed, after a
//! jittered pause that grows from 0.1 to 5 seconds. Never tries after the deadline, which begins
//! with the first failure: a long poll that was held for long has failed nobody.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{ClientError, Notice};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// Longest that a frontend may ask us to stay away.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// Why one try gave no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Another frontend, or this one later, may do better.
    Passing {
        /// What happened.
        why: String,
        /// How long the frontend asked us to stay away.
        after: Option<Duration>,
    },
    /// Every frontend would say the same.
    Final(ClientError),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Final(error)
    }
}

/// How long to try, and whom to tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How many there are: of so many tries in a row, each is expected to ask another.
    pub(crate) frontends: usize,
    /// How long none of them may answer.
    pub(crate) deadline: Duration,
    /// Hears of the first failure of all of them.
    pub(crate) notice: Option<Notice>,
}

/// Calls `attempt` with 0, 1, 2 … until it has an answer.
///
/// # Errors
/// The first final trouble, or [`ClientError::Unreachable`] when the deadline is over.
pub(crate) async fn retry<T, F, A>(patience: Patience, attempt: F) -> Result<T, ClientError>
where
    F: Fn(usize) -> A,
    A: Future<Output = Result<T, Trouble>>,
{
    let mut failed_since: Option<Instant> = None;
    let mut tried: u32 = 0;
    loop {
        let (why, after) = match attempt(tried as usize).await {
            Ok(answer) => return Ok(answer),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing { why, after }) => (why, after),
        };
        tried = tried.saturating_add(1);
        let asked = after.unwrap_or_default().min(LONGEST_ASKED);
        let rounds = (tried as usize).checked_sub(patience.frontends);
        let pause = rounds.map_or(Duration::ZERO, |rounds| pause(rounds, random()));
        let pause = pause.max(asked);
        tracing::debug!(tried, ?pause, "no answer: {why}");
        if failed_since.get_or_insert_with(Instant::now).elapsed() + pause >= patience.deadline {
            return Err(ClientError::Unreachable { tried, last: why });
        }
        if let (Some(0), Some(notice)) = (rounds, patience.notice) {
            notice(&why);
        }
        sleep(pause).await;
    }
}

/// How long to wait after `failures` failures since every frontend had failed once.
fn pause(failures: usize, random: u32) -> Duration {
    let doublings = u32::try_from(failures).unwrap_or(u32::MAX).min(8);
    let ceiling = (SHORTEST * 2_u32.pow(doublings + 1)).min(LONGEST);
    // Evenly between the shortest pause and the ceiling, so that clients that failed together do
    // not come back together.
    SHORTEST
        + ceiling
            .saturating_sub(SHORTEST)
            .mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Without randomness the pause is merely less fair.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn passing(after: Option<Duration>) -> Trouble {
        Trouble::Passing {
            why: "refused".to_owned(),
            after,
        }
    }

    fn patience(frontends: usize, deadline: Duration) -> Patience {
        Patience {
            frontends,
            deadline,
            notice: None,
        }
    }

    #[test]
    fn pauses_grow_from_a_tenth_of_a_second_to_five() {
        assert_eq!(pause(0, 0), SHORTEST);
        assert_eq!(pause(0, u32::MAX), SHORTEST * 2);
        assert!(pause(3, u32::MAX) > pause(2, u32::MAX));
        assert_eq!(pause(usize::MAX, u32::MAX), LONGEST);
        assert_eq!(pause(usize::MAX, 0), SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn every_frontend_is_asked_before_the_first_pause() {
        let start = Instant::now();
        let times = RefCell::new(Vec::new());
        let answer = retry(patience(3, Duration::from_mins(1)), async |tried| {
            times.borrow_mut().push(start.elapsed());
            if tried == 3 {
                Ok(tried)
            } else {
                Err(passing(None))
            }
        });
        assert_eq!(answer.await.unwrap(), 3);
        let times = times.into_inner();
        assert_eq!(times[..3], [Duration::ZERO; 3]);
        assert!(times[3] >= SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frontend_that_asks_for_patience_gets_it() {
        let start = Instant::now();
        let asked = Duration::from_secs(7);
        let answer = retry(patience(1, Duration::from_mins(1)), async |tried| {
            if tried == 1 {
                Ok(())
            } else {
                Err(passing(Some(asked)))
            }
        });
        answer.await.unwrap();
        assert!(start.elapsed() >= asked);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_tried_after_the_deadline() {
        let start = Instant::now();
        let deadline = Duration::from_secs(20);
        let answer = retry(patience(1, deadline), async |_| Err::<(), _>(passing(None)));
        let error = answer.await.unwrap_err();
        assert!(
            matches!(error, ClientError::Unreachable { tried: 4.., .. }),
            "{error}"
        );
        assert!(start.elapsed() < deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_poll_does_not_spend_the_deadline() {
        let answer = retry(patience(1, Duration::from_secs(10)), async |tried| {
            sleep(Duration::from_secs(30)).await;
            if tried == 1 {
                Ok(())
            } else {
                Err(passing(None))
            }
        });
        answer.await.unwrap();
    }
}
