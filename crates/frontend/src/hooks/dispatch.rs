//! From events to builds.
//!
//! Owns which jobs are asked, and what the sender is told. Every job is asked by itself, and a
//! repeated delivery finds the builds that it made: so a sender that got no answer just sends again.

use distci_model::config::Unwanted;
use distci_model::event::{Event, EventKind};
use distci_model::id::{BuildRef, DeliveryId, JobId};
use distci_model::wire::{EventBuild, PassedOver, WebhookAnswer, WebhookDelivery};
use distci_store::{Offered, Posted, Store, StoreError};
use futures::{StreamExt, stream};

use crate::app::App;

/// Jobs that are asked at once.
const TOGETHER: usize = 16;
/// Most jobs without a build that an answer names.
const MAX_PASSED_OVER: usize = 100;

/// Whose builds a delivery may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whom {
    /// All jobs that watch the repository.
    All,
    /// One job, whatever else watches.
    Job(JobId),
    /// The trigger of one job that this token, by its SHA-256, opens.
    Webhook(JobId, String),
}

/// What became of events.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    builds: Vec<EventBuild>,
    passed_over: Vec<PassedOver>,
    /// How many jobs were passed over in all.
    passed: usize,
    /// Whether a job wanted it and could not have it.
    refused: bool,
    /// What kept some jobs from being asked.
    pub(crate) error: Option<StoreError>,
}

impl Outcome {
    /// Whether there may be reason to replay it.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.builds.is_empty() || self.refused || self.error.is_some()
    }

    /// What the sender is told.
    pub(crate) fn answer(&self, kept: Option<DeliveryId>) -> WebhookAnswer {
        let fresh = self.builds.iter().filter(|build| build.fresh).count();
        let detail = match (self.builds.len(), fresh, self.passed) {
            (0, _, 0) => "no job watches this repository".to_owned(),
            (0, _, passed) => format!("no build; {passed} passed over"),
            (all, 0, _) => format!("{all} from an earlier delivery"),
            (_, fresh, _) => format!("{fresh} posted"),
        };
        WebhookAnswer {
            detail,
            builds: self.builds.clone(),
            passed_over: self.passed_over.clone(),
            kept,
        }
    }

    fn pass_over(&mut self, job: JobId, why: String) {
        self.passed += 1;
        if self.passed_over.len() < MAX_PASSED_OVER {
            self.passed_over.push(PassedOver { job, why });
        }
    }

    fn note(&mut self, job: JobId, offered: Result<Offered, StoreError>) {
        match offered {
            Ok(Offered::Posted(Posted::Build { build, fresh })) => {
                self.builds.push(EventBuild { build, fresh });
            }
            Ok(Offered::Posted(Posted::Skipped { holder })) => {
                self.pass_over(job, format!("skipped: {holder} is still running"));
            }
            Ok(Offered::Unwanted(why)) => self.pass_over(job, why.to_string()),
            Ok(Offered::Refused(why)) => {
                self.refused = true;
                self.pass_over(job, why);
            }
            // Removed since it was found; of one that was asked for by name, the sender is told.
            Err(error @ StoreError::NotFound { .. }) => self.pass_over(job, error.to_string()),
            Err(error) => self.error = Some(error),
        }
    }
}

/// Offers each event to each job that may want it.
pub(crate) async fn dispatch(app: &App, events: &[Event], whom: &Whom) -> Outcome {
    // Once for all jobs: one that has just been set elsewhere, or set differently, must be seen.
    let mut outcome = Outcome {
        error: app.store.catch_up().await.err(),
        ..Outcome::default()
    };
    for event in events {
        if run_again(app, event, whom, &mut outcome).await {
            continue;
        }
        let jobs = match jobs(&app.store, event, whom).await {
            Ok(jobs) => jobs,
            Err(error) => {
                outcome.error = Some(error);
                continue;
            }
        };
        let offers = stream::iter(jobs).map(|job| offer(app, job, event, whom));
        let mut offers = offers.buffered(TOGETHER).boxed();
        while let Some((job, offered)) = offers.next().await {
            outcome.note(job, offered);
        }
    }
    outcome
}

/// Runs the build again whose check an event asks for again. Gives whether that was all: not if it
/// names no build of ours, which is then offered to the jobs as any other event.
async fn run_again(app: &App, event: &Event, whom: &Whom, outcome: &mut Outcome) -> bool {
    let Some(build) = checked_build(event, whom) else {
        return false;
    };
    match app.store.offer_again(&build, event, app.now()).await {
        Ok(None) => return false,
        Ok(Some(offered)) => outcome.note(build.job, Ok(offered)),
        Err(error) => outcome.error = Some(error),
    }
    true
}

/// The build that an event names by its check, if it is of a job that may be asked.
fn checked_build(event: &Event, whom: &Whom) -> Option<BuildRef> {
    let asked = event.kind == EventKind::Rerequest;
    let build: BuildRef = event.fact("check").filter(|_| asked)?.parse().ok()?;
    let may_be_asked = match whom {
        Whom::All => true,
        Whom::Job(job) => *job == build.job,
        Whom::Webhook(..) => false,
    };
    may_be_asked.then_some(build)
}

async fn jobs(store: &Store, event: &Event, whom: &Whom) -> Result<Vec<JobId>, StoreError> {
    match whom {
        Whom::Job(job) | Whom::Webhook(job, _) => Ok(vec![job.clone()]),
        Whom::All => match event.fact("repository") {
            Some(repository) => store.jobs_watching(repository).await,
            None => Ok(Vec::new()),
        },
    }
}

async fn offer(
    app: &App,
    job: JobId,
    event: &Event,
    whom: &Whom,
) -> (JobId, Result<Offered, StoreError>) {
    let offered = match whom {
        Whom::All | Whom::Job(_) => app.store.offer_event(&job, event, app.now()).await,
        Whom::Webhook(_, token) => app.store.offer_call(&job, token, event, app.now()).await,
    };
    // Who waits for this job's word on the commit must not wait for ever.
    let offered = match offered {
        Ok(Offered::Unwanted(why @ (Unwanted::Path | Unwanted::Skip))) => {
            let said = why.to_string();
            let told = app.store.report_skipped(&job, event, &said, app.now());
            told.await.map(|_| Offered::Unwanted(why))
        }
        offered => offered,
    };
    (job, offered)
}

/// Whose builds a kept delivery may start.
pub(crate) fn whom(delivery: &WebhookDelivery) -> Whom {
    match (&delivery.job, &delivery.token_sha256) {
        (None, _) => Whom::All,
        (Some(job), None) => Whom::Job(job.clone()),
        (Some(job), Some(token)) => Whom::Webhook(job.clone(), token.clone()),
    }
}

/// What of an event is worth keeping beside the body: not what is long.
pub(crate) fn gist(event: &Event) -> Event {
    let short = ["message", "title"];
    let facts = event.facts.iter();
    let facts = facts
        .filter(|(name, _)| event.kind != EventKind::Webhook && !short.contains(&name.as_str()));
    Event {
        facts: facts.map(|(k, v)| (k.clone(), v.clone())).collect(),
        paths: None,
        ..event.clone()
    }
    .bounded()
}
