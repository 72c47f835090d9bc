//! The kind `job-file`: the file of a repository that says what a job does.
//!
//! Owns the way from a commit to the text of the file, with all that it includes of the same commit, and
//! what its owner is told of it. Reads objects of the repository and checks nothing out, so no link leads
//! anywhere. What the file may say is the model's to judge; the frontend asks it again.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use distci_model::config::{ConfigProblem, Files, JOB_FILE_ARTIFACT, JobFile, MAX_BYTES};
use distci_model::outcome::{Failure, Outcome, TaskResult};
use distci_model::wire::ArtifactManifest;
use tokio::time::Instant;

use super::git_checkout::{Git, Mirror, Repository, find, is_of_mirror, reason, refused, renew};
use super::publish_artifacts::upload;
use super::{Assignment, Perform, seconds};
use crate::trouble::{Trouble, doing};

/// Most problems that are told.
const MAX_TOLD: usize = 50;

#[async_trait]
impl Perform for JobFile {
    async fn perform(&self, assignment: &Assignment<'_>) -> Result<TaskResult, Trouble> {
        let begun = Instant::now();
        let (path, reference) = (self.path.as_str(), self.wanted());
        let (git, repository) = (
            Git::new(assignment).await?,
            Repository::new(&self.repository)?,
        );
        let address = repository.address();
        let say = format!("reading {path} of {reference} from {address}");
        assignment.console.say(&say).await;
        let wanted = find(&git, &repository, reference).await?;
        let mirror = Mirror::open(assignment, &git, &repository).await?;
        let id = match mirror.obtain(&wanted).await {
            Err(trouble) if is_of_mirror(&trouble, &wanted) => {
                renew(&mirror, assignment).await?;
                mirror.obtain(&wanted).await?
            }
            id => id?,
        };
        let commit = Commit {
            git: &git,
            mirror: mirror.path(),
            folder: assignment.room.temporary(),
            id,
        };
        let files = commit.gather(path).await?;
        let text = check(&files, path, assignment).await?;
        let handing = hand_back(assignment, &commit.id, &text);
        let result = assignment.bound(Box::pin(handing)).await?;
        let (id, took) = (&commit.id, seconds(begun.elapsed()));
        let say = format!("read {path} of commit {id} in {took}");
        assignment.console.say(&say).await;
        Ok(result)
    }
}

/// A commit in the mirror of its repository.
struct Commit<'a> {
    git: &'a Git<'a>,
    mirror: &'a Path,
    /// Where git puts what it takes out.
    folder: PathBuf,
    id: String,
}

impl Commit<'_> {
    /// A file with everything that it includes, as far as the commit has it.
    async fn gather(&self, path: &str) -> Result<Files, Trouble> {
        let text = self.text(path).await?;
        let text = text.map_err(|detail| Failure::Configuration { detail })?;
        let mut files = Files::of(path, &text);
        while let Some(wanted) = files.wanted().map(ToOwned::to_owned) {
            let text = self.text(&wanted).await?;
            files.add(&wanted, text);
        }
        Ok(files)
    }

    /// The text of a file; or why it cannot be had, whoever asks.
    async fn text(&self, path: &str) -> Result<Result<String, String>, Trouble> {
        let list = [
            "--literal-pathspecs",
            "ls-tree",
            "-z",
            "-l",
            &self.id,
            "--",
            path,
        ];
        let listed = self.ask(self.mirror, &list).await?;
        let object = match object(&listed, path) {
            Ok(object) => object,
            Err(why) => return Ok(Err(format!("{path} {why}"))),
        };
        // Its answer is a name: what git says goes through no text, so the file comes as it is.
        let mirror = format!("--git-dir={}", self.mirror.display());
        let said = self
            .ask(&self.folder, &[&mirror, "unpack-file", object])
            .await?;
        let name = said.lines().next_back().unwrap_or_default().trim();
        let taken = self.folder.join(name);
        let bytes = tokio::fs::read(&taken).await.map_err(doing("job file"))?;
        tokio::fs::remove_file(&taken)
            .await
            .map_err(doing("job file"))?;
        Ok(String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8")))
    }

    async fn ask(&self, directory: &Path, args: &[&str]) -> Result<String, Trouble> {
        let answer = self.git.ask(directory, args).await?;
        if answer.yes {
            return Ok(answer.text);
        }
        Err(refused(reason(&answer.text)))
    }
}

