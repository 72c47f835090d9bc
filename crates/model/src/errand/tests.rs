//! The law of errands as a table and as a property over random histories.

use proptest::prelude::*;

use super::*;
use crate::id::{RequestId, WorkerName};
use crate::outcome::{Failure, Fault};
use crate::plan::{Intent, plan};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn key() -> JobKey {
    JobKey::derive(&"j".parse().unwrap(), 0)
}

fn poll(every: &str) -> Errand {
    let poll = Poll {
        job: "j".parse().unwrap(),
        trigger: "t".to_owned(),
        every: every.parse().unwrap(),
        heads: None,
        looked: None,
    };
    Errand::new(&key(), What::Poll(poll), at(0))
}

fn report(wanted: CommitState) -> Errand {
    let report = Report {
        job: "j".parse().unwrap(),
        build: None,
        repository: "github.com/acme/app".to_owned(),
        sha: "1".repeat(40),
        context: "distci/j".to_owned(),
        wanted,
        description: String::new(),
        since: at(0),
        told: None,
        check: None,
    };
    Errand::new(&key(), What::Report(report), at(0))
}

fn heads(refs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let refs = refs.iter();
    refs.map(|(name, sha)| ((*name).to_owned(), (*sha).to_owned()))
        .collect()
}

fn looked(refs: &[(&str, &str)]) -> ErrandResult {
    let heads = heads(refs);
    ErrandResult::Looked { heads }
}

fn nothing(after: Option<u64>, hopeless: bool) -> ErrandResult {
    let detail = "no".to_owned();
    ErrandResult::Nothing {
        detail,
        after,
        hopeless,
    }
}

fn wait(next: AfterErrand) -> i64 {
    match next {
        AfterErrand::Park { until: Some(until) } => until.duration_since(at(0)).as_secs(),
        AfterErrand::Park { until: None } | AfterErrand::Queue | AfterErrand::Remove => {
            panic!("{next:?}")
        }
    }
}

/// The waits after so many tries that came to nothing.
fn waits(mut errand: Errand, result: &ErrandResult, times: usize) -> Vec<i64> {
    let mut waits = Vec::new();
    for _ in 0..times {
        let next;
        (errand, next) = after(&errand, result, at(0));
        waits.push(wait(next));
    }
    waits
}

#[test]
fn the_first_look_finds_nothing_and_the_next_what_is_new() {
    let (errand, next) = after(&poll("5m"), &looked(&[("a", "1")]), at(0));
    assert!((300..=330).contains(&wait(next)), "{next:?}");
    let What::Poll(mut poll) = errand.what.clone() else {
        panic!("no poll");
    };
    let now = heads(&[("a", "2"), ("b", "3")]);
    let found = poll.found(&now);
    let before: Vec<_> = found.iter().map(|found| found.before.as_deref()).collect();
    assert_eq!(before, [Some("1"), None]);
    // What was found is looked for again until somebody takes notice of it.
    let (_, next) = after(&errand, &looked(&[("a", "2"), ("b", "3")]), at(0));
    assert_eq!(next, AfterErrand::Queue);
    for found in &found {
        poll.note(found);
    }
    assert_eq!(poll.found(&now), []);
    let noted = Errand {
        what: What::Poll(poll),
        ..errand
    };
    let (gone, next) = after(&noted, &looked(&[("a", "2")]), at(0));
    assert!(wait(next) >= 300);
    let What::Poll(poll) = gone.what else {
        panic!("no poll");
    };
    assert_eq!(poll.heads, Some(heads(&[("a", "2")])));
}

