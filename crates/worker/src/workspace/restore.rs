//! Laying layers over each other.
//!
//! Owns the law of conflicts: a layer may change what the tasks that it was made on wrote. What any
//! other task wrote it may only write equally; two directories are always equal enough.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};
use std::path::Path;

use distci_model::id::TaskName;

use super::layer::{self, Content, Entry, Index, LayerError, Part};
use super::path::EntryPath;
use super::snapshot::Moment;
use super::tree::{Tree, TreeError, settle};

/// Why a workspace could not be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Two tasks that do not know of each other wrote it differently.
    #[error("parallel tasks both changed {0}")]
    Conflict(EntryPath),
    /// The layer is damaged or cannot be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The workspace cannot be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A workspace in the making.
#[derive(Debug)]
pub(crate) struct Restoring {
    tree: Tree,
    written: HashMap<EntryPath, Written>,
    /// Modes and times of directories wait for the end: a mode may forbid writing, and writing
    /// changes the time.
    directories: BTreeMap<EntryPath, (u32, Moment)>,
}

/// Who wrote a path, and what.
#[derive(Debug)]
struct Written {
    by: Vec<TaskName>,
    what: What,
}

/// What counts in a comparison: not the time.
#[derive(Debug, PartialEq, Eq)]
enum What {
    Removed,
    Directory,
    Is { mode: u32, content: Content },
}

impl Restoring {
    /// Begins in an empty directory.
    pub(crate) fn begin(workspace: &Path) -> io::Result<Self> {
        Ok(Self {
            tree: Tree::open(workspace)?,
            written: HashMap::new(),
            directories: BTreeMap::new(),
        })
    }

    /// Lays the layer of `task`, made on top of those of `on`. Blocks.
    pub(crate) fn lay(
        &mut self,
        task: &TaskName,
        on: &[TaskName],
        source: impl Read,
    ) -> Result<(), RestoreError> {
        layer::read(source, |part| match part {
            Part::Index(index) => {
                self.note(task, on, index)?;
                self.prepare(index)
            }
            Part::Content(entry, content) => self.fill(entry, content),
        })
    }

    /// Gives every directory its mode and time.
    pub(crate) fn finish(mut self) -> Result<(), RestoreError> {
        // From the bottom up, so that no mode is in the way.
        for (path, (mode, modified)) in self.directories.iter().rev() {
            self.tree.settle(path, *mode, *modified)?;
        }
        Ok(())
    }

    fn note(
        &mut self,
        task: &TaskName,
        on: &[TaskName],
        index: &Index,
    ) -> Result<(), RestoreError> {
        let on: HashSet<&TaskName> = on.iter().collect();
        let removed = index.removed.iter().map(|path| (path, What::Removed));
        let entries = index
            .entries
            .iter()
            .map(|entry| (&entry.path, What::of(entry)));
        for (path, what) in removed.chain(entries) {
            let by = match self.written.remove(path) {
                Some(before) if before.what == what => [before.by, vec![task.clone()]].concat(),
                Some(before) if !before.by.iter().all(|writer| on.contains(writer)) => {
                    return Err(RestoreError::Conflict(path.clone()));
                }
                _ => vec![task.clone()],
            };
            self.written.insert(path.clone(), Written { by, what });
        }
        Ok(())
    }

    /// Everything but the contents of files.
    fn prepare(&mut self, index: &Index) -> Result<(), RestoreError> {
        // From the bottom up: each is then a file or an empty directory.
        for path in index.removed.iter().rev() {
            self.tree.remove(path)?;
            self.directories.remove(path);
        }
        for entry in &index.entries {
            match &entry.content {
                Content::Directory => {
                    self.tree.directory(&entry.path)?;
                    let marks = (entry.mode, entry.modified);
                    self.directories.insert(entry.path.clone(), marks);
                    continue;
                }
                Content::Link { target } => self.tree.link(&entry.path, target, entry.modified)?,
                Content::File { .. } => {}
            }
            self.directories.remove(&entry.path);
        }
        Ok(())
    }

    fn fill(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), RestoreError> {
        let mut file = self.tree.create(&entry.path)?;
        let at = |source| TreeError::Io {
            path: entry.path.clone(),
            source,
        };
        let digest = layer::copy(content, &mut file).map_err(at)?;
        if !matches!(&entry.content, Content::File { digest: named, .. } if *named == digest) {
            let why = format!("{} does not have its digest", entry.path);
            return Err(LayerError::Damaged(why).into());
        }
        settle(&file, entry.mode, entry.modified).map_err(at)?;
        Ok(())
    }
}

impl What {
    fn of(entry: &Entry) -> Self {
        match &entry.content {
            Content::Directory => Self::Directory,
            // The mode of a link means nothing.
            content @ Content::Link { .. } => Self::Is {
                mode: 0,
                content: content.clone(),
            },
            content @ Content::File { .. } => Self::Is {
                mode: entry.mode,
                content: content.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