/// The object of a regular file of bearable size, as `ls-tree -z -l` lists it: mode, type, object and
/// size, then a tab and the path.
fn object<'l>(listed: &'l str, path: &str) -> Result<&'l str, String> {
    let entry = listed
        .split('\0')
        .filter_map(|entry| entry.split_once('\t'))
        .find(|(_, listed)| *listed == path);
    let (facts, _) = entry.ok_or("is not in the commit")?;
    // Whatever git warns of comes before its answer.
    let facts = facts.lines().next_back().unwrap_or_default();
    let facts: Vec<&str> = facts.split_whitespace().collect();
    match facts.as_slice() {
        ["100644" | "100755", "blob", object, size] => match size.parse::<usize>() {
            Ok(size) if size <= MAX_BYTES => Ok(object),
            Ok(_) | Err(_) => Err(format!("has {size} bytes; the limit is {MAX_BYTES}")),
        },
        ["120000", ..] => Err("is a symbolic link; only regular files are read".to_owned()),
        _ => Err("is no regular file".to_owned()),
    }
}

/// The one text of the file, if its job lets it say that. What is wrong is told on the console.
async fn check(files: &Files, path: &str, assignment: &Assignment<'_>) -> Result<String, Trouble> {
    let stored = assignment.order.job.as_ref();
    let stored = stored.ok_or_else(|| Trouble::worker("the order has no job".to_owned()))?;
    let problems = match files.job_of(stored) {
        Ok((_, text)) => return Ok(text),
        Err(problems) => problems,
    };
    for problem in problems.iter().take(MAX_TOLD) {
        assignment.console.say(&named(problem, path)).await;
    }
    let first = problems.first().map(|problem| named(problem, path));
    let mut detail = first.unwrap_or_default();
    if problems.len() > 1 {
        detail = format!("{detail}; and {} more", problems.len() - 1);
    }
    Err(Failure::Configuration { detail }.into())
}

/// A problem with the name of its file, also if that is the first one.
fn named(problem: &ConfigProblem, path: &str) -> String {
    match problem.file {
        Some(_) => problem.to_string(),
        None => format!("{path}:{problem}"),
    }
}

async fn hand_back(
    assignment: &Assignment<'_>,
    commit: &str,
    text: &str,
) -> Result<TaskResult, Trouble> {
    let file = assignment.room.file(JOB_FILE_ARTIFACT);
    tokio::fs::write(&file, text)
        .await
        .map_err(doing("job file"))?;
    let artifact = upload(assignment, 0, JOB_FILE_ARTIFACT.to_owned(), file).await?;
    let bytes = artifact.bytes;
    let manifest = ArtifactManifest {
        artifacts: vec![artifact],
    };
    let patient = &assignment.worker.patient;
    patient.put_manifest(assignment.held, &manifest).await?;
    Ok(TaskResult {
        artifacts: 1,
        artifact_bytes: bytes,
        outputs: [("commit".to_owned(), commit.to_owned())].into(),
        ..TaskResult::of(Outcome::Success)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_bearable_size_are_read() {
        let id = "2".repeat(40);
        for (listed, expected) in [
            (format!("100644 blob {id}      12\t.distci.json\0"), Ok(())),
            (
                format!("warning: x\n100755 blob {id} 524288\t.distci.json\0"),
                Ok(()),
            ),
            (
                format!("100644 blob {id} 524289\t.distci.json\0"),
                Err("the limit"),
            ),
            (
                format!("120000 blob {id} 9\t.distci.json\0"),
                Err("symbolic link"),
            ),
            (
                format!("040000 tree {id} -\t.distci.json\0"),
                Err("no regular file"),
            ),
            (
                format!("160000 commit {id} -\t.distci.json\0"),
                Err("no regular file"),
            ),
            (
                format!("100644 blob {id} 1\tother\0"),
                Err("not in the commit"),
            ),
            (String::new(), Err("not in the commit")),
        ] {
            let found = object(&listed, ".distci.json");
            match expected {
                Ok(()) => assert_eq!(found, Ok(id.as_str()), "{listed}"),
                Err(why) => assert!(found.unwrap_err().contains(why), "{listed}"),
            }
        }
    }
}
