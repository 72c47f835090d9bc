//! What must be true when everything is healed, seen through the public API alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use distci_model::build::{Cause, Downstream, Finished};
use distci_model::outcome::Verdict;
use distci_model::wire::{BuildSummary, BuildView, Page, QueueView, TaskState, WorkerView};

use crate::jobs::{AFTER, DIAMOND, Job, Script};
use crate::program::within;
use crate::workload::{Followed, Workload};

/// How long the last builds may take after the last fault.
const LAST: Duration = Duration::from_mins(4);

/// What was found, for people.
#[derive(Debug, Default)]
pub(crate) struct Found {
    builds: usize,
    tasks: usize,
    again: u32,
    bytes: usize,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            builds,
            tasks,
            again,
            bytes,
        } = self;
        write!(
            f,
            "{builds} builds with {tasks} scripts and {bytes} bytes of console are all there; \
             {again} attempts were lost"
        )
    }
}

/// Judges everything that was asked for. `followed` were read while they grew.
pub(crate) fn judge(workload: &Workload, followed: &[Followed]) -> Result<Found> {
    let mut found = Found::default();
    let mut consoles = BTreeMap::new();
    for job in &workload.jobs {
        for build in builds(workload, job)? {
            let number = build.build.number.get();
            let judged = judge_build(workload, job, &build, &mut consoles);
            let attempts = judged.with_context(|| format!("{}: {build:#?}", build.build))?;
            found.builds += 1;
            found.tasks += job.scripts.len();
            found.again += attempts;
            ledger_is_true(workload, job, number, &build)?;
        }
    }
    found.bytes = consoles.values().map(Vec::len).sum();
    downstream_is_exact(workload)?;
    for followed in followed {
        saw_every_byte(workload, followed)?;
    }
    nothing_is_left(workload)?;
    Ok(found)
}

/// The builds of a job, all of them over. Every acknowledged trigger has exactly one, numbers have
/// no gaps, and there is no other.
fn builds(workload: &Workload, job: &Job) -> Result<Vec<BuildView>> {
    let over = || {
        let listed = numbers(workload, job.name)?;
        let over = listed.iter().all(|build| build.finished.is_some());
        Ok(over.then_some(listed))
    };
    let listed = within(LAST, "the end of all builds", over).with_context(|| {
        let open = numbers(workload, job.name).unwrap_or_default();
        let open = open.into_iter().filter(|build| build.finished.is_none());
        format!("{} with {:#?}", job.name, open.collect::<Vec<_>>())
    })?;
    let mut numbers: Vec<u64> = listed.iter().map(|build| build.number.get()).collect();
    numbers.reverse();
    let dense: Vec<u64> = (1..=numbers.len() as u64).collect();
    ensure!(numbers == dense, "{} has the builds {numbers:?}", job.name);
    if job.name != AFTER {
        let orders = workload.orders();
        let orders = orders.iter().filter(|order| order.job == job.name);
        let mut ordered: Vec<u64> = orders.map(|order| order.number).collect();
        ordered.sort_unstable();
        ensure!(
            ordered == numbers,
            "{}: acknowledged {ordered:?}, there are {numbers:?}",
            job.name
        );
    }
    let view = |number: u64| workload.build(job.name, number);
    numbers.into_iter().map(view).collect()
}

fn numbers(workload: &Workload, job: &str) -> Result<Vec<BuildSummary>> {
    let mut builds = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Page<BuildSummary> = workload
            .api
            .json(&format!("/jobs/{job}/builds?limit=500{cursor}"))?;
        builds.extend(page.items);
        let Some(next) = page.next else {
            return Ok(builds);
        };
        cursor = format!("&cursor={next}");
    }
}

type Consoles = BTreeMap<(String, u32), Vec<u8>>;

/// Judges verdict, consoles and results of a build; gives how many attempts were lost.
fn judge_build(
    workload: &Workload,
    job: &Job,
    build: &BuildView,
    consoles: &mut Consoles,
) -> Result<u32> {
    let outcome = build.outcome.as_ref().context("no outcome")?;
    let expected = if job.succeeds {
        Verdict::Success
    } else {
        Verdict::Failure
    };
    ensure!(outcome.verdict() == expected, "{outcome}");
    let mut lost = 0;
    let mut result = String::new();
    for script in &job.scripts {
        let run = finished(build, script.task)?;
        lost += run.attempt.get() - 1;
        console_is_exact(workload, build, script, run, consoles)
            .with_context(|| format!("console of {}", script.task))?;
        writeln!(result, "{} {}", script.task, run.attempt)?;
    }
    let number = build.build.number;
    match job.name {
        // Each task adds its line to what the one before has left.
        crate::jobs::ROW => {
            let path = format!("/jobs/{}/builds/{number}/summary?task=fifth", job.name);
            let summary = workload.api.bytes(&path)?;
            let summary = String::from_utf8(summary)?;
            ensure!(summary == result, "workspace {summary:?}, API {result:?}");
        }
        DIAMOND => {
            let path = format!("/jobs/{}/builds/{number}/artifacts/result", job.name);
            let artifact = String::from_utf8(workload.api.bytes(&path)?)?;
            let expected = diamond_result(build)?;
            ensure!(
                artifact == expected,
                "artifact {artifact:?}, API {expected:?}"
            );
        }
        _ => {}
    }
    Ok(lost)
}

/// What the tasks of a diamond have left, if the attempts that the API shows are those that count.
fn diamond_result(build: &BuildView) -> Result<String> {
    let mut result = format!("{}\n", build.build);
    for task in ["top", "left", "right"] {
        let run = finished(build, task)?;
        writeln!(result, "{task} {}", run.attempt)?;
    }
    Ok(result)
}

