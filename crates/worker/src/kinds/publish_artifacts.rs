//! The kind `publish-artifacts`: keeping files of the workspace.
//!
//! Owns the choice of files and their upload. The manifest goes last: until then nothing is
//! published, and what a lost attempt uploaded is never seen. Files that are reports of tests are
//! read here too; what they say is `reports`'.

mod reports;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use distci_model::config::{PublishArtifacts, ReportFormat};
use distci_model::outcome::{Failure, Outcome, TaskResult};
use distci_model::wire::{Artifact, ArtifactManifest, MAX_ARTIFACTS, MAX_BLOB};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::patterns::Pattern;
use super::{Assignment, Perform, artifacts_in_words, seconds};
use crate::trouble::{Trouble, blocking, doing};
use crate::workspace::layer;
use crate::workspace::path::EntryPath;
use crate::workspace::snapshot::Snapshot;

/// Uploads at once.
const PARALLEL: usize = 4;

#[async_trait]
impl Perform for PublishArtifacts {
    async fn perform(&self, assignment: &Assignment<'_>) -> Result<TaskResult, Trouble> {
        assignment.bound(Box::pin(publish(self, assignment))).await
    }
}

async fn publish(
    publish: &PublishArtifacts,
    assignment: &Assignment<'_>,
) -> Result<TaskResult, Trouble> {
    let artifacts = Pattern::all(&publish.artifacts)?;
    let mut formats = Vec::new();
    for (format, texts) in publish.reports() {
        formats.push((format, Pattern::all(texts)?));
    }
    let workspace = assignment.room.workspace();
    let found = blocking(move || Found::of(&workspace, &artifacts, &formats)).await?;
    for pattern in found.unmatched {
        if !publish.optional {
            return Err(Failure::NoMatch { pattern }.into());
        }
        let missing = format!("no file matches {pattern:?}");
        assignment.console.say(&missing).await;
    }
    let mut result = keep(assignment, found.artifacts).await?;
    if let Some(told) = reports::keep(publish, assignment, found.reports).await? {
        result.tests = Some(told.counts);
        result.outcome = told.outcome;
    }
    Ok(result)
}

/// Uploads files as artifacts.
async fn keep(
    assignment: &Assignment<'_>,
    files: BTreeMap<String, PathBuf>,
) -> Result<TaskResult, Trouble> {
    let begun = Instant::now();
    if files.is_empty() {
        return Ok(TaskResult::of(Outcome::Success));
    }
    let artifacts: Vec<Artifact> = stream::iter(files.into_iter().enumerate())
        .map(|(index, (name, file))| upload(assignment, index, name, file))
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let bytes = artifacts.iter().map(|artifact| artifact.bytes).sum();
    let count = artifacts.len();
    assignment
        .worker
        .patient
        .put_manifest(assignment.held, &ArtifactManifest { artifacts })
        .await?;
    let took = seconds(begun.elapsed());
    assignment
        .console
        .say(&format!(
            "published {}, {bytes} bytes in {took}",
            artifacts_in_words(count)
        ))
        .await;
    Ok(TaskResult {
        artifacts: u32::try_from(count).unwrap_or(u32::MAX),
        artifact_bytes: bytes,
        ..TaskResult::of(Outcome::Success)
    })
}

/// What the patterns choose.
#[derive(Debug, Default)]
struct Found {
    /// Names of what is to be an artifact, and where its content is.
    artifacts: BTreeMap<String, PathBuf>,
    /// The same of test reports, each with its form.
    reports: Vec<(ReportFormat, BTreeMap<String, PathBuf>)>,
    /// Patterns that choose nothing.
    unmatched: Vec<String>,
}

impl Found {
    fn of(
        workspace: &Path,
        artifacts: &[Pattern],
        reports: &[(ReportFormat, Vec<Pattern>)],
    ) -> Result<Self, Trouble> {
        let root = workspace.canonicalize().map_err(doing("workspace"))?;
        let snapshot = Snapshot::take(&root).map_err(doing("workspace"))?;
        let mut found = Self::default();
        found.artifacts = choose(&root, &snapshot, artifacts, &mut found.unmatched)?;
        for (format, patterns) in reports {
            let files = choose(&root, &snapshot, patterns, &mut found.unmatched)?;
            found.reports.push((*format, files));
        }
        Ok(found)
    }
}

