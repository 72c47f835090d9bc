//! What may be written of locks, concurrency and priorities.
//!
//! Owns the rules for what runs beside what, and before it.

use std::collections::BTreeSet;

use super::super::parse::{Reader, WrittenJob};
use super::at_most;
use crate::config::Lock;
use crate::lock::MAX_LOCK_NAME;
use crate::ticket::Priority;

/// Most locks of one task: they are taken in one commit.
const MAX_LOCKS: usize = 8;
/// Most slots of a lock, and most builds of a job that may be limited to run at once.
const MAX_SLOTS: u16 = 1000;

/// Checks locks, concurrency and priorities of a job and its tasks.
pub(super) fn check(reader: &mut Reader<'_>, written: &WrittenJob) {
    check_priority(reader, "priority", written.head.priority);
    if let Some(concurrency) = &written.head.concurrency {
        check_slots(reader, "concurrency.limit", concurrency.limit);
        if let Some(group) = &concurrency.group {
            check_name(reader, "concurrency.group", group);
        }
    }
    for (index, task) in written.tasks.iter().enumerate() {
        let Some(task) = task else { continue };
        let path = format!("tasks[{index}]");
        check_priority(reader, &format!("{path}.priority"), task.head.priority);
        check_locks(reader, &format!("{path}.locks"), &task.head.locks);
    }
}

fn check_locks(reader: &mut Reader<'_>, path: &str, locks: &[Lock]) {
    at_most(reader, path, locks.len(), MAX_LOCKS);
    let mut seen = BTreeSet::new();
    for (index, lock) in locks.iter().enumerate() {
        let path = format!("{path}[{index}]");
        check_name(reader, &path, &lock.name);
        check_slots(reader, &path, lock.slots);
        if !seen.insert(&lock.name) {
            reader.problem(&path, "the lock is named twice", None);
        }
    }
}

fn check_name(reader: &mut Reader<'_>, path: &str, name: &str) {
    let fits = (1..=MAX_LOCK_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
    if !fits {
        let message = format!("must have between 1 and {MAX_LOCK_NAME} bytes, all printable");
        reader.problem(path, &message, None);
    }
}

fn check_slots(reader: &mut Reader<'_>, path: &str, slots: u16) {
    if !(1..=MAX_SLOTS).contains(&slots) {
        let message = format!("{slots} at once: must be between 1 and {MAX_SLOTS}");
        reader.problem(path, &message, None);
    }
}

fn check_priority(reader: &mut Reader<'_>, path: &str, priority: Option<Priority>) {
    if priority == Some(Priority::CONTROL) {
        let help = "use 1 for the most urgent".to_owned();
        reader.problem(path, "0 is for DistCI itself", Some(help));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::JobConfig;

    fn problems(head: &Value, task: &Value) -> Vec<String> {
        let mut file = json!({ "job_id": "j" });
        let mut shell = json!({ "type": "execute-shell", "params": { "script": "true" } });
        for (file, more) in [(&mut file, head), (&mut shell, task)] {
            let (file, more) = (file.as_object_mut().unwrap(), more.as_object().unwrap());
            file.extend(more.clone());
        }
        file["tasks"] = json!([shell]);
        let parsed = JobConfig::parse(&file.to_string());
        parsed.map_or_else(
            |problems| problems.into_iter().map(|it| it.path).collect(),
            |_| Vec::new(),
        )
    }

    #[test]
    fn what_fits_is_taken() {
        for (head, task) in [
            (json!({ "priority": 1, "concurrency": {} }), json!({})),
            (
                json!({ "concurrency": { "limit": 1000, "group": "${event.ref}" } }),
                json!({}),
            ),
            (
                json!({}),
                json!({ "priority": 9, "locks": ["a", "the lab"] }),
            ),
            (
                json!({}),
                json!({ "locks": [{ "name": "licences", "slots": 1000 }] }),
            ),
        ] {
            assert_eq!(problems(&head, &task), [""; 0], "{head} {task}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let none = json!({});
        let many: Vec<_> = (0..9).map(|lock| lock.to_string()).collect();
        for (head, task, path) in [
            (json!({ "priority": 0 }), &none, "priority"),
            (
                json!({ "concurrency": { "limit": 0 } }),
                &none,
                "concurrency.limit",
            ),
            (
                json!({ "concurrency": { "limit": 1001 } }),
                &none,
                "concurrency.limit",
            ),
            (
                json!({ "concurrency": { "group": "" } }),
                &none,
                "concurrency.group",
            ),
            (none.clone(), &json!({ "priority": 0 }), "tasks[0].priority"),
            (none.clone(), &json!({ "locks": many }), "tasks[0].locks"),
            (
                none.clone(),
                &json!({ "locks": ["a", "a"] }),
                "tasks[0].locks[1]",
            ),
            (
                none.clone(),
                &json!({ "locks": ["a\nb"] }),
                "tasks[0].locks[0]",
            ),
            (
                none.clone(),
                &json!({ "locks": ["x".repeat(101)] }),
                "tasks[0].locks[0]",
            ),
            (
                none.clone(),
                &json!({ "locks": [{ "name": "a", "slots": 0 }] }),
                "tasks[0].locks[0]",
            ),
        ] {
            assert_eq!(problems(&head, task), [path], "{head} {task}");
        }
    }
}
