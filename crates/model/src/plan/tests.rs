//! The law of one ticket as a table and as properties over random histories.

use proptest::prelude::*;

use super::*;
use crate::capability::Capabilities;
use crate::config::Lock;
use crate::id::{BuildKey, BuildNumber, JobKey, TicketId, TicketKey};
use crate::ticket::{IndexName, Priority, Stamp};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn ticket(duty: Duty) -> Ticket {
    Ticket {
        queued: None,
        past: Vec::new(),
        duty,
        job: JobKey::derive(&"job".parse().unwrap(), 0),
        number: BuildNumber::FIRST,
        class: Capabilities::control().class(),
        priority: Priority::NORMAL,
        stamp: Stamp::from_millis(1),
        attempt: Attempt::default(),
        losses: 0,
        locks: Vec::new(),
        slots: Vec::new(),
        state: TicketState::Queued,
    }
}

/// A ticket that needs one of two slots of each of these.
fn locked(duty: Duty, names: &[&str]) -> Ticket {
    let lock = |name: &&str| Lock {
        name: (*name).to_owned(),
        slots: 2,
    };
    let locks: Vec<_> = names.iter().map(lock).collect();
    Ticket {
        locks: LockNeed::of_task(&locks),
        ..ticket(duty)
    }
}

/// Slot `slot` of each lock of a ticket.
fn slots(ticket: &Ticket, slot: u16) -> Vec<Slot> {
    let slot_of = |need: &LockNeed| Slot {
        lock: need.key.clone(),
        slot,
    };
    ticket.locks.iter().map(slot_of).collect()
}

fn claim(request: u8) -> Intent {
    claim_with(request, Hold::Slots(Vec::new()))
}

fn claim_with(request: u8, hold: Hold) -> Intent {
    Intent::Claim {
        worker: format!("w{request}").parse().unwrap(),
        request: RequestId::from_random([request; 16]),
        hold,
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

#[test]
fn a_claim_brings_one_slot_of_each_lock_and_nothing_else() {
    let ticket = locked(Duty::Task, &["a", "b"]);
    let both = slots(&ticket, 0);
    let beyond = slots(&ticket, 2);
    let other = slots(&locked(Duty::Task, &["c"]), 0);
    for wrong in [
        Vec::new(),
        both[..1].to_vec(),
        beyond,
        [both.clone(), other.clone()].concat(),
        [both[..1].to_vec(), other].concat(),
        [both.clone(), slots(&ticket, 1)].concat(),
    ] {
        let claim = claim_with(1, Hold::Slots(wrong.clone()));
        assert_eq!(plan(&ticket, claim), Err(Refused::WrongSlots), "{wrong:?}");
    }
    let claimed = plan(&ticket, claim_with(1, Hold::Slots(both.clone()))).unwrap();
    assert_eq!(claimed.ticket.slots.len(), 2);
    assert_eq!(claimed.ticket.locks_missing().count(), 0);
}

#[test]
fn a_build_keeps_its_slots_and_later_claims_need_none() {
    let ticket = locked(Duty::Control, &["a"]);
    let attempt = Attempt::new(1);
    let held = slots(&ticket, 1);
    let take = claim_with(1, Hold::Slots(held.clone()));
    let parked = after(
        ticket,
        [
            take,
            Intent::Park {
                attempt,
                until: None,
            },
        ],
    );
    assert_eq!(parked.slots, held);
    let again = after(parked, [Intent::Wake, claim(2)]);
    assert_eq!(again.slots, held);
    let more = claim_with(3, Hold::Slots(slots(&again, 0)));
    let queued = after(
        again,
        [Intent::Release {
            attempt: Attempt::new(2),
            at: now(),
        }],
    );
    assert_eq!(plan(&queued, more), Err(Refused::WrongSlots));
}

#[test]
fn only_a_build_may_be_claimed_without_its_locks() {
    let build = locked(Duty::Control, &["a"]);
    let claimed = plan(&build, claim_with(1, Hold::Waived)).unwrap();
    assert!(claimed.ticket.slots.is_empty());
    let task = locked(Duty::Task, &["a"]);
    assert_eq!(
        plan(&task, claim_with(1, Hold::Waived)),
        Err(Refused::WrongDuty)
    );
}

fn any_intent() -> impl Strategy<Value = Intent> {
    let attempt = (0u32..6).prop_map(Attempt::new);
    prop_oneof![
        (1u8..4).prop_map(claim),
        ((1u8..4), any_hold()).prop_map(|(request, hold)| claim_with(request, hold)),
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

fn any_hold() -> impl Strategy<Value = Hold> {
    let needs = locked(Duty::Task, &["a", "b"]);
    let all: Vec<Slot> = (0..3).flat_map(|slot| slots(&needs, slot)).collect();
    let some = prop::sample::subsequence(all, 0..4).prop_map(Hold::Slots);
    prop_oneof![9 => some, 1 => Just(Hold::Waived)]
}

proptest! {
    /// A task holds a slot of each of its locks exactly while it is claimed, a build from its first
    /// claim on; what a transition gives back, it had before, and never in exchange for others.
    #[test]
    fn slots_follow_the_state(
        control in any::<bool>(),
        locks in prop::sample::subsequence(vec!["a", "b"], 0..=2),
        intents in prop::collection::vec(any_intent(), 0..60),
    ) {
        let mut state = locked(if control { Duty::Control } else { Duty::Task }, &locks);
        for intent in intents {
            let waived = matches!(intent, Intent::Claim { hold: Hold::Waived, .. });
            let Ok(next) = plan(&state, intent) else { continue };
            let (before, after) = (&state.slots, &next.ticket.slots);
            let claimed = matches!(next.ticket.state, TicketState::Claimed(_));
            if !control {
                prop_assert_eq!(after.len(), if claimed { locks.len() } else { 0 });
            } else if !waived && !before.is_empty() {
                prop_assert_eq!(before, after, "a build exchanged its slots");
            }
            let one_of = |slot: &Slot| locks.is_empty() || next.ticket.locks.iter().any(|need| need.has(slot));
            prop_assert!(after.iter().all(one_of));
            let kept = after.iter().filter(|slot| before.contains(slot)).count();
            prop_assert!(kept == before.len() || after.is_empty());
            state = next.ticket;
        }
    }

    /// Of a task, each claim that is over is remembered once, in its order.
    #[test]
    fn no_claim_is_forgotten(intents in prop::collection::vec(any_intent(), 0..60)) {
        let mut state = ticket(Duty::Task);
        for intent in intents {
            let Ok(next) = plan(&state, intent) else { continue };
            state = next.ticket;
            let open = match &state.state {
                TicketState::Claimed(_) => 1,
                // The last attempt is told by how it ended, if it did not end while queued again.
                TicketState::Done(done) => u32::from(done.worker.is_some()),
                TicketState::Queued | TicketState::Parked { .. } => 0,
            };
            let over = 1..=state.attempt.get() - open;
            let told = state.past.iter().map(|claim| claim.attempt.get());
            prop_assert!(told.eq(over), "{:?}", state);
        }
    }

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
