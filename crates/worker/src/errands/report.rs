//! Telling a forge how a commit stands.

use std::time::Duration;

use distci_forge::{Refusal, Said};
use distci_model::errand::{ErrandOrder, ErrandResult};

use super::{Errand, nothing};
use crate::trouble::Trouble;

impl Errand<'_> {
    /// Tells it, once.
    pub(super) async fn report(&self) -> Result<ErrandResult, Trouble> {
        let ErrandOrder::Report {
            repository,
            sha,
            context,
            state,
            description,
            url,
            check,
        } = self.order
        else {
            return Ok(nothing("this is no report"));
        };
        let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
        let known = host.parse().ok();
        let forge = known.and_then(|host| self.worker.settings.forges.get(&host));
        let Some(forge) = forge else {
            return Ok(nothing(&format!("this worker knows no forge at {host}")));
        };
        let said = Said {
            repository: path.to_owned(),
            sha: sha.clone(),
            context: context.clone(),
            state: *state,
            description: description.clone(),
            url: url.clone(),
            check: check.clone(),
        };
        Ok(match forge.tell(&said).await {
            Ok(()) => {
                tracing::info!(%repository, %sha, %context, "told: {state}");
                ErrandResult::Told { state: *state }
            }
            Err(Refusal::Passing { detail, after }) => ErrandResult::Nothing {
                detail: format!("{host}: {detail}"),
                after: after.as_ref().map(Duration::as_secs),
                hopeless: false,
            },
            Err(Refusal::Lasting { detail }) => ErrandResult::Nothing {
                detail: format!("{host}: {detail}"),
                after: None,
                hopeless: true,
            },
        })
    }
}
