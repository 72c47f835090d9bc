//! The people of a run: they ask for builds, again if they got no answer, and cancel some.
//!
//! Owns who asks for what, when. Never waits for a build: the judge does.

use std::sync::Arc;
use std::time::Duration;

use distci_checker::history::Post;
use distci_client::{Client, ClientError};
use distci_model::id::{BuildRef, JobId, RequestId};
use distci_model::wire::{RerunRequest, TriggerRequest, Triggered};
use distci_store::coordination::simulator::Dice;
use tokio::time::{sleep, timeout};

use crate::scene::Scene;

/// How long somebody waits before he does something more, in milliseconds.
const PAUSE: usize = 30_000;

/// One of the people.
pub(crate) struct Person {
    name: String,
    client: Client,
    scene: Arc<Scene>,
    dice: Dice,
    mine: Vec<BuildRef>,
}

impl Person {
    /// # Errors
    /// Nobody can be a client of these frontends.
    pub(crate) fn new(name: String, scene: Arc<Scene>, dice: Dice) -> Result<Self, ClientError> {
        Ok(Self {
            client: scene.client(&name)?,
            name,
            scene,
            dice,
            mine: Vec::new(),
        })
    }

    /// Does so many things, and has an answer to each.
    pub(crate) async fn live(mut self, deeds: usize) {
        let jobs = self.scene.jobs.asked_for();
        for _ in 0..deeds {
            sleep(Duration::from_millis(self.dice.below(PAUSE) as u64)).await;
            let Some(job) = self.dice.pick(&jobs).cloned() else {
                return;
            };
            match self.dice.below(10) {
                0 => self.cancel().await,
                1 => self.rerun().await,
                _ => self.ask(&job).await,
            }
        }
    }

    /// Asks for a build, and now and then once more with the same request.
    async fn ask(&mut self, job: &JobId) {
        let request = self.dice.request();
        self.note(&request, job);
        for _ in 0..=self.dice.below(3) / 2 {
            let wish = TriggerRequest::default();
            let asking = self.persist(async |client| client.trigger(job, &wish, &request).await);
            let patience = self.patience();
            match timeout(patience, asking).await {
                Ok(answer) => self.take(&request, job, answer),
                // Whoever gives up, or dies, has no answer, and never asks again.
                Err(_) => return self.tell(format_args!("gives up on a build of {job}")),
            }
        }
    }

    /// How long somebody waits for an answer: mostly for ever.
    fn patience(&self) -> Duration {
        let mut dice = self.dice.clone();
        if dice.chance(15) {
            return Duration::from_millis(dice.below(2000) as u64);
        }
        Duration::from_hours(1)
    }

    /// Asks to run a build of his own again.
    async fn rerun(&mut self) {
        let Some(build) = self.dice.pick(&self.mine).cloned() else {
            return;
        };
        let request = self.dice.request();
        self.note(&request, &build.job);
        let failed = self.dice.chance(50);
        let wish = RerunRequest { failed, from: None };
        let asking = self.persist(async |client| client.rerun(&build, &wish, &request).await);
        match asking.await {
            // It is not over yet, or there is nothing to repeat.
            Err(ClientError::Conflict(why) | ClientError::Refused(why)) => {
                self.tell(format_args!("{build} is not run again: {}", why.detail));
            }
            answer => self.take(&request, &build.job, answer),
        }
    }

    async fn cancel(&mut self) {
        let Some(build) = self.dice.pick(&self.mine).cloned() else {
            return;
        };
        self.scene.notes().cancelled.insert(build.clone());
        self.tell(format_args!("cancels {build}"));
        let asking = self.persist(async |client| client.cancel(&build).await);
        if let Err(error) = asking.await {
            self.refused(&format!("{build} is not cancelled"), &error);
        }
    }

    /// Repeats a call until there is an answer. Whoever means it goes on asking.
    async fn persist<T>(
        &self,
        call: impl AsyncFn(&Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        loop {
            match call(&self.client).await {
                Err(error) if error.is_passing() => self.tell(error),
                answer => return answer,
            }
        }
    }

    fn note(&self, request: &RequestId, job: &JobId) {
        let post = Post {
            request: request.clone(),
            job: job.clone(),
            answers: Vec::new(),
            must: None,
        };
        self.scene.notes().posts.insert(request.clone(), post);
    }

    fn take(&mut self, request: &RequestId, job: &JobId, answer: Result<Triggered, ClientError>) {
        let build = match answer.map(Triggered::build) {
            Ok(Some(build)) => build,
            Ok(None) => return self.tell(format_args!("{job}: there is no room")),
            Err(error) => return self.refused(&format!("no build of {job}"), &error),
        };
        self.tell(format_args!("has asked for {build}"));
        if let Some(post) = self.scene.notes().posts.get_mut(request) {
            post.answers.push(build.clone());
        }
        self.mine.push(build);
    }

    /// Nothing else that people ask for here may be refused.
    fn refused(&self, what: &str, error: &ClientError) {
        self.scene.flaw(format!("{}: {what}: {error}", self.name));
    }

    fn tell(&self, what: impl std::fmt::Display) {
        self.scene.story.tell(&self.name, what);
    }
}
