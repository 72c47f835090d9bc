//! Clients that ask for builds all the time, whatever happens to the cluster.
//!
//! Owns how a client behaves: it asks with a request id of its own, asks other frontends the same
//! again, watches its build to the end, and goes on. Everything is noted in the [`Book`].

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;
use distci_client::{Client, ClientError, new_request_id};
use distci_model::id::BuildRef;
use distci_model::wire::TriggerRequest;
use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::book::Book;
use crate::jobs::{Jobs, Theme};

/// How long one look at a build waits for it to change.
const LOOK: Duration = Duration::from_secs(10);
/// How long a frontend that is asked a second time may take; it may be the one that is hurt.
const SECOND: Duration = Duration::from_secs(3);
/// Between two tries when nobody answers.
const AGAIN: Duration = Duration::from_millis(250);
/// A client rests at most so many milliseconds before it asks for the next build.
const REST: u64 = 2000;
/// A build that is to be cancelled is left alone at most so many milliseconds.
const WHIM: u64 = 8000;

/// The ways into a cluster.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Through all frontends: the next is tried when one does not answer.
    pub any: Client,
    /// Through each frontend alone.
    pub each: Vec<Client>,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) doors: Doors,
    pub(crate) jobs: Jobs,
    pub(crate) book: Book,
    pub(crate) chance: RefCell<Rng>,
    pub(crate) deck: RefCell<Vec<Theme>>,
}

impl Workload {
    /// Sets the jobs, which must be new.
    pub(crate) async fn set(&self) -> Result<()> {
        for theme in Theme::ALL {
            let file = self.jobs.file(theme);
            let set = self.doors.any.set_job(self.jobs.name(theme), file, Some(0));
            set.await?;
        }
        Ok(())
    }

    /// Asks for one build after the other until told to stop, and sees each to its end.
    pub(crate) async fn ask_on(&self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let theme = self.next();
            if let Some(build) = self.ask(theme).await {
                if theme == Theme::Cancelled {
                    self.cancel(&build).await;
                }
                self.see_end(&build, &stop).await;
            }
            let rest = self.chance.borrow_mut().u64(..REST);
            sleep(Duration::from_millis(rest)).await;
        }
    }

    /// What to ask for next: all themes in an order drawn from the seed, before any comes again.
    fn next(&self) -> Theme {
        let mut deck = self.deck.borrow_mut();
        if deck.is_empty() {
            deck.extend(Theme::ASKED);
            self.chance.borrow_mut().shuffle(&mut deck);
        }
        deck.pop().unwrap_or(Theme::Single)
    }

    /// Asks for a build, at any frontend and then at every other; gives it once it is acknowledged.
    pub(crate) async fn ask(&self, theme: Theme) -> Option<BuildRef> {
        let (job, wish) = (self.jobs.name(theme), TriggerRequest::default());
        let request = match new_request_id() {
            Ok(request) => request,
            Err(error) => {
                self.book.refused(format!("no request id: {error}"));
                return None;
            }
        };
        self.book.asked(&request, job, theme.must());
        let since = Instant::now();
        let build = match self.doors.any.trigger(job, &wish, &request).await {
            Ok(answer) => answer.build()?,
            Err(error) => {
                self.note(&error, &format!("{job} was asked for"));
                return None;
            }
        };
        self.book.waited(since.elapsed());
        self.book.answered(&request, build.clone());
        for door in &self.doors.each {
            let again = door.clone().with_deadline(SECOND);
            match timeout(SECOND, again.trigger(job, &wish, &request)).await {
                Ok(Ok(answer)) => {
                    if let Some(again) = answer.build() {
                        self.book.answered(&request, again);
                    }
                }
                Ok(Err(error)) => self.note(&error, &format!("{build} was asked for again")),
                Err(_) => {}
            }
        }
        Some(build)
    }

    /// Asks a build to stop, after a while.
    async fn cancel(&self, build: &BuildRef) {
        let whim = self.chance.borrow_mut().u64(..WHIM);
        sleep(Duration::from_millis(whim)).await;
        if let Err(error) = self.doors.any.cancel(build).await {
            self.note(&error, &format!("{build} was to be cancelled"));
        }
    }

    /// Watches a build until it is over, or until nobody asks for builds any more.
    pub(crate) async fn see_end(&self, build: &BuildRef, stop: &watch::Receiver<bool>) {
        let mut seen: Option<String> = None;
        loop {
            let look = self.doors.any.watch_build(build, seen.as_deref(), LOOK);
            match look.await {
                Ok(watched) => {
                    self.book.saw(&watched.view);
                    if watched.view.outcome.is_some() {
                        return;
                    }
                    seen = Some(watched.etag);
                }
                Err(error) => {
                    self.note(&error, &format!("{build} was looked at"));
                    sleep(AGAIN).await;
                }
            }
            if *stop.borrow() {
                return;
            }
        }
    }

    /// That nobody answered is what a drill is for. Every other error is a wrong answer.
    fn note(&self, error: &ClientError, when: &str) {
        if !error.is_passing() {
            self.book.refused(format!("when {when}: {error}"));
        }
    }
}
