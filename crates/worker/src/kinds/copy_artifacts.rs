//! The kind `copy-artifacts`: bringing artifacts of another build into the workspace.
//!
//! Owns the choice of the build and of its files. What arrives is compared with its digest, and
//! never written through a symbolic link that an earlier task left.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use async_trait::async_trait;
use distci_client::ClientError;
use distci_model::config::CopyArtifacts;
use distci_model::id::BuildRef;
use distci_model::outcome::{Failure, Outcome, TaskResult};
use distci_model::wire::Artifact;
use futures::StreamExt;
use tokio::time::Instant;

use super::patterns::Pattern;
use super::{Assignment, Perform, artifacts_in_words, seconds};
use crate::trouble::{Trouble, blocking, doing};
use crate::workspace::path::EntryPath;
use crate::workspace::tree::Tree;

/// The build that is meant if none is named.
const LATEST: &str = "latest-success";

#[async_trait]
impl Perform for CopyArtifacts {
    async fn perform(&self, assignment: &Assignment<'_>) -> Result<TaskResult, Trouble> {
        assignment.bound(Box::pin(copy(self, assignment))).await
    }
}

async fn copy(copy: &CopyArtifacts, assignment: &Assignment<'_>) -> Result<TaskResult, Trouble> {
    let begun = Instant::now();
    let build = find_build(copy, assignment).await?;
    let wanted = choose(copy, assignment, &build).await?;
    let (mut bytes, count) = (0, wanted.len());
    for artifact in wanted {
        bytes += artifact.bytes;
        fetch(copy, assignment, &build, artifact).await?;
    }
    let took = seconds(begun.elapsed());
    let copied = artifacts_in_words(count);
    let what = format!("copied {copied} of {build}, {bytes} bytes in {took}");
    assignment.console.say(&what).await;
    Ok(TaskResult::of(Outcome::Success))
}

async fn find_build(
    copy: &CopyArtifacts,
    assignment: &Assignment<'_>,
) -> Result<BuildRef, Trouble> {
    let upstream = assignment.order.upstream.as_ref();
    let selector = match (&copy.build, upstream.filter(|build| build.job == copy.job)) {
        (Some(number), _) => number.clone(),
        // What triggered us is what is meant, whatever has succeeded since.
        (None, Some(build)) => build.number.to_string(),
        (None, None) => LATEST.to_owned(),
    };
    match assignment.worker.patient.build(&copy.job, &selector).await {
        Ok(view) => Ok(view.build),
        Err(ClientError::NotFound(_)) => {
            let detail = match &copy.build {
                Some(number) => format!("there is no build {number} of job {}", copy.job),
                None => format!("job {} has no successful build", copy.job),
            };
            Err(Failure::NoSuchBuild { detail }.into())
        }
        // What is no number of a build cannot be asked for.
        Err(ClientError::Refused(problem)) => Err(Failure::NoSuchBuild {
            detail: problem.detail.clone(),
        }
        .into()),
        Err(error) => Err(error.into()),
    }
}

async fn choose(
    copy: &CopyArtifacts,
    assignment: &Assignment<'_>,
    build: &BuildRef,
) -> Result<Vec<Artifact>, Trouble> {
    let patterns = Pattern::all(&copy.artifacts)?;
    let listed = assignment.worker.patient.artifacts(build).await?;
    // If several tasks published a path, it is the last one that is served.
    let all: BTreeMap<String, Artifact> = listed
        .into_iter()
        .map(|view| (view.artifact.path.clone(), view.artifact))
        .collect();
    for pattern in &patterns {
        if !all.keys().any(|path| pattern.matches(path.as_ref())) {
            return Err(Failure::NoMatch {
                pattern: pattern.text().to_owned(),
            }
            .into());
        }
    }
    let is_wanted = |artifact: &Artifact| {
        patterns
            .iter()
            .any(|pattern| pattern.matches(artifact.path.as_ref()))
    };
    Ok(all.into_values().filter(is_wanted).collect())
}

async fn fetch(
    copy: &CopyArtifacts,
    assignment: &Assignment<'_>,
    build: &BuildRef,
    artifact: Artifact,
) -> Result<(), Trouble> {
    let place = place(copy.target_directory.as_str(), &artifact.path)?;
    let workspace = assignment.room.workspace();
    let mut file = blocking(move || -> Result<_, Trouble> {
        let mut tree = Tree::open(&workspace).map_err(doing("workspace"))?;
        let file = tree.create(&place)?;
        // As any new file would be; the artifact's own mode is not kept.
        file.set_permissions(Permissions::from_mode(0o644))
            .map_err(doing("artifact"))?;
        Ok(file)
    })
    .await?;
    let mut download = assignment
        .worker
        .patient
        .artifact(build, &artifact.path)
        .await?;
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = download.stream.next().await {
        let piece = piece?;
        hasher.update(&piece);
        file = blocking(move || {
            file.write_all(&piece).map_err(doing("artifact"))?;
            Ok::<_, Trouble>(file)
        })
        .await?;
    }
    if hasher.finalize().to_hex().as_str() != artifact.digest {
        let detail = format!("{} of {build} does not have its digest", artifact.path);
        return Err(Trouble::worker(detail));
    }
    Ok(())
}

fn place(directory: &str, path: &str) -> Result<EntryPath, Failure> {
    let place = match directory {
        "" => path.to_owned(),
        directory => format!("{directory}/{path}"),
    };
    EntryPath::new(place.as_bytes()).map_err(|_| Failure::EscapesWorkspace {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_artifact_lands_outside_of_the_target() {
        assert_eq!(place("", "a/b").unwrap().to_string(), "a/b");
        assert_eq!(place("in/here", "a").unwrap().to_string(), "in/here/a");
        for evil in ["../a", "/etc/passwd", "a/../../b", ""] {
            assert!(matches!(
                place("in", evil),
                Err(Failure::EscapesWorkspace { .. })
            ));
        }
    }
}
