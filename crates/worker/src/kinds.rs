//! What a worker can do with a task, one file a kind.
//!
//! Owns the seam between an attempt and the kinds. A kind works in a workspace that is already
//! there and leaves saving it to the attempt.

mod approve;
mod copy_artifacts;
mod execute_shell;
pub(crate) mod git_checkout;
mod job_file;
mod patterns;
mod publish_artifacts;

use std::time::Duration;

use async_trait::async_trait;
use distci_model::config::Action;
use distci_model::order::TaskOrder;
use distci_model::outcome::{Failure, TaskResult};
use distci_model::wire::Held;
use tokio::time::timeout_at;

use crate::cell::{Cell, Limits};
use crate::console::Console;
use crate::room::Room;
use crate::trouble::Trouble;
use crate::worker::Worker;

pub(crate) use git_checkout::secrets as git_secrets;

/// What a kind does with a task.
#[async_trait]
pub(crate) trait Perform: Sync {
    /// Does it. A script that says no is an `Ok` whose outcome is a failure.
    async fn perform(&self, assignment: &Assignment<'_>) -> Result<TaskResult, Trouble>;
}

/// A task in a worker's hands: what to do, where, and with what.
pub(crate) struct Assignment<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) held: &'a Held,
    pub(crate) order: &'a TaskOrder,
    pub(crate) room: &'a Room,
    pub(crate) console: &'a Console,
    pub(crate) cell: &'a Cell,
    pub(crate) limits: Limits,
}

/// Who performs `action`.
pub(crate) fn of(action: &Action) -> &dyn Perform {
    match action {
        Action::GitCheckout(git) => git,
        Action::ExecuteShell(shell) => shell,
        Action::PublishArtifacts(publish) => publish,
        Action::CopyArtifacts(copy) => copy,
        Action::Approve(approve) => approve,
        Action::JobFile(file) => file,
    }
}

impl Assignment<'_> {
    /// Does `work` unless somebody wants it to end or it takes too long.
    pub(crate) async fn bound<T>(
        &self,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let work = timeout_at(self.limits.deadline, work);
        let work = async { work.await.unwrap_or_else(|_| Err(self.timed_out().into())) };
        self.limits.interrupts.unless(work).await
    }

    /// The failure of a task that took too long.
    pub(crate) fn timed_out(&self) -> Failure {
        Failure::TimedOut {
            seconds: self.order.timeout,
        }
    }
}

/// How many artifacts, for people.
pub(crate) fn artifacts_in_words(count: usize) -> String {
    match count {
        1 => "1 artifact".to_owned(),
        many => format!("{many} artifacts"),
    }
}

/// How long something took, for people.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}
