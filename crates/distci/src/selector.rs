//! How people name a build: `hello#7`, `hello`, `hello@failed`, or the address of its page.

use std::str::FromStr;

use anyhow::Result;
use distci_client::Client;
use distci_model::id::{BuildNumber, BuildRef, InvalidId, JobId};
use distci_model::wire::BuildView;

use crate::exit::Ended;

/// A build as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    job: JobId,
    which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Number(BuildNumber),
    Latest,
    LatestSuccess,
    LatestFailure,
}

/// Text that names no build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidSelector {
    /// The job or the number is malformed.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The word after `@` is not known.
    #[error("'@{0}' is not known; there are @latest, @success and @failed")]
    Word(String),
    /// An address without a build in it.
    #[error("the address does not end in /jobs/JOB/builds/NUMBER")]
    Address,
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.contains("://") {
            return from_address(text).ok_or(InvalidSelector::Address);
        }
        if text.contains('#') {
            let build: BuildRef = text.parse()?;
            return Ok(Self::exactly(&build));
        }
        let (job, word) = text.split_once('@').unwrap_or((text, "latest"));
        let which = match word {
            "latest" => Which::Latest,
            "success" | "latest-success" => Which::LatestSuccess,
            "failed" => Which::LatestFailure,
            _ => return Err(InvalidSelector::Word(word.to_owned())),
        };
        let job = job.parse()?;
        Ok(Self { job, which })
    }
}

fn from_address(address: &str) -> Option<Selector> {
    let address = address.split(['?', '#']).next()?.trim_end_matches('/');
    let mut segments = address.rsplit('/');
    let number = segments.next()?.parse().ok().and_then(BuildNumber::new)?;
    let builds = segments.next()? == "builds";
    let job = segments.next()?.parse().ok()?;
    let jobs = segments.next()? == "jobs";
    (builds && jobs).then_some(Selector {
        job,
        which: Which::Number(number),
    })
}

impl Selector {
    fn exactly(build: &BuildRef) -> Self {
        Self {
            job: build.job.clone(),
            which: Which::Number(build.number),
        }
    }

    /// Whose build it is.
    pub(crate) fn job(&self) -> &JobId {
        &self.job
    }

    /// The build as it is now.
    pub(crate) async fn view(&self, client: &Client) -> Result<BuildView> {
        let selector = match self.which {
            Which::Number(number) => number.to_string(),
            Which::Latest => "latest".to_owned(),
            Which::LatestSuccess => "latest-success".to_owned(),
            Which::LatestFailure => self.latest_failure(client).await?.to_string(),
        };
        Ok(client.build(&self.job, &selector).await?)
    }

    /// Which build that is.
    pub(crate) async fn build(&self, client: &Client) -> Result<BuildRef> {
        match self.which {
            Which::Number(number) => Ok(BuildRef {
                job: self.job.clone(),
                number,
            }),
            Which::Latest | Which::LatestSuccess | Which::LatestFailure => {
                Ok(self.view(client).await?.build)
            }
        }
    }

    async fn latest_failure(&self, client: &Client) -> Result<BuildNumber> {
        let mut cursor: Option<String> = None;
        loop {
            let page = client.builds(&self.job, cursor.as_deref()).await?;
            let failed = page.items.iter().find(|build| {
                let outcome = build.outcome.as_ref();
                outcome.is_some_and(|outcome| !outcome.is_success())
            });
            if let Some(build) = failed {
                return Ok(build.number);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Err(Ended::not_found(format!("no build of {} failed", self.job)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_may_be_named_in_many_ways() {
        let which = |text: &str| text.parse::<Selector>().map(|selector| selector.which);
        let seven = Which::Number(BuildNumber::new(7).unwrap());
        assert_eq!(which("hello#7").unwrap(), seven);
        assert_eq!(which("hello").unwrap(), Which::Latest);
        assert_eq!(which("hello@latest").unwrap(), Which::Latest);
        assert_eq!(which("hello@success").unwrap(), Which::LatestSuccess);
        assert_eq!(which("hello@failed").unwrap(), Which::LatestFailure);
        let address = "http://127.0.0.1:7171/api/v1/jobs/hello/builds/7/?x#y";
        assert_eq!(which(address).unwrap(), seven);
    }

    #[test]
    fn what_names_no_build_is_refused() {
        for bad in [
            "",
            "#7",
            "hello#0",
            "hello@yesterday",
            "http://host/jobs/hello",
            "a b",
        ] {
            assert!(bad.parse::<Selector>().is_err(), "{bad:?} was accepted");
        }
    }
}
