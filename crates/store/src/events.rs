//! Events: which jobs wait for them, and the builds that they post.
//!
//! Owns `/r`, where each job is named under the repositories that it watches. The names change in
//! the commit that changes the job, so a job is found by all frontends from the moment on at which
//! it is set; finding costs one listing, however many jobs there are.

use std::collections::{BTreeMap, BTreeSet};

use distci_model::Timestamp;
use distci_model::build::Cause;
use distci_model::config::{EventTrigger, JobConfig, Scope, Trigger, Unwanted};
use distci_model::event::{Event, repository_name};
use distci_model::id::{BuildRef, JobId, RequestId};
use distci_model::rerun::Again;

use crate::builds::{Post, Posted};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;

/// A build to be posted for an event.
#[derive(Debug, Clone)]
pub struct EventPost {
    /// The same whenever the event is told again.
    pub request: RequestId,
    /// The trigger's values for the job's parameters, in which `${event.FACT}` stands for a fact.
    pub parameters: BTreeMap<String, String>,
    /// The event; the build gets as much of it as a build can hold.
    pub told: Event,
    /// When.
    pub at: Timestamp,
}

/// What became of an event at one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It has a build, now or from an earlier telling.
    Posted(Posted),
    /// No trigger of the job wants it; of several reasons, that of the trigger that came nearest.
    Unwanted(Unwanted),
    /// A trigger wants it, but there can be no build.
    Refused(String),
}

impl Store {
    /// The jobs that wait for events of a repository, by its host and path, in order. A job
    /// that has just been set elsewhere is there after [`catch_up`](Self::catch_up).
    pub async fn jobs_watching(&self, repository: &str) -> Result<Vec<JobId>, StoreError> {
        let mark = keys::repository_mark(repository);
        let listed = self.coordination.list(&keys::watchers_of(&mark)).await?;
        let watchers = listed.iter().filter_map(|name| keys::parse_watcher(name));
        let ours = watchers.filter(|(watched, _)| *watched == mark);
        let jobs: BTreeSet<JobId> = ours.map(|(_, job)| job).collect();
        Ok(jobs.into_iter().collect())
    }

    /// Posts a build for an event if the job wants it, as this frontend knows the job; whoever may
    /// have to say no to it catches up before. Of several triggers that want it, the first counts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job.
    ///
    /// # Idempotence
    /// The same delivery of the same source finds the build that it made.
    pub async fn offer_event(
        &self,
        job: &JobId,
        event: &Event,
        at: Timestamp,
    ) -> Result<Offered, StoreError> {
        let live = self.read_job(job).await?;
        let config = self.config(&live.key, &live.node.record.config).await?;
        match wanting(&config, event) {
            Ok(trigger) => self.post_wanted(job, trigger, event, at).await,
            Err(unwanted) => Ok(Offered::Unwanted(unwanted)),
        }
    }