#[test]
fn failures_are_tried_again_less_and_less_often() {
    assert_eq!(
        waits(poll("10s"), &nothing(None, false), 5),
        [10, 20, 40, 80, 80]
    );
    assert_eq!(
        waits(poll("5m"), &nothing(None, false), 5),
        [300, 600, 1200, 2400, 2400]
    );
    assert_eq!(waits(poll("30m"), &nothing(None, false), 5)[4], 3600);
    assert_eq!(
        waits(poll("24h"), &nothing(None, false), 3),
        [300, 600, 1200]
    );
    let pending = report(CommitState::Pending);
    assert_eq!(
        waits(pending.clone(), &nothing(None, false), 4),
        [5, 10, 20, 40]
    );
    assert_eq!(waits(pending.clone(), &nothing(None, false), 20)[19], 600);
    assert_eq!(
        waits(pending.clone(), &nothing(None, true), 3),
        [60, 120, 240]
    );
    // Whoever asks to be left alone is, within reason.
    assert_eq!(waits(pending.clone(), &nothing(Some(90), false), 1), [90]);
    assert_eq!(waits(pending, &nothing(Some(u64::MAX), false), 1), [3600]);
}

#[test]
fn a_report_is_given_up_after_a_week_but_not_its_end() {
    let week = 7 * 24 * 3600;
    let (kept, next) = after(
        &report(CommitState::Success),
        &nothing(None, true),
        at(week - 1),
    );
    assert!(matches!(next, AfterErrand::Park { until: Some(_) }));
    assert_eq!(
        after(&kept, &nothing(None, true), at(week)).1,
        AfterErrand::Remove
    );
    let (pending, next) = after(
        &report(CommitState::Pending),
        &nothing(None, true),
        at(week),
    );
    assert_eq!(next, AfterErrand::Park { until: None });
    let What::Report(mut report) = pending.what.clone() else {
        panic!("no report");
    };
    report.want(CommitState::Success, "done", None, at(week));
    let ended = Errand {
        what: What::Report(report),
        ..pending
    };
    let (_, next) = after(&ended, &nothing(None, true), at(week + 1));
    assert!(matches!(next, AfterErrand::Park { until: Some(_) }));
}

#[test]
fn trouble_of_ours_is_never_the_codes_failure() {
    let failure = |reason| Outcome::Failure { reason };
    let fault = Outcome::Fault {
        reason: Fault::WorkerStopped,
    };
    for (outcome, state) in [
        (Outcome::Success, CommitState::Success),
        (failure(Failure::Exit { exit: 1 }), CommitState::Failure),
        (failure(Failure::Cancelled), CommitState::Error),
        (fault, CommitState::Error),
    ] {
        assert_eq!(CommitState::of(&outcome), state);
    }
}

#[test]
fn an_end_that_nobody_takes_for_a_week_is_forsaken() {
    let week = 7 * 24 * 3600;
    let forsaken = |errand: &Errand, second| errand.is_forsaken(at(second));
    let ended = report(CommitState::Failure);
    assert!(!forsaken(&ended, week - 1) && forsaken(&ended, week));
    // Its build is not over, and a repository is looked at for ever.
    assert!(!forsaken(&report(CommitState::Pending), 9 * week));
    assert!(!forsaken(&poll("5m"), 9 * week));
    let mut resting = ended;
    resting.ticket.state = TicketState::Parked { until: None };
    assert!(!forsaken(&resting, week));
}

#[test]
fn only_repositories_at_forges_are_told_of() {
    for (repository, is_of_forge) in [
        ("github.com/acme/app", true),
        ("localhost:3000/a/b", true),
        ("/srv/git/app", false),
        ("./app", false),
        ("github.com", false),
    ] {
        assert_eq!(Report::is_of_forge(repository), is_of_forge, "{repository}");
    }
}

#[test]
fn words_are_cut_to_what_fits() {
    assert_eq!(shorten("a\nb", 3), "a b");
    assert_eq!(shorten("äöüß", 3), "äö…");
}

/// What may happen to a report, in any order.
#[derive(Debug, Clone)]
enum Event {
    Claim,
    /// The forge hears what the claim says; the completion may be lost, or come twice.
    Tell {
        completions: usize,
    },
    Fail,
    Lose,
    End(CommitState),
    Wake,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Claim),
        3 => (0usize..3).prop_map(|completions| Event::Tell { completions }),
        1 => Just(Event::Fail),
        1 => Just(Event::Lose),
        1 => prop_oneof![
            Just(CommitState::Success), Just(CommitState::Failure), Just(CommitState::Error)
        ]
        .prop_map(Event::End),
        2 => Just(Event::Wake),
    ]
}

