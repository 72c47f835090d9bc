//! Reports: what a forge hears of a build.
//!
//! Owns that there is one errand for each build of which a forge is to hear, made with the build and
//! told its end with the commit that archives it: so it is never lost, and never waited for.

use distci_model::Timestamp;
use distci_model::build::{Archived, Build, Cause};
use distci_model::config::{JobConfig, Span};
use distci_model::errand::{Check, CommitState, Errand, MAX_DESCRIPTION, Report, What, shorten};
use distci_model::event::Event;
use distci_model::id::{BuildKey, BuildNumber, BuildRef, JobId, TicketKey};
use distci_model::outcome::Outcome;
use distci_model::plan::{Intent, plan};
use distci_model::ticket::{Stamp, Ticket};
use distci_model::wire::ReportView;

use super::due;
use crate::error::StoreError;
use crate::store::Store;
use crate::transaction::{Transaction, Tried, until_done};

/// Where the report of a build is.
pub(crate) fn report_key(build: &BuildKey) -> TicketKey {
    TicketKey::errand(&format!("report {build}"))
}

impl Store {
    /// Adds to the post of a build that its forge hears of it, if the job wants that. What the build
    /// runs again has nothing more to say: late, it would be the last word.
    pub(crate) async fn report_begin(
        &self,
        transaction: &mut Transaction,
        config: &JobConfig,
        build: &Build,
    ) -> Result<(), StoreError> {
        let number = build.id.number;
        let description = format!("build {number} is under way");
        let summary = format!("{} is under way", build.id);
        let check = Check::begun(&build.id, build.created, summary);
        let said = (CommitState::Pending, description.as_str(), check);
        let told = build.cause.told();
        let report = told.and_then(|told| report(config, told, Some(number), said));
        let Some(report) = report else {
            return Ok(());
        };
        let job = &build.ticket.job;
        if let Cause::Rerun { of, .. } = &build.cause {
            let earlier = report_key(&BuildKey::derive(job, of.number));
            if let Some(before) = self.errand(&earlier).await? {
                transaction.remove(&earlier, &before);
            }
        }
        let errand = Errand::new(job, What::Report(report), build.created);
        self.ensure_class(&errand.what.requires()).await?;
        let key = report_key(&BuildKey::derive(job, build.id.number));
        transaction.post(&key, &errand)
    }

    /// Adds to the last commit of a build that its forge hears how it ended.
    pub(crate) async fn report_end(
        &self,
        transaction: &mut Transaction,
        key: &BuildKey,
        archived: &Archived,
    ) -> Result<(), StoreError> {
        let key = report_key(key);
        let Some(before) = self.errand(&key).await? else {
            return Ok(());
        };
        let mut errand = before.record.clone();
        let Archived { build, outcome } = archived;
        let (job, at) = (&build.ticket.job, build.checkpoint.latest);
        let view = self.view_of(job, build.clone(), Some(outcome.clone()));
        let check = view.await?.as_ref().map(Check::of);
        if let What::Report(report) = &mut errand.what {
            let description = describe(build, outcome);
            report.want(CommitState::of(outcome), &description, check, at);
        }
        errand.failures = 0;
        if let Ok(woken) = plan(&errand.ticket, Intent::Wake) {
            errand.ticket = Ticket {
                stamp: Stamp::at(at),
                ..woken.ticket
            };
        }
        transaction.replace(&key, &before, &errand)
    }