    /// Whether the token with this SHA-256, 64 lower-case hex digits, opens a trigger of the job.
    pub async fn has_webhook(&self, job: &JobId, token_sha256: &str) -> Result<bool, StoreError> {
        // As seen: whoever asks is not believed yet, and must not make us write to catch up.
        let live = match self.read_job_as_seen(job).await {
            Ok(live) => live,
            Err(StoreError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let config = self.config(&live.key, &live.node.record.config).await?;
        let opened = event_triggers(&config).map(|trigger| opens(trigger, token_sha256));
        Ok(opened.fold(false, |any, opened| any | opened))
    }

    /// Posts a build for a call of a generic webhook that showed the token with this SHA-256, 64
    /// lower-case hex digits.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job, or if the token opens none of its triggers.
    pub async fn offer_call(
        &self,
        job: &JobId,
        token_sha256: &str,
        event: &Event,
        at: Timestamp,
    ) -> Result<Offered, StoreError> {
        let live = self.read_job(job).await?;
        let config = self.config(&live.key, &live.node.record.config).await?;
        let opened = event_triggers(&config).find(|trigger| opens(trigger, token_sha256));
        let trigger = opened.ok_or_else(|| StoreError::missing("webhook with this token"))?;
        self.post_wanted(job, trigger, event, at).await
    }

    async fn post_wanted(
        &self,
        job: &JobId,
        trigger: &EventTrigger,
        event: &Event,
        at: Timestamp,
    ) -> Result<Offered, StoreError> {
        let post = EventPost {
            request: request_of(event, job),
            parameters: trigger.parameters.clone(),
            told: event.clone(),
            at,
        };
        offered(self.post_event_build(job, post).await)
    }

    /// Runs a build again, because an event asks for it by name; `None` if there is no such build, or
    /// if it is not of the event's commit.
    ///
    /// # Idempotence
    /// The same delivery of the same source finds the build that it made.
    pub async fn offer_again(
        &self,
        build: &BuildRef,
        event: &Event,
        at: Timestamp,
    ) -> Result<Option<Offered>, StoreError> {
        let view = match self.build(build).await {
            Ok(view) => view,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let same = |told: &Event| {
            let fact = |name| told.fact(name).is_some() && told.fact(name) == event.fact(name);
            fact("repository") && fact("sha")
        };
        if !view.cause.told().is_some_and(same) {
            return Ok(None);
        }
        let request = request_of(event, &build.job);
        let rerun = self.rerun_build(build, &Again::All, &request, at).await;
        offered(rerun).map(Some)
    }

    /// Posts a build for an event.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job, [`StoreError::Refused`] if the parameters do
    /// not fit, or need a fact that the event does not tell.
    ///
    /// # Idempotence
    /// A repeated request finds the build that it made, as with [`post_build`](Self::post_build).
    pub async fn post_event_build(
        &self,
        job: &JobId,
        post: EventPost,
    ) -> Result<Posted, StoreError> {
        let told = Box::new(post.told.bounded());
        let parameters = filled(&post.parameters, &told).map_err(StoreError::refused)?;
        let post = Post {
            request: post.request,
            parameters,
            cause: Cause::Event { told },
            depth: 0,
            resumed: None,
            at: post.at,
        };
        self.post_once(job, post).await
    }
}

/// The same whenever an event is told again to a job.
fn request_of(event: &Event, job: &JobId) -> RequestId {
    let delivery = event.delivery.as_deref().unwrap_or_default();
    RequestId::derive(&format!("{}\n{delivery}\n{job}", event.source))
}

fn offered(posted: Result<Posted, StoreError>) -> Result<Offered, StoreError> {
    match posted {
        Ok(posted) => Ok(Offered::Posted(posted)),
        Err(error @ (StoreError::Refused { .. } | StoreError::TooLarge { .. })) => {
            Ok(Offered::Refused(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// A trigger's values for the job's parameters, filled with the facts of an event; or why that is
/// impossible.
pub(crate) fn filled(
    values: &BTreeMap<String, String>,
    told: &Event,
) -> Result<BTreeMap<String, String>, String> {
    let none = BTreeMap::new();
    let scope = Scope::of(&none, Some(told));
    let value = |(name, text): (&String, &String)| match scope.fill(text) {
        Ok(value) => Ok((name.clone(), value)),
        Err(why) => Err(format!("parameter {name:?}: {why}")),
    };
    values.iter().map(value).collect()
}

/// Marks of the repositories whose events a job waits for.
pub(crate) fn watched(config: &JobConfig) -> BTreeSet<String> {
    let named = event_triggers(config).filter_map(|trigger| trigger.repository.as_deref());
    named
        .map(|repository| keys::repository_mark(&repository_name(repository)))
        .collect()
}

fn event_triggers(config: &JobConfig) -> impl Iterator<Item = &EventTrigger> {
    config.triggers.iter().filter_map(|trigger| match trigger {
        Trigger::Event(trigger) => Some(trigger),
        Trigger::Schedule(_) | Trigger::Poll(_) => None,
    })
}

/// Compared as hashes of hashes, which takes the same time whatever differs.
fn opens(trigger: &EventTrigger, token_sha256: &str) -> bool {
    let hash = |text: &str| blake3::hash(text.to_ascii_lowercase().as_bytes());
    let known = trigger.token_sha256.as_deref();
    known.is_some_and(|known| hash(known) == hash(token_sha256))
}

/// The first trigger that wants an event, or the reason of the one that came nearest.
fn wanting<'c>(config: &'c JobConfig, event: &Event) -> Result<&'c EventTrigger, Unwanted> {
    let mut nearest = Unwanted::Kind;
    for trigger in event_triggers(config) {
        match trigger.wants(event) {
            Ok(()) => return Ok(trigger),
            Err(unwanted) => nearest = nearest.max(unwanted),
        }
    }
    Err(nearest)
}
