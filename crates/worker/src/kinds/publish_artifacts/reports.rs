//! Test reports of a workspace: read, told on the console, and stored as one.
//!
//! Owns what follows from what they say. How each form is read is `crate::reports`'.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use distci_model::config::{Consequence, PublishArtifacts, ReportFormat};
use distci_model::outcome::{Failure, Outcome};
use distci_model::test_report::{Test, TestCounts, TestReport};

use super::super::Assignment;
use crate::reports::{self, Broken, Gathering, MOST_BYTES};
use crate::trouble::{Trouble, blocking, doing};

/// Most broken reports, and most tests, that are named on the console.
const MOST_TOLD: usize = 20;
/// How many tests a failure names.
const FIRST: usize = 3;
/// Most characters of a name in a failure, which is kept with the build.
const SHORT_NAME: usize = 120;

/// What test reports say.
pub(super) struct Told {
    pub(super) counts: TestCounts,
    /// What follows for the task.
    pub(super) outcome: Outcome,
}

/// What was read.
#[derive(Default)]
struct Heard {
    gathered: Gathering,
    /// Reports that could not be read, or not to their end: which, where, and why not.
    broken: Vec<String>,
}

/// Reads the reports and stores what they say. `None` if there are none.
pub(super) async fn keep(
    publish: &PublishArtifacts,
    assignment: &Assignment<'_>,
    files: Vec<(ReportFormat, BTreeMap<String, PathBuf>)>,
) -> Result<Option<Told>, Trouble> {
    if files.iter().all(|(_, files)| files.is_empty()) {
        return Ok(None);
    }
    let Heard { gathered, broken } = blocking(move || hear(&files)).await?;
    let report = gathered.finish();
    let console = assignment.console;
    for broken in broken.iter().take(MOST_TOLD) {
        console.say(&format!("broken test report: {broken}")).await;
    }
    for test in bad(&report).take(MOST_TOLD) {
        let (outcome, name) = (test.outcome, test.full_name());
        console.say(&format!("test {outcome}: {name}")).await;
    }
    let counts = report.counts;
    console.say(&format!("tests: {counts}")).await;
    let patient = &assignment.worker.patient;
    patient.put_tests(assignment.held, &report).await?;
    let outcome = match failure(publish, &report, broken) {
        Some(reason) => Outcome::Failure { reason },
        None => Outcome::Success,
    };
    Ok(Some(Told { counts, outcome }))
}

fn bad(report: &TestReport) -> impl Iterator<Item = &Test> {
    report.tests.iter().filter(|test| test.outcome.is_bad())
}

/// Why the task fails, if it does for what its reports say.
fn failure(
    publish: &PublishArtifacts,
    report: &TestReport,
    broken: Vec<String>,
) -> Option<Failure> {
    let failed = report.counts.bad();
    if failed > 0 && publish.failed_tests == Consequence::Fail {
        let short = |test: &Test| test.full_name().chars().take(SHORT_NAME).collect();
        return Some(Failure::Tests {
            failed,
            of: report.counts.total(),
            first: bad(report).take(FIRST).map(short).collect(),
        });
    }
    let fails = publish.broken_reports == Consequence::Fail;
    let detail = broken.into_iter().next().filter(|_| fails)?;
    Some(Failure::BrokenReport { detail })
}

fn hear(files: &[(ReportFormat, BTreeMap<String, PathBuf>)]) -> Result<Heard, Trouble> {
    let mut heard = Heard::default();
    let named = files.iter().flat_map(|(format, files)| {
        let files = files.iter();
        files.map(move |(name, path)| (*format, name, path))
    });
    for (format, name, path) in named {
        let read = match bytes_of(path)? {
            Ok(bytes) => reports::read(format, &bytes, &mut heard.gathered),
            Err(broken) => Err(broken),
        };
        if let Err(broken) = read {
            heard.broken.push(format!("{name}:{broken}"));
        }
    }
    Ok(heard)
}

/// The content of a report, if it is of bearable size.
fn bytes_of(path: &Path) -> Result<Result<Vec<u8>, Broken>, Trouble> {
    let file = File::open(path).map_err(doing("test report"))?;
    let mut bytes = Vec::new();
    let limit = MOST_BYTES + 1;
    let read = file.take(limit).read_to_end(&mut bytes);
    if read.map_err(doing("test report"))? as u64 >= limit {
        let why = format!("the report has over {MOST_BYTES} bytes");
        return Ok(Err(Broken { line: 1, why }));
    }
    Ok(Ok(bytes))
}
