//! A build: how it stands, why, and what can be done about it.

use askama::Template;
use distci_model::Timestamp;
use distci_model::build::{Cause, Downstream, Finished};
use distci_model::event::Event;
use distci_model::id::{BuildNumber, TaskName};
use distci_model::journal::{Stretch, What};
use distci_model::test_report::TestCounts;
use distci_model::why::Reason;
use distci_model::wire::{ArtifactView, BuildView, TaskState, TaskView};

use crate::assets::Asset;
use crate::frame::Frame;
use crate::graph::Graph;
use crate::state::State;
use crate::time::{Ago, Moment, Took};
use crate::tree::{self, Step};
use crate::words::{self, Below, Bytes, Segment};

/// Most artifacts that stand on a build's page; of more there is a page of their own.
const MOST_ARTIFACTS: usize = 100;
/// Up to so many are shown without being asked for.
const FEW_ARTIFACTS: usize = 30;

/// A build.
#[derive(Debug, Template)]
#[template(path = "build.html")]
pub struct Build {
    /// What surrounds it.
    pub frame: Frame,
    /// When it is made.
    pub now: Timestamp,
    /// The build.
    pub view: BuildView,
    /// Why it is where it is: about the build first.
    pub why: Vec<Reason>,
    /// What it published.
    pub artifacts: Vec<ArtifactView>,
    /// The build before it, if it is there, and the revision that it is of.
    pub previous: Option<(BuildNumber, u32)>,
    /// When its tasks waited and worked.
    pub stretches: Vec<Stretch>,
    /// The id of the wish to run it again: sent twice, it is one.
    pub request: String,
}

impl Build {
    fn state(&self) -> State {
        State::of_build(&self.view)
    }

    fn graph(&self) -> Graph {
        Graph::of(&self.view.build, &self.view.tasks)
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let row = |task| Row { build: self, task };
        self.view.tasks.iter().map(row).collect()
    }

    fn ago(&self, at: &Timestamp) -> Ago {
        Ago {
            at: *at,
            now: self.now,
        }
    }

    fn moment(at: &Timestamp) -> Moment {
        Moment(*at)
    }

    fn address(&self) -> String {
        let build = &self.view.build;
        format!("/jobs/{}/builds/{}", build.job, build.number)
    }

    /// The build before it, if that was of another revision.
    fn changed_since(&self) -> Option<(BuildNumber, u32)> {
        self.previous
            .filter(|(_, revision)| *revision != self.view.revision)
    }

    /// Where it is told what its revision changed: since the build before it, or at all.
    fn changes(&self) -> String {
        let (job, of) = (&self.view.build.job, self.view.revision);
        match self.changed_since() {
            Some((_, against)) => format!("/jobs/{job}/revisions?of={of}&against={against}"),
            None => format!("/jobs/{job}/revisions?of={of}"),
        }
    }

    fn size(one: &ArtifactView) -> Bytes {
        Bytes(one.artifact.bytes)
    }

    fn tree(&self) -> Vec<Step<'_>> {
        tree::tree(&self.artifacts)
    }

    /// Whether the artifacts are few enough to stand here.
    fn is_tree(&self) -> bool {
        self.artifacts.len() <= MOST_ARTIFACTS
    }

    /// Whether they are few enough to be seen at once.
    fn is_small(&self) -> bool {
        self.artifacts.len() <= FEW_ARTIFACTS
    }

    fn artifact_bytes(&self) -> Bytes {
        Bytes(self.artifacts.iter().map(|one| one.artifact.bytes).sum())
    }

    fn end(&self) -> Timestamp {
        self.view.finished.unwrap_or(self.now)
    }

    /// How its tests went, as far as its tasks have told.
    fn tests(&self) -> Option<TestCounts> {
        let finished = self.view.tasks.iter().filter_map(|task| match &task.state {
            TaskState::Finished { run } => run.result.tests,
            _ => None,
        });
        finished.reduce(TestCounts::and)
    }

    fn took(&self) -> Took {
        Took::between(self.view.created, self.end())
    }

    fn cause(&self) -> String {
        words::cause(&self.view.cause)
    }

    /// The build that this one comes from.
    fn origin(&self) -> Option<String> {
        let build = match &self.view.cause {
            Cause::Upstream { build } => build,
            Cause::Rerun { of, .. } => of,
            Cause::Manual | Cause::Event { .. } => return None,
        };
        Some(format!("/jobs/{}/builds/{}", build.job, build.number))
    }

    fn told(&self) -> Option<Told<'_>> {
        self.view.cause.told().map(Told)
    }

    /// Whether there is something to run again without what succeeded.
    fn has_rest(&self) -> bool {
        self.view
            .outcome
            .as_ref()
            .is_some_and(|outcome| !outcome.is_success())
    }

    fn is_cancellable(&self) -> bool {
        self.view.outcome.is_none() && !self.view.cancelled
    }
}

/// The event that a build is of.
struct Told<'a>(&'a Event);

