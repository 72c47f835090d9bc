//! Artifacts as a tree of folders.
//!
//! Owns the order in which a page tells of it: a folder before what is in it, folders before files.

use std::collections::BTreeMap;

use distci_model::wire::ArtifactView;

use crate::words::Bytes;

/// A step of a walk through the tree.
pub(crate) enum Step<'a> {
    /// A folder begins.
    Folder {
        /// Its name.
        name: &'a str,
        /// Its path, with a `/` at the end.
        path: &'a str,
        /// How many files are in it, in folders of it too.
        files: usize,
        /// And how large they are.
        bytes: Bytes,
    },
    /// A file.
    File {
        /// Its name.
        name: &'a str,
        /// What it is.
        artifact: &'a ArtifactView,
    },
    /// The folder that began last ends.
    End,
}

#[derive(Default)]
struct Folder<'a> {
    folders: BTreeMap<&'a str, Folder<'a>>,
    files: Vec<(&'a str, &'a ArtifactView)>,
    path: &'a str,
    count: usize,
    bytes: u64,
}

impl<'a> Folder<'a> {
    fn add(&mut self, path: &'a str, at: usize, one: &'a ArtifactView) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(one.artifact.bytes);
        match path[at..].split_once('/') {
            Some((name, _)) => {
                let next = at + name.len() + 1;
                let folder = self.folders.entry(name).or_default();
                folder.path = &path[..next];
                folder.add(path, next, one);
            }
            None => self.files.push((&path[at..], one)),
        }
    }

    fn walk(self, steps: &mut Vec<Step<'a>>) {
        for (name, folder) in self.folders {
            steps.push(Step::Folder {
                name,
                path: folder.path,
                files: folder.count,
                bytes: Bytes(folder.bytes),
            });
            folder.walk(steps);
            steps.push(Step::End);
        }
        let files = self.files.into_iter();
        steps.extend(files.map(|(name, artifact)| Step::File { name, artifact }));
    }
}

/// The whole tree of these artifacts.
pub(crate) fn tree(artifacts: &[ArtifactView]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    root(artifacts, "").walk(&mut steps);
    steps
}

/// What is directly in the folder `below`, which ends in `/` or is empty: folders, then files.
pub(crate) fn level<'a>(artifacts: &'a [ArtifactView], below: &str) -> Vec<Step<'a>> {
    let folder = root(artifacts, below);
    let folders = folder
        .folders
        .into_iter()
        .map(|(name, folder)| Step::Folder {
            name,
            path: folder.path,
            files: folder.count,
            bytes: Bytes(folder.bytes),
        });
    let files = folder.files.into_iter();
    let files = files.map(|(name, artifact)| Step::File { name, artifact });
    folders.chain(files).collect()
}

fn root<'a>(artifacts: &'a [ArtifactView], below: &str) -> Folder<'a> {
    let mut root = Folder::default();
    for one in artifacts {
        let path = one.artifact.path.as_str();
        if path.starts_with(below) {
            root.add(path, below.len(), one);
        }
    }
    root
}
