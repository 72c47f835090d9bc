//! The only retry loop of the project.
//!
//! Owns when to try again: the next frontend at once, and when all have failed, after a jittered
//! pause that grows from 0.1 to 5 seconds. Never tries after the deadline, which begins
//! with the first failure: a long poll that was held for long has failed nobody.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::Hope;
use crate::frontends::random;
use crate::{ClientError, Notice};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Why one try gave no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Another frontend, or this one later, may do better.
    Passing(Passing),
    /// Every frontend would say the same.
    Final(ClientError),
}

/// What may be better elsewhere, or later.
#[derive(Debug)]
pub(crate) struct Passing {
    /// What happened.
    pub(crate) why: String,
    /// How long the frontend asked us to stay away.
    pub(crate) after: Option<Duration>,
    /// Whether the frontend is well, and only its store is not.
    pub(crate) store_down: bool,
}

impl From<Passing> for Trouble {
    fn from(passing: Passing) -> Self {
        Self::Passing(passing)
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Final(error)
    }
}

/// How long to try, and whom to tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience<'a> {
    /// How many there are: of so many tries in a row, each is expected to ask another.
    pub(crate) frontends: usize,
    /// How long none of them may answer.
    pub(crate) deadline: Duration,
    /// Whether to begin the deadline anew when it is over.
    pub(crate) hope: Option<&'a Hope>,
    /// Hears of the first failure of all of them.
    pub(crate) notice: Option<Notice>,
}

/// Calls `attempt` with 0, 1, 2 … until it has an answer.
///
/// # Errors
/// The first final trouble. When the deadline is over, [`ClientError::StoreDown`] if any frontend
/// said so, or else [`ClientError::Unreachable`].
pub(crate) async fn retry<T, F, A>(patience: Patience<'_>, attempt: F) -> Result<T, ClientError>
where
    F: Fn(usize) -> A,
    A: Future<Output = Result<T, Trouble>>,
{
    let mut failed_since: Option<Instant> = None;
    let (mut tried, mut store_down) = (0_u32, false);
    loop {
        let passing = match attempt(tried as usize).await {
            Ok(answer) => return Ok(answer),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing(passing)) => passing,
        };
        tried = tried.saturating_add(1);
        store_down |= passing.store_down;
        let last = passing.why;
        let rounds = (tried as usize).checked_sub(patience.frontends);
        // Who asks to be left alone does not speak for the others.
        let asked = passing.after.unwrap_or_default();
        let pause = rounds.map_or(Duration::ZERO, |rounds| pause(rounds, random()).max(asked));
        tracing::debug!(tried, ?pause, "no answer: {last}");
        let over =
            failed_since.get_or_insert_with(Instant::now).elapsed() + pause >= patience.deadline;
        if over && patience.hope.is_some_and(Hope::is_left) {
            failed_since = None;
        } else if over {
            return Err(if store_down {
                ClientError::StoreDown { tried, last }
            } else {
                ClientError::Unreachable { tried, last }
            });
        }
        if let (Some(0), Some(notice)) = (rounds, patience.notice) {
            notice(&last);
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn passing(after: Option<Duration>) -> Trouble {
        let why = "refused".to_owned();
        let store_down = false;
        Passing {
            why,
            after,
            store_down,
        }
        .into()
    }

    fn patience(frontends: usize, deadline: Duration) -> Patience<'static> {
        Patience {
            frontends,
            deadline,
            hope: None,
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
    async fn one_frontend_that_asks_for_patience_keeps_nobody_from_the_next() {
        let start = Instant::now();
        let asked = Some(Duration::from_secs(7));
        let answer = retry(patience(2, Duration::from_mins(1)), async |tried| {
            if tried == 1 {
                Ok(())
            } else {
                Err(passing(asked))
            }
        });
        answer.await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_down_is_told_apart_from_nobody_there() {
        let down = |store_down| Passing {
            why: "no".to_owned(),
            after: None,
            store_down,
        };
        let answer = retry(patience(2, Duration::from_secs(1)), async |tried| {
            Err::<(), _>(down(tried == 0).into())
        });
        let error = answer.await.unwrap_err();
        assert!(matches!(error, ClientError::StoreDown { .. }), "{error}");
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
