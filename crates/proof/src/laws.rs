//! The invariants I1 to I11 of the protocol, as laws of a tree and of a step from one to the next.
//!
//! Owns the judgement, and the words in which a broken law is told. Never looks at how a tree came to
//! be.

use std::collections::BTreeSet;

use distci_model::build::{Build, Cause, Finished, Progress};
use distci_model::id::{Attempt, JobId, TicketKey};
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::ticket::{Claimed, Duty, Ticket, TicketState};
use distci_store::keys;

use crate::act::ATTEMPT;
use crate::look::{Anchored, Look, Numbers};

/// What cannot be read has been written by nobody.
pub const UNREADABLE: &str = "I0: a node cannot be read";
/// A ticket has the index name of its state, and there is no other name.
pub const NAMES: &str = "I1, I2: the names are not those of the tickets";
/// Attempts grow, one claim at a time.
pub const ATTEMPTS: &str = "I3: a claim did not raise the attempt by one";
/// A ticket ends once.
pub const ONE_END: &str = "I4: a ticket ended twice, or its end was lost";
/// A result is that of the attempt that is the ticket's.
pub const STALE_RESULT: &str = "I5: a result of an attempt that was over was taken";
/// A parked build has no unread news.
pub const ASLEEP: &str = "I6: a build sleeps over news";
/// A task's ticket is there exactly while its build waits for it.
pub const CHILDREN: &str =
    "I7: tickets of tasks that their build does not wait for, or the reverse";
/// Slots are held by those that list them, and by one.
pub const SLOTS: &str = "I8: slots are not held by those that list them";
/// Numbers are dense, and each request has one build.
pub const NUMBERS: &str = "I9: numbers with gaps, or used twice";
/// A request, or a moment of a schedule, makes one build.
pub const ONE_BUILD: &str = "I9, I10: two builds of one request or moment";
/// A finished build has triggered each job downstream once.
pub const DOWNSTREAM: &str = "I11: a downstream build is missing, or one too many";
/// Whom a frontend has named within the lease is not given up.
pub const HEALTHY: &str = "I12: a claim was given up that a digest had named within its lease";
/// What build control has noted stays so.
pub const CHECKPOINT: &str = "H3: a checkpoint went back";
/// What was acknowledged has happened.
pub const ACKNOWLEDGED: &str = "H2: an acknowledged result is not there";
/// The store's code met what it takes for impossible.
pub const IMPOSSIBLE: &str = "the store's code says that this cannot be";

type Law = (fn(&Look) -> bool, &'static str);

/// The first law that a tree breaks.
pub(crate) fn of_tree(look: &Look) -> Option<&'static str> {
    let laws: [Law; 9] = [
        (|look| !look.unreadable, UNREADABLE),
        (names_fit, NAMES),
        (children_fit, CHILDREN),
        (nobody_oversleeps, ASLEEP),
        (slots_fit, SLOTS),
        (results_fit, STALE_RESULT),
        (numbers_fit, NUMBERS),
        (one_build_a_request, ONE_BUILD),
        (downstream_fits, DOWNSTREAM),
    ];
    let broken = laws.into_iter().find(|(holds, _)| !holds(look));
    broken.map(|(_, words)| words)
}

fn names_fit(look: &Look) -> bool {
    let name_of = |(key, anchored): (&TicketKey, &Anchored)| {
        anchored.ticket.index_name(key, anchored.version)
    };
    let names: BTreeSet<_> = look
        .tickets
        .iter()
        .filter_map(name_of)
        .map(|name| keys::index(&name))
        .collect();
    names == look.names
}

fn children_fit(look: &Look) -> bool {
    let posted = look.builds.iter().flat_map(|(key, build)| {
        let tasks = build.checkpoint.tasks.iter();
        tasks.filter_map(move |progress| match progress {
            Progress::Posted { ticket, .. } => Some(TicketKey {
                build: key.clone(),
                ticket: ticket.clone(),
            }),
            _ => None,
        })
    });
    let is_child = |key: &&TicketKey| key.ticket.duty() == Duty::Task;
    let there: BTreeSet<_> = look.tickets.keys().filter(is_child).cloned().collect();
    let builds: BTreeSet<_> = look.builds.keys().cloned().collect();
    posted.collect::<BTreeSet<_>>() == there && builds == look.mailboxes
}

