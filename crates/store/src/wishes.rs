//! What people want of single tasks of a build: to stop one, to answer one that asks.
//!
//! Owns the node of wishes beside a build's anchor. Build control reads it with every decision; it goes
//! with the build.

use distci_model::Timestamp;
use distci_model::build::{Answer, Build, Progress, Wishes};
use distci_model::id::{BuildKey, BuildRef, TaskName};

use crate::builds::Found;
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Read, Transaction, Tried, pack, read, until_done};

impl Store {
    /// Asks to cancel one task of a build.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a task.
    ///
    /// # Idempotence
    /// A second time, or after its end, nothing changes.
    pub async fn stop_task(
        &self,
        id: &BuildRef,
        task: &TaskName,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.wish(id, task, |_, index, wishes| {
            wishes.stops.entry(index).or_insert(at);
            Ok(())
        })
        .await
    }

    /// Answers a task that asks whether to go on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a task, [`StoreError::Refused`] if it does not ask, or was
    /// answered otherwise.
    ///
    /// # Idempotence
    /// The same answer may be given again; the first counts.
    pub async fn answer_task(
        &self,
        id: &BuildRef,
        task: &TaskName,
        answer: &Answer,
    ) -> Result<(), StoreError> {
        self.wish(id, task, |build, index, wishes| {
            let said = |approved| if approved { "approved" } else { "rejected" };
            match (wishes.answers.get(&index), &build.checkpoint.tasks[index]) {
                (Some(earlier), _) if earlier.approved == answer.approved => Ok(()),
                (Some(earlier), _) => Err(StoreError::refused(format!(
                    "{task} of {id} was {} already",
                    said(earlier.approved)
                ))),
                (None, Progress::Asking { .. }) => {
                    wishes.answers.insert(index, answer.clone());
                    Ok(())
                }
                (None, _) => Err(StoreError::refused(format!(
                    "{task} of {id} does not ask for approval now"
                ))),
            }
        })
        .await
    }

    async fn wish(
        &self,
        id: &BuildRef,
        task: &TaskName,
        change: impl Fn(&Build, usize, &mut Wishes) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        until_done!(self.coordination, async {
            let job = self.read_job_as_seen(&id.job).await?;
            let (build, archived) = match self.find_build_as_seen(&job, id).await? {
                Found::Active(build) => (build.record, false),
                Found::Archived(archived) => (archived.build, true),
            };
            let config = self.config(&job.key, &build.config).await?;
            let index = config.tasks.iter().position(|known| known.name == *task);
            let missing = || StoreError::missing(format!("task \"{task}\" in {id}"));
            let index = index.ok_or_else(missing)?;
            let path = keys::wishes(&BuildKey::derive(&job.key, id.number));
            let present: Option<Read<Wishes>> = if archived {
                None
            } else {
                read(&*self.coordination, &path).await?
            };
            let before = present.as_ref().map(|wishes| wishes.record.clone());
            let before = before.unwrap_or_default();
            let mut wishes = before.clone();
            change(&build, index, &mut wishes)?;
            if archived || wishes == before {
                return Ok(Tried::Done(()));
            }
            let data = pack(&path, &wishes)?;
            let mut transaction = Transaction::default();
            match present {
                None => transaction.create(path, data),
                Some(present) => transaction.set(path, data, present.version),
            }
            let key = BuildKey::derive(&job.key, id.number);
            transaction.ring(&*self.coordination, &key).await?;
            let committed = transaction.commit(&*self.coordination).await?;
            Ok(committed.map_or(Tried::Again, |_| Tried::Done(())))
        })
    }
}