fn finished<'a>(build: &'a BuildView, task: &str) -> Result<&'a Finished> {
    let mut tasks = build.tasks.iter();
    let view = tasks.find(|view| view.name.as_str() == task);
    match &view.context("no such task")?.state {
        TaskState::Finished { run } => Ok(run),
        other => bail!("{task} is {other:?}"),
    }
}

/// The console of an attempt without the worker's own lines.
fn printed(console: &[u8]) -> Result<String> {
    let console = std::str::from_utf8(console)?;
    let printed = console.split_inclusive('\n');
    Ok(printed
        .filter(|line| !line.starts_with("[distci] "))
        .collect())
}

/// The accepted attempt's console is byte by byte what its script printed; those of earlier
/// attempts begin so.
fn console_is_exact(
    workload: &Workload,
    build: &BuildView,
    script: &Script,
    run: &Finished,
    consoles: &mut Consoles,
) -> Result<()> {
    let (job, number) = (&build.build.job, build.build.number);
    for attempt in 1..=run.attempt.get() {
        let task = script.task;
        let path = format!("/jobs/{job}/builds/{number}/console?task={task}&attempt={attempt}");
        let console = workload.api.bytes(&path)?;
        let printed = printed(&console)?;
        let expected = script.console(&build.build.to_string(), attempt);
        if attempt == run.attempt.get() {
            let said = run.result.console_bytes;
            let length = console.len() as u64;
            ensure!(said == length, "{length} bytes, but {said} were reported");
            ensure!(printed == expected, "attempt {attempt} printed {printed}");
        } else {
            ensure!(
                expected.starts_with(&printed),
                "the lost attempt {attempt} printed {printed}"
            );
        }
        let name = format!("{}/{task}", build.build);
        consoles.insert((name, attempt), console);
    }
    Ok(())
}

/// What the scripts themselves noted: no attempt ran twice, none came after the one that counts, and
/// that one ran to its end.
fn ledger_is_true(workload: &Workload, job: &Job, number: u64, build: &BuildView) -> Result<()> {
    for script in &job.scripts {
        let accepted = finished(build, script.task)?.attempt.get();
        let ledger = |attempt: u32| {
            let name = format!("{}-{number}-{}-{attempt}", job.name, script.task);
            std::fs::read_to_string(workload.ledger.join(name)).unwrap_or_default()
        };
        for attempt in 1..=accepted {
            let ledger = ledger(attempt);
            let begun = ledger.lines().filter(|line| line.starts_with("begin"));
            let (begun, ended) = (begun.count(), ledger.ends_with("\nend\n"));
            let told = format!(
                "{job}#{number} {}, attempt {attempt}",
                script.task,
                job = job.name
            );
            ensure!(begun <= 1, "{told} ran {begun} times");
            let counts = attempt == accepted;
            ensure!(!counts || begun == 1 && ended, "{told} counts: {ledger:?}");
        }
        ensure!(ledger(accepted + 1).is_empty(), "an attempt after the last");
    }
    Ok(())
}

/// Each diamond triggered one build, and each of those was triggered by one diamond, whose artifact
/// it got.
fn downstream_is_exact(workload: &Workload) -> Result<()> {
    let mut triggered = BTreeSet::new();
    for diamond in numbers(workload, DIAMOND)? {
        let diamond = workload.build(DIAMOND, diamond.number.get())?;
        let [Downstream::Triggered { build }] = &*diamond.downstream else {
            bail!("{} triggered {:?}", diamond.build, diamond.downstream);
        };
        ensure!(
            triggered.insert(build.number),
            "{build} was triggered twice"
        );
        let after = workload.build(AFTER, build.number.get())?;
        let upstream = matches!(&after.cause, Cause::Upstream { build } if *build == diamond.build);
        ensure!(upstream, "{build} was triggered by {:?}", after.cause);
        let path = format!("/jobs/{AFTER}/builds/{}/summary?task=show", build.number);
        let copied = String::from_utf8(workload.api.bytes(&path)?)?;
        let expected = diamond_result(&diamond)?;
        ensure!(
            copied == expected,
            "{build} copied {copied:?}, not {expected:?}"
        );
    }
    let there = numbers(workload, AFTER)?.len();
    let triggered = triggered.len();
    ensure!(
        there == triggered,
        "{there} builds for {triggered} triggers"
    );
    Ok(())
}

/// Whoever followed a console has what is stored of the attempt that counts, and nothing else of
/// the others.
fn saw_every_byte(workload: &Workload, followed: &Followed) -> Result<()> {
    let Followed {
        job,
        number,
        task,
        transcript,
    } = followed;
    let build = workload.build(job, *number)?;
    let accepted = finished(&build, task)?.attempt.get();
    for attempt in 1..=accepted {
        let path = format!("/jobs/{job}/builds/{number}/console?task={task}&attempt={attempt}");
        let stored = workload.api.bytes(&path)?;
        let saw = transcript.get(&attempt);
        let saw = saw.with_context(|| format!("nobody saw attempt {attempt}"))?;
        let (seen, there) = (saw.len(), stored.len());
        let whole = attempt < accepted || seen == there;
        ensure!(
            whole && stored.starts_with(saw),
            "a follower of {job}#{number}, attempt {attempt}, saw {seen} bytes, {there} are stored"
        );
    }
    Ok(())
}

/// Nothing waits and nothing is claimed when all builds are over.
fn nothing_is_left(workload: &Workload) -> Result<()> {
    within(LAST, "an empty queue and idle workers", || {
        let queue: Page<QueueView> = workload.api.json("/queue")?;
        let workers: Vec<WorkerView> = workload.api.json("/workers")?;
        let idle = workers.iter().all(|worker| worker.claims.is_empty());
        Ok((queue.items.is_empty() && idle).then_some(()))
    })
}
