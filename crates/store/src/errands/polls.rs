//! Polls: from a commit that was found to its build.
//!
//! Owns which polls a job has. Each trigger has one errand from the revision that brought it to the
//! one that takes it away, and both change in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use distci_model::Timestamp;
use distci_model::build::Cause;
use distci_model::config::{JobConfig, PollTrigger, Trigger};
use distci_model::errand::{Errand, Found, MAX_DETAIL, Poll, Setback, What, shorten};
use distci_model::event::{Event, EventKind, Source, repository_name};
use distci_model::id::{JobId, JobKey, RequestId, TicketKey};
use distci_model::ticket::Ticket;
use distci_model::wire::PollView;

use super::{Step, due};
use crate::builds::{Post, check_parameters};
use crate::error::StoreError;
use crate::events::filled;
use crate::jobs::Job;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Read, Transaction, Tried};

/// The polls of a job: the marks of its triggers, and the revision that brought each.
pub(crate) type Polls = BTreeMap<String, u32>;

/// Where the errand of a trigger is. One that was taken away and comes again is another.
pub(crate) fn poll_key(job: &JobKey, mark: &str, since: u32) -> TicketKey {
    TicketKey::errand(&format!("poll {job} {mark} {since}"))
}

/// The polls that a configuration wants; of two that look at the same, the first counts.
fn triggers(config: &JobConfig) -> impl Iterator<Item = &PollTrigger> {
    let mut seen = BTreeSet::new();
    let polls = config.triggers.iter().filter_map(|trigger| match trigger {
        Trigger::Poll(poll) => Some(poll),
        Trigger::Event(_) | Trigger::Schedule(_) => None,
    });
    polls.filter(move |poll| seen.insert(poll.mark()))
}

impl Store {
    /// The polls that a job has with `config`, which becomes its revision `revision`: each as old as
    /// it is.
    pub(crate) fn polls_of(config: &JobConfig, known: &Polls, revision: u32) -> Polls {
        let since = |mark: &String| known.get(mark).copied().unwrap_or(revision);
        triggers(config)
            .map(PollTrigger::mark)
            .map(|mark| (mark.clone(), since(&mark)))
            .collect()
    }

    /// Adds to a commit that the polls of a job are these from now on.
    pub(crate) async fn change_polls(
        &self,
        transaction: &mut Transaction,
        key: &JobKey,
        (before, after): (&Polls, &Polls),
        config: Option<(&JobConfig, Timestamp)>,
    ) -> Result<(), StoreError> {
        for (mark, since) in before.iter().filter(|poll| !after.contains_key(poll.0)) {
            let errand = poll_key(key, mark, *since);
            if let Some(before) = self.errand(&errand).await? {
                transaction.remove(&errand, &before);
            }
        }
        let Some((config, at)) = config else {
            return Ok(());
        };
        for trigger in triggers(config) {
            let mark = trigger.mark();
            if before.contains_key(&mark) {
                continue;
            }
            let Some(since) = after.get(&mark) else {
                continue;
            };
            let errand = poll_key(key, &mark, *since);
            let what = What::Poll(Poll {
                job: config.job_id.clone(),
                trigger: mark,
                every: trigger.every(),
                heads: None,
                looked: None,
            });
            self.ensure_class(&what.requires()).await?;
            transaction.post(&errand, &Errand::new(key, what, at))?;
        }
        Ok(())
    }