fn nobody_oversleeps(look: &Look) -> bool {
    look.builds.iter().all(|(key, build)| {
        let parked = matches!(build.ticket.state, TicketState::Parked { .. });
        let done = look.tickets.iter().any(|(child, anchored)| {
            child.build == *key && matches!(anchored.ticket.state, TicketState::Done(_))
        });
        let unread = look.flags.contains(key) && build.checkpoint.cancelled.is_none();
        !parked || !(done || unread)
    })
}

fn slots_fit(look: &Look) -> bool {
    let mut held = BTreeSet::new();
    for (key, anchored) in &look.tickets {
        let ticket = &anchored.ticket;
        for slot in &ticket.slots {
            let path = keys::slot(slot);
            let fits = ticket.locks.iter().any(|need| need.has(slot));
            if !fits || look.slots.get(&path) != Some(key) || !held.insert(path) {
                return false;
            }
        }
        let works = matches!(ticket.state, TicketState::Claimed(_)) && ticket.duty == Duty::Task;
        if works && ticket.locks_missing().next().is_some() {
            return false;
        }
    }
    held.len() == look.slots.len()
}

fn results_fit(look: &Look) -> bool {
    let of = |result: &TaskResult, attempt: String| {
        let made_by = result.outputs.get(ATTEMPT);
        made_by.is_none_or(|made_by| *made_by == attempt)
    };
    let done = look.tickets.values().all(|it| match &it.ticket.state {
        TicketState::Done(done) => of(&done.result, it.ticket.attempt.to_string()),
        _ => true,
    });
    let mut runs = look.builds.values().flat_map(runs);
    done && runs.all(|run| of(&run.result, run.attempt.to_string()))
}

fn runs(build: &Build) -> impl Iterator<Item = &Finished> {
    build.checkpoint.tasks.iter().filter_map(|it| match it {
        Progress::Finished(run) => Some(&**run),
        _ => None,
    })
}

fn active<'a>(look: &'a Look, job: &'a JobId) -> impl Iterator<Item = &'a Build> {
    let builds = look.builds.values();
    builds.filter(move |build| build.id.job == *job)
}

fn numbers_fit(look: &Look) -> bool {
    look.numbers.iter().all(|(job, numbers)| {
        let over = numbers.recent.iter().map(|build| build.number.get());
        let on = active(look, job).map(|build| build.id.number.get());
        let mut all: Vec<_> = over.chain(on).collect();
        all.sort_unstable();
        all.into_iter().eq(1..numbers.next)
    })
}

fn one_build_a_request(look: &Look) -> bool {
    look.numbers.values().all(|numbers| {
        let marks: BTreeSet<_> = numbers.triggers.iter().map(|(mark, _)| mark).collect();
        marks.len() == numbers.triggers.len() && numbers.triggers.len() as u64 + 1 == numbers.next
    })
}

/// The causes of all builds of a job, over or not.
fn causes<'a>(look: &'a Look, job: &'a JobId, numbers: &'a Numbers) -> Vec<&'a Cause> {
    let over = numbers.recent.iter().map(|build| &build.cause);
    over.chain(active(look, job).map(|build| &build.cause))
        .collect()
}

fn downstream_fits(look: &Look) -> bool {
    let causes: Vec<_> = look
        .numbers
        .iter()
        .flat_map(|(job, numbers)| causes(look, job, numbers))
        .collect();
    look.numbers.iter().all(|(job, numbers)| {
        (1..numbers.next).all(|number| {
            let is_of_it = |cause: &&&Cause| match cause {
                Cause::Upstream { build } => build.job == *job && build.number.get() == number,
                _ => false,
            };
            let made = causes.iter().filter(is_of_it).count();
            let over = numbers
                .recent
                .iter()
                .find(|build| build.number.get() == number);
            let ended = over.and_then(|build| build.outcome.as_ref());
            let wanted = usize::from(job.as_str().starts_with(UPSTREAM));
            match ended {
                Some(Outcome::Success) => made == wanted,
                Some(_) => made == 0,
                None => made <= wanted && noted(look, job, number, made),
            }
        })
    })
}

/// The jobs of a model whose names begin so trigger one job each.
pub(crate) const UPSTREAM: &str = "up";

