//! Who hurts the cluster: kills, pauses, cuts off, and in the end puts everything right.
//!
//! Owns which fault comes when, and how long each lasts. Never touches what a store has acknowledged:
//! there is no fault after which anything may be lost.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use distci_store::coordination::simulator::{Dice, Faults, PerMille, Simulator};
use futures::future::join_all;
use tokio::time::sleep;

use crate::blobs::Mood;
use crate::frontends::{Frontends, address};
use crate::network::Weather;
use crate::scene::Scene;
use crate::worker::Worker;

/// How long a worker may be kept from its work.
const AWAY: usize = 45;

/// Who hurts the cluster.
pub(crate) struct Nemesis<'a> {
    /// Who is hurt already: one thing at a time is done to each.
    pub(crate) hurt: Mutex<BTreeSet<String>>,
    pub(crate) scene: &'a Arc<Scene>,
    pub(crate) frontends: &'a Frontends,
    pub(crate) workers: &'a [Worker],
    pub(crate) simulator: &'a Simulator,
    pub(crate) mood: &'a Mood,
}

/// What is done to the cluster.
#[derive(Debug, Clone, Copy)]
enum Deed {
    KillFrontend,
    StopFrontend,
    PauseFrontend,
    CutOffFrontend,
    Blink,
    SetClock,
    KillWorker,
    StopWorker,
    PauseWorker,
    CutWorker,
    Isolate,
    StoreDown,
    StoreFull,
    BlobsAway,
    KillAll,
}

/// All of it, what is to come more often several times.
const DEEDS: [Deed; 23] = [
    Deed::KillFrontend,
    Deed::KillFrontend,
    Deed::StopFrontend,
    Deed::PauseFrontend,
    Deed::PauseFrontend,
    Deed::CutOffFrontend,
    Deed::CutOffFrontend,
    Deed::Blink,
    Deed::SetClock,
    Deed::KillWorker,
    Deed::KillWorker,
    Deed::KillWorker,
    Deed::StopWorker,
    Deed::PauseWorker,
    Deed::PauseWorker,
    Deed::CutWorker,
    Deed::CutWorker,
    Deed::Isolate,
    Deed::StoreDown,
    Deed::StoreFull,
    Deed::BlobsAway,
    Deed::BlobsAway,
    Deed::KillAll,
];

