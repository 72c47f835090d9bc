//! Running a build again, whole or from its middle.
//!
//! Owns the post of a build that begins with what an earlier one has done already. What may be kept is
//! `model::rerun`'s to say.

use distci_model::Timestamp;
use distci_model::build::{Build, Cause, ConfigRef};
use distci_model::config::JOB_FILE_TASK;
use distci_model::id::{BuildRef, RequestId};
use distci_model::rerun::{Again, resume};

use crate::builds::{Found, Post, Posted};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Transaction, Tried, until_done};

impl Store {
    /// Posts a build with the parameters and the event of an earlier one, and with what of it is to be
    /// kept.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a build, [`StoreError::Refused`] if there is nothing to run
    /// again, or if it is not over.
    ///
    /// # Idempotence
    /// A repeated `request` finds the build that it made. One that was skipped is not remembered.
    pub async fn rerun_build(
        &self,
        id: &BuildRef,
        again: &Again,
        request: &RequestId,
        at: Timestamp,
    ) -> Result<Posted, StoreError> {
        let _turn = self.turns.take(&id.job).await;
        until_done!(
            self.coordination,
            self.try_rerun(id, again, (request.clone(), at))
        )
    }

    async fn try_rerun(
        &self,
        id: &BuildRef,
        again: &Again,
        (request, at): (RequestId, Timestamp),
    ) -> Result<Tried<Posted>, StoreError> {
        let job = self.read_job_as_seen(&id.job).await?;
        let (earlier, over) = match self.find_build_as_seen(&job, id).await? {
            Found::Active(build) => (build.record, false),
            Found::Archived(archived) => (archived.build, true),
        };
        if let Some(number) = job.numbers.record.taken(&keys::request_mark(&request)) {
            let job = job.id;
            return Ok(Tried::Done(Posted::Build {
                build: BuildRef { job, number },
                fresh: false,
            }));
        }
        if !over && *again != Again::All {
            let why = format!("{id} is not over; cancel it first, or wait");
            return Err(StoreError::refused(why));
        }
        let mut post = Post {
            parameters: earlier.parameters.clone(),
            cause: cause(id, &earlier),
            depth: earlier.depth,
            resumed: None,
            request,
            at,
        };
        let revision = match again {
            Again::All => job.node.record.config.clone(),
            Again::Failed | Again::From { .. } => of_parts(&earlier, again),
        };
        let config = self.config(&job.key, &revision).await?;
        if *again != Again::All {
            let begin = resume(&config, (id.number, &earlier.checkpoint), again, at);
            let begin = begin.map_err(|why| StoreError::refused(why.to_string()))?;
            post.resumed = Some((revision, begin));
        }
        let mut transaction = Transaction::default();
        let posted = self.post_in(&mut transaction, job, &config, post).await?;
        if let Posted::Skipped { .. } = posted {
            return Ok(Tried::Done(posted));
        }
        let committed = transaction.commit(&*self.coordination).await?;
        Ok(committed.map_or(Tried::Again, |_| Tried::Done(posted)))
    }
}

/// The configuration of a build that runs parts of another again: the same, so that its tasks are. If
/// the file is read again, that one has no tasks yet.
fn of_parts(earlier: &Build, again: &Again) -> ConfigRef {
    let reads_again = matches!(again, Again::From { task } if task.as_str() == JOB_FILE_TASK);
    let file = earlier.config.file.clone().filter(|_| !reads_again);
    ConfigRef {
        file,
        ..earlier.config.clone()
    }
}

/// A build that runs another again exists for the first one's sake.
fn cause(of: &BuildRef, earlier: &Build) -> Cause {
    let first = match &earlier.cause {
        Cause::Rerun { cause, .. } => cause.clone(),
        Cause::Manual | Cause::Upstream { .. } | Cause::Event { .. } => {
            Box::new(earlier.cause.clone())
        }
    };
    Cause::Rerun {
        of: of.clone(),
        cause: first,
    }
}
