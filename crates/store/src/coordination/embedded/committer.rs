//! The one writer of the embedded store.
//!
//! Owns the order of all commits. Never waits for a batch to fill: it takes what has gathered while
//! the disk was busy, so an idle store answers after one sync and a busy one shares each sync among
//! all who wait. Invariant: disk, then memory, then events, then replies.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, Recovered, WriteError};
use super::{FIRST_EPOCH, Shared};
use crate::coordination::tree::{Changes, Draft, Refusal};
use crate::coordination::{Clock, CommitError, Event, Health, Op, Outage, Receipt, Version};

/// Commits in one transaction of the disk. More would let the first of them wait for the last.
const BATCH: usize = 256;

type Answer = Result<Receipt, CommitError>;

/// A commit that waits for its turn.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ops: Vec<Op>,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// What a batch does once the disk has it.
#[derive(Debug, Default)]
struct Planned {
    changes: Changes,
    events: Vec<Event>,
}

/// What becomes of one commit of a batch once the disk has the batch.
type Verdict = Result<Vec<Version>, Refusal>;

/// The thread's whole world.
pub(super) struct Committer {
    waiting: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
    disk: Disk,
    clock: Clock,
    // The batch that may be on the disk although memory does not show it.
    in_doubt: Option<Planned>,
    epoch: u64,
    last_time: Timestamp,
}

impl Committer {
    pub(super) fn new(
        waiting: mpsc::Receiver<Request>,
        shared: Arc<Shared>,
        disk: Disk,
        clock: Clock,
    ) -> Self {
        let (epoch, last_time) = (FIRST_EPOCH, Timestamp::MIN);
        Self {
            waiting,
            shared,
            disk,
            clock,
            in_doubt: None,
            epoch,
            last_time,
        }
    }

    /// Commits until the last sender of requests is gone, then closes the file.
    pub(super) fn run(mut self) {
        let _end = End(self.shared.clone());
        let mut batch = Vec::with_capacity(BATCH);
        while self.waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
            let answers = self.commit(&batch);
            for (request, answer) in batch.drain(..).zip(answers) {
                // A caller that has gone has chosen not to know.
                drop(request.reply.send(answer));
            }
        }
        self.disk.close();
    }

    fn commit(&mut self, batch: &[Request]) -> Vec<Answer> {
        if let Err(outage) = self.recover() {
            return vec![Err(CommitError::Down(outage)); batch.len()];
        }
        let (planned, verdicts) = self.plan(batch);
        // A refusal, too, may rest on other commits of the batch, so it shares their fate.
        match self.write(&planned.changes) {
            Ok(()) => {
                self.publish(&planned);
                let written = (self.clock)();
                // Never before what an earlier receipt said.
                self.last_time = self.last_time.max(written);
                let times = (self.last_time, written);
                verdicts
                    .into_iter()
                    .map(|verdict| answer(verdict, times))
                    .collect()
            }
            Err(WriteError::Lost(outage)) => vec![Err(CommitError::Down(outage)); batch.len()],
            Err(WriteError::InDoubt(outage)) => {
                self.in_doubt = Some(planned);
                self.report_outage(&outage);
                verdicts
                    .iter()
                    .map(|verdict| doubtful_answer(verdict, &outage))
                    .collect()
            }
        }
    }

    /// Judges the commits one after the other, each as if those before it had been made.
    fn plan(&self, batch: &[Request]) -> (Planned, Vec<Verdict>) {
        self.shared.read(|tree| {
            let mut draft = Draft::new(tree);
            let mut events = Vec::new();
            let mut judge = |request: &Request| {
                let mut effect = draft.commit(&request.ops)?;
                events.append(&mut effect.events);
                Ok(effect.versions)
            };
            let verdicts = batch.iter().map(&mut judge).collect();
            (
                Planned {
                    changes: draft.into_changes(),
                    events,
                },
                verdicts,
            )
        })
    }

    fn write(&mut self, changes: &Changes) -> Result<(), WriteError> {
        let writes = self.shared.read(|tree| tree.durable(changes));
        // Sessions end with the process, so their nodes cost no sync.
        if writes.is_empty() {
            Ok(())
        } else {
            self.disk.write(&writes)
        }
    }

    /// Memory goes first, for a consumer that reads on an event must find what the event tells.
    fn publish(&self, planned: &Planned) {
        self.shared.write(|tree| tree.apply(&planned.changes));
        self.shared.watches.publish(&planned.events);
    }

    /// Brings the disk back if it was lost, and with it the batch that turns out to be on it.
    fn recover(&mut self) -> Result<(), Outage> {
        let recovered = self
            .disk
            .recover()
            .inspect_err(|outage| self.report_outage(outage))?;
        if recovered == Recovered::Nothing {
            return Ok(());
        }
        let in_doubt = self
            .in_doubt
            .take()
            .filter(|_| recovered == Recovered::Durable);
        self.publish(&in_doubt.unwrap_or_default());
        self.epoch += 1;
        self.shared
            .health
            .send_replace(Health::Connected { epoch: self.epoch });
        tracing::info!("the store's disk takes commits again");
        Ok(())
    }

    fn report_outage(&self, outage: &Outage) {
        let health = match outage {
            Outage::Broken(_) => Health::Fenced,
            Outage::Full
            | Outage::Closed
            | Outage::Disconnected
            | Outage::Fenced
            | Outage::Refused(_) => Health::Disconnected,
        };
        if self.shared.health.send_replace(health) != health {
            let error: &dyn std::error::Error = outage;
            tracing::error!(error, "the store takes no commits");
        }
    }
}

fn answer(verdict: Verdict, (store_time, written): (Timestamp, Timestamp)) -> Answer {
    match verdict {
        Ok(versions) => Ok(Receipt {
            versions,
            store_time,
            written: Some(written),
        }),
        Err(Refusal { index, kind }) => Err(CommitError::Conflict { index, kind }),
    }
}

fn doubtful_answer(verdict: &Verdict, outage: &Outage) -> Answer {
    Err(match verdict {
        Ok(_) => CommitError::Unknown,
        Err(_) => CommitError::Down(outage.clone()),
    })
}

/// Tells everybody when the committer ends, even if it panics.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.watches.close();
        self.0.health.send_replace(Health::Fenced);
    }
}
