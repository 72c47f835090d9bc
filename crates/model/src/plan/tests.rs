//! The law of one ticket as a table and as properties over random histories.

use proptest::prelude::*;

use super::*;
use crate::capability::Capabilities;
use crate::id::{BuildKey, BuildNumber, JobKey, TicketId, TicketKey};
use crate::ticket::{IndexName, Priority, Stamp};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn ticket(duty: Duty) -> Ticket {
    Ticket {
        duty,
        job: JobKey::derive(&"job".parse().unwrap(), 0),
        number: BuildNumber::FIRST,
        class: Capabilities::control().class(),
        priority: Priority::NORMAL,
        stamp: Stamp::from_millis(1),
        attempt: Attempt::default(),
        losses: 0,
        state: TicketState::Queued,
    }
}

fn claim(request: u8) -> Intent {
    Intent::Claim {
        worker: format!("w{request}").parse().unwrap(),
        request: RequestId::from_random([request; 16]),
        at: now(),
    }
}

fn complete(attempt: u32, outcome: Outcome) -> Intent {
    let result = Box::new(TaskResult::of(outcome));
    Intent::Complete {
        attempt: Attempt::new(attempt),
        result,
        at: now(),
    }
}

fn full_disk() -> Outcome {
    Outcome::Fault {
        reason: Fault::DiskFull {
            detail: "/tmp".into(),
        },
    }
}

fn after(start: Ticket, intents: impl IntoIterator<Item = Intent>) -> Ticket {
    intents.into_iter().fold(start, |ticket, intent| {
        plan(&ticket, intent).unwrap().ticket
    })
}

#[test]
fn a_repeated_claim_is_already_so_and_another_is_refused() {
    let claimed = after(ticket(Duty::Task), [claim(1)]);
    assert_eq!(plan(&claimed, claim(1)), Err(Refused::AlreadySo));
    assert_eq!(plan(&claimed, claim(2)), Err(Refused::NotQueued));
}

#[test]
fn late_finish_is_refused() {
    let attempt = Attempt::new(1);
    let again = after(
        ticket(Duty::Task),
        [claim(1), Intent::Expire { attempt, at: now() }, claim(2)],
    );
    assert_eq!(
        plan(&again, complete(1, Outcome::Success)),
        Err(Refused::AttemptOver {
            current: Attempt::new(2)
        })
    );
    assert!(plan(&again, complete(2, Outcome::Success)).is_ok());
}

#[test]
fn a_repeated_finish_is_already_so_but_not_with_another_result() {
    let done = after(
        ticket(Duty::Task),
        [claim(1), complete(1, Outcome::Success)],
    );
    assert_eq!(
        plan(&done, complete(1, Outcome::Success)),
        Err(Refused::AlreadySo)
    );
    assert!(matches!(
        plan(&done, complete(1, full_disk())),
        Err(Refused::AttemptOver { .. })
    ));
}

#[test]
fn faults_retry_until_the_budget_is_spent_and_failures_never() {
    let mut state = ticket(Duty::Task);
    for attempt in 1..3 {
        state = after(state, [claim(1), complete(attempt, full_disk())]);
        assert_eq!(state.state, TicketState::Queued, "attempt {attempt}");
    }
    state = after(state, [claim(1), complete(3, full_disk())]);
    assert!(matches!(state.state, TicketState::Done(_)));

    let failure = Outcome::Failure {
        reason: Failure::Exit { exit: 1 },
    };
    let failed = after(ticket(Duty::Task), [claim(1), complete(1, failure)]);
    assert!(matches!(failed.state, TicketState::Done(_)));
}

#[test]
fn the_third_loss_ends_a_task_and_no_loss_ends_a_control_ticket() {
    for (duty, ends) in [(Duty::Task, true), (Duty::Control, false)] {
        let mut state = ticket(duty);
        for number in 1..=3 {
            let attempt = Attempt::new(number);
            state = after(state, [claim(1), Intent::Expire { attempt, at: now() }]);
        }
        assert_eq!(
            matches!(state.state, TicketState::Done(_)),
            ends,
            "{duty:?}"
        );
    }
}

#[test]
fn a_cancelled_claim_that_expires_ends_as_cancelled() {
    let expire = Intent::Expire {
        attempt: Attempt::new(1),
        at: now(),
    };
    let state = after(
        ticket(Duty::Task),
        [claim(1), Intent::Cancel { at: now() }, expire],
    );
    let TicketState::Done(done) = state.state else {
        panic!("not done: {state:?}")
    };
    assert!(done.result.outcome.is_cancelled());
}

#[test]
fn control_parks_and_wakes_and_is_never_completed() {
    let park = Intent::Park {
        attempt: Attempt::new(1),
        until: Some(now()),
    };
    let parked = after(ticket(Duty::Control), [claim(1), park.clone()]);
    let until = Some(now());
    assert_eq!(parked.state, TicketState::Parked { until });
    assert_eq!(plan(&parked, park), Err(Refused::AlreadySo));
    let claimed = after(parked, [Intent::Wake, claim(2)]);
    assert_eq!(
        plan(&claimed, complete(2, Outcome::Success)),
        Err(Refused::WrongDuty)
    );
}

fn any_intent() -> impl Strategy<Value = Intent> {
    let attempt = (0u32..6).prop_map(Attempt::new);
    prop_oneof![
        (1u8..4).prop_map(claim),
        (0u32..6).prop_map(|attempt| complete(attempt, Outcome::Success)),
        (0u32..6).prop_map(|attempt| complete(attempt, full_disk())),
        attempt
            .clone()
            .prop_map(|attempt| Intent::Release { attempt, at: now() }),
        attempt
            .clone()
            .prop_map(|attempt| Intent::Expire { attempt, at: now() }),
        Just(Intent::Cancel { at: now() }),
        Just(Intent::Wake),
        (attempt.clone(), any::<bool>()).prop_map(|(attempt, timed)| Intent::Park {
            attempt,
            until: timed.then(now),
        }),
        attempt.prop_map(|attempt| Intent::Stay { attempt }),
    ]
}

proptest! {
    /// Attempts never fall and rise by one only with a claim; `Done` is final; no index name is
    /// used twice; the control ticket hears of every end.
    #[test]
    fn histories_keep_the_laws(
        control in any::<bool>(),
        intents in prop::collection::vec(any_intent(), 0..40),
    ) {
        let mut state = ticket(if control { Duty::Control } else { Duty::Task });
        let build = BuildKey::derive(&state.job, BuildNumber::FIRST);
        let key = TicketKey { build, ticket: TicketId::control() };
        let mut names: Vec<IndexName> = state.index_name(&key, 0).into_iter().collect();
        let mut version = 0;
        for intent in intents {
            let is_claim = matches!(intent, Intent::Claim { .. });
            let Ok(next) = plan(&state, intent) else { continue };
            prop_assert!(!matches!(state.state, TicketState::Done(_)), "Done is final");
            let raised = next.ticket.attempt.get() - state.attempt.get();
            prop_assert_eq!(raised, u32::from(is_claim));
            prop_assert!(next.ticket.losses >= state.losses);
            let done = matches!(next.ticket.state, TicketState::Done(_));
            prop_assert_eq!(next.news == News::Control, done);
            prop_assert!(!(control && done));
            version += 1;
            let before = state.index_name(&key, version - 1);
            if let Some(name) = next.ticket.index_name(&key, version)
                && before.as_ref() != Some(&name)
            {
                prop_assert!(!names.contains(&name), "{:?} is used twice", name);
                names.push(name);
            }
            state = next.ticket;
        }
    }
}
