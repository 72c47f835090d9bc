//! Builds of jobs that read a file in a repository: from what was read to the build's tasks.
//!
//! Owns the configuration that such a build has from then on, and its storing. Believes no worker: what
//! one hands back is held against the stored job here.

use distci_model::build::{Build, ConfigRef, Finished, Progress};
use distci_model::config::{Action, Files, JOB_FILE_ARTIFACT, JobConfig, MAX_BYTES};
use distci_model::decide::Decision;
use distci_model::id::{TicketId, TicketKey};
use distci_model::outcome::{Failure, Outcome};

use crate::control::finished;
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::tickets::run_blobs;
use crate::transaction::{Child, encode, read};

impl Store {
    /// Lays what the file says over the configuration of a build, if this `run` has read it. What must
    /// not be laid is the run's failure.
    ///
    /// # Idempotence
    /// The same run gives the same configuration, which is stored once; nothing refers to it before
    /// the commit that takes notice of the run.
    pub(crate) async fn lay_file(
        &self,
        build: &mut Build,
        run: &mut Finished,
    ) -> Result<(), StoreError> {
        let config = self.config(&build.ticket.job, &build.config).await?;
        let is_reading = reading(&config, build) == Some(&run.ticket);
        if !is_reading || !run.result.outcome.is_success() {
            return Ok(());
        }
        match self.laid(build, run).await? {
            Ok(config) => build.config = config,
            Err(detail) => {
                run.result.outcome = Outcome::Failure {
                    reason: Failure::Configuration { detail },
                };
            }
        }
        Ok(())
    }

    /// The configuration of a build after a decision about it. `None` if the decision was made on
    /// another: by an order of a frontend that judges the file otherwise.
    pub(crate) async fn config_after(
        &self,
        key: &TicketKey,
        build: &Build,
        decision: &Decision,
    ) -> Result<Option<ConfigRef>, StoreError> {
        let mut after = build.clone();
        let config = self.config(&build.ticket.job, &build.config).await?;
        let ticket = reading(&config, build).filter(|ticket| decision.consume.contains(ticket));
        if let Some(ticket) = ticket
            && let Some(mut run) = self.run_of(key, ticket).await?
        {
            self.lay_file(&mut after, &mut run).await?;
        }
        let config = self.config(&after.ticket.job, &after.config).await?;
        let agrees = config.tasks.len() == decision.checkpoint.tasks.len();
        Ok(agrees.then_some(after.config))
    }

    /// The run of a ticket that is done and not consumed.
    async fn run_of(
        &self,
        control: &TicketKey,
        ticket: &TicketId,
    ) -> Result<Option<Finished>, StoreError> {
        let child = TicketKey {
            build: control.build.clone(),
            ticket: ticket.clone(),
        };
        let child = read::<Child>(&*self.coordination, &keys::anchor(&child)).await?;
        Ok(child.and_then(|child| finished(ticket.clone(), child.record.ticket)))
    }

    /// Stores the configuration of the job with its file; or why there is none.
    async fn laid(
        &self,
        build: &Build,
        run: &Finished,
    ) -> Result<Result<ConfigRef, String>, StoreError> {
        let text = match self.read_file(build, run).await? {
            Ok(text) => text,
            Err(detail) => return Ok(Err(detail)),
        };
        let job = &build.ticket.job;
        let revision = ConfigRef {
            file: None,
            ..build.config.clone()
        };
        let stored = self.written_config(job, &revision).await?;
        let config = match Files::of(JOB_FILE_ARTIFACT, &text).job_of(&stored) {
            Ok((config, _)) => config,
            Err(problems) => {
                let first = problems.first().map(ToString::to_string);
                return Ok(Err(format!(
                    "{JOB_FILE_ARTIFACT}:{}",
                    first.unwrap_or_default()
                )));
            }
        };
        let text = encode("job configuration", &config)?;
        let file = blake3::hash(&text).to_hex().to_string();
        let key = keys::config(job, revision.revision, &file);
        self.blobs.put(&key, text).await?;
        Ok(Ok(ConfigRef {
            file: Some(file),
            ..revision
        }))
    }

    /// The file as the task handed it back; or why that is none.
    async fn read_file(
        &self,
        build: &Build,
        run: &Finished,
    ) -> Result<Result<String, String>, StoreError> {
        let missing = || format!("the task handed back no {JOB_FILE_ARTIFACT}");
        if run.result.artifacts == 0 {
            return Ok(Err(missing()));
        }
        let blobs = run_blobs(build, run);
        let artifacts = self.manifest(&blobs).await?.artifacts;
        let index = artifacts
            .iter()
            .position(|artifact| artifact.path == JOB_FILE_ARTIFACT);
        let Some(index) = index.filter(|&index| artifacts[index].bytes <= MAX_BYTES as u64) else {
            return Ok(Err(missing()));
        };
        let blob = blobs.artifact(index);
        let bytes = self.blobs.get(&blob, MAX_BYTES as u64).await?;
        let bytes = bytes.ok_or_else(|| StoreError::corrupt(&blob, "it is gone"))?;
        Ok(String::from_utf8(bytes.to_vec()).map_err(|_| missing()))
    }
}

/// The ticket of the task that reads the file, while a build waits for it.
fn reading<'b>(config: &JobConfig, build: &'b Build) -> Option<&'b TicketId> {
    let task = config.tasks.first()?;
    match (&task.action, build.checkpoint.tasks.first()?) {
        (Action::JobFile(_), Progress::Posted { ticket, .. }) => Some(ticket),
        _ => None,
    }
}