    /// Tells the forge that a job has nothing to say to an event, so that who waits for its word need
    /// not wait for ever: `why` becomes the description of a success. Gives whether there is anything
    /// to tell: not if the job tells forges nothing, nor of a commit that it has built.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job.
    ///
    /// # Idempotence
    /// Repeated with the same `at`, it is told once.
    pub async fn report_skipped(
        &self,
        id: &JobId,
        told: &Event,
        why: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        until_done!(self.coordination, async {
            let job = self.read_job_as_seen(id).await?;
            let config = self.config(&job.key, &job.node.record.config).await?;
            let description = format!("skipped: {why}");
            let summary = format!("{id} has no build of this commit: {why}");
            let check = Check::skipped(id, at, summary);
            let said = (CommitState::Success, description.as_str(), check);
            let report = report(&config, told, None, said);
            let Some(report) = report.filter(|_| !job.numbers.record.has_built(told)) else {
                return Ok(Tried::Done(false));
            };
            let (commit, since) = (&report.sha, Stamp::at(at).millis());
            let cause = format!("report {} skipped {commit} at {since}", job.key);
            let key = TicketKey::errand(&cause);
            if self.errand(&key).await?.is_some() {
                return Ok(Tried::Done(true));
            }
            let errand = Errand::new(&job.key, What::Report(report), at);
            self.ensure_class(&errand.what.requires()).await?;
            let mut transaction = Transaction::default();
            // A build of the commit that is posted now has the word.
            transaction.check(crate::keys::numbers(id), job.numbers.version);
            transaction.post(&key, &errand)?;
            let committed = transaction.commit(&*self.coordination).await?;
            Ok(committed.map_or(Tried::Again, |_| Tried::Done(true)))
        })
    }

    /// Gives up an end that no worker has taken to its forge for a week. Gives whether it did.
    pub async fn forsake_report(
        &self,
        key: &TicketKey,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        until_done!(self.coordination, async {
            let before = self.errand(key).await?;
            let Some(before) = before.filter(|errand| errand.record.is_forsaken(now)) else {
                return Ok(Tried::Done(false));
            };
            let mut transaction = Transaction::default();
            transaction.remove(key, &before);
            let committed = transaction.commit(&*self.coordination).await?;
            if let (Some(_), What::Report(report)) = (&committed, &before.record.what) {
                let (job, context, sha) = (&report.job, &report.context, &report.sha);
                let requires = before.record.what.requires();
                tracing::warn!(%job, %context, %sha, "a forge was never told: for a week no worker that offers {requires} took it");
            }
            Ok(committed.map_or(Tried::Again, |_| Tried::Done(true)))
        })
    }

    /// What a forge has not heard yet of a build; `None` if it has heard all that it is to hear.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job or build.
    pub async fn report(&self, build: &BuildRef) -> Result<Option<ReportView>, StoreError> {
        let key = report_key(&self.build_key(build).await?);
        let Some(errand) = self.errand(&key).await? else {
            return Ok(None);
        };
        let Errand {
            ticket,
            setback,
            what: What::Report(report),
            ..
        } = errand.record
        else {
            return Ok(None);
        };
        Ok(Some(ReportView {
            repository: report.repository,
            sha: report.sha,
            context: report.context,
            wanted: report.wanted,
            told: report.told,
            next: due(&ticket),
            setback,
        }))
    }
}

/// What a forge is to hear of an event; `None` if the job tells it nothing, or the event is of no
/// commit at a forge.
fn report(
    config: &JobConfig,
    told: &Event,
    build: Option<BuildNumber>,
    (wanted, description, check): (CommitState, &str, Check),
) -> Option<Report> {
    let status = config.status.as_ref()?;
    let (repository, sha) = (told.fact("repository")?, told.fact("sha")?);
    if !Report::is_of_forge(repository) {
        return None;
    }
    let by_name = || format!("distci/{}", config.job_id);
    Some(Report {
        job: config.job_id.clone(),
        build,
        repository: repository.to_owned(),
        sha: sha.to_owned(),
        context: status.context.clone().unwrap_or_else(by_name),
        wanted,
        description: shorten(description, MAX_DESCRIPTION),
        since: check.began,
        told: None,
        check: Some(check),
    })
}

fn describe(build: &Build, outcome: &Outcome) -> String {
    let number = build.id.number;
    match outcome {
        Outcome::Success => {
            let took = build.checkpoint.latest.duration_since(build.created);
            let seconds = u64::try_from(took.as_secs()).unwrap_or_default();
            format!(
                "build {number} succeeded in {}",
                Span::from_seconds(seconds)
            )
        }
        cancelled if cancelled.is_cancelled() => format!("build {number} was cancelled"),
        Outcome::Failure { reason } => format!("build {number} {reason}"),
        Outcome::Fault { reason } => format!("build {number}, not the code's fault: {reason}"),
    }
}
