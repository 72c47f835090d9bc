//! Builds that read their tasks from a file.

use super::*;
use crate::config::Files;

fn stored() -> JobConfig {
    JobConfig::parse(r#"{"job_id": "j", "job_file": {"repository": "r"}}"#).unwrap()
}

/// The job with these tasks in its file; its first is named `job-file`.
fn read(lines: &[&str]) -> JobConfig {
    let text = serde_json::to_value(job(lines, &[])).unwrap();
    let text = serde_json::json!({ "tasks": text["tasks"] }).to_string();
    let (read, _) = Files::of("job.json", &text).job_of(&stored()).unwrap();
    read.flat()
}

#[test]
fn what_the_file_says_is_laid_when_it_was_read() {
    let unread = stored().flat();
    let begun = decide(&unread, &Checkpoint::start(1, at(0)), &[]);
    assert_eq!(begun.post.len(), 1);
    let read = read(&["a", "b a", "c"]);
    let event = finished(&read, 0, Outcome::Success);
    let laid = decide(&read, &begun.checkpoint, std::slice::from_ref(&event));
    let posted: Vec<_> = laid.post.iter().map(|posting| posting.task).collect();
    assert_eq!((laid.consume.len(), posted), (1, vec![1, 3]));
    assert_eq!(laid.checkpoint.tasks.len(), 4);
    // Whoever died before the commit is followed by one who decides the same.
    assert_eq!(
        decide(&read, &begun.checkpoint, &[event.clone(), event.clone()]),
        laid
    );
    // News that come again, or late, change nothing.
    let again = decide(&read, &laid.checkpoint, &[event]);
    assert!(again.post.is_empty() && again.consume.is_empty());
    assert_eq!(again.checkpoint.tasks, laid.checkpoint.tasks);
}

#[test]
fn a_file_that_is_refused_ends_the_build() {
    let unread = stored().flat();
    let begun = decide(&unread, &Checkpoint::start(1, at(0)), &[]);
    let ended = decide(
        &unread,
        &begun.checkpoint,
        &[finished(&unread, 0, failure())],
    );
    let Next::Archive { outcome } = ended.next else {
        panic!("{ended:?}");
    };
    assert_eq!(outcome.to_string(), "failure: failed: job-file");
}

#[test]
fn a_cancelled_build_lays_what_was_read_and_runs_none_of_it() {
    let read = read(&["a"]);
    let begun = decide(&stored().flat(), &Checkpoint::start(1, at(0)), &[]);
    let cancelled = Event::Cancelled {
        at: at(11),
        by: None,
    };
    let event = finished(&read, 0, Outcome::Success);
    let events = [[cancelled.clone(), event.clone()], [event, cancelled]];
    let [one, other] = events.map(|events| decide(&read, &begun.checkpoint, &events));
    assert_eq!(one, other);
    assert!(one.post.is_empty());
    assert!(matches!(one.next, Next::Archive { .. }), "{one:?}");
}

proptest! {
    /// A build whose tasks are laid on the way ends as one that had them from the beginning.
    #[test]
    fn laying_changes_no_verdict(fails in proptest::collection::vec(any::<bool>(), 3), order in 0_usize..6) {
        let read = read(&["a", "b a", "c when=always"]);
        let ends: BTreeMap<String, Outcome> = ["a", "b", "c"].iter().zip(&fails)
            .filter(|(_, fails)| **fails)
            .map(|(task, _)| ((*task).to_owned(), failure()))
            .collect();
        let plain = run(&read, &ends, |count| order % count);
        // `run` begins with as many tasks as the job has; here it begins with one.
        let begun = decide(&stored().flat(), &Checkpoint::start(1, at(0)), &[]);
        let laid = decide(&read, &begun.checkpoint, &[finished(&read, 0, Outcome::Success)]);
        let whole = decide(&read, &Checkpoint::start(read.tasks.len(), at(0)), &[]);
        let whole = decide(&read, &whole.checkpoint, &[finished(&read, 0, Outcome::Success)]);
        prop_assert_eq!(&laid, &whole);
        prop_assert_eq!(plain.1.is_success(), ends.is_empty());
    }
}
