//! How a build is let in beside the others of its job.
//!
//! Owns what a job's `concurrency` means when a build is posted: it will need a slot, it has one at
//! once, there is none and so no build, or older builds have to go. All of it is part of the commit
//! that posts the build, which carries the version of the job's numbers: posts of one job are in a
//! row.

use distci_model::config::WhenFull;
use distci_model::id::{BuildKey, BuildRef, JobKey};
use distci_model::lock::{LockNeed, Slot};

use crate::builds::Post;
use crate::cancel::CancelFlag;
use crate::error::StoreError;
use crate::jobs::Numbers;
use crate::store::Store;
use crate::transaction::{Transaction, Tried, until_done};

/// Most builds that one post cancels. More are left over only when a limit was lowered, and the next
/// posts cancel those.
const MAX_SUPERSEDED: usize = 8;
/// Most builds whose order of age a job remembers: what it remembers is written with every post.
const MAX_REMEMBERED: usize = 2000;

/// Whether a build may be made.
pub(crate) enum Admission {
    /// It may.
    Granted {
        /// What it has to hold from its first claim on.
        locks: Vec<LockNeed>,
        /// What it holds from the beginning.
        slots: Vec<Slot>,
    },
    /// There is no room for it, because of this build.
    Full { holder: BuildRef },
}

impl Store {
    /// Whether the next build of a job may be made, if these are the locks that it needs.
    pub(crate) async fn admit(
        &self,
        needed: Option<&(LockNeed, WhenFull)>,
    ) -> Result<Admission, StoreError> {
        let Some((need, when_full)) = needed else {
            let (locks, slots) = (Vec::new(), Vec::new());
            return Ok(Admission::Granted { locks, slots });
        };
        let locks = vec![need.clone()];
        match when_full {
            WhenFull::Queue | WhenFull::CancelOlder => {
                let slots = Vec::new();
                Ok(Admission::Granted { locks, slots })
            }
            WhenFull::Skip => match self.certainly_free_slot(need).await? {
                Ok(slot) => {
                    let slots = vec![slot];
                    Ok(Admission::Granted { locks, slots })
                }
                Err(holder) => Ok(Admission::Full { holder }),
            },
        }
    }

    /// A free slot, or the build because of which there certainly is none: a build that is not made
    /// is gone for good, so a view that may lag does not do.
    async fn certainly_free_slot(
        &self,
        need: &LockNeed,
    ) -> Result<Result<Slot, BuildRef>, StoreError> {
        until_done!(self.coordination, async {
            if let Some(slot) = self.free_slot(need).await? {
                return Ok(Tried::Done(Ok(slot)));
            }
            // A holder that is not there any more ended between the two looks.
            let holder = self.build_that_holds(&need.key).await?;
            Ok(holder.map_or(Tried::Again, |holder| Tried::Refused(Err(holder))))
        })
    }

    /// Notes the newest builds that count together, and adds the cancellation of those that are not
    /// among them any more.
    pub(crate) async fn supersede(
        &self,
        transaction: &mut Transaction,
        numbers: &mut Numbers,
        need: &LockNeed,
        (job, new, post): (&JobKey, &BuildRef, &Post),
    ) -> Result<(), StoreError> {
        if numbers.newest.values().map(Vec::len).sum::<usize>() >= MAX_REMEMBERED {
            let why = format!("over {MAX_REMEMBERED} builds of the job are active");
            return Err(StoreError::refused(why));
        }
        let newest = numbers.newest.entry(need.key.clone()).or_default();
        newest.push(new.number);
        let older = newest.len().saturating_sub(usize::from(need.slots));
        for number in newest.drain(..older.min(MAX_SUPERSEDED)) {
            let flag = CancelFlag {
                at: post.at,
                by: Some(format!("superseded by {new}")),
            };
            let build = BuildKey::derive(job, number);
            self.cancel_in(transaction, &build, flag).await?;
        }
        Ok(())
    }
}