/// Whether a build that is not over has noted as many downstream builds as it made.
fn noted(look: &Look, job: &JobId, number: u64, made: usize) -> bool {
    let mut builds = active(look, job).filter(|build| build.id.number.get() == number);
    builds.all(|build| build.checkpoint.downstream.len() == made)
}

/// The first law that a step from one tree to the next breaks.
pub(crate) fn of_step(before: &Look, after: &Look) -> Option<&'static str> {
    for (key, old) in &before.tickets {
        let broken = match after.tickets.get(key) {
            Some(new) => of_ticket(&old.ticket, &new.ticket),
            None => of_removal(key, &old.ticket),
        };
        if broken.is_some() {
            return broken;
        }
    }
    let went_back = before.builds.iter().any(|(key, old)| {
        let new = after.builds.get(key);
        new.is_some_and(|new| !went_on(old, new))
    });
    if went_back {
        return Some(CHECKPOINT);
    }
    let fired_back = before.timetables.iter().any(|(job, old)| {
        let new = after.timetables.get(job);
        let mut pairs = old
            .schedules
            .iter()
            .zip(new.into_iter().flat_map(|new| &new.schedules));
        pairs.any(|(old, new)| new.last < old.last)
    });
    fired_back.then_some(ONE_BUILD)
}

fn of_ticket(old: &Ticket, new: &Ticket) -> Option<&'static str> {
    let raised = new.attempt == old.attempt.next();
    match (&old.state, &new.state) {
        (TicketState::Done(old), TicketState::Done(new)) => (old != new).then_some(ONE_END),
        (TicketState::Done(_), _) => Some(ONE_END),
        (TicketState::Claimed(old), TicketState::Claimed(new)) if same(old, new) => {
            (raised).then_some(ATTEMPTS)
        }
        (TicketState::Queued, TicketState::Claimed(_)) => (!raised).then_some(ATTEMPTS),
        (_, TicketState::Claimed(_)) => Some(ATTEMPTS),
        _ => (new.attempt != old.attempt).then_some(ATTEMPTS),
    }
}

fn same(old: &Claimed, new: &Claimed) -> bool {
    (&old.worker, &old.request) == (&new.worker, &new.request)
}

fn of_removal(key: &TicketKey, old: &Ticket) -> Option<&'static str> {
    let may_go = match &old.state {
        TicketState::Done(_) => key.ticket.duty() == Duty::Task,
        TicketState::Claimed(_) => key.ticket.is_control(),
        TicketState::Queued | TicketState::Parked { .. } => false,
    };
    (!may_go).then_some(ONE_END)
}

fn went_on(old: &Build, new: &Build) -> bool {
    let (old, new) = (&old.checkpoint, &new.checkpoint);
    let kept = old
        .tasks
        .iter()
        .zip(&new.tasks)
        .all(|(old, new)| match old {
            Progress::Finished(_) | Progress::Skipped { .. } => old == new,
            _ => true,
        });
    let steps = new.revision.saturating_sub(old.revision);
    let moved = old.tasks != new.tasks;
    kept && new.revision >= old.revision && steps <= 1 && (!moved || steps == 1)
}

/// Whether a tree shows that an attempt ended a task's run, as its worker was told.
pub(crate) fn shows_end(look: &Look, key: &TicketKey, attempt: Attempt) -> bool {
    if let Some(anchored) = look.tickets.get(key) {
        let ticket = &anchored.ticket;
        // A fault is an end of the attempt, and not of the ticket.
        let tried_again = ticket.past.iter().any(|past| past.attempt == attempt);
        let ended = matches!(ticket.state, TicketState::Done(_)) && ticket.attempt == attempt;
        return ended || tried_again;
    }
    let Some(build) = look.builds.get(&key.build) else {
        // Its build is over, and has consumed it.
        return true;
    };
    let mut earlier = build.checkpoint.runs.iter().flat_map(|runs| &runs.ends);
    let is_it = |run: &Finished| run.ticket == key.ticket && run.attempt == attempt;
    // Attempts of a task are counted over all its runs.
    runs(build).any(is_it) || earlier.any(|end| *end == attempt)
}

/// Whether no build is left that is not over.
pub(crate) fn all_over(look: &Look) -> bool {
    look.builds.is_empty() && look.names.is_empty() && look.slots.is_empty()
}
