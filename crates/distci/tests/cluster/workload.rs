//! What the cluster is asked to do while it is hurt, and the book that is kept of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use distci_client::{Client, new_request_id};
use distci_model::id::BuildRef;
use distci_model::wire::{BuildView, REQUEST_ID_HEADER, TaskState, TriggerRequest};
use serde_json::json;

use crate::follower::{Follower, Transcript};
use crate::http::{Api, Request};
use crate::jobs::{DIAMOND, Job, REFUSING, ROW, SINGLE, common};
use crate::program::{eventually, within};

/// Between two triggers of one of those who ask all the time.
const PACE: Duration = Duration::from_secs(4);
/// Who ask for builds at once in a burst, and for how many each, one after the other.
const SIDES: usize = 12;
const BUILDS: usize = 3;
/// How long a frontend that is asked a second time may take; it may be the one that is hurt.
const SECOND: Duration = Duration::from_secs(3);

/// A trigger that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) job: &'static str,
    pub(crate) number: u64,
}

/// A console that was followed while it grew.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) job: &'static str,
    pub(crate) number: u64,
    pub(crate) task: &'static str,
    pub(crate) transcript: Transcript,
}

/// Everything that was asked for and acknowledged.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) api: Api,
    pub(crate) jobs: Vec<Job>,
    pub(crate) ledger: PathBuf,
    orders: Mutex<Vec<Order>>,
}

impl Workload {
    /// Sets the common jobs and these.
    pub(crate) fn begin(api: Api, dir: &Path, special: Vec<Job>) -> Result<Arc<Self>> {
        let ledger = dir.join("ledger");
        std::fs::create_dir_all(&ledger)?;
        let workload = Self {
            api,
            jobs: common().into_iter().chain(special).collect(),
            ledger,
            orders: Mutex::default(),
        };
        // The downstream ones first: a trigger may come at once.
        for job in workload.jobs.iter().rev() {
            let path = format!("/jobs/{}", job.name);
            let set = Request::send("PUT", &path, &job.json(&workload.ledger));
            let answer = workload.api.ask(&set)?;
            let status = answer.status;
            let said = answer.bytes()?;
            let said = String::from_utf8_lossy(&said);
            ensure!(status < 300, "{}: {status}: {said}", job.name);
        }
        Ok(Arc::new(workload))
    }

    /// What was acknowledged until now.
    pub(crate) fn orders(&self) -> Vec<Order> {
        let orders = self.orders.lock();
        orders.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, order: Order) {
        let orders = self.orders.lock();
        orders.unwrap_or_else(PoisonError::into_inner).push(order);
    }

    /// Asks for a build until it is acknowledged, then again at every other frontend, which have to
    /// give the same build or no answer.
    pub(crate) fn trigger(&self, job: &'static str) -> Result<u64> {
        let key = new_request_id()?;
        let path = format!("/jobs/{job}/builds");
        let request =
            Request::send("POST", &path, &json!({})).with(REQUEST_ID_HEADER, key.as_str());
        let first = self.api.ask(&request)?;
        ensure!(matches!(first.status, 200 | 201), "{job}: {}", first.status);
        let build: BuildRef = serde_json::from_slice(&first.bytes()?)?;
        let number = build.number.get();
        self.note(Order { job, number });
        for _ in 1..self.api.frontends() {
            let Ok(again) = self.api.once(self.api.turn(), &request, SECOND) else {
                continue;
            };
            let status = again.status;
            let Ok(said) = again.bytes() else { continue };
            if status >= 500 {
                continue;
            }
            let said = String::from_utf8_lossy(&said);
            ensure!(
                status == 200,
                "{job}#{number}, asked again: {status}: {said}"
            );
            let again: BuildRef = serde_json::from_str(&said)?;
            ensure!(again == build, "{build} became {again}");
        }
        Ok(number)
    }

    /// The same by the product's own client, which looks for a frontend that serves.
    ///
    /// Gives how long after `since` it was acknowledged.
    pub(crate) async fn served(&self, client: &Client, since: Instant) -> Result<Duration> {
        let key = new_request_id()?;
        let (job, wish) = (SINGLE.parse()?, TriggerRequest::default());
        let build = client.trigger(&job, &wish, &key).await?;
        let build = build.build().context("skipped")?;
        let served = since.elapsed();
        self.note(Order {
            job: SINGLE,
            number: build.number.get(),
        });
        Ok(served)
    }

    /// A build as it is now.
    pub(crate) fn build(&self, job: &str, number: u64) -> Result<BuildView> {
        self.api.json(&format!("/jobs/{job}/builds/{number}"))
    }

    /// The attempt of a build's task `long` that runs or ran last; none before the first.
    pub(crate) fn attempt(&self, job: &str, number: u64) -> Result<Option<u32>> {
        let build = self.build(job, number)?;
        let task = build.tasks.first().context("no task")?;
        let begun = !matches!(task.state, TaskState::Queued { .. });
        let attempt = task.state.attempt().get();
        Ok((begun && attempt > 0).then_some(attempt))
    }

