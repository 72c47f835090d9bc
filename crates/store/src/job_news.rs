//! News of jobs, for those who mirror how they stand.
//!
//! Owns the watch of all jobs: that one came, changed, went, or has a build more or an archived one
//! more. What an active build does is news of its tickets, which the index tells.

use distci_model::id::JobId;

use crate::coordination::{Event, Watch};
use crate::keys;
use crate::store::Store;

/// News of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobNews {
    /// A job is there, is another, or is gone: read it again.
    Changed(JobId),
    /// News were missed: list again.
    Gap,
}

/// Follows all jobs.
#[derive(Debug)]
pub struct JobWatch(Watch);

impl JobWatch {
    /// Forgets the news that are queued, for whoever lists next sees what they tell.
    pub fn skip(&mut self) {
        self.0.skip();
    }

    /// The next news; `None` when the store is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<JobNews> {
        loop {
            match self.0.next().await? {
                Event::Gap => return Some(JobNews::Gap),
                Event::Created(path) | Event::Changed(path) | Event::Deleted(path) => {
                    if let Some(job) = keys::job_of(&path) {
                        return Some(JobNews::Changed(job));
                    }
                }
            }
        }
    }
}

impl Store {
    /// Follows all jobs. Watch first, then [list](Store::job_ids).
    pub fn watch_jobs(&self) -> JobWatch {
        JobWatch(self.coordination.watch(&keys::jobs()))
    }
}
