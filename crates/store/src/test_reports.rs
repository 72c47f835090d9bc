//! Test reports: one blob for each attempt that has tests to tell of.
//!
//! Owns their storing and reading, and the gathering of what became of a test in the latest builds of
//! a job. There is no index: the builds are listed, and of each its reports are read, a few at a time.
//! When a test is flaky is the model's to say.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use distci_model::Timestamp;
use distci_model::build::{Build, Progress};
use distci_model::id::{Attempt, BuildNumber, BuildRef, JobId, TaskName, TicketKey};
use distci_model::test_report::flaky::{TestRun, flaky};
use distci_model::test_report::{
    MAX_TEST_HISTORY, MAX_TEST_REPORT, Test, TestCounts, TestHistory, TestHistoryView, TestReport,
    TestRunView, TestView,
};
use futures::{StreamExt, stream};

use crate::builds::Found;
use crate::error::StoreError;
use crate::jobs::Job;
use crate::keys::AttemptBlobs;
use crate::store::Store;
use crate::tickets::run_blobs;
use crate::transaction::{decode, encode};

/// Builds whose reports are read at once.
const PARALLEL: usize = 8;

/// All tests of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildTests {
    /// Of those that are left out too.
    pub counts: TestCounts,
    /// How many are not named.
    pub left_out: u32,
    /// The others, in the order of the tasks.
    pub tests: Vec<TestView>,
}

/// Which builds of a job to look at.
#[derive(Debug, Clone, Copy)]
pub struct Lately {
    /// Those before this one; all, if there is none.
    pub before: Option<BuildNumber>,
    /// How many; at most [`MAX_TEST_HISTORY`].
    pub builds: usize,
}

/// What tells one test of a job from another.
type Which = (TaskName, String, String);

/// A task of a build that has stored a report.
struct Reported {
    task: TaskName,
    attempt: Attempt,
    blobs: AttemptBlobs,
    /// Whether it is of an earlier build, whose work this one has taken over.
    is_earlier: bool,
}

/// What is known of a build whose tests are looked at.
struct Looked {
    number: BuildNumber,
    created: Timestamp,
    commit: Option<String>,
    inputs: Option<String>,
    tests: Vec<(Which, Test)>,
}

impl Store {
    /// Stores what the tests of an attempt came to.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim; [`StoreError::Refused`] and
    /// [`StoreError::TooLarge`] beyond the limits of a report.
    pub async fn put_tests(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        report: &TestReport,
    ) -> Result<(), StoreError> {
        let blobs = self.claimed_blobs(key, attempt).await?;
        report.check().map_err(StoreError::refused)?;
        let key = blobs.tests();
        let text = encode(key.as_str(), report)?;
        if text.len() > MAX_TEST_REPORT {
            return Err(StoreError::TooLarge {
                limit: MAX_TEST_REPORT as u64,
            });
        }
        let packed =
            zstd::encode_all(&*text, 3).map_err(|error| StoreError::corrupt(&key, error))?;
        Ok(self.blobs.put(&key, Bytes::from(packed)).await?)
    }

    /// The tests of a build, as far as its tasks have ended.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a build.
    pub async fn build_tests(&self, id: &BuildRef) -> Result<BuildTests, StoreError> {
        let job = self.read_job(&id.job).await?;
        let build = self.build_of(&job, id).await?;
        let mut all = BuildTests::default();
        for reported in self.reported(&job, &build).await? {
            let report = self.test_report(&reported.blobs).await?;
            all.counts = all.counts.and(report.counts);
            all.left_out = all.left_out.saturating_add(report.left_out);
            all.tests
                .extend(report.tests.into_iter().map(|test| TestView {
                    task: reported.task.clone(),
                    attempt: reported.attempt,
                    test,
                    flaky: None,
                }));
        }
        Ok(all)
    }

    /// Says of each of these tests of a build whether it is flaky, as the builds until then show.
    pub async fn mark_flaky(
        &self,
        id: &BuildRef,
        builds: usize,
        views: &mut [TestView],
    ) -> Result<(), StoreError> {
        let which = |view: &TestView| {
            let Test { suite, name, .. } = &view.test;
            (view.task.clone(), suite.clone(), name.clone())
        };
        let wanted: BTreeSet<Which> = views.iter().map(which).collect();
        let job = self.read_job(&id.job).await?;
        let lately = Lately {
            before: Some(id.number.next()),
            builds,
        };
        let is_wanted = |which: &Which, _: &Test| wanted.contains(which);
        let (looked, _) = self.look_at_tests(&job, lately, is_wanted).await?;
        let mut runs: BTreeMap<Which, Vec<TestRun>> = BTreeMap::new();
        for build in looked {
            for (which, test) in &build.tests {
                runs.entry(which.clone()).or_default().push(build.run(test));
            }
        }
        for view in views {
            view.flaky = runs.get(&which(view)).and_then(|runs| flaky(runs));
        }
        Ok(())
    }

    /// What became of the tests that are called `name` in the latest builds of a job; of one task, if
    /// one is given.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a job.
    pub async fn test_history(
        &self,
        job: &JobId,
        name: &str,
        task: Option<&TaskName>,
        lately: Lately,
    ) -> Result<TestHistoryView, StoreError> {
        let job = self.read_job(job).await?;
        let is_wanted = |(of, ..): &Which, test: &Test| {
            test.is_called(name) && task.is_none_or(|task| task == of)
        };
        let (looked, next) = self.look_at_tests(&job, lately, is_wanted).await?;
        let builds = u32::try_from(looked.len()).unwrap_or(u32::MAX);
        let mut found: BTreeMap<Which, (Vec<TestRun>, Vec<TestRunView>)> = BTreeMap::new();
        for build in &looked {
            for (which, test) in &build.tests {
                let (runs, views) = found.entry(which.clone()).or_default();
                runs.push(build.run(test));
                views.push(build.view(test));
            }
        }
        let tests = found.into_iter();
        let tests = tests.map(|((task, suite, name), (runs, views))| TestHistory {
            task,
            suite,
            name,
            flaky: flaky(&runs),
            runs: views,
        });
        Ok(TestHistoryView {
            tests: tests.collect(),
            builds,
            next: next.map(|number| number.to_string()),
        })
    }

