//! Whether what is stored keeps its laws, looked at while it is in use.
//!
//! Owns the judgement and the repair. Nothing is read at one moment, so a finding counts only if a
//! second look, begun after the first has ended, finds it again with the same versions: then there
//! was a moment in between at which it was so. Repairs only names, slots, wake-ups and what else follows
//! from records; never a record, and never without the version that was judged.

mod look;
mod repair;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use self::look::Look;
use self::repair::{Fence, Repair};
use crate::coordination::{NodePath, Version};
use crate::error::StoreError;
use crate::store::Store;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// A ticket is queued, claimed or waits for a time, or a job waits for events, and its name is
    /// not there.
    NameMissing,
    /// A name is there that no ticket and no job has.
    NameWrong,
    /// A ticket lists a slot of a lock, and does not have it.
    SlotMissing,
    /// A slot of a lock is held by a ticket that does not list it.
    SlotLeaked,
    /// A build sleeps although there is news for it.
    AsleepOverNews,
    /// A build has no mailbox.
    MailboxMissing,
    /// A ticket is of a class whose requirements nobody knows.
    ClassUnknown,
    /// A result refers to bytes that are not there, or to those of another attempt.
    BlobMissing,
    /// A build's number was given out, and there is neither a build nor a record.
    BuildMissing,
    /// A build has a number that was not given out, or belongs to no job.
    BuildUnknown,
    /// A task's ticket that its build does not know.
    TicketOrphaned,
    /// A build waits for a task's ticket that is not there.
    TicketMissing,
    /// A job's poll has no errand.
    PollMissing,
    /// An errand that no job has any more.
    ErrandOrphaned,
    /// A node cannot be read.
    Unreadable,
    /// A node that nobody makes.
    NodeUnknown,
}

impl Flaw {
    /// What follows from it, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NameMissing => "the ticket, or the job, is found by nobody",
            Self::NameWrong => "it is offered or watched in vain",
            Self::SlotMissing => "others may take the lock as well",
            Self::SlotLeaked => "whoever needs the lock waits for nobody",
            Self::AsleepOverNews => "the build never goes on",
            Self::MailboxMissing => "the build can take no news",
            Self::ClassUnknown => "the ticket is given to nobody",
            Self::BlobMissing => "what the task left cannot be read",
            Self::BuildMissing => "the build's number leads nowhere",
            Self::BuildUnknown => "the build is in no list",
            Self::TicketOrphaned => "its result is consumed by nobody",
            Self::TicketMissing => "the build waits for it for ever",
            Self::PollMissing => {
                "the repository is never looked at; take the trigger away and add it again"
            }
            Self::ErrandOrphaned => "it is done in vain",
            Self::Unreadable => "whoever needs it ends in an error",
            Self::NodeUnknown => "nobody reads it",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameMissing => "a name is missing",
            Self::NameWrong => "a name is wrong",
            Self::SlotMissing => "a slot is missing",
            Self::SlotLeaked => "a slot is held by nobody",
            Self::AsleepOverNews => "a build sleeps over news",
            Self::MailboxMissing => "a mailbox is missing",
            Self::ClassUnknown => "a class is unknown",
            Self::BlobMissing => "bytes are missing",
            Self::BuildMissing => "a build is missing",
            Self::BuildUnknown => "a build is unknown",
            Self::TicketOrphaned => "a ticket is nobody's",
            Self::TicketMissing => "a ticket is missing",
            Self::PollMissing => "a poll is missing",
            Self::ErrandOrphaned => "an errand is nobody's",
            Self::Unreadable => "a node cannot be read",
            Self::NodeUnknown => "a node is unknown",
        })
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The node, or the key of the blob.
    pub path: String,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// What exactly, for people.
    pub detail: String,
    /// What repairing does about it; nothing if a person has to.
    repair: Option<Repair>,
    /// What it was judged by: another version is another finding.
    #[serde(skip)]
    witness: Vec<(NodePath, Option<Version>)>,
}

impl Finding {
    /// What repairing does about it, in words; `None` if a person has to do something.
    pub fn remedy(&self) -> Option<&'static str> {
        self.repair.as_ref().map(Repair::words)
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Jobs, removed ones included.
    pub jobs: usize,
    /// Builds that are not archived.
    pub builds: usize,
    /// Tickets of tasks.
    pub tickets: usize,
    /// Errands.
    pub errands: usize,
    /// Names in the queue, among the claims and among the timers.
    pub names: usize,
    /// Slots of locks that are held.
    pub slots: usize,
    /// Records of archived builds, as far as no page of the history vouches for them.
    pub records: usize,
    /// Results whose bytes were looked for.
    pub results: usize,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkup {
    /// How much was looked at, each time.
    pub checked: Checked,
    /// What was mended.
    pub repaired: Vec<Finding>,
    /// What is wrong now.
    pub findings: Vec<Finding>,
}

/// Whether to mend what can be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    /// Only look.
    Look,
    /// Mend names, slots and wake-ups.
    Repair,
}

impl Store {
    /// Checks the whole store, in use or not. Waits `moment` between two looks.
    ///
    /// # Errors
    /// The store does not answer. What cannot be read is a finding.
    ///
    /// # Cancel safety
    /// A check may be dropped at any time; each repair is one commit.
    pub async fn fsck(&self, mending: Mending, moment: Duration) -> Result<Checkup, StoreError> {
        let (checked, found) = self.look_twice(moment).await?;
        let repairable = found.iter().any(|finding| finding.repair.is_some());
        if mending == Mending::Look || !repairable {
            return Ok(Checkup {
                checked,
                repaired: Vec::new(),
                findings: found.into_iter().collect(),
            });
        }
        let mut fence = Fence::default();
        for finding in &found {
            if let Some(repair) = &finding.repair {
                repair.apply(self, &mut fence).await?;
            }
        }
        let (checked, left) = self.look_twice(moment).await?;
        let is_left = |finding: &Finding| {
            let mut left = left.iter();
            left.any(|left| left.path == finding.path && left.flaw == finding.flaw)
        };
        let repaired = found.iter().filter(|finding| !is_left(finding)).cloned();
        Ok(Checkup {
            checked,
            repaired: repaired.collect(),
            findings: left.into_iter().collect(),
        })
    }

    async fn look_twice(
        &self,
        moment: Duration,
    ) -> Result<(Checked, BTreeSet<Finding>), StoreError> {
        let first = Look::at(self).await?;
        if first.findings.is_empty() {
            return Ok((first.checked, first.findings));
        }
        tokio::time::sleep(moment).await;
        let second = Look::at(self).await?;
        let both = first.findings.intersection(&second.findings).cloned();
        Ok((second.checked, both.collect()))
    }
}