/// A report, its forge, and the holder's picture of it.
struct World {
    errand: Option<Errand>,
    held: Option<(Attempt, CommitState)>,
    told: Vec<CommitState>,
    ended: Option<CommitState>,
}

impl World {
    fn happen(&mut self, event: &Event) {
        let Some(errand) = self.errand.clone() else {
            return;
        };
        match event {
            Event::Claim => self.claim(&errand),
            Event::Tell { completions } => {
                if let Some((attempt, state)) = self.held {
                    self.told.push(state);
                    for _ in 0..*completions {
                        self.complete(attempt, &ErrandResult::Told { state });
                    }
                }
            }
            Event::Fail => {
                if let Some((attempt, _)) = self.held {
                    self.complete(attempt, &nothing(None, false));
                }
            }
            Event::Lose => self.intend(&errand, |attempt| Intent::Expire { attempt, at: at(0) }),
            Event::Wake => self.intend(&errand, |_| Intent::Wake),
            Event::End(state) => self.end(errand, *state),
        }
    }

    fn claim(&mut self, errand: &Errand) {
        let worker: WorkerName = "w".parse().unwrap();
        let request = RequestId::derive(&errand.ticket.attempt.to_string());
        self.intend(errand, |_| Intent::Claim {
            worker: worker.clone(),
            request: request.clone(),
            hold: crate::lock::Hold::Slots(Vec::new()),
            at: at(0),
        });
        let errand = self.errand.as_ref().unwrap();
        if let (TicketState::Claimed(_), What::Report(report)) =
            (&errand.ticket.state, &errand.what)
        {
            self.held = Some((errand.ticket.attempt, report.wanted));
        }
    }

    fn intend(&mut self, errand: &Errand, intent: impl Fn(Attempt) -> Intent) {
        if let Ok(planned) = plan(&errand.ticket, intent(errand.ticket.attempt)) {
            self.errand = Some(Errand {
                ticket: planned.ticket,
                ..errand.clone()
            });
        }
    }

    /// As the store does it.
    fn complete(&mut self, attempt: Attempt, result: &ErrandResult) {
        let Some(errand) = self.errand.clone() else {
            return;
        };
        let holds = plan(&errand.ticket, Intent::Stay { attempt }).is_ok();
        if errand.completed == attempt || !holds {
            return;
        }
        let (mut errand, next) = after(&errand, result, at(0));
        errand.completed = attempt;
        let intent = match next {
            AfterErrand::Remove => {
                self.errand = None;
                return;
            }
            AfterErrand::Queue => Intent::Release { attempt, at: at(0) },
            AfterErrand::Park { until } => Intent::Park { attempt, until },
        };
        errand.ticket = plan(&errand.ticket, intent).unwrap().ticket;
        self.errand = Some(errand);
    }

    fn end(&mut self, mut errand: Errand, state: CommitState) {
        // A build ends once.
        if self.ended.is_none()
            && let What::Report(report) = &mut errand.what
        {
            self.ended = Some(state);
            report.want(state, "over", None, at(0));
            self.errand = Some(errand.clone());
            self.intend(&errand, |_| Intent::Wake);
        }
    }
}

proptest! {
    /// Whatever is lost, repeated or refused: when all is quiet, the forge has heard the end last.
    #[test]
    fn the_end_is_told_last(events in prop::collection::vec(any_event(), 0..60)) {
        let mut world = World {
            errand: Some(report(CommitState::Pending)),
            held: None,
            told: Vec::new(),
            ended: None,
        };
        for event in &events {
            world.happen(event);
        }
        world.happen(&Event::End(CommitState::Failure));
        // The holder of the last attempt may have died; then faults stop.
        world.happen(&Event::Lose);
        for _ in 0..4 {
            for event in [Event::Wake, Event::Claim, Event::Tell { completions: 1 }] {
                world.happen(&event);
            }
        }
        prop_assert!(world.errand.is_none(), "it is never over: {:?}", world.errand);
        prop_assert_eq!(world.told.last(), world.ended.as_ref());
    }
}