/// The files that the patterns choose, by name. Patterns that choose none are noted.
fn choose(
    root: &Path,
    snapshot: &Snapshot,
    patterns: &[Pattern],
    unmatched: &mut Vec<String>,
) -> Result<BTreeMap<String, PathBuf>, Trouble> {
    let mut files = BTreeMap::new();
    let mut used = vec![false; patterns.len()];
    for path in snapshot.leaves().map(EntryPath::as_path) {
        let chosen: Vec<bool> = patterns
            .iter()
            .map(|pattern| pattern.matches(path))
            .collect();
        if !chosen.contains(&true) {
            continue;
        }
        let Some(file) = content(root, path)? else {
            continue;
        };
        for (used, chosen) in used.iter_mut().zip(chosen) {
            *used |= chosen;
        }
        let name = path.to_str().ok_or_else(|| Failure::LimitExceeded {
            detail: format!("{}: names of artifacts must be UTF-8", path.display()),
        })?;
        files.insert(name.to_owned(), file);
    }
    if files.len() > MAX_ARTIFACTS {
        let detail = format!("{} artifacts, over {MAX_ARTIFACTS}", files.len());
        return Err(Failure::LimitExceeded { detail }.into());
    }
    let unused = patterns.iter().zip(used).filter(|(_, used)| !used);
    unmatched.extend(unused.map(|(pattern, _)| pattern.text().to_owned()));
    Ok(files)
}

/// The regular file that `name` is or leads to, if any.
fn content(root: &Path, name: &Path) -> Result<Option<PathBuf>, Trouble> {
    let Ok(target) = root.join(name).canonicalize() else {
        // A link to nowhere is no file.
        return Ok(None);
    };
    if !target.starts_with(root) {
        let path = name.display().to_string();
        return Err(Failure::EscapesWorkspace { path }.into());
    }
    Ok(target.is_file().then_some(target))
}

/// Uploads a file as artifact number `index`.
pub(super) async fn upload(
    assignment: &Assignment<'_>,
    index: usize,
    name: String,
    file: PathBuf,
) -> Result<Artifact, Trouble> {
    let path = file.clone();
    let (bytes, digest) = blocking(move || {
        File::open(path)
            .and_then(|mut file| layer::hash(&mut file))
            .map_err(doing("artifact"))
    })
    .await?;
    if bytes > MAX_BLOB {
        let detail = format!("{name} has {bytes} bytes, over {MAX_BLOB}");
        return Err(Failure::LimitExceeded { detail }.into());
    }
    assignment
        .worker
        .patient
        .put_artifact(assignment.held, index, &file)
        .await?;
    let content_type = mime_guess::from_path(&name)
        .first_or_octet_stream()
        .to_string();
    Ok(Artifact {
        path: name,
        bytes,
        digest,
        content_type,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn find_in(root: &Path, patterns: &[&str]) -> Result<Found, Trouble> {
        let texts: Vec<String> = patterns.iter().map(|&text| text.to_owned()).collect();
        Found::of(root, &Pattern::all(&texts).unwrap(), &[])
    }

    #[test]
    fn files_are_found_and_what_finds_nothing_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dist/sub")).unwrap();
        fs::write(root.path().join("dist/a b\n.log"), "").unwrap();
        fs::write(root.path().join("dist/sub/c.log"), "").unwrap();
        let found = find_in(root.path(), &["dist/**", "*.egg"]).unwrap();
        let names: Vec<&String> = found.artifacts.keys().collect();
        assert_eq!(names, ["dist/a b\n.log", "dist/sub/c.log"]);
        assert_eq!(found.unmatched, ["*.egg"]);
    }

    #[test]
    fn a_link_inside_is_followed_and_one_that_leaves_is_refused() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(root.path().join("real"), "x").unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        symlink("real", root.path().join("inside")).unwrap();
        symlink("nowhere", root.path().join("dangling")).unwrap();
        let found = find_in(root.path(), &["*"]).unwrap();
        assert_eq!(found.artifacts.len(), 2);
        symlink(outside.path().join("secret"), root.path().join("leaves")).unwrap();
        assert!(matches!(
            find_in(root.path(), &["leaves"]),
            Err(Trouble::Failure(Failure::EscapesWorkspace { .. }))
        ));
    }

    #[test]
    fn a_name_that_is_no_text_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        assert!(matches!(
            find_in(root.path(), &["*"]),
            Err(Trouble::Failure(Failure::LimitExceeded { .. }))
        ));
    }
}
