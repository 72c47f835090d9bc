//! The artifacts of a build, a folder at a time.

use askama::Template;
use distci_model::id::BuildRef;
use distci_model::wire::ArtifactView;

use crate::assets::Asset;
use crate::frame::Frame;
use crate::tree::{self, Step};
use crate::words::{Below, Bytes, Segment};

/// Most entries of a folder on one page.
const PAGE: usize = 500;

/// The artifacts of a build in one folder.
#[derive(Debug, Template)]
#[template(path = "artifacts.html")]
pub struct Artifacts {
    /// What surrounds it.
    pub frame: Frame,
    /// Of which build.
    pub build: BuildRef,
    /// All artifacts of the build.
    pub artifacts: Vec<ArtifactView>,
    /// Which folder is shown: a path with a `/` at the end, or nothing for the uppermost.
    pub below: String,
    /// How many entries of it are passed over.
    pub skip: usize,
}

impl Artifacts {
    fn steps(&self) -> Vec<Step<'_>> {
        let mut level = tree::level(&self.artifacts, &self.below);
        let rest = level.split_off(self.skip.min(level.len()));
        rest.into_iter().take(PAGE).collect()
    }

    fn next(&self) -> Option<String> {
        let entries = tree::level(&self.artifacts, &self.below).len();
        let next = self.skip.saturating_add(PAGE);
        (next < entries).then(|| format!("{}&from={next}", self.folder(&self.below)))
    }

    /// The folders above the one that is shown, each with its path.
    fn above(&self) -> Vec<(&str, &str)> {
        let ends = self.below.match_indices('/').map(|(end, _)| end);
        let mut begin = 0;
        ends.map(|end| {
            let name = &self.below[begin..end];
            begin = end + 1;
            (name, &self.below[..=end])
        })
        .collect()
    }

    fn size(&self) -> Bytes {
        let within = self.artifacts.iter();
        let within = within.filter(|one| one.artifact.path.starts_with(&self.below));
        Bytes(within.map(|one| one.artifact.bytes).sum())
    }

    fn count(&self) -> usize {
        let within = self.artifacts.iter();
        within
            .filter(|one| one.artifact.path.starts_with(&self.below))
            .count()
    }

    fn address(&self) -> String {
        format!("/jobs/{}/builds/{}", self.build.job, self.build.number)
    }

    fn folder(&self, path: &str) -> String {
        format!("{}/artifacts?below={}", self.address(), Segment(path))
    }

    fn archive(&self) -> String {
        let below = Segment(&self.below);
        format!("/api/v1{}/artifacts.tar.zst?below={below}", self.address())
    }

    fn icon() -> &'static str {
        Asset::Plain.path()
    }
}
