//! Artifacts, workspace layers and summaries: the large bytes of an attempt.
//!
//! Owns their storing and reading. Everything is keyed by attempt and written once; it becomes
//! visible only when a committed result refers to it, so what a zombie uploads is never seen.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use distci_model::build::Progress;
use distci_model::config::WorkspacePath;
use distci_model::id::{Attempt, BuildNumber, BuildRef, TicketKey};
use distci_model::wire::{
    Artifact, ArtifactManifest, ArtifactView, MAX_ARTIFACTS, MAX_BLOB, MAX_DIRECT, MAX_SUMMARY,
};
use futures::Stream;

use crate::blobs::{BlobKey, Contents, Deed, SignedUrl};
use crate::builds::Found;
use crate::error::StoreError;
use crate::keys::AttemptBlobs;
use crate::store::Store;
use crate::tickets::{attempt_blobs, run_blobs};
use crate::transaction::{decode, encode};

/// Largest artifact manifest.
const MAX_MANIFEST: u64 = 16 * 1024 * 1024;

/// How long an address is good for. The transfer must begin within it; the clocks of a frontend and
/// of the store may differ by nearly as much.
pub(crate) const ADDRESS_TTL: Duration = Duration::from_mins(15);

/// Which layer: that of an attempt, in the active build of its ticket's key or in an earlier one of the
/// same job.
#[derive(Debug, Clone)]
pub struct LayerOf {
    /// The ticket, in the build that needs the layer.
    pub key: TicketKey,
    /// The attempt that stored it.
    pub attempt: Attempt,
    /// The earlier build; none for the active one.
    pub build: Option<BuildNumber>,
}

/// An artifact, and where its content is.
#[derive(Debug, Clone)]
pub struct StoredArtifact {
    /// What it is.
    pub artifact: Artifact,
    blob: BlobKey,
}

/// A stream of bytes that somebody uploads.
pub trait Upload: Stream<Item = Result<Bytes, io::Error>> + Send + Unpin {}
impl<S: Stream<Item = Result<Bytes, io::Error>> + Send + Unpin> Upload for S {}

