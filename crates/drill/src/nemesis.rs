//! Who hurts the cluster, and looks how long it takes to recover.
//!
//! Owns the order of the faults and what is seen around each. Whatever it has done is taken back
//! before it ends, also when it is interrupted.

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use distci_checker::history::Fault;
use distci_model::Timestamp;
use futures::future::join_all;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::faults::{Planned, run};
use crate::jobs::Theme;
use crate::report::seconds;
use crate::workload::Workload;
use crate::{Clock, Tell};

/// Clients that measure how long nobody serves them.
const PROBES: usize = 4;
/// The cluster is left alone for so long between two faults.
const REST: Duration = Duration::from_secs(3);

/// How long it took after some moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Recovery {
    /// Until requests of every client were served; none if that did not happen.
    pub served_ms: Option<u64>,
    /// Until a build that was asked for at that moment was over.
    pub built_ms: Option<u64>,
}

/// A fault that was done.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// What, in the words of the file.
    pub name: String,
    /// From when.
    pub from: Timestamp,
    /// When it was taken back; the same as `from` if it passes by itself.
    pub healed: Timestamp,
    /// How long it took from the hurt.
    pub hurt: Recovery,
    /// How long it took from the healing, if there was one.
    pub after: Option<Recovery>,
    /// The aims of the file, in seconds.
    pub served_within: Option<u64>,
    /// See `served_within`.
    pub built_within: Option<u64>,
    /// For the judge.
    #[serde(skip)]
    pub fault: Fault,
}

impl Done {
    /// Whether it took longer than the file aims at.
    pub fn is_late(&self) -> bool {
        let late = |took: Option<u64>, aim: Option<u64>| {
            aim.is_some_and(|aim| took.is_none_or(|took| took > aim * 1000))
        };
        late(self.hurt.served_ms, self.served_within) || late(self.hurt.built_ms, self.built_within)
    }
}

/// Does one fault after the other until `end`, all of them once before any comes again.
///
/// # Errors
/// A command failed: the drill is not what it says it is.
pub(crate) async fn torment(
    workload: &Workload,
    faults: &[Planned],
    end: Instant,
    clock: Clock,
    tell: Tell<'_>,
) -> Result<Vec<Done>> {
    let mut done = Vec::new();
    let mut round: Vec<&Planned> = Vec::new();
    while Instant::now() < end {
        if round.is_empty() {
            round.extend(faults);
            workload.chance.borrow_mut().shuffle(&mut round);
        }
        let Some(fault) = round.pop() else {
            // Nothing is to be done to it: the load alone is the drill.
            sleep_until(end).await;
            break;
        };
        tell(&format!("{} ...", fault.name));
        let happened = hurt(workload, fault, clock).await?;
        tell(&told(&happened));
        done.push(happened);
        sleep(REST).await;
    }
    Ok(done)
}

/// Does one fault, takes it back, and waits until the cluster has recovered.
async fn hurt(workload: &Workload, fault: &Planned, clock: Clock) -> Result<Done> {
    let failed = || format!("the fault {:?} could not be done", fault.name);
    let guard = Healing(Cell::new(fault.heal.as_deref()));
    run(&fault.hurt).await.with_context(failed)?;
    let (from, since) = (clock(), Instant::now());
    let healing = async {
        let Some(heal) = &fault.heal else {
            return Ok(None);
        };
        sleep_until(since + Duration::from_secs(fault.lasts)).await;
        run(heal).await.with_context(failed)?;
        guard.is_done();
        let healed = clock();
        anyhow::Ok(Some((healed, recover(workload, Instant::now()).await)))
    };
    let (hurt, after) = tokio::join!(recover(workload, since), healing);
    let after = after?;
    let healed = after.as_ref().map_or(from, |(healed, _)| *healed);
    Ok(Done {
        name: fault.name.clone(),
        from,
        healed,
        hurt,
        after: after.map(|(_, recovery)| recovery),
        served_within: fault.served_within,
        built_within: fault.built_within,
        fault: Fault {
            what: fault.name.clone(),
            ends: fault.ends.clone(),
            from,
            // A death is over at once: what it took must be begun anew in time.
            until: if fault.ends.is_some() { from } else { clock() },
        },
    })
}

/// Waits until every one of several clients is served, and the build of one of them is over.
async fn recover(workload: &Workload, since: Instant) -> Recovery {
    let served = join_all((0..PROBES).map(|_| async {
        let build = workload.ask(Theme::Single).await;
        (build, since.elapsed())
    }))
    .await;
    let slowest = served.iter().map(|(_, took)| *took).max();
    let all = served.iter().all(|(build, _)| build.is_some());
    let served_ms = slowest.filter(|_| all).map(milliseconds);
    // Nobody tells a probe to stop: it is why the cluster is waited for.
    let (_never, stop) = watch::channel(false);
    let mut built_ms = None;
    for build in served
        .iter()
        .filter_map(|(build, _)| build.as_ref())
        .take(1)
    {
        workload.see_end(build, &stop).await;
        built_ms = Some(milliseconds(since.elapsed()));
    }
    Recovery {
        served_ms,
        built_ms,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A command that is still to be run: whoever drops it unrun, as an interrupt does, runs it.
struct Healing<'a>(Cell<Option<&'a str>>);

impl Healing<'_> {
    fn is_done(&self) {
        self.0.take();
    }
}

impl Drop for Healing<'_> {
    fn drop(&mut self) {
        let Some(heal) = self.0.take() else { return };
        let healed = Command::new("sh")
            .args(["-c", heal])
            .stdin(Stdio::null())
            .status();
        // Nobody is left to tell but the operator, who sees what the command itself says.
        drop(healed);
    }
}

fn told(done: &Done) -> String {
    let healed = match &done.after {
        Some(after) => format!("; healed: {}", in_words(after)),
        None => String::new(),
    };
    format!("{}: {}{healed}", done.name, in_words(&done.hurt))
}

fn in_words(recovery: &Recovery) -> String {
    let Recovery {
        served_ms,
        built_ms,
    } = recovery;
    let (served, built) = (seconds(*served_ms), seconds(*built_ms));
    format!("served after {served}, built after {built}")
}
