//! What everybody in a run shares: time, network, jobs, and the notes that the judge reads.
//!
//! Owns the notes. What is noted is what its author knows by himself: what a task did, what a client
//! was answered. Never what the cluster says of somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use distci_checker::history::{Post, Work};
use distci_client::{Client, ClientError, Token};
use distci_model::id::{BuildRef, RequestId};
use distci_model::wire::Held;

use crate::clock::Time;
use crate::followers::Followed;
use crate::frontends::TOKEN;
use crate::jobs::Jobs;
use crate::network::Network;
use crate::story::Story;

/// What everybody shares.
pub(crate) struct Scene {
    pub(crate) time: Time,
    pub(crate) story: Story,
    pub(crate) network: Network,
    pub(crate) jobs: Jobs,
    /// The addresses of the frontends.
    pub(crate) frontends: Vec<String>,
    notes: Mutex<Notes>,
}

/// What was noted.
#[derive(Default)]
pub(crate) struct Notes {
    /// What was asked for.
    pub(crate) posts: BTreeMap<RequestId, Post>,
    /// The attempts, each with the path that its result is told under.
    pub(crate) works: Vec<(String, Work)>,
    /// The builds that somebody wanted to be cancelled.
    pub(crate) cancelled: BTreeSet<BuildRef>,
    /// What was seen of builds while they ran.
    pub(crate) followed: Vec<Followed>,
    /// What must not be, whatever happens.
    pub(crate) flaws: Vec<String>,
}

impl Scene {
    pub(crate) fn new(
        (time, story): (Time, Story),
        network: Network,
        jobs: Jobs,
        frontends: Vec<String>,
    ) -> Self {
        Self {
            time,
            story,
            network,
            jobs,
            frontends,
            notes: Mutex::default(),
        }
    }

    /// A client of all frontends, by whose name the network knows it.
    ///
    /// # Errors
    /// Nobody can be a client of these.
    pub(crate) fn client(&self, name: &str) -> Result<Client, ClientError> {
        let token: Option<Token> = TOKEN.parse().ok();
        Client::through(self.network.way(name), self.frontends.clone(), token)
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what must not be.
    pub(crate) fn flaw(&self, what: String) {
        self.story.tell("flaw", &what);
        self.notes().flaws.push(what);
    }

    /// Notes that an attempt begins; gives the place of the note.
    pub(crate) fn begin(&self, held: &Held, work: Work) -> usize {
        let path = format!("/api/v1/tickets/{}/{}/complete", held.ticket, held.attempt);
        let mut notes = self.notes();
        notes.works.push((path, work));
        notes.works.len() - 1
    }

    /// Notes how an attempt has ended.
    pub(crate) fn end(&self, place: usize, change: impl FnOnce(&mut Work)) {
        let now = self.time.now();
        if let Some((_, work)) = self.notes().works.get_mut(place) {
            work.ended = Some(now);
            change(work);
        }
    }
}
