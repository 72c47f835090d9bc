//! One run: a cluster is built, used, hurt, healed and judged.
//!
//! Owns the order of these, and the thread in which all of it happens. Everything that is left to
//! chance comes from the seed, and time passes only when nobody has anything to do.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use distci_checker::Verdict;
use distci_model::Timestamp;
use distci_store::Store;
use distci_store::coordination::simulator::{Defect, Dice, Faults, Simulator};
use futures::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::blobs::Mood;
use crate::clock::Time;
use crate::followers::Follower;
use crate::frontends::{Frontends, Surroundings};
use crate::jobs::{CRON, Jobs};
use crate::nemesis::Nemesis;
use crate::network::Network;
use crate::people::Person;
use crate::scene::Scene;
use crate::story::Story;
use crate::verdict::{Counts, Judge};
use crate::worker::{Slots, Worker};

/// By then every frontend knows what time it is.
const SETTLED: Duration = Duration::from_secs(3);
/// What a moment of a schedule may be late when all is well.
const LATE: Duration = Duration::from_secs(20);

/// What came of a run.
pub struct Outcome {
    /// What is said of it.
    pub verdict: Verdict,
    /// What happened, line by line.
    pub story: String,
    /// How long it was, in simulated time.
    pub lasted: Duration,
    counts: Counts,
    digest: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            builds,
            foretold,
            attempts,
            lost,
        } = self.counts;
        let (seconds, digest) = (self.lasted.as_secs(), &self.digest);
        write!(
            f,
            "builds={builds} foretold={foretold} attempts={attempts} lost={lost} \
             seconds={seconds} digest={digest}"
        )
    }
}

/// Does the run of a seed, on a store with a defect if one is wanted.
///
/// # Errors
/// The simulation itself does not work.
pub fn run(seed: u64, defect: Option<Defect>) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(async {
        let mut dice = Dice::new(seed);
        let cluster = Cluster::build(seed, &mut dice).await?;
        if let Some(defect) = defect {
            cluster.simulator.set_defect(defect);
        }
        cluster.live(&mut dice).await
    })
}

struct Cluster {
    simulator: Arc<Simulator>,
    mood: Mood,
    scene: Arc<Scene>,
    frontends: Frontends,
    workers: Vec<Worker>,
    judge: Judge,
}

impl Cluster {
    async fn build(seed: u64, dice: &mut Dice) -> Result<Self> {
        let time = Time::start();
        let story = Story::new(time);
        let simulator = Simulator::new(dice.draw(), Faults::none(), time.clock());
        let mood = Mood::new(dice.split());
        let around = Surroundings {
            simulator: Arc::new(simulator),
            blobs: mood.blobs(),
            network: Network::new(dice.split()),
            time,
            story: story.clone(),
        };
        let (simulator, network) = (Arc::clone(&around.simulator), around.network.clone());
        let own = Store::new(Arc::new(simulator.session()), around.blobs.clone());
        own.prepare(time.now()).await?;
        let frontends = Frontends::new(around, 1 + dice.below(4), dice.split());
        let jobs = Jobs::of(seed)?;
        let scene = Scene::new((time, story), network, jobs, frontends.addresses());
        let scene = Arc::new(scene);
        let mut workers = Vec::new();
        for number in 0..2 + dice.below(3) {
            let name = format!("w{number}").parse()?;
            let slots = Slots {
                tasks: 1 + dice.below(2),
                control: 1 + dice.below(2),
            };
            workers.push(Worker::new(name, slots, Arc::clone(&scene), dice.split()));
        }
        let judge = Judge {
            client: scene.client("judge")?,
            scene: Arc::clone(&scene),
            store: own,
        };
        Ok(Self {
            simulator,
            mood,
            scene,
            frontends,
            workers,
            judge,
        })
    }

    async fn live(self, dice: &mut Dice) -> Result<Outcome> {
        let scheduled = self.open().await?;
        let nemesis = Nemesis {
            hurt: Mutex::default(),
            scene: &self.scene,
            frontends: &self.frontends,
            workers: &self.workers,
            simulator: &self.simulator,
            mood: &self.mood,
        };
        let (mut people, mut followers) = (Vec::new(), Vec::new());
        let over = CancellationToken::new();
        for number in 0..=dice.below(3) {
            let (name, scene) = (format!("p{number}"), Arc::clone(&self.scene));
            let person = Person::new(name, scene, dice.split())?;
            people.push(person.live(2 + dice.below(6)));
            let (name, scene) = (format!("r{number}"), Arc::clone(&self.scene));
            let follower = Follower::new(name, scene, dice.split())?;
            followers.push(follower.live(over.clone()));
        }
        let length = Duration::from_secs(60 + dice.below(120) as u64);
        let rage = nemesis.rage(dice.split(), dice.below(16), length);
        let life = async {
            let (_, raged) = tokio::join!(join_all(people), rage);
            let until = match raged.and_then(|()| nemesis.heal()) {
                Ok(()) => self.calm_down().await,
                Err(error) => Err(error),
            };
            over.cancel();
            until
        };
        let (until, _) = tokio::join!(life, join_all(followers));
        let judgement = self.judge.judge((scheduled, until?)).await;
        let judgement = judgement.context("the last look")?;
        let story = self.scene.story.to_string();
        let all = format!("{story}{}", judgement.shown);
        Ok(Outcome {
            verdict: judgement.verdict,
            counts: judgement.counts,
            digest: blake3::hash(all.as_bytes()).to_hex()[..16].to_owned(),
            story,
            lasted: self.scene.time.passed(),
        })
    }

    /// Starts everything; gives from when the schedule stands.
    async fn open(&self) -> Result<Timestamp> {
        self.frontends.start_all();
        sleep(SETTLED).await;
        for (job, config) in self.scene.jobs.configs() {
            let text = serde_json::to_string(config)?;
            self.judge.client.set_job(job, text, None).await?;
        }
        for worker in &self.workers {
            worker.start()?;
        }
        Ok(self.scene.time.now())
    }

    /// Ends the schedule, and waits until nothing is to be done; gives until when the schedule stood.
    async fn calm_down(&self) -> Result<Timestamp> {
        sleep(LATE * 2).await;
        let until = self.scene.time.now().checked_sub(LATE)?;
        let quiet = serde_json::to_string(&self.scene.jobs.without_schedule()?)?;
        let cron = CRON.parse()?;
        self.judge.client.set_job(&cron, quiet, None).await?;
        self.judge.await_quiet().await?;
        Ok(until)
    }
}