    /// The job of a poll and its trigger, as they are now; `None` if either is gone.
    pub(super) async fn poll_trigger(
        &self,
        ticket: &Ticket,
        poll: &Poll,
    ) -> Result<Option<((Job, Arc<JobConfig>), PollTrigger)>, StoreError> {
        let job = match self.read_job(&poll.job).await {
            Ok(job) if job.key == ticket.job => job,
            Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let config = self.config(&job.key, &job.node.record.config).await?;
        let trigger = triggers(&config).find(|trigger| trigger.mark() == poll.trigger);
        let trigger = trigger.cloned();
        Ok(trigger.map(|trigger| ((job, config), trigger)))
    }

    /// Takes notice of a commit that was found, and posts its build unless there is one: both or
    /// neither.
    pub(super) async fn note_found(
        &self,
        key: &TicketKey,
        before: &Read<Errand>,
        (job, trigger, found): ((Job, Arc<JobConfig>), &PollTrigger, &Found),
        at: Timestamp,
    ) -> Result<Tried<Step>, StoreError> {
        let (job, config) = job;
        let _turn = self.turns.take(&job.id).await;
        let mut noted = before.record.clone();
        if let What::Poll(poll) = &mut noted.what {
            poll.note(found);
        }
        let told = event(trigger, found);
        let request = RequestId::derive(&format!(
            "poll of {} finds {} at {}",
            job.key, found.reference, found.sha
        ));
        let numbers = &job.numbers.record;
        let built = numbers
            .built(&told)
            .or_else(|| numbers.taken(&keys::request_mark(&request)));
        let mut transaction = Transaction::default();
        match parameters(&config, trigger, &told) {
            _ if built.is_some() => {}
            Ok(parameters) => {
                let cause = Cause::Event {
                    told: Box::new(told),
                };
                let post = Post {
                    request,
                    parameters,
                    cause,
                    depth: 0,
                    resumed: None,
                    at,
                };
                self.post_in(&mut transaction, job, &config, post).await?;
            }
            // Nobody but its owner can mend that, and the other commits must not wait for it.
            Err(why) => {
                let detail = format!("{} is not built: {why}", found.reference);
                let detail = shorten(&detail, MAX_DETAIL);
                noted.setback = Some(Setback { detail, at });
            }
        }
        transaction.replace(key, before, &noted)?;
        let committed = transaction.commit(&*self.coordination).await?;
        Ok(committed.map_or(Tried::Again, |_| Tried::Done(Step::Noted)))
    }

    /// The repositories that are looked at for a job.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job.
    pub async fn polls(&self, id: &JobId) -> Result<Vec<PollView>, StoreError> {
        let job = self.read_job(id).await?;
        let config = self.config(&job.key, &job.node.record.config).await?;
        let mut views = Vec::new();
        for trigger in triggers(&config) {
            let mark = trigger.mark();
            let Some(since) = job.node.record.polls.get(&mark) else {
                continue;
            };
            let errand = self.errand(&poll_key(&job.key, &mark, *since)).await?;
            let Some(Errand {
                ticket,
                setback,
                what: What::Poll(poll),
                ..
            }) = errand.map(|errand| errand.record)
            else {
                continue;
            };
            views.push(PollView {
                repository: trigger.repository.clone(),
                refs: trigger.refs.clone(),
                every: trigger.every().to_string(),
                heads: poll.heads.unwrap_or_default(),
                looked: poll.looked,
                next: due(&ticket),
                setback,
            });
        }
        Ok(views)
    }
}

/// What a build is told of the commit that was found.
fn event(trigger: &PollTrigger, found: &Found) -> Event {
    let mut facts = BTreeMap::new();
    let mut tell = |name: &str, value: &str| {
        facts.insert(name.to_owned(), value.to_owned());
    };
    tell("repository", &repository_name(&trigger.repository));
    tell("clone_url", &trigger.repository);
    tell("ref", &found.reference);
    tell("sha", &found.sha);
    if let Some(branch) = found.reference.strip_prefix("refs/heads/") {
        tell("branch", branch);
    }
    if let Some(tag) = found.reference.strip_prefix("refs/tags/") {
        tell("tag", tag);
    }
    match &found.before {
        Some(before) => tell("before", before),
        None => tell("created", "true"),
    }
    Event {
        source: Source::Own,
        kind: EventKind::Poll,
        delivery: None,
        facts,
        paths: None,
        labels: Vec::new(),
    }
}

fn parameters(
    config: &JobConfig,
    trigger: &PollTrigger,
    told: &Event,
) -> Result<BTreeMap<String, String>, String> {
    check_parameters(config, &filled(&trigger.parameters, told)?)
}