impl Store {
    /// Stores the layer of the workspace that an attempt made. Gives its size.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn put_layer(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        upload: impl Upload,
    ) -> Result<u64, StoreError> {
        let blobs = self.claimed_blobs(key, attempt).await?;
        Ok(self
            .blobs
            .put_stream(&blobs.layer(), upload, MAX_BLOB)
            .await?
            .bytes)
    }

    /// Where the holder of a claim may store its layer of so many bytes without us, if the store
    /// has such places. What ends there counts as if [`put_layer`](Self::put_layer) had stored it.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn layer_place(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        bytes: u64,
    ) -> Result<Option<SignedUrl>, StoreError> {
        let blobs = self.claimed_blobs(key, attempt).await?;
        self.place(&blobs.layer(), bytes).await
    }

    /// Reads a layer of a build that is not archived.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn layer(&self, of: &LayerOf) -> Result<Contents, StoreError> {
        let LayerOf { key, attempt, .. } = of;
        let missing = || StoreError::missing(format!("layer of {key} attempt {attempt}"));
        let blob = self.layer_blob(of).await?.ok_or_else(missing)?;
        self.blobs.get_stream(&blob, 0).await?.ok_or_else(missing)
    }

    /// Where a layer of a build that is not archived can be read without us, if it can. It may be
    /// missing there: [`layer`](Self::layer) tells.
    pub async fn layer_address(&self, of: &LayerOf) -> Result<Option<SignedUrl>, StoreError> {
        let Some(blob) = self.layer_blob(of).await? else {
            return Ok(None);
        };
        Ok(self.blobs.signed(&blob, Deed::Read, ADDRESS_TTL).await?)
    }

    async fn layer_blob(&self, of: &LayerOf) -> Result<Option<BlobKey>, StoreError> {
        let control = TicketKey::control(of.key.build.clone());
        let build = self.ticket(&control).await?;
        Ok(build.map(|build| {
            let blobs = attempt_blobs(&build, &of.key, of.attempt);
            let number = of.build.unwrap_or(blobs.number);
            AttemptBlobs { number, ..blobs }.layer()
        }))
    }

    /// Stores the content of artifact `index` of an attempt. Gives its size.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn put_artifact(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        index: usize,
        upload: impl Upload,
    ) -> Result<u64, StoreError> {
        check_index(index)?;
        let blobs = self.claimed_blobs(key, attempt).await?;
        Ok(self
            .blobs
            .put_stream(&blobs.artifact(index), upload, MAX_BLOB)
            .await?
            .bytes)
    }

    /// Where the holder of a claim may store artifact `index`, of so many bytes, without us: as
    /// [`layer_place`](Self::layer_place).
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn artifact_place(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        index: usize,
        bytes: u64,
    ) -> Result<Option<SignedUrl>, StoreError> {
        check_index(index)?;
        let blobs = self.claimed_blobs(key, attempt).await?;
        self.place(&blobs.artifact(index), bytes).await
    }

    pub(crate) async fn place(
        &self,
        blob: &BlobKey,
        bytes: u64,
    ) -> Result<Option<SignedUrl>, StoreError> {
        if bytes > MAX_DIRECT {
            return Ok(None);
        }
        Ok(self.blobs.signed(blob, Deed::Write, ADDRESS_TTL).await?)
    }

    /// Stores the names and digests of an attempt's artifacts.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn put_artifact_manifest(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        manifest: &ArtifactManifest,
    ) -> Result<(), StoreError> {
        let blobs = self.claimed_blobs(key, attempt).await?;
        // The largest index of so many.
        check_index(manifest.artifacts.len().saturating_sub(1))?;
        check_artifacts(&manifest.artifacts).map_err(StoreError::refused)?;
        let key = blobs.artifact_manifest();
        let text = encode(key.as_str(), manifest)?;
        if text.len() as u64 > MAX_MANIFEST {
            return Err(StoreError::TooLarge {
                limit: MAX_MANIFEST,
            });
        }
        Ok(self.blobs.put(&key, text).await?)
    }

    /// Stores what a task says about itself.
    ///
    /// # Errors
    /// [`StoreError::AttemptOver`] without the claim.
    pub async fn put_summary(
        &self,
        key: &TicketKey,
        attempt: Attempt,
        text: Bytes,
    ) -> Result<(), StoreError> {
        let blobs = self.claimed_blobs(key, attempt).await?;
        if text.len() > MAX_SUMMARY {
            return Err(StoreError::TooLarge {
                limit: MAX_SUMMARY as u64,
            });
        }
        Ok(self.blobs.put(&blobs.summary(), text).await?)
    }

    /// What a task of a build said about itself, if anything.
    pub async fn summary(&self, id: &BuildRef, task: &str) -> Result<Option<Bytes>, StoreError> {
        for (name, blobs, _) in self.finished_attempts(id).await? {
            if name == task {
                return Ok(self.blobs.get(&blobs.summary(), MAX_SUMMARY as u64).await?);
            }
        }
        Err(StoreError::missing(format!(
            "finished task \"{task}\" in {id}"
        )))
    }

    /// The artifacts of a build, by path.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a build.
    pub async fn artifacts(&self, id: &BuildRef) -> Result<Vec<ArtifactView>, StoreError> {
        let mut views = Vec::new();
        for (task, blobs, count) in self.finished_attempts(id).await? {
            if count == 0 {
                continue;
            }
            let Ok(task) = task.parse::<distci_model::id::TaskName>() else {
                continue;
            };
            for artifact in self.manifest(&blobs).await?.artifacts {
                views.push(ArtifactView {
                    task: task.clone(),
                    artifact,
                });
            }
        }
        views.sort_by(|a, b| a.artifact.path.cmp(&b.artifact.path));
        Ok(views)
    }

    /// An artifact. If several tasks published the path, the last in order counts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn artifact(&self, id: &BuildRef, path: &str) -> Result<StoredArtifact, StoreError> {
        for (_, blobs, count) in self.finished_attempts(id).await?.into_iter().rev() {
            if count == 0 {
                continue;
            }
            let mut artifacts = stored(&blobs, self.manifest(&blobs).await?);
            if let Some(found) = artifacts.find(|found| found.artifact.path == path) {
                return Ok(found);
            }
        }
        Err(StoreError::missing(format!("artifact {path:?} in {id}")))
    }

    /// The artifacts of a build that count, by path: each path once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a build.
    pub async fn stored_artifacts(&self, id: &BuildRef) -> Result<Vec<StoredArtifact>, StoreError> {
        let mut by_path = BTreeMap::new();
        for (_, blobs, count) in self.finished_attempts(id).await? {
            if count == 0 {
                continue;
            }
            let artifacts = stored(&blobs, self.manifest(&blobs).await?);
            by_path.extend(artifacts.map(|one| (one.artifact.path.clone(), one)));
        }
        Ok(by_path.into_values().collect())
    }

    /// The content of an artifact from `from` on, with the size of all of it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is gone.
    pub async fn open_artifact(
        &self,
        artifact: &StoredArtifact,
        from: u64,
    ) -> Result<Contents, StoreError> {
        let contents = self.blobs.get_stream(&artifact.blob, from).await?;
        contents.ok_or_else(|| StoreError::corrupt(&artifact.blob, "it is gone"))
    }

    /// Where an artifact can be read without us, if it can.
    pub async fn artifact_address(
        &self,
        artifact: &StoredArtifact,
    ) -> Result<Option<SignedUrl>, StoreError> {
        let address = self.blobs.signed(&artifact.blob, Deed::Read, ADDRESS_TTL);
        Ok(address.await?)
    }

    pub(crate) async fn manifest(
        &self,
        blobs: &AttemptBlobs,
    ) -> Result<ArtifactManifest, StoreError> {
        let key = blobs.artifact_manifest();
        let data = self.blobs.get(&key, MAX_MANIFEST).await?;
        let data = data.ok_or_else(|| StoreError::corrupt(&key, "it is gone"))?;
        decode(key.as_str(), &data)
    }

    /// The attempts whose results count: task, blobs, number of artifacts.
    async fn finished_attempts(
        &self,
        id: &BuildRef,
    ) -> Result<Vec<(String, AttemptBlobs, u32)>, StoreError> {
        let job = self.read_job(&id.job).await?;
        let build = match self.find_build(&job, id).await? {
            Found::Active(build) => build.record,
            Found::Archived(archived) => archived.build,
        };
        let config = self.config(&job.key, &build.config).await?;
        let tasks = config.tasks.iter().zip(&build.checkpoint.tasks);
        let finished = tasks.filter_map(|(task, progress)| match progress {
            Progress::Finished(run) => {
                let blobs = run_blobs(&build, run);
                Some((task.name.to_string(), blobs, run.result.artifacts))
            }
            Progress::Waiting
            | Progress::Posted { .. }
            | Progress::Backoff { .. }
            | Progress::Asking { .. }
            | Progress::Skipped { .. } => None,
        });
        Ok(finished.collect())
    }
}