impl Nemesis<'_> {
    /// Does so many deeds within `time`, side by side.
    ///
    /// # Errors
    /// A worker cannot be started again.
    pub(crate) async fn rage(&self, mut dice: Dice, deeds: usize, time: Duration) -> Result<()> {
        self.weather(&mut dice);
        let millis = usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
        let deeds = (0..deeds).map(|_| {
            let after = Duration::from_millis(dice.below(millis) as u64);
            let (deed, dice) = (DEEDS[dice.below(DEEDS.len())], dice.split());
            async move {
                sleep(after).await;
                self.hurt(deed, dice).await
            }
        });
        let deeds: Vec<_> = deeds.collect();
        join_all(deeds).await.into_iter().collect()
    }

    /// Puts everything right.
    ///
    /// # Errors
    /// A worker cannot be started again.
    pub(crate) fn heal(&self) -> Result<()> {
        self.scene.network.set_weather(Weather::default());
        self.simulator.set_faults(Faults::none());
        self.mood.set_failures(PerMille(0));
        self.simulator.settle();
        self.frontends.start_all();
        for worker in self.workers {
            worker.start()?;
        }
        self.scene.story.tell("nemesis", "puts everything right");
        Ok(())
    }

    /// How much is lost all the time; nothing in some runs.
    fn weather(&self, dice: &mut Dice) {
        let mut odds = |most: usize| {
            let calm = dice.chance(25);
            let drawn = if calm { 0 } else { dice.below(most) };
            PerMille(u16::try_from(drawn).unwrap_or(0))
        };
        let weather = Weather {
            lost_before: odds(40),
            lost_after: odds(40),
            twice: odds(40),
            slow: odds(30),
        };
        let faults = Faults {
            lost_before: odds(20),
            lost_after: odds(30),
            missed_events: odds(10),
            lag: odds(400),
            expiry: PerMille(0),
            delay: odds(200),
        };
        self.scene
            .story
            .tell("nemesis", format_args!("{weather:?}"));
        self.scene.story.tell("nemesis", format_args!("{faults:?}"));
        self.scene.network.set_weather(weather);
        self.simulator.set_faults(faults);
        self.mood.set_failures(odds(20));
    }

    /// Does a deed, unless those whom it is for are hurt already.
    async fn hurt(&self, deed: Deed, mut dice: Dice) -> Result<()> {
        let time = Duration::from_millis(500 + dice.below(AWAY * 1000) as u64);
        let victims = self.victims(deed, &mut dice);
        if !self.seize(&victims) {
            return Ok(());
        }
        let done = match deed {
            Deed::KillWorker | Deed::StopWorker | Deed::PauseWorker | Deed::CutWorker => {
                let mut workers = self.workers.iter();
                match workers.find(|worker| victims.contains(&worker.name.to_string())) {
                    Some(worker) => self.hurt_worker(deed, worker, time).await,
                    None => Ok(()),
                }
            }
            Deed::StoreFull => {
                self.fill(time / 2).await;
                Ok(())
            }
            Deed::BlobsAway => {
                self.take_blobs(time / 2).await;
                Ok(())
            }
            _ => {
                let all = victims.iter();
                join_all(all.map(|name| self.hurt_frontend(deed, name, time))).await;
                Ok(())
            }
        };
        let mut hurt = self.victims_now();
        hurt.retain(|name| !victims.contains(name));
        done
    }

    fn victims(&self, deed: Deed, dice: &mut Dice) -> Vec<String> {
        match deed {
            Deed::KillWorker | Deed::StopWorker | Deed::PauseWorker | Deed::CutWorker => {
                let worker = dice.pick(self.workers);
                worker.map(|it| it.name.to_string()).into_iter().collect()
            }
            Deed::StoreFull => vec!["store".to_owned()],
            Deed::BlobsAway => vec!["blobs".to_owned()],
            Deed::StoreDown | Deed::KillAll => self.frontends.names().to_vec(),
            _ => dice
                .pick(self.frontends.names())
                .cloned()
                .into_iter()
                .collect(),
        }
    }

    fn seize(&self, victims: &[String]) -> bool {
        let mut hurt = self.victims_now();
        let free = victims.iter().all(|name| !hurt.contains(name));
        if free {
            hurt.extend(victims.iter().cloned());
        }
        free
    }

    fn victims_now(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.hurt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hurt_frontend(&self, deed: Deed, name: &str, time: Duration) {
        match deed {
            Deed::StopFrontend => {
                self.frontends.stop(name).await;
                sleep(time / 2).await;
                self.frontends.start(name);
            }
            Deed::PauseFrontend => self.frontends.pause(name, time).await,
            Deed::CutOffFrontend => self.frontends.cut_off(name, time).await,
            Deed::StoreDown => self.frontends.cut_off(name, time / 2).await,
            Deed::Blink => self.frontends.blink(name),
            Deed::SetClock => {
                let wrong = i64::try_from(time.as_millis()).unwrap_or_default() % 7200;
                self.frontends.set_clock(name, wrong - 3600);
            }
            Deed::Isolate => self.isolate(name, time / 2).await,
            _ => self.restart(name, time / 3).await,
        }
    }

    async fn hurt_worker(&self, deed: Deed, worker: &Worker, time: Duration) -> Result<()> {
        match deed {
            Deed::StopWorker => {
                worker.stop().await;
                sleep(time / 4).await;
                worker.start()?;
            }
            Deed::PauseWorker => worker.pause(time).await,
            Deed::CutWorker => self.cut(worker.name.as_str(), time).await,
            _ => {
                worker.kill();
                sleep(time / 4).await;
                worker.start()?;
            }
        }
        Ok(())
    }

    /// Leaves no room on the store's disk for `time`.
    async fn fill(&self, time: Duration) {
        let story = &self.scene.story;
        story.tell("store", format_args!("is full for {time:.1?}"));
        self.simulator.set_full(true);
        sleep(time).await;
        self.simulator.set_full(false);
        story.tell("store", "has room again");
    }

    /// Takes the blobs out of everybody's reach for `time`.
    async fn take_blobs(&self, time: Duration) {
        let story = &self.scene.story;
        story.tell("blobs", format_args!("are out of reach for {time:.1?}"));
        self.mood.set_away(true);
        sleep(time).await;
        self.mood.set_away(false);
        story.tell("blobs", "are in reach again");
    }

    async fn restart(&self, frontend: &str, after: Duration) {
        self.frontends.kill(frontend);
        sleep(after).await;
        self.frontends.start(frontend);
    }

    /// Cuts a client off from all frontends.
    async fn cut(&self, client: &str, time: Duration) {
        let story = &self.scene.story;
        story.tell(client, format_args!("is cut off for {time:.1?}"));
        for frontend in self.frontends.names() {
            self.scene.network.cut(client, &address(frontend));
        }
        sleep(time).await;
        for frontend in self.frontends.names() {
            self.scene.network.mend(client, &address(frontend));
        }
        story.tell(client, "is connected again");
    }

    /// Cuts a frontend off from all workers, but not from the store.
    async fn isolate(&self, frontend: &str, time: Duration) {
        let story = &self.scene.story;
        story.tell(
            frontend,
            format_args!("is out of workers' reach for {time:.1?}"),
        );
        for worker in self.workers {
            self.scene
                .network
                .cut(worker.name.as_str(), &address(frontend));
        }
        sleep(time).await;
        for worker in self.workers {
            self.scene
                .network
                .mend(worker.name.as_str(), &address(frontend));
        }
        story.tell(frontend, "is in their reach again");
    }
}
