//! One artifact, looked at in the browser.

use askama::Template;
use distci_model::id::{BuildRef, TaskName};
use distci_model::wire::Artifact;

use crate::ansi::Html;
use crate::assets::Asset;
use crate::console::html;
use crate::frame::Frame;
use crate::words::{Below, Bytes, Segment};

/// One artifact.
#[derive(Debug, Template)]
#[template(path = "preview.html")]
pub struct Preview {
    /// What surrounds it.
    pub frame: Frame,
    /// Of which build.
    pub build: BuildRef,
    /// Which task published it.
    pub task: TaskName,
    /// What it is.
    pub artifact: Artifact,
    /// What can be seen of it.
    pub sight: Sight,
}

/// What can be seen of an artifact.
#[derive(Debug)]
pub enum Sight {
    /// Its beginning, which is text, and how many bytes are not shown.
    Text(Vec<u8>, u64),
    /// A picture, from this address.
    Picture(String),
    /// A report that its task made, from this address: it may run what it brings, for itself.
    Report(String),
    /// Nothing: it is to be saved.
    Nothing,
}

impl Preview {
    fn lines(text: &[u8]) -> Vec<Html> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        html(text.split(|&byte| byte == b'\n').map(|line| (line, 0))).collect()
    }

    fn name(&self) -> &str {
        let path = self.artifact.path.as_str();
        path.rsplit('/').next().unwrap_or(path)
    }

    /// The folders that it is in, each with its path.
    fn above(&self) -> Vec<(&str, String)> {
        let path = self.artifact.path.as_str();
        let mut begin = 0;
        let ends = path.match_indices('/').map(|(end, _)| end);
        ends.map(|end| {
            let name = &path[begin..end];
            begin = end + 1;
            let below = Segment(&path[..=end]);
            (name, format!("{}/artifacts?below={below}", self.address()))
        })
        .collect()
    }

    fn address(&self) -> String {
        format!("/jobs/{}/builds/{}", self.build.job, self.build.number)
    }

    fn download(&self) -> String {
        let path = Below(&self.artifact.path);
        format!("/api/v1{}/artifacts/{path}", self.address())
    }

    fn size(&self) -> Bytes {
        Bytes(self.artifact.bytes)
    }

    /// How much of a text is not shown.
    fn rest(&self) -> Option<Bytes> {
        match &self.sight {
            Sight::Text(_, rest) if *rest > 0 => Some(Bytes(*rest)),
            _ => None,
        }
    }
}