/// The artifacts of an attempt: the content of each is where its place in the list says.
fn stored(
    blobs: &AttemptBlobs,
    manifest: ArtifactManifest,
) -> impl Iterator<Item = StoredArtifact> {
    let artifacts = manifest.artifacts.into_iter().enumerate();
    artifacts.map(|(index, artifact)| StoredArtifact {
        artifact,
        blob: blobs.artifact(index),
    })
}

fn check_index(index: usize) -> Result<(), StoreError> {
    if index < MAX_ARTIFACTS {
        return Ok(());
    }
    let detail = format!("more than {MAX_ARTIFACTS} artifacts");
    Err(StoreError::refused(detail))
}

/// Why these cannot be artifacts. What is said of them ends in headers and in paths of whoever
/// copies them.
fn check_artifacts(artifacts: &[Artifact]) -> Result<(), String> {
    let mut paths = HashSet::with_capacity(artifacts.len());
    for artifact in artifacts {
        let path = artifact.path.as_str();
        let shown: String = path.chars().take(80).collect();
        let plain = path
            .parse::<WorkspacePath>()
            .is_ok_and(|plain| plain.as_str() == path);
        if path.is_empty() || !plain {
            return Err(format!("{shown:?} is no path of an artifact"));
        }
        if !paths.insert(path) {
            return Err(format!("{shown:?} is there twice"));
        }
        let digest = artifact.digest.as_bytes();
        if digest.len() != 64 || !digest.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("the digest of {shown:?} is not 64 hex digits"));
        }
        let media = artifact.content_type.as_bytes();
        if media.len() > 128 || !media.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            return Err(format!("the content type of {shown:?} is none"));
        }
    }
    Ok(())
}
