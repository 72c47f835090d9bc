//! The law of journals: a ticket's claims follow each other, and each has an end.

use std::collections::BTreeMap;

use distci_model::id::{Attempt, TaskName};
use distci_model::journal::{Entry, What};
use distci_model::wire::{BuildView, TaskState};

/// A claim as a journal tells of it: which, and whether it has ended.
type Claim = (Attempt, bool);

/// What is wrong with the journal of a build that is over; nothing if all is well.
pub fn wrongs(view: &BuildView, journal: &[Entry]) -> Vec<String> {
    let mut wrongs = Vec::new();
    if !journal.is_sorted_by_key(|entry| entry.at) {
        wrongs.push("it is not in the order of time".to_owned());
    }
    let first = journal.first().map(|entry| &entry.what);
    if !matches!(first, Some(What::Posted { .. })) {
        wrongs.push(format!("it begins with {first:?}"));
    }
    let last = journal.last().map(|entry| &entry.what);
    let is_end = |what: &What| match (what, &view.outcome) {
        (What::Over { outcome }, Some(ended)) => outcome == ended,
        _ => false,
    };
    if !last.is_some_and(is_end) {
        wrongs.push(format!("it ends with {last:?}"));
    }
    let mut tickets: BTreeMap<Option<&TaskName>, Vec<&Entry>> = BTreeMap::new();
    for entry in journal {
        tickets.entry(entry.task.as_ref()).or_default().push(entry);
    }
    let control = claims(tickets.get(&None).map_or(&[], Vec::as_slice), &mut wrongs);
    wrongs.extend(open(&control, "build control"));
    for task in &view.tasks {
        let entries = tickets.get(&Some(&task.name));
        let claims = claims(entries.map_or(&[][..], Vec::as_slice), &mut wrongs);
        wrongs.extend(open(&claims, task.name.as_str()));
        if let TaskState::Finished { run } = &task.state
            && run.build.is_none()
            && run.attempt.get() <= MOST_KNOWN
        {
            let told: Vec<u32> = claims.iter().map(|claim| claim.0.get()).collect();
            if !told.iter().copied().eq(1..=run.attempt.get()) {
                let (task, of) = (&task.name, run.attempt);
                wrongs.push(format!("{task}: attempts {told:?} of {of}"));
            }
        }
    }
    wrongs
}

/// Up to so many attempts, a journal knows all of them.
const MOST_KNOWN: u32 = 32;

/// The claims of one ticket; what is wrong with them is added to `wrongs`.
fn claims(entries: &[&Entry], wrongs: &mut Vec<String>) -> Vec<Claim> {
    let mut claims: Vec<Claim> = Vec::new();
    for entry in entries {
        match &entry.what {
            What::Claimed { attempt, .. } => {
                let follows = claims.last().is_none_or(|last| last.1 && last.0 < *attempt);
                if !follows {
                    wrongs.push(format!("{entry:?} comes after {claims:?}"));
                }
                claims.push((*attempt, false));
            }
            What::Lost { attempt, .. }
            | What::Released { attempt, .. }
            | What::Decided { attempt, .. }
            | What::Ended { attempt, .. }
                if attempt.get() > 0 =>
            {
                match claims.last_mut().filter(|claim| claim.0 == *attempt) {
                    Some(claim) if !claim.1 => claim.1 = true,
                    Some(_) => wrongs.push(format!("{entry:?} had ended")),
                    None => wrongs.push(format!("{entry:?} ends no claim")),
                }
            }
            _ => {}
        }
    }
    claims
}

fn open(claims: &[Claim], whose: &str) -> Option<String> {
    let open = claims.iter().find(|claim| !claim.1);
    open.map(|(attempt, _)| format!("attempt {attempt} of {whose} has no end"))
}
