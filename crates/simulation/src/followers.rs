//! Those who follow builds and their consoles while these grow.
//!
//! Owns what each of them saw. Never asks for a build. Whatever was seen has to be true in the end: an
//! outcome is final, and a console only grows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use distci_client::{Client, ClientError, ConsoleFrom};
use distci_model::id::{Attempt, BuildRef, TaskName};
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildView, TaskState};
use distci_store::coordination::simulator::Dice;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::scene::Scene;

/// How long a look waits for news.
const WAIT: Duration = Duration::from_secs(20);
/// How long after everything is over somebody may still wait for an end.
const LATE: Duration = Duration::from_secs(90);
/// Between two builds.
const PAUSE: Duration = Duration::from_millis(700);

/// What was seen of a build while it ran.
pub(crate) struct Followed {
    pub(crate) build: BuildRef,
    pub(crate) outcome: Outcome,
    pub(crate) consoles: Consoles,
}

/// What was read of each attempt.
pub(crate) type Consoles = BTreeMap<(TaskName, Attempt), Vec<u8>>;

/// One who follows builds, one after the other.
pub(crate) struct Follower {
    name: String,
    client: Client,
    scene: Arc<Scene>,
    dice: Dice,
    known: BTreeSet<BuildRef>,
}

impl Follower {
    /// # Errors
    /// Nobody can be a client of these frontends.
    pub(crate) fn new(name: String, scene: Arc<Scene>, dice: Dice) -> Result<Self, ClientError> {
        Ok(Self {
            client: scene.client(&name)?,
            name,
            scene,
            dice,
            known: BTreeSet::new(),
        })
    }

    /// Follows builds until all is `over`.
    pub(crate) async fn live(mut self, over: CancellationToken) {
        while !over.is_cancelled() {
            let Some(build) = self.choose() else {
                sleep(PAUSE).await;
                continue;
            };
            let too_late = async {
                over.cancelled().await;
                sleep(LATE).await;
            };
            tokio::select! {
                biased;
                followed = self.follow(&build) => self.scene.notes().followed.extend(followed),
                () = too_late => {
                    let what = format!("{} follows {build} in vain", self.name);
                    self.scene.flaw(what);
                }
            }
        }
    }

    fn choose(&mut self) -> Option<BuildRef> {
        let builds: BTreeSet<BuildRef> = {
            let notes = self.scene.notes();
            let posts = notes.posts.values();
            posts.flat_map(|post| post.answers.clone()).collect()
        };
        let fresh: Vec<_> = builds.difference(&self.known).cloned().collect();
        let build = self.dice.pick(&fresh).cloned()?;
        self.known.insert(build.clone());
        Some(build)
    }

    /// Follows a build to its end; nothing if it is not there.
    async fn follow(&self, build: &BuildRef) -> Option<Followed> {
        let (mut seen, mut consoles) = (None, Consoles::new());
        loop {
            let watched = self.client.watch_build(build, seen.as_deref(), WAIT).await;
            let watched = match watched {
                Ok(watched) => watched,
                Err(error) if error.is_passing() => continue,
                Err(error) => {
                    self.scene.flaw(format!("{}: {build}: {error}", self.name));
                    return None;
                }
            };
            self.read(&watched.view, &mut consoles).await;
            if let Some(outcome) = watched.view.outcome {
                let told = format!("sees the end of {build}: {outcome}");
                self.scene.story.tell(&self.name, told);
                let build = build.clone();
                return Some(Followed {
                    build,
                    outcome,
                    consoles,
                });
            }
            seen = Some(watched.etag);
        }
    }

    /// Reads on in the consoles of the attempts that are shown.
    async fn read(&self, view: &BuildView, consoles: &mut Consoles) {
        for task in &view.tasks {
            let attempt = match &task.state {
                TaskState::Running { attempt, .. } => *attempt,
                TaskState::Finished { run } if run.build.is_none() && run.worker.is_some() => {
                    run.attempt
                }
                _ => continue,
            };
            let read = consoles.entry((task.name.clone(), attempt)).or_default();
            let from = ConsoleFrom {
                attempt: Some(attempt),
                offset: read.len() as u64,
            };
            let console = self
                .client
                .console(&view.build, &task.name, from, Duration::ZERO);
            match console.await {
                Ok(chunk) => read.extend_from_slice(&chunk.bytes),
                Err(error) if error.is_passing() => {}
                Err(error) => {
                    let (name, build, task) = (&self.name, &view.build, &task.name);
                    self.scene.flaw(format!("{name}: {build} {task}: {error}"));
                }
            }
        }
    }
}