    /// The wanted tests of the latest builds, the latest first, and before which to go on.
    async fn look_at_tests(
        &self,
        job: &Job,
        lately: Lately,
        wanted: impl Fn(&Which, &Test) -> bool,
    ) -> Result<(Vec<Looked>, Option<BuildNumber>), StoreError> {
        let limit = lately.builds.clamp(1, MAX_TEST_HISTORY);
        let (builds, next) = self.list_builds_of(job, lately.before, limit).await?;
        let wanted = &wanted;
        let looked = stream::iter(builds.into_iter().map(|build| build.number))
            .map(|number| self.look_at_build(job, number, wanted))
            .buffered(PARALLEL);
        let looked: Vec<_> = looked.collect().await;
        let looked: Result<Vec<_>, _> = looked.into_iter().collect();
        Ok((looked?, next))
    }

    async fn look_at_build(
        &self,
        job: &Job,
        number: BuildNumber,
        wanted: &impl Fn(&Which, &Test) -> bool,
    ) -> Result<Looked, StoreError> {
        let id = BuildRef {
            job: job.id.clone(),
            number,
        };
        let build = self.build_of(job, &id).await?;
        let mut tests = Vec::new();
        for reported in self.reported(job, &build).await? {
            // It was told of the build that has done the work.
            if reported.is_earlier {
                continue;
            }
            for test in self.test_report(&reported.blobs).await?.tests {
                let which = (reported.task.clone(), test.suite.clone(), test.name.clone());
                if wanted(&which, &test) {
                    tests.push((which, test));
                }
            }
        }
        let commits = commits(&build);
        Ok(Looked {
            number,
            created: build.created,
            inputs: inputs(&build, &commits),
            commit: commits.into_iter().next(),
            tests,
        })
    }

    async fn build_of(&self, job: &Job, id: &BuildRef) -> Result<Build, StoreError> {
        Ok(match self.find_build(job, id).await? {
            Found::Active(build) => build.record,
            Found::Archived(archived) => archived.build,
        })
    }

    /// The tasks of a build that have stored reports.
    async fn reported(&self, job: &Job, build: &Build) -> Result<Vec<Reported>, StoreError> {
        let config = self.config(&job.key, &build.config).await?;
        let tasks = config.tasks.iter().zip(&build.checkpoint.tasks);
        let reported = tasks.filter_map(|(task, progress)| match progress {
            Progress::Finished(run) if run.result.tests.is_some() => Some(Reported {
                task: task.name.clone(),
                attempt: run.attempt,
                blobs: run_blobs(build, run),
                is_earlier: run.build.is_some(),
            }),
            Progress::Finished(_)
            | Progress::Waiting
            | Progress::Posted { .. }
            | Progress::Backoff { .. }
            | Progress::Asking { .. }
            | Progress::Skipped { .. } => None,
        });
        Ok(reported.collect())
    }

    async fn test_report(&self, blobs: &AttemptBlobs) -> Result<TestReport, StoreError> {
        let key = blobs.tests();
        let packed = self.blobs.get(&key, MAX_TEST_REPORT as u64).await?;
        let packed = packed.ok_or_else(|| StoreError::corrupt(&key, "it is gone"))?;
        let text = zstd::decode_all(&*packed).map_err(|error| StoreError::corrupt(&key, error))?;
        decode(key.as_str(), &text)
    }
}

impl Looked {
    fn run(&self, test: &Test) -> TestRun {
        TestRun {
            build: self.number,
            inputs: self.inputs.clone(),
            outcome: test.outcome,
            repeated: test.repeated,
        }
    }

    fn view(&self, test: &Test) -> TestRunView {
        TestRunView {
            build: self.number,
            created: self.created,
            commit: self.commit.clone(),
            outcome: test.outcome,
            duration_ms: test.duration_ms,
            message: test.message.clone(),
        }
    }
}

/// The commits that a build has checked out, in the order of its tasks.
fn commits(build: &Build) -> Vec<String> {
    let exported = |progress: &Progress| match progress {
        Progress::Finished(run) => run.result.exports.get("GIT_COMMIT").cloned(),
        Progress::Waiting
        | Progress::Posted { .. }
        | Progress::Backoff { .. }
        | Progress::Asking { .. }
        | Progress::Skipped { .. } => None,
    };
    build.checkpoint.tasks.iter().filter_map(exported).collect()
}

/// What a build works on, in a word: commits, parameters, configuration. None without a commit, for
/// then nobody knows what it worked on.
fn inputs(build: &Build, commits: &[String]) -> Option<String> {
    if commits.is_empty() {
        return None;
    }
    let mut hash = blake3::Hasher::new_derive_key("distci inputs of a build v1");
    let parameters = build.parameters.iter();
    let parameters = parameters.flat_map(|(name, value)| [name.as_str(), value]);
    let config = std::iter::once(build.config.text());
    let commits = commits.iter().map(String::as_str);
    for part in config.chain(commits).chain(parameters) {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    Some(hash.finalize().to_hex()[..16].to_owned())
}