impl Told<'_> {
    fn fact(&self, name: &str) -> &str {
        self.0.fact(name).unwrap_or_default()
    }

    fn short_sha(&self) -> String {
        self.fact("sha").chars().take(10).collect()
    }

    /// The page of the change. Whoever sent the event chose it: only the web is linked to.
    fn url(&self) -> Option<&str> {
        let url = self.0.fact("url")?;
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        is_web.then_some(url)
    }
}

/// A task with where it stands in its build.
struct Row<'a> {
    build: &'a Build,
    task: &'a TaskView,
}

impl Row<'_> {
    fn state(&self) -> State {
        State::of_task(&self.task.state)
    }

    fn run(&self) -> Option<&Finished> {
        match &self.task.state {
            TaskState::Finished { run } | TaskState::Backoff { last: run, .. } => Some(run),
            TaskState::Waiting
            | TaskState::Queued { .. }
            | TaskState::Running { .. }
            | TaskState::Asking { .. }
            | TaskState::Skipped { .. } => None,
        }
    }

    /// The number of an earlier build, if it ran in that one and not again.
    fn kept_from(&self) -> Option<String> {
        let build = self.run()?.build?;
        Some(build.to_string())
    }

    /// The attempts that began, the latest first.
    fn attempts(&self) -> impl Iterator<Item = u32> {
        let latest = self.task.state.attempt().get();
        (1..=latest).rev().take(20)
    }

    fn worker(&self) -> &str {
        match &self.task.state {
            TaskState::Running { worker, .. } => worker.as_str(),
            _ => self
                .run()
                .and_then(|run| run.worker.as_ref())
                .map_or("", |worker| worker.as_str()),
        }
    }

    /// From when until when it was worked on last.
    fn work(&self) -> Option<(Timestamp, Timestamp)> {
        match &self.task.state {
            TaskState::Running { started, .. } => Some((*started, self.build.now)),
            TaskState::Asking { since, .. } => Some((*since, self.build.now)),
            _ => self
                .run()
                .and_then(|run| Some((run.started?, run.finished))),
        }
    }

    fn took(&self) -> Option<Took> {
        self.work().map(|(from, to)| Took::between(from, to))
    }

    /// Its waiting and its work in all attempts, each with where it begins and how long it is in
    /// thousandths of the time of the build.
    fn line(&self) -> Vec<(&'static str, u64, u64)> {
        let of_task = |stretch: &&Stretch| stretch.task.as_ref() == Some(&self.task.name);
        let own = self.build.stretches.iter().filter(of_task);
        let part = |stretch: &Stretch| {
            let until = stretch.until.unwrap_or(self.build.now);
            let (x, width) = self.part((stretch.from, until));
            (self.class(stretch), x, width)
        };
        own.map(part).collect()
    }

    fn class(&self, stretch: &Stretch) -> &'static str {
        match (&stretch.worker, &stretch.end) {
            (None, _) if stretch.attempt.get() > 0 => "wait",
            (_, Some(What::Lost { .. })) => State::Fault.word(),
            (_, Some(What::Released { .. })) => State::Skipped.word(),
            (_, Some(What::Ended { again: true, .. })) => State::Failure.word(),
            _ => self.state().word(),
        }
    }

    fn part(&self, (from, to): (Timestamp, Timestamp)) -> (u64, u64) {
        let whole = self.build.took().0.max(1);
        let thousandths = |took: Took| (took.0 * 1000 / whole).min(1000);
        let x = thousandths(Took::between(self.build.view.created, from));
        let width = thousandths(Took::between(from, to)).max(4);
        (x.min(996), width.min(1000 - x.min(996)))
    }

    /// Why it is where it is; nothing if all is well.
    fn why(&self) -> &str {
        let name = self.task.name.as_str();
        let mut reasons = self.build.why.iter();
        let own = reasons.find(|reason| reason.task.as_ref() == Some(&self.task.name));
        own.map_or("", |reason| {
            let text = reason.text.strip_prefix(name);
            text.map_or(reason.text.as_str(), str::trim_start)
        })
    }

    /// What it took of its machine, if that was counted.
    fn usage(&self) -> Option<String> {
        let usage = self.run()?.result.usage.as_ref()?;
        let (cpu, memory) = (Took(usage.cpu_ms), Bytes(usage.memory_peak));
        Some(format!("cpu {cpu}, {memory}"))
    }

    fn outputs(&self) -> impl Iterator<Item = (&String, &String)> {
        self.run().into_iter().flat_map(|run| &run.result.outputs)
    }

    fn is_stoppable(&self) -> bool {
        let state = &self.task.state;
        self.build.is_cancellable()
            && matches!(
                state,
                TaskState::Running { .. } | TaskState::Queued { .. } | TaskState::Backoff { .. }
            )
    }

    /// What it asks, and how long at most.
    fn question(&self) -> Option<(&str, Timestamp)> {
        match &self.task.state {
            TaskState::Asking { message, until, .. } => Some((message, *until)),
            _ => None,
        }
    }

    fn name(&self) -> &TaskName {
        &self.task.name
    }
}
