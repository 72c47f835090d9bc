//! The laws, each a function from a history to its cases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use distci_model::Timestamp;
use distci_model::build::{Downstream, Finished};
use distci_model::id::{Attempt, BuildRef, JobId, TaskName};
use distci_model::journal::{Entry, What};
use distci_model::wire::TaskState;

use crate::history::{Copied, Fault, History, Seen, Work};
use crate::journal;
use crate::verdict::{Law, Verdict};

/// How long after its worker's death a ticket may wait for its next claim: the lease, what those who
/// watch it take turns in, and the claim.
const RESTART: Duration = Duration::from_secs(50);
/// Of so many claims in calm, at most one is lost to others.
const CLAIMS_FOR_A_LOSS: u64 = 50;

/// Holds a history against all laws.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let case = Case {
        builds: history
            .builds
            .iter()
            .map(|seen| (&seen.view.build, seen))
            .collect(),
        works: works(history),
        history,
    };
    case.builds_finish(&mut verdict);
    case.numbers_are_dense(&mut verdict);
    case.answers_are_right(&mut verdict);
    case.results_stay(&mut verdict);
    case.results_are_true(&mut verdict);
    case.workspaces_are_true(&mut verdict);
    case.locks_hold(&mut verdict);
    case.restarts_are_soon(&mut verdict);
    case.journals_are_lawful(&mut verdict);
    for flaw in &history.flaws {
        verdict.case(Law::NothingIsLeft, false, || flaw.clone());
    }
    verdict.case(Law::NothingIsLeft, true, String::new);
    let calm = history.calm;
    if calm.tried > 0 {
        let few = calm.lost * CLAIMS_FOR_A_LOSS <= calm.tried;
        verdict.case(Law::ClaimsSucceed, few, || format!("{calm:?}"));
    }
    verdict
}

/// An attempt by its build, task and number.
type Id<'a> = (&'a BuildRef, &'a TaskName, Attempt);

fn works(history: &History) -> BTreeMap<Id<'_>, &Work> {
    let works = history.works.iter();
    works
        .map(|work| ((&work.build, &work.task, work.attempt), work))
        .collect()
}

struct Case<'a> {
    history: &'a History,
    builds: BTreeMap<&'a BuildRef, &'a Seen>,
    works: BTreeMap<Id<'a>, &'a Work>,
}

impl<'a> Case<'a> {
    fn builds_finish(&self, verdict: &mut Verdict) {
        let posted = self.history.posts.iter().flat_map(|post| &post.answers);
        let triggered = self
            .history
            .builds
            .iter()
            .flat_map(|seen| &seen.view.downstream);
        let triggered = triggered.filter_map(|downstream| match downstream {
            Downstream::Triggered { build } => Some(build),
            Downstream::Refused { .. } => None,
        });
        let wanted: BTreeSet<&BuildRef> = posted.chain(triggered).collect();
        for build in wanted {
            let seen = self.builds.get(build);
            let over = seen.is_some_and(|seen| seen.view.outcome.is_some());
            verdict.case(Law::BuildsFinish, over, || {
                let phase = seen.map(|seen| seen.view.phase);
                format!("{build} is {phase:?}")
            });
            let ends = seen.map_or(0, |seen| {
                let is_end = |entry: &&Entry| matches!(entry.what, What::Over { .. });
                seen.journal.iter().filter(is_end).count()
            });
            verdict.case(Law::BuildsFinish, ends == 1, || {
                format!("{build} has ended {ends} times")
            });
        }
    }

    fn numbers_are_dense(&self, verdict: &mut Verdict) {
        let mut known: BTreeMap<&BuildRef, &str> = BTreeMap::new();
        for post in &self.history.posts {
            for build in &post.answers {
                let before = known.insert(build, post.request.as_str());
                let one = before.is_none_or(|before| before == post.request.as_str());
                let same = post.answers.first() == Some(build);
                verdict.case(Law::NumbersAreDense, one && same, || {
                    format!(
                        "request {}: {:?}, and {before:?}",
                        post.request.as_str(),
                        post.answers
                    )
                });
            }
        }
        let mut numbers: BTreeMap<&JobId, Vec<u64>> = BTreeMap::new();
        for build in self.builds.keys() {
            numbers
                .entry(&build.job)
                .or_default()
                .push(build.number.get());
        }
        for (job, numbers) in numbers {
            let dense = numbers.iter().copied().eq(1..=numbers.len() as u64);
            verdict.case(Law::NumbersAreDense, dense, || {
                format!("{job}: {numbers:?}")
            });
        }
        // A build that no request has asked for was triggered, or comes from a request whose answer
        // never came: there are no more of these than such requests.
        let mut strange: BTreeMap<&JobId, usize> = BTreeMap::new();
        for build in self
            .builds
            .keys()
            .filter(|build| !known.contains_key(**build))
        {
            *strange.entry(&build.job).or_default() += 1;
        }
        for (job, builds) in strange {
            let unanswered = self.history.posts.iter();
            let unanswered = unanswered.filter(|post| post.job == *job && post.answers.is_empty());
            let few = builds <= unanswered.count() || self.history.downstream.contains(job);
            verdict.case(Law::NumbersAreDense, few, || {
                format!("{job} has {builds} builds that nobody asked for")
            });
        }
    }

