//! One attempt of one task, from the claim to the result.
//!
//! Owns the order of things: room, workspace, cell, kind, layer, result; and that the room is empty
//! again however it ends. Reports exactly once, or, when the claim is lost, not at all.

use std::path::PathBuf;
use std::time::Duration;

use distci_client::ClientError;
use distci_model::config::Action;
use distci_model::order::TaskOrder;
use distci_model::outcome::{Failure, Fault, Outcome, TaskResult};
use distci_model::wire::Held;
use tokio::time::Instant;

use crate::caches::Caches;
use crate::cell::{Cell, Limits};
use crate::console::{Console, MOST_SPOOLED, Mask, Spool};
use crate::interrupt::{Interrupt, Interrupts};
use crate::kinds::{self, Assignment};
use crate::room::{Room, remove_tree};
use crate::trouble::{Trouble, blocking, doing};
use crate::worker::Worker;
use crate::workspace::{self, snapshot::Snapshot};

/// A claimed task in the hands of this worker.
pub(crate) struct Attempt<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) held: &'a Held,
    pub(crate) order: &'a TaskOrder,
    pub(crate) interrupts: Interrupts,
}

impl Attempt<'_> {
    /// Does the task and reports what came of it.
    pub(crate) async fn run(self) {
        let begun = Instant::now();
        let (room, outcome, said) = match self.enter().await {
            Ok(room) => {
                let (outcome, said) = self.work_in(&room).await;
                (Some(room), outcome, said)
            }
            Err(trouble) => (None, Err(trouble), 0),
        };
        let duration_ms = begun.elapsed().as_millis();
        let ticket = &self.held.ticket;
        match self.report(outcome, said).await {
            Ok(said) => {
                tracing::info!(%ticket, attempt = %self.held.attempt, build = %self.order.build,
                    task = %self.order.task, duration_ms, "{said}");
            }
            Err(error) => tracing::warn!(%ticket, "the result was not accepted: {error}"),
        }
        // Last, because the build need not wait for it.
        if let Some(room) = room {
            let left = tokio::task::spawn_blocking(|| room.leave()).await;
            if let Err(error) = left {
                tracing::warn!(%ticket, "the room was not left: {error}");
            }
        }
    }

    async fn enter(&self) -> Result<Room, Trouble> {
        let (rooms, held) = (self.worker.rooms.clone(), self.held.clone());
        let disk = self.order.isolation.disk;
        blocking(move || rooms.enter(&held, disk)).await
    }

    /// What came of it, and how long the console is.
    async fn work_in(&self, room: &Room) -> (Result<TaskResult, Trouble>, u64) {
        let secrets = match self.secrets().await {
            Ok(secrets) => secrets,
            Err(trouble) => return (Err(trouble), 0),
        };
        let (console, shipping) = Console::open(
            self.worker.patient.clone(),
            self.held.clone(),
            secrets,
            &self.interrupts,
            Spool::new(room.spool(), self.worker.disk.clone(), MOST_SPOOLED),
        );
        let outcome = self.work(room, &console).await;
        let all = vec![room.workspace(), room.temporary(), room.file("")];
        self.make_space(all, 0).await;
        say_end(&console, &outcome).await;
        drop(console);
        tokio::select! {
            (said, stored) = shipping.finish() => (if_stored(outcome, stored), said),
            () = self.interrupts.lost.cancelled() => (Err(Interrupt::Lost.into()), 0),
        }
    }

    async fn secrets(&self) -> Result<Mask, Trouble> {
        match (&self.order.action, &self.worker.settings.git_credentials) {
            (Action::GitCheckout(_) | Action::JobFile(_), Some(credentials)) => {
                kinds::git_secrets(credentials).await
            }
            _ => Ok(Mask::default()),
        }
    }

    async fn work(&self, room: &Room, console: &Console) -> Result<TaskResult, Trouble> {
        let before = self.interrupts.unless(self.furnish(room, console)).await?;
        let caches = Caches {
            client: &self.worker.patient,
            held: self.held,
            task: &self.order.task,
            room,
            console,
        };
        let caches = self
            .interrupts
            .unless(caches.restore(&self.order.cache))
            .await?;
        let cell = match self.order.action {
            Action::ExecuteShell(_) => {
                let isolation = &self.order.isolation;
                Cell::of_task(self.worker, room, isolation, caches.shared()).await?
            }
            Action::GitCheckout(_)
            | Action::PublishArtifacts(_)
            | Action::CopyArtifacts(_)
            | Action::JobFile(_)
            | Action::Approve(_) => Cell::of_worker(self.worker, room).await?,
        };
        let done = self.perform(room, console, &cell).await;
        let usage = cell.close().await;
        let succeeded = matches!(&done, Ok(result) if result.outcome.is_success());
        self.interrupts.unless(caches.save(succeeded)).await?;
        let mut result = match done {
            // The reason goes into the result here, so that what the task left is saved with it.
            Err(Trouble::Failure(reason)) => TaskResult::of(Outcome::Failure { reason }),
            done => done?,
        };
        result.usage = usage;
        match before {
            Some(before) => {
                self.interrupts
                    .unless(self.save(room, console, before, result))
                    .await
            }
            None => Ok(result),
        }
    }

    /// Brings the workspace into the room. `None` if the task only reads it.
    async fn furnish(&self, room: &Room, console: &Console) -> Result<Option<Snapshot>, Trouble> {
        let begun = Instant::now();
        let layers = &self.order.layers;
        let build = &self.held.ticket.build;
        workspace::restore(&self.worker.patient, build, layers, &room.workspace()).await?;
        if begun.elapsed() > Duration::from_secs(1) {
            let bytes: u64 = layers.iter().map(|input| input.layer.bytes).sum();
            let seconds = begun.elapsed().as_secs_f32();
            console
                .say(&format!(
                    "workspace restored: {bytes} bytes in {seconds:.1} s"
                ))
                .await;
        }
        match self.order.action {
            Action::PublishArtifacts(_) | Action::Approve(_) | Action::JobFile(_) => Ok(None),
            Action::GitCheckout(_) | Action::ExecuteShell(_) | Action::CopyArtifacts(_) => {
                workspace::look(room).await.map(Some)
            }
        }
    }

    async fn perform(
        &self,
        room: &Room,
        console: &Console,
        cell: &Cell,
    ) -> Result<TaskResult, Trouble> {
        let deadline = Instant::now() + Duration::from_secs(self.order.timeout);
        let assignment = Assignment {
            worker: self.worker,
            held: self.held,
            order: self.order,
            room,
            console,
            cell,
            limits: Limits {
                deadline,
                interrupts: self.interrupts.clone(),
            },
        };
        kinds::of(&self.order.action).perform(&assignment).await
    }

    /// Stores what the task changed, after a failure too: later tasks may want to publish the logs.
    async fn save(
        &self,
        room: &Room,
        console: &Console,
        before: Snapshot,
        mut result: TaskResult,
    ) -> Result<TaskResult, Trouble> {
        let saving = async {
            let packed = workspace::pack(before, room).await?;
            // What was packed is not needed twice, and the layer may go to the same disk.
            self.make_space(vec![room.workspace()], packed.bytes).await;
            let layer = workspace::store(&self.worker.patient, self.held, room, &packed).await?;
            Ok((layer, packed.skipped))
        };
        match saving.await {
            Ok((layer, skipped)) => {
                result.layer = layer;
                if skipped > 0 {
                    let what = "sockets, pipes or devices stay behind";
                    console.say(&format!("{skipped} {what}")).await;
                }
                Ok(result)
            }
            Err(trouble @ (Trouble::Failure(_) | Trouble::Fault(_)))
                if !result.outcome.is_success() =>
            {
                // The task failed without our help, and that is what its owner wants to know.
                console
                    .say(&format!("the workspace was not saved: {trouble}"))
                    .await;
                Ok(result)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Removes what the task needs no more, if the disk is nearly full or would be with so many
    /// bytes more: a store on the same disk could not even take the result.
    async fn make_space(&self, folders: Vec<PathBuf>, bytes: u64) {
        if self.worker.disk.has_space_for(bytes) {
            return;
        }
        let remove = move || folders.iter().try_for_each(|folder| remove_tree(folder));
        let removed = blocking(move || remove().map_err(doing("room"))).await;
        if let Err(trouble) = removed {
            tracing::warn!(ticket = %self.held.ticket, "no space was made: {trouble}");
        }
    }

    /// Tells the frontend how it ended, and gives it in words.
    async fn report(
        &self,
        outcome: Result<TaskResult, Trouble>,
        said: u64,
    ) -> Result<String, ClientError> {
        let mut result = match outcome {
            Ok(result) => result,
            Err(Trouble::Failure(reason)) => TaskResult::of(Outcome::Failure { reason }),
            Err(Trouble::Fault(reason)) => TaskResult::of(Outcome::Fault { reason }),
            Err(Trouble::Interrupted(Interrupt::Cancelled)) => TaskResult::of(Outcome::Failure {
                reason: Failure::Cancelled,
            }),
            Err(Trouble::Interrupted(interrupt @ Interrupt::Lost)) => {
                return Ok(interrupt.to_string());
            }
            Err(Trouble::Interrupted(interrupt @ Interrupt::Unstored)) => {
                let detail = interrupt.to_string();
                TaskResult::of(Outcome::Fault {
                    reason: Fault::StoreDown { detail },
                })
            }
            Err(Trouble::Interrupted(interrupt @ Interrupt::Stopped)) => {
                return self
                    .worker
                    .patient
                    .release(self.held)
                    .await
                    .map(|()| interrupt.to_string());
            }
        };
        result.console_bytes = said;
        tokio::select! {
            done = self.worker.patient.complete(self.held, &result) => {
                done.map(|()| result.outcome.to_string())
            }
            () = self.interrupts.lost.cancelled() => Ok(Interrupt::Lost.to_string()),
        }
    }
}

/// What came of it, if its console could be stored; whoever ended it still has the last word.
fn if_stored(
    outcome: Result<TaskResult, Trouble>,
    stored: Result<(), Trouble>,
) -> Result<TaskResult, Trouble> {
    match (outcome, stored) {
        (
            Err(Trouble::Interrupted(
                interrupt @ (Interrupt::Lost | Interrupt::Cancelled | Interrupt::Stopped),
            )),
            _,
        ) => Err(interrupt.into()),
        (_, Err(trouble)) => Err(trouble),
        (outcome, Ok(())) => outcome,
    }
}

/// The last line of a console is the reason, unless all went well.
async fn say_end(console: &Console, outcome: &Result<TaskResult, Trouble>) {
    match outcome {
        Ok(result) if result.outcome.is_success() => {}
        Ok(result) => console.say(&result.outcome.to_string()).await,
        Err(Trouble::Failure(failure)) => console.say(&format!("failure: {failure}")).await,
        Err(Trouble::Fault(fault)) => console.say(&format!("fault: {fault}")).await,
        Err(Trouble::Interrupted(interrupt)) => console.say(&interrupt.to_string()).await,
    }
}
