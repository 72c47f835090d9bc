//! Locks: what a ticket has to hold while somebody works on it.
//!
//! Owns the names of locks, of their slots, and who needs which. A lock is nothing but its slots,
//! and a slot is held by the one ticket whose record lists it: there is no other record of it, no
//! waiting list, and nobody who grants it. Taking and giving back are `plan`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::build::Cause;
use crate::config::{JobConfig, Lock, WhenFull};
use crate::id::{JobId, JobKey, LockKey};

/// Most bytes of the name of a lock.
pub const MAX_LOCK_NAME: usize = 100;

/// A lock that a ticket holds one slot of while it is worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockNeed {
    /// Which.
    pub key: LockKey,
    /// What people call it.
    pub name: String,
    /// How many slots it has. Two that do not agree on that each count by their own number.
    pub slots: u16,
}

/// One place in a lock, which one ticket at a time may hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// Of which lock.
    pub lock: LockKey,
    /// Which one, from 0.
    pub slot: u16,
}

/// What a claim brings for the locks of its ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// These, free as far as could be seen: the commit makes sure.
    Slots(Vec<Slot>),
    /// Nothing: the build is cancelled, and waits for no room to say so.
    Waived,
}

impl LockNeed {
    /// What a task needs, each lock once. The names are as they are after substitution.
    pub fn of_task(locks: &[Lock]) -> Vec<Self> {
        let mut needs: Vec<Self> = Vec::with_capacity(locks.len());
        for lock in locks {
            let key = LockKey::of_task(&lock.name);
            if needs.iter().all(|need| need.key != key) {
                needs.push(Self {
                    key,
                    name: cut(&lock.name),
                    slots: lock.slots,
                });
            }
        }
        needs
    }

    /// What a build needs to be one of those that may run at once.
    pub fn of_build(job: &JobId, key: &JobKey, group: &str, limit: u16) -> Self {
        let name = match group {
            "" => format!("builds of {job}"),
            group => format!("builds of {job} in {group}"),
        };
        Self {
            key: LockKey::of_builds(key, group),
            name: cut(&name),
            slots: limit,
        }
    }

    /// Whether this is a slot of the lock.
    pub fn has(&self, slot: &Slot) -> bool {
        slot.lock == self.key && slot.slot < self.slots
    }
}

/// At most [`MAX_LOCK_NAME`] bytes of a name; its key is that of the whole one.
fn cut(name: &str) -> String {
    let end = name.floor_char_boundary(MAX_LOCK_NAME);
    name[..end].to_owned()
}

/// How a build of a job counts among those that run at once: the lock, and what becomes of it when
/// that is full. `None`: any number may run.
pub fn concurrency_of(
    config: &JobConfig,
    key: &JobKey,
    parameters: &BTreeMap<String, String>,
    cause: &Cause,
) -> Option<(LockNeed, WhenFull)> {
    let concurrency = config.concurrency.as_ref()?;
    let group = group_of(config, parameters, cause);
    let need = LockNeed::of_build(&config.job_id, key, &group, concurrency.limit);
    Some((need, concurrency.when_full))
}

/// The group in which a build counts: that of the job file, with `${event.FACT}` and `${parameter}`
/// filled in. What has no value is empty: a build by hand has no event, and counts with its like.
pub fn group_of(
    config: &JobConfig,
    parameters: &BTreeMap<String, String>,
    cause: &Cause,
) -> String {
    let written = config.concurrency.as_ref();
    let mut rest = written
        .and_then(|it| it.group.as_deref())
        .unwrap_or_default();
    let mut group = String::with_capacity(rest.len());
    while let Some((before, after)) = rest.split_once("${") {
        let (name, following) = after.split_once('}').unwrap_or((after, ""));
        let value = match name.strip_prefix("event.") {
            Some(fact) => cause.told().and_then(|event| event.fact(fact)),
            None => parameters.get(name).map(String::as_str),
        };
        group.push_str(before);
        group.push_str(value.unwrap_or_default());
        rest = following;
    }
    group.push_str(rest);
    group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventKind, Source};

    fn lock(name: &str) -> Lock {
        Lock {
            name: name.to_owned(),
            slots: 1,
        }
    }

    #[test]
    fn a_lock_that_is_named_twice_is_needed_once() {
        let needs = LockNeed::of_task(&[lock("a"), lock("b"), lock("a")]);
        let names: Vec<_> = needs.iter().map(|need| need.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_long_name_is_cut_for_people_and_whole_in_the_key() {
        let long = "ä".repeat(200);
        let [one, two] = [format!("{long}1"), format!("{long}2")]
            .map(|name| LockNeed::of_task(&[lock(&name)]).remove(0));
        assert_eq!(one.name, two.name);
        assert!(one.name.len() <= MAX_LOCK_NAME);
        assert_ne!(one.key, two.key);
    }

    #[test]
    fn tasks_and_builds_never_share_a_lock() {
        let job = "job".parse().unwrap();
        let key = JobKey::derive(&job, 0);
        let build = LockNeed::of_build(&job, &key, "", 1);
        let named_so = LockNeed::of_task(&[lock(&format!("job:{key}:"))]).remove(0);
        assert_ne!(build.key, named_so.key);
    }

    #[test]
    fn a_group_is_filled_from_event_and_parameters() {
        let config = |group: &str| {
            let file = serde_json::json!({
                "job_id": "j",
                "concurrency": { "group": group },
                "parameters": { "target": { "default": "x" } },
                "tasks": [{ "type": "execute-shell", "params": { "script": "true" } }],
            });
            JobConfig::parse(&file.to_string()).unwrap()
        };
        let event = Event {
            source: Source::Github,
            kind: EventKind::Push,
            delivery: None,
            facts: BTreeMap::from([("ref".to_owned(), "refs/heads/main".to_owned())]),
            paths: None,
            labels: Vec::new(),
        };
        let pushed = Cause::Event {
            told: Box::new(event),
        };
        let parameters = BTreeMap::from([("target".to_owned(), "prod".to_owned())]);
        for (group, cause, filled) in [
            ("${event.ref}", &pushed, "refs/heads/main"),
            ("${event.ref}", &Cause::Manual, ""),
            ("to ${target}.", &Cause::Manual, "to prod."),
            ("${target}${event.ref}", &pushed, "prodrefs/heads/main"),
            ("plain", &pushed, "plain"),
        ] {
            assert_eq!(group_of(&config(group), &parameters, cause), filled);
        }
    }
}