    fn answers_are_right(&self, verdict: &mut Verdict) {
        for post in &self.history.posts {
            let (Some(must), Some(build)) = (post.must, post.answers.first()) else {
                continue;
            };
            let seen = self.builds.get(build);
            let ended = seen.and_then(|seen| seen.view.outcome.as_ref());
            let right = ended.is_some_and(|outcome| outcome.verdict() == must);
            verdict.case(Law::AnswersAreRight, right, || {
                format!("{build} is to end with {must}, and ended with {ended:?}")
            });
        }
    }

    /// The accepted attempts: of finished tasks, the last.
    fn accepted(&self) -> impl Iterator<Item = (&'a Seen, &'a TaskName, &'a Finished)> {
        let builds = self.history.builds.iter();
        builds.flat_map(|seen| {
            seen.view
                .tasks
                .iter()
                .filter_map(move |task| match &task.state {
                    TaskState::Finished { run } if run.build.is_none() && run.worker.is_some() => {
                        Some((seen, &task.name, &**run))
                    }
                    _ => None,
                })
        })
    }

    fn results_stay(&self, verdict: &mut Verdict) {
        for work in self.history.works.iter().filter(|work| work.acknowledged) {
            let seen = self.builds.get(&work.build);
            let stays = seen.is_some_and(|seen| {
                seen.journal.iter().any(|entry| {
                    let ended = matches!(&entry.what, What::Ended { attempt, .. } if *attempt == work.attempt);
                    ended && entry.task.as_ref() == Some(&work.task)
                })
            });
            verdict.case(Law::ResultsStay, stays, || {
                format!("{} was accepted, and is not told of", name(work))
            });
        }
    }

    fn results_are_true(&self, verdict: &mut Verdict) {
        for (seen, task, run) in self.accepted() {
            let id = (&seen.view.build, task, run.attempt);
            let (build, attempt) = (&seen.view.build, run.attempt);
            let Some(work) = self.works.get(&id) else {
                // What the task never told of was concluded without it.
                let concluded = !run.result.outcome.is_success();
                verdict.case(Law::ResultsAreTrue, concluded, || {
                    format!("{build} {task}: nobody did attempt {attempt}, which succeeded")
                });
                continue;
            };
            let Some(told) = work.verdict else {
                let concluded = !run.result.outcome.is_success();
                verdict.case(Law::ResultsAreTrue, concluded, || {
                    format!("{} was killed, and is shown as a success", name(work))
                });
                continue;
            };
            let shown = run.result.outcome.verdict();
            let cancelled = run.result.outcome.is_cancelled();
            verdict.case(Law::ResultsAreTrue, shown == told || cancelled, || {
                format!("{} ended with {told}, and is shown as {shown}", name(work))
            });
            if let (Some(written), false) = (&work.console, cancelled) {
                let shown = seen.consoles.get(task);
                verdict.case(Law::ConsolesAreWhole, shown == Some(written), || {
                    format!("{} wrote {written:?}, and {shown:?} is shown", name(work))
                });
            }
        }
    }

    fn workspaces_are_true(&self, verdict: &mut Verdict) {
        let made: BTreeMap<(&BuildRef, &TaskName), &str> = self
            .accepted()
            .filter_map(|(seen, task, run)| {
                let work = self.works.get(&(&seen.view.build, task, run.attempt))?;
                Some(((&seen.view.build, task), work.made.as_deref()?))
            })
            .collect();
        for work in &self.history.works {
            for (of, found) in &work.found {
                if self.is_kept(&work.build, of) {
                    continue;
                }
                let made = made.get(&(&work.build, of)).copied();
                verdict.case(Law::WorkspacesAreTrue, made == Some(found), || {
                    format!("{} found {found} of {of}, which left {made:?}", name(work))
                });
            }
            for Copied { build, task, what } in &work.copied {
                let made = made.get(&(build, task)).copied();
                verdict.case(Law::WorkspacesAreTrue, made == Some(what), || {
                    format!(
                        "{} copied {what} of {build} {task}, which left {made:?}",
                        name(work)
                    )
                });
            }
        }
    }

