//! The book that is kept of a drill while it goes on.
//!
//! Owns what was asked for and what was answered; judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_checker::history::Post;
use distci_model::id::{Attempt, BuildRef, JobId, RequestId, TaskName};
use distci_model::outcome::Verdict;
use distci_model::wire::{BuildView, TaskState};

/// An attempt by its build, task and number.
pub(crate) type AttemptId = (BuildRef, TaskName, Attempt);

/// What was asked for and answered so far.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Pages>);

/// The pages of the book.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// The builds that were asked for, by request.
    pub(crate) posts: BTreeMap<String, Post>,
    /// The attempts that a client was once shown as those that count.
    pub(crate) shown: BTreeSet<AttemptId>,
    /// Answers that should not have been given.
    pub(crate) refusals: Vec<String>,
    /// How long it took until a build was acknowledged, each time.
    pub(crate) waits: Vec<Duration>,
    /// How many builds were seen to end.
    pub(crate) over: usize,
}

impl Book {
    /// Notes that a build is asked for, before it is.
    pub(crate) fn asked(&self, request: &RequestId, job: &JobId, must: Option<Verdict>) {
        let post = Post {
            request: request.clone(),
            job: job.clone(),
            answers: Vec::new(),
            must,
        };
        self.pages().posts.insert(request.as_str().to_owned(), post);
    }

    /// Notes which build was given in answer to a request.
    pub(crate) fn answered(&self, request: &RequestId, build: BuildRef) {
        if let Some(post) = self.pages().posts.get_mut(request.as_str()) {
            post.answers.push(build);
        }
    }

    /// Notes how long a client waited until its build was acknowledged.
    pub(crate) fn waited(&self, wait: Duration) {
        self.pages().waits.push(wait);
    }

    /// Notes an answer that should not have been given.
    pub(crate) fn refused(&self, what: String) {
        self.pages().refusals.push(what);
    }

    /// Notes what a client was shown of a build.
    pub(crate) fn saw(&self, view: &BuildView) {
        let mut pages = self.pages();
        for task in &view.tasks {
            if let TaskState::Finished { run } = &task.state
                && run.worker.is_some()
            {
                let id = (view.build.clone(), task.name.clone(), run.attempt);
                pages.shown.insert(id);
            }
        }
        pages.over += usize::from(view.outcome.is_some());
    }

    /// How many builds were acknowledged, and how many of them were seen to end.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let pages = self.pages();
        let acknowledged = pages.posts.values();
        let acknowledged = acknowledged.filter(|post| !post.answers.is_empty());
        (acknowledged.count(), pages.over)
    }

    /// Closes the book.
    pub(crate) fn close(&self) -> Pages {
        std::mem::take(&mut *self.pages())
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // No code panics while it holds the lock, so a poisoned one still guards whole pages.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
