//! Artifacts on their way to this disk.
//!
//! Owns the rule that a file is whole, verified and inside the target folder, or not there at all.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use distci_client::Client;
use distci_model::config::WorkspacePath;
use distci_model::id::BuildRef;
use distci_model::wire::{Artifact, ArtifactView};
use futures::{StreamExt, TryStreamExt, stream};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::NamedTempFile;

use crate::exit::Ended;

/// Downloads at once: small files cost a round trip each, and a large one fills the line alone.
const PARALLEL: usize = 8;

/// The artifacts whose paths match one of `patterns`, or all without any. Of artifacts with the
/// same path, the last one published counts, as it does for the frontend.
pub(crate) fn choose(all: Vec<ArtifactView>, patterns: &[String]) -> Result<Vec<Artifact>> {
    let matcher = matcher(patterns)?;
    let mut seen = HashSet::new();
    let mut chosen: Vec<Artifact> = Vec::new();
    for ArtifactView { artifact, .. } in all.into_iter().rev() {
        let wanted = patterns.is_empty() || matcher.is_match(&artifact.path);
        if wanted && seen.insert(artifact.path.clone()) {
            chosen.push(artifact);
        }
    }
    chosen.reverse();
    for pattern in patterns {
        let one = matcher_of_one(pattern)?;
        if !chosen.iter().any(|artifact| one.is_match(&artifact.path)) {
            return Err(Ended::not_found(format!("no artifact matches {pattern:?}")));
        }
    }
    Ok(chosen)
}

fn matcher_of_one(pattern: &str) -> Result<GlobSet> {
    matcher(std::slice::from_ref(&pattern.to_owned()))
}

fn matcher(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        // `FOLDER/` is all that is in it, as the archive understands it too.
        let all = if pattern.ends_with('/') { "**" } else { "" };
        let glob = GlobBuilder::new(&format!("{pattern}{all}"))
            .literal_separator(true)
            .build();
        set.add(glob.map_err(|error| Ended::failed(error.to_string()))?);
    }
    Ok(set.build()?)
}

/// Downloads artifacts of a build into `directory`, with a bar for whoever looks.
pub(crate) async fn fetch(
    client: &Client,
    build: &BuildRef,
    artifacts: &[Artifact],
    directory: &Path,
) -> Result<()> {
    let bar = ProgressBar::new(artifacts.iter().map(|artifact| artifact.bytes).sum());
    let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
    bar.set_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let one = async |artifact: &Artifact| {
        bar.set_message(crate::view::plain(&artifact.path));
        let done = fetch_one(client, build, artifact, directory, &bar).await;
        done.with_context(|| format!("artifact {:?} of {build}", artifact.path))
    };
    let fetching = stream::iter(artifacts).map(one).buffer_unordered(PARALLEL);
    let () = fetching.try_collect().await?;
    bar.finish_and_clear();
    Ok(())
}

async fn fetch_one(
    client: &Client,
    build: &BuildRef,
    artifact: &Artifact,
    directory: &Path,
    bar: &ProgressBar,
) -> Result<()> {
    let target = place(directory, &artifact.path)?;
    let folder = target.parent().unwrap_or(directory);
    let mut file = NamedTempFile::with_prefix_in(".distci-", folder)?;
    let mut download = client.artifact(build, &artifact.path).await?;
    let mut digest = blake3::Hasher::new();
    while let Some(piece) = download.stream.next().await {
        let piece = piece?;
        digest.update(&piece);
        file.write_all(&piece)?;
        bar.inc(piece.len() as u64);
    }
    let digest = digest.finalize().to_hex();
    if digest.as_str() != artifact.digest {
        anyhow::bail!(
            "arrived damaged: its digest is {digest}, not {}",
            artifact.digest
        );
    }
    // What is downloaded is as readable as what the user makes otherwise.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.persist(&target)?;
    Ok(())
}

/// Where an artifact goes: below `directory`, through no link. Makes the folders on the way.
fn place(directory: &Path, path: &str) -> Result<PathBuf> {
    let path: WorkspacePath = path.parse()?;
    let mut place = directory.to_owned();
    let mut segments = path.as_str().split('/').peekable();
    while let Some(segment) = segments.next() {
        place.push(segment);
        if segments.peek().is_none() {
            break;
        }
        match std::fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => anyhow::bail!("{} is there, and no folder", place.display()),
            Err(_) => std::fs::create_dir(&place).with_context(|| place.display().to_string())?,
        }
    }
    if place == directory || place.is_dir() {
        anyhow::bail!("{} is a folder", place.display());
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(task: &str, path: &str, digest: &str) -> ArtifactView {
        ArtifactView {
            task: task.parse().unwrap(),
            artifact: Artifact {
                path: path.to_owned(),
                bytes: 1,
                digest: digest.to_owned(),
                content_type: "text/plain".to_owned(),
            },
        }
    }

    fn chosen(patterns: &[&str]) -> Result<Vec<String>> {
        let all = vec![
            view("a", "dist/one.txt", "1"),
            view("a", "dist/sub/two.txt", "2"),
            view("b", "dist/one.txt", "3"),
        ];
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let chosen = choose(all, &patterns)?;
        Ok(chosen
            .into_iter()
            .map(|a| format!("{}={}", a.path, a.digest))
            .collect())
    }

    #[test]
    fn patterns_choose_and_the_last_of_a_path_counts() {
        assert_eq!(
            chosen(&[]).unwrap(),
            ["dist/sub/two.txt=2", "dist/one.txt=3"]
        );
        assert_eq!(chosen(&["dist/*"]).unwrap(), ["dist/one.txt=3"]);
        assert_eq!(chosen(&["dist/sub/"]).unwrap(), ["dist/sub/two.txt=2"]);
        assert_eq!(chosen(&["dist/"]).unwrap().len(), 2);
        assert_eq!(chosen(&["**/two.txt"]).unwrap(), ["dist/sub/two.txt=2"]);
        let error = chosen(&["dist/*", "*.jar"]).unwrap_err();
        assert_eq!(error.to_string(), "no artifact matches \"*.jar\"");
    }

    #[test]
    fn no_artifact_leaves_the_folder() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        assert_eq!(place(root, "a/b\nc").unwrap(), root.join("a/b\nc"));
        assert!(root.join("a").is_dir());
        std::os::unix::fs::symlink("/tmp", root.join("link")).unwrap();
        for bad in ["../x", "/etc/passwd", "a/../../x", "", ".", "link/x", "a"] {
            assert!(place(root, bad).is_err(), "{bad:?} was accepted");
        }
    }
}