    /// Whether what a task made is that of an earlier build.
    fn is_kept(&self, build: &BuildRef, task: &TaskName) -> bool {
        let seen = self.builds.get(build);
        let mut tasks = seen.into_iter().flat_map(|seen| &seen.view.tasks);
        let state = tasks.find(|known| known.name == *task);
        state.is_some_and(|known| match &known.state {
            TaskState::Finished { run } => run.build.is_some(),
            _ => false,
        })
    }

    /// At no moment more accepted attempts hold a lock than may hold it at once.
    fn locks_hold(&self, verdict: &mut Verdict) {
        let mut spans: BTreeMap<&str, Vec<(Timestamp, Timestamp, u32, &Work)>> = BTreeMap::new();
        for (seen, task, run) in self.accepted() {
            let Some(work) = self.works.get(&(&seen.view.build, task, run.attempt)) else {
                continue;
            };
            let Some(ended) = work.ended else { continue };
            // One that was away while its build was cancelled works on, but its claim was given up.
            if run.result.outcome.is_cancelled() && !work.acknowledged {
                continue;
            }
            for (lock, most) in &work.locks {
                let span = (work.began, ended, *most, *work);
                spans.entry(lock).or_default().push(span);
            }
        }
        for (lock, spans) in spans {
            for (began, _, most, work) in &spans {
                let others = spans.iter();
                let at_once = others.filter(|(from, until, ..)| from <= began && began < until);
                let at_once = at_once.count().max(1) as u64;
                verdict.case(Law::LocksHold, at_once <= u64::from(*most), || {
                    format!(
                        "{lock}, of {most}, is held by {at_once} as {} begins",
                        name(work)
                    )
                });
            }
        }
    }

    fn restarts_are_soon(&self, verdict: &mut Verdict) {
        let deaths = self.history.faults.iter();
        for (death, worker) in deaths.filter_map(|fault| Some((fault, fault.ends.as_ref()?))) {
            for seen in &self.history.builds {
                for (place, entry) in seen.journal.iter().enumerate() {
                    let What::Lost {
                        worker: of,
                        attempt,
                    } = &entry.what
                    else {
                        continue;
                    };
                    if of != worker || !held_at(&seen.journal, place, death.from) {
                        continue;
                    }
                    let next = seen.journal[place..].iter().find(|later| {
                        later.task == entry.task && matches!(later.what, What::Claimed { .. })
                    });
                    // Lost for the last time, or cancelled: there is nothing to begin anew.
                    let Some(next) = next else { continue };
                    let by = self.deadline(death);
                    verdict.case(Law::RestartsAreSoon, next.at <= by, || {
                        let build = &seen.view.build;
                        let late = next.at.duration_since(death.from);
                        format!(
                            "{build}: attempt {attempt} of {worker} was begun anew after {late:#}"
                        )
                    });
                }
            }
        }
    }

    /// By when what a death took is claimed again: while the cluster could not be expected to go on,
    /// the time does not count.
    fn deadline(&self, death: &Fault) -> Timestamp {
        let mut by = death.from + RESTART;
        let mut spans: Vec<_> = self.history.faults.iter().collect();
        spans.sort_by_key(|fault| fault.from);
        for fault in spans {
            if fault.until > death.from && fault.from < by {
                let stalled = fault.until.duration_since(fault.from.max(death.from));
                by += stalled;
            }
        }
        by
    }

    fn journals_are_lawful(&self, verdict: &mut Verdict) {
        for seen in &self.history.builds {
            let wrongs = journal::wrongs(&seen.view, &seen.journal);
            verdict.case(Law::JournalsAreLawful, wrongs.is_empty(), || {
                format!("{}: {}", seen.view.build, wrongs.join("; "))
            });
        }
    }
}

/// Whether the claim that ends at `place` of a journal had begun by then.
fn held_at(journal: &[Entry], place: usize, then: Timestamp) -> bool {
    let end = &journal[place];
    let begun = journal[..place].iter().rev();
    let mut begun = begun.filter(|entry| entry.task == end.task);
    let claim = begun.find(|entry| matches!(entry.what, What::Claimed { .. }));
    claim.is_some_and(|claim| claim.at <= then && then <= end.at)
}

fn name(work: &Work) -> String {
    format!("attempt {} of {} {}", work.attempt, work.build, work.task)
}
