//! One attempt of a simulated task: it writes, takes its time, hands on what it made, and ends.
//!
//! Owns the order of calls, which is that of a real attempt, and the note of what the task did, which
//! the judge holds against what the cluster shows. Never sees more of the cluster than its order.

use std::collections::BTreeMap;

use bytes::Bytes;
use distci_checker::history;
use distci_client::ClientError;
use distci_model::order::TaskOrder;
use distci_model::outcome::{Failure, Outcome, TaskResult};
use distci_model::wire::Held;
use distci_worker::{Interrupt, Interrupts};
use tokio::time::sleep;

use crate::jobs::Deed;
use crate::worker::Run;

/// What a task exports, so that those who need it can be seen to have got it.
const MADE: &str = "MADE_BY_";

/// A claimed task in the hands of a worker.
pub(crate) struct Attempt<'a> {
    pub(crate) run: &'a Run,
    pub(crate) held: &'a Held,
    pub(crate) order: &'a TaskOrder,
    pub(crate) interrupts: &'a Interrupts,
}

impl Attempt<'_> {
    /// Does the task and reports what came of it.
    pub(crate) async fn run(self) {
        let (scene, order) = (&self.run.scene, self.order);
        let mut dice = self.run.split_dice();
        let deed = scene.jobs.deed(&order.task, &mut dice);
        let what = format!(
            "{} {}, attempt {}",
            order.build, order.task, self.held.attempt
        );
        self.run.tell(format_args!("begins {what}"));
        let place = scene.begin(self.held, self.work());
        let outcome = tokio::select! {
            biased;
            interrupt = self.interrupts.any() => Err(interrupt),
            written = self.write(&deed) => Ok(written),
        };
        let result = match outcome {
            Ok(Ok(written)) => {
                let made = format!("{}", dice.request());
                let result = self.result(&deed, &written, &made);
                scene.end(place, |work| {
                    work.verdict = Some(deed.outcome.verdict());
                    work.console = Some(digest(&written));
                    work.made = deed.outcome.is_success().then_some(made);
                });
                result
            }
            Ok(Err(error)) => return self.run.tell(format_args!("drops {what}: {error}")),
            Err(Interrupt::Stopped) => {
                self.run.tell(format_args!("gives back {what}"));
                if let Err(error) = self.run.patient.release(self.held).await {
                    self.run
                        .tell(format_args!("{what} is not given back: {error}"));
                }
                return;
            }
            Err(Interrupt::Cancelled) => TaskResult::of(Outcome::Failure {
                reason: Failure::Cancelled,
            }),
            Err(interrupt @ (Interrupt::Lost | Interrupt::Unstored)) => {
                return self.run.tell(format_args!("drops {what}: {interrupt}"));
            }
        };
        tokio::select! {
            done = self.run.patient.complete(self.held, &result) => match done {
                Ok(()) => self.run.tell(format_args!("ends {what}: {}", result.outcome)),
                Err(error) => self.run.tell(format_args!("{what} is not accepted: {error}")),
            },
            () = self.interrupts.lost.cancelled() => {
                self.run.tell(format_args!("{what} has ended, and is lost"));
            }
        }
    }

    /// What is noted of the attempt as it begins.
    fn work(&self) -> history::Work {
        let (scene, order) = (&self.run.scene, self.order);
        let env = order.env.iter();
        let found = env.filter_map(|(name, made)| {
            let task = name.strip_prefix(MADE)?;
            Some((spelled(task), made.clone()))
        });
        let found: BTreeMap<String, String> = found.collect();
        let needs = scene.jobs.tasks(&order.build.job).into_iter();
        let found =
            needs.filter_map(|task| Some((task.clone(), found.get(task.as_str())?.clone())));
        history::Work {
            build: order.build.clone(),
            task: order.task.clone(),
            attempt: self.held.attempt,
            began: scene.time.now(),
            ended: None,
            verdict: None,
            acknowledged: false,
            console: None,
            made: None,
            found: found.collect(),
            copied: Vec::new(),
            locks: scene.jobs.locks(&order.build.job, &order.task),
        }
    }

    /// Writes what the task says; gives all of it.
    async fn write(&self, deed: &Deed) -> Result<Vec<u8>, ClientError> {
        let mut written = Vec::new();
        for (pause, piece) in &deed.pieces {
            sleep(*pause).await;
            let offset = written.len() as u64;
            let bytes = Bytes::from(piece.clone());
            self.run.patient.append(self.held, offset, bytes).await?;
            written.extend_from_slice(piece.as_bytes());
        }
        sleep(deed.rest).await;
        Ok(written)
    }

    fn result(&self, deed: &Deed, written: &[u8], made: &str) -> TaskResult {
        let mut result = TaskResult::of(deed.outcome.clone());
        result.console_bytes = written.len() as u64;
        if deed.outcome.is_success() {
            let name = format!("{MADE}{}", spell(self.order.task.as_str()));
            result.exports.insert(name, made.to_owned());
        }
        result
    }
}

/// Bytes by what they are known.
pub(crate) fn digest(bytes: &[u8]) -> history::Bytes {
    history::Bytes {
        length: bytes.len() as u64,
        digest: blake3::hash(bytes).to_hex().to_string(),
    }
}

/// The name of a task as a part of the name of a variable.
fn spell(task: &str) -> String {
    data_encoding::HEXUPPER.encode(task.as_bytes())
}

/// The other way.
fn spelled(name: &str) -> String {
    let bytes = data_encoding::HEXUPPER.decode(name.as_bytes());
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}