    /// Asks for a build of one long task, waits until its script prints, and has it followed.
    pub(crate) fn long(self: &Arc<Self>, job: &'static str) -> Result<Long> {
        let number = self.trigger(job)?;
        eventually(&format!("the first line of {job}#{number}"), || {
            let console = format!("/jobs/{job}/builds/{number}/console?task=long&attempt=1");
            let answer = self.api.ask(&Request::get(&console))?;
            let runs = answer.status == 200 && !answer.bytes()?.is_empty();
            Ok(runs.then_some(()))
        })?;
        let follow = |follower: Follower| {
            let workload = Arc::clone(self);
            std::thread::spawn(move || follower.follow(&workload, job, number))
        };
        Ok(Long {
            job,
            number,
            followers: vec![follow(Follower::Live), follow(Follower::Polling)],
        })
    }

    /// Waits until a later attempt of a long task runs; gives how long after `since` that was.
    pub(crate) fn restarted(&self, long: &Long, since: Instant) -> Result<Duration> {
        let Long { job, number, .. } = long;
        within(Duration::from_mins(3), "the next attempt", || {
            let attempt = self.attempt(job, *number)?;
            Ok(attempt
                .filter(|attempt| *attempt > 1)
                .map(|_| since.elapsed()))
        })
        .with_context(|| format!("{job}#{number}"))
    }

    /// The key by which the processes of an attempt of a long task are found.
    pub(crate) fn attempt_key(&self, long: &Long, attempt: u32) -> Result<String> {
        let Long { job, number, .. } = long;
        let ledger = self.ledger.join(format!("{job}-{number}-long-{attempt}"));
        let ledger = std::fs::read_to_string(&ledger).context("it never began")?;
        let key = ledger.lines().find_map(|line| line.strip_prefix("begin "));
        Ok(key.context("no key")?.to_owned())
    }

    /// Asks for many builds at once, and returns when the first are on their way: whatever dies now
    /// has requests in its hands.
    pub(crate) fn burst(self: &Arc<Self>) -> Burst {
        self.burst_of(BUILDS)
    }

    /// The same, with so many builds for each of those who ask.
    pub(crate) fn burst_of(self: &Arc<Self>, builds: usize) -> Burst {
        let ask = |_| {
            let workload = Arc::clone(self);
            let builds = move || (0..builds).map(|_| workload.trigger(SINGLE)).collect();
            std::thread::spawn(builds)
        };
        let sides = (0..SIDES).map(ask).collect();
        std::thread::sleep(Duration::from_millis(30));
        Burst { sides }
    }

    /// Asks for builds all the time, from as many sides as there are frontends.
    pub(crate) fn pressure(self: &Arc<Self>) -> Pressure {
        let stop = Arc::new(AtomicBool::new(false));
        let ask = |side: usize| {
            let (workload, stop) = (Arc::clone(self), Arc::clone(&stop));
            std::thread::spawn(move || {
                let jobs = [SINGLE, DIAMOND, ROW, REFUSING, DIAMOND, SINGLE];
                for job in jobs.iter().cycle().skip(2 * side) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    workload.trigger(job)?;
                    std::thread::sleep(PACE);
                }
                Ok(())
            })
        };
        let sides = (0..self.api.frontends()).map(ask).collect();
        Pressure { stop, sides }
    }
}

/// A build of one long task that is being followed.
pub(crate) struct Long {
    pub(crate) job: &'static str,
    pub(crate) number: u64,
    followers: Vec<JoinHandle<Result<Followed>>>,
}

impl Long {
    /// Waits for the end of the build; gives what the followers saw.
    pub(crate) fn end(self) -> Result<Vec<Followed>> {
        let saw = self.followers.into_iter().map(|follower| {
            let ended = follower.join();
            ended.map_err(|_| anyhow!("a follower panicked"))?
        });
        saw.collect()
    }
}

/// Those who ask for many builds at once.
pub(crate) struct Burst {
    sides: Vec<JoinHandle<Result<Vec<u64>>>>,
}

impl Burst {
    /// Waits until everything is acknowledged; gives the numbers of the builds.
    pub(crate) fn end(self) -> Result<Vec<u64>> {
        let mut builds = Vec::new();
        for side in self.sides {
            builds.extend(side.join().map_err(|_| anyhow!("a side panicked"))??);
        }
        Ok(builds)
    }
}

/// Those who ask all the time.
pub(crate) struct Pressure {
    stop: Arc<AtomicBool>,
    sides: Vec<JoinHandle<Result<()>>>,
}

impl Pressure {
    /// Asks no more. Errors: something was answered that must not be.
    pub(crate) fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for side in self.sides {
            side.join().map_err(|_| anyhow!("a side panicked"))??;
        }
        Ok(())
    }
}
