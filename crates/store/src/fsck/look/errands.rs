//! What is looked at of errands: their anchors, and that each poll of a job has one.

use distci_model::errand::{Errand, What};
use distci_model::id::{TicketId, TicketKey};

use super::{Flaw, Look};
use crate::error::StoreError;
use crate::keys;

impl Look<'_> {
    pub(super) async fn errands(&mut self) -> Result<(), StoreError> {
        for path in self.sharded(&keys::errands()).await? {
            let key = path.name().parse().ok();
            let Some(build) = key.filter(|key| keys::errand(key) == path) else {
                self.unknown(&path);
                continue;
            };
            for name in self.store.coordination.list(&path).await? {
                self.unknown(&path.join(&name));
            }
            let ticket = TicketId::errand();
            self.errand(&TicketKey { build, ticket }).await?;
        }
        self.missing_polls().await
    }

    async fn errand(&mut self, key: &TicketKey) -> Result<(), StoreError> {
        let path = keys::anchor(key);
        let Some(errand) = self.record::<Errand>(&path).await? else {
            return Ok(());
        };
        self.checked.errands += 1;
        let Errand { ticket, what, .. } = &errand.record;
        self.named(key, ticket, errand.version);
        self.class(key, ticket, &what.requires());
        match what {
            // It outlives its build, and even its job.
            What::Report(_) => {}
            What::Poll(poll) => {
                let job = self.jobs.get_mut(&poll.job);
                let (known, mut witness) = match job {
                    Some(job) => (job.polls.remove(key), job.witness.clone()),
                    None => (false, Vec::new()),
                };
                if !known {
                    witness.push((path.clone(), Some(errand.version)));
                    let detail = format!("job {} has no such poll", poll.job);
                    self.find(Flaw::ErrandOrphaned, &path, detail, witness);
                }
            }
        }
        Ok(())
    }

    async fn missing_polls(&mut self) -> Result<(), StoreError> {
        let missing: Vec<_> = self
            .jobs
            .iter_mut()
            .flat_map(|(id, job)| {
                let (id, witness) = (id.clone(), job.witness.clone());
                let polls = std::mem::take(&mut job.polls).into_iter();
                polls.map(move |key| (id.clone(), key, witness.clone()))
            })
            .collect();
        for (id, key, witness) in missing {
            let path = keys::anchor(&key);
            // Listed before it was made; its job was read after that.
            if self.store.coordination.get(&path).await?.is_none() {
                let detail = format!("job {id} polls by it");
                self.find(Flaw::PollMissing, path, detail, witness);
            }
        }
        Ok(())
    }
}
