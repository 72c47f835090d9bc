//! What happened in a build, from its records.
//!
//! Owns the reads. What follows from them is `model::journal`'s to say; nothing is written.

use distci_model::build::Progress;
use distci_model::id::{BuildKey, BuildRef, TicketKey};
use distci_model::journal::{Entry, Told, journal};

use crate::builds::Found;
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Child, Tried, read, until_done};

impl Store {
    /// All that happened in a build so far, in the order of time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a build.
    pub async fn journal(&self, id: &BuildRef) -> Result<Vec<Entry>, StoreError> {
        until_done!(self.coordination, self.try_journal(id))
    }

    async fn try_journal(&self, id: &BuildRef) -> Result<Tried<Vec<Entry>>, StoreError> {
        let job = self.read_job_as_seen(&id.job).await?;
        let (build, outcome) = match self.find_build_as_seen(&job, id).await? {
            Found::Active(build) => (build.record, None),
            Found::Archived(archived) => (archived.build, Some(archived.outcome)),
        };
        let config = self.config(&job.key, &build.config).await?;
        let key = BuildKey::derive(&job.key, id.number);
        let mut tickets = Vec::new();
        for (place, progress) in build.checkpoint.tasks.iter().enumerate() {
            let Progress::Posted { ticket, .. } = progress else {
                continue;
            };
            let child = TicketKey {
                build: key.clone(),
                ticket: ticket.clone(),
            };
            match read::<Child>(&*self.coordination, &keys::anchor(&child)).await? {
                Some(child) => tickets.push((place, child.record.ticket)),
                // Consumed between the two reads: the build knows more by now.
                None => return Ok(Tried::Again),
            }
        }
        Ok(Tried::Done(journal(&Told {
            build: &build,
            config: &config,
            tickets: &tickets,
            outcome: outcome.as_ref(),
        })))
    }
}
