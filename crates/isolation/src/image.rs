//! Images: what fresh worlds are made from.
//!
//! Owns the folder of images of one machine. An image is a root file system, never written to once
//! it is there; what a driver needs in another form is derived from it once and kept beside it.
//!
//! A name is a link to an edition, `.editions/NAME/ID`, and to build anew means to let it point
//! elsewhere: what cells lie on stays as it is. Whoever uses an edition holds a shared lock on it, and
//! nobody removes one without an exclusive lock; so what was left behind can be told from what is in use,
//! however its users ended.

mod archive;
mod build;
mod busybox;
mod debian;
mod fingerprint;
mod folder;
mod held;
mod inside;
mod oci;
mod sources;
mod tools;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use distci_model::Timestamp;
use distci_model::isolation::ImageName;
use serde::{Deserialize, Serialize};
#[cfg(any(test, fuzzing))]
use tokio_util::sync::CancellationToken;

use crate::error::Error;
pub use build::{BuildError, Builder, Progress};
use folder::{Hold, remove};
pub(crate) use held::Held;

/// Lays a layer of an image in a folder, as an image's own are.
#[cfg(any(test, fuzzing))]
pub(crate) fn lay_in(folder: &Path, mut layer: &[u8]) -> std::io::Result<()> {
    let (tree, stop) = (tree::Tree::at(folder)?, CancellationToken::default());
    archive::Laying::on(&tree, archive::Base::Layers, &stop).lay(&mut layer)
}

/// The images of one machine.
#[derive(Debug, Clone)]
pub struct Images {
    folder: PathBuf,
}

/// One image, as it was when it was asked for. As long as it or a clone of it is there, nobody
/// removes it from the disk.
#[derive(Debug, Clone)]
pub struct Image {
    name: ImageName,
    folder: PathBuf,
    note: Option<Note>,
    /// Only to be held.
    _hold: Arc<Hold>,
}

/// What is kept about an image beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    name: ImageName,
    source: String,
    env: Vec<(String, String)>,
    bytes: u64,
    built: Timestamp,
}

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: ImageName,
    /// What it holds, as a digest: of paths, modes, owners and contents, and of its environment.
    pub id: String,
    /// Bytes of its root file system on the disk.
    pub bytes: u64,
    /// What it was made from.
    pub source: String,
    /// When.
    pub built: Option<Timestamp>,
    /// The other forms of it that are there already.
    pub forms: Vec<String>,
    /// How many cells lie on it, or are about to.
    pub cells: usize,
    /// What commands in it find in their environment.
    pub env: Vec<(String, String)>,
    /// Its root file system.
    pub root: PathBuf,
}

/// What became of an image that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// Its name is gone; so many cells still use it. The next build or removal after them takes it
    /// off the disk.
    Later(usize),
}

impl Images {
    /// Those in `folder`, which need not exist.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of all, in order.
    pub fn names(&self) -> Vec<ImageName> {
        let mut names = folder::names(&self.folder).unwrap_or_default();
        names.retain(|name| self.get(name).is_ok());
        names
    }

    /// The image of that name.
    ///
    /// # Errors
    /// [`Error::Image`], if there is none.
    pub fn get(&self, name: &ImageName) -> Result<Image, Error> {
        Image::in_folder(&self.folder.join(name.as_str()))
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// [`Error::Io`], if they cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        for name in folder::names(&self.folder)? {
            match self.get(&name) {
                Ok(image) => listed.push(image.listed()?),
                // Removed just now, or never whole: nobody can use it.
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(listed)
    }

    /// Removes the image of that name, at the latest when nobody uses it any more, and with it
    /// everything that is left of earlier editions and that nobody uses. Blocks.
    ///
    /// # Errors
    /// [`Error::Image`], if there is none, and [`Error::Io`].
    pub fn remove(&self, name: &ImageName) -> Result<Removed, Error> {
        let image = self.get(name)?;
        let cells = image.cells()?;
        let held = image.folder.clone();
        drop(image);
        let _lock = folder::lock(&self.folder)?;
        remove(&self.folder.join(name.as_str()))?;
        folder::collect(&self.folder)?;
        Ok(if held.exists() {
            // Somebody came in between, or left.
            Removed::Later(cells.max(1))
        } else {
            Removed::Gone
        })
    }

    /// Removes what is left of builds that did not end and of images that nobody can use any more.
    /// Blocks.
    ///
    /// # Errors
    /// Whatever could not be removed.
    pub fn collect(&self) -> Result<(), Error> {
        if !self.folder.is_dir() {
            return Ok(());
        }
        let _lock = folder::lock(&self.folder)?;
        Ok(folder::collect(&self.folder)?)
    }
}

impl Image {
    /// The one in `folder`, whose last part is its name.
    ///
    /// # Errors
    /// [`Error::Image`], if there is none.
    pub fn in_folder(folder: &Path) -> Result<Self, Error> {
        let no_image = |detail: &str| Error::Image {
            image: folder.display().to_string(),
            detail: detail.to_owned(),
        };
        let name = folder.file_name().and_then(|name| name.to_str());
        let name: ImageName = name
            .unwrap_or_default()
            .parse()
            .map_err(|_| no_image("that is no name of an image"))?;
        loop {
            let Ok(found) = fs::canonicalize(folder) else {
                return Err(no_image("there is none"));
            };
            if !found.join("root").is_dir() {
                return Err(no_image("there is none"));
            }
            // Between the look and the lock it may have been removed, and another be there now.
            if let Some(hold) = Hold::shared(&found)? {
                let note = Note::read(&found)?;
                return Ok(Self {
                    name: note.as_ref().map_or(name, |note| note.name.clone()),
                    folder: found,
                    note,
                    _hold: Arc::new(hold),
                });
            }
        }
    }

    /// Where it and its other forms are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its name.
    pub fn name(&self) -> &ImageName {
        &self.name
    }

    /// The root file system, with the owners that it has inside. Never to be changed: cells may lie
    /// on it.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// What commands in it find in their environment, unless they are given something else.
    pub fn env(&self) -> &[(String, String)] {
        self.note.as_ref().map_or(&[], |note| &note.env)
    }

    /// Another form of it, named `form`, which `make` puts at the path that it is given, if it is
    /// not there yet. Two that want the same wait for each other. Blocks.
    ///
    /// # Errors
    /// What `make` says; then nothing is there.
    pub(crate) fn derived(
        &self,
        form: &str,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let done = self.folder.join(form);
        if done.exists() {
            return Ok(done);
        }
        let _lock = folder::lock_file(&self.folder.join(format!("{form}.lock")))?;
        if done.exists() {
            return Ok(done);
        }
        let fresh = self.folder.join(format!("{form}.new"));
        remove(&fresh)?;
        make(&fresh)?;
        fs::rename(&fresh, &done)?;
        Ok(done)
    }

    /// What is to be said of it.
    ///
    /// # Errors
    /// [`Error::Io`], if it cannot be read.
    pub fn listed(&self) -> Result<Listed, Error> {
        let id = self.folder.file_name().unwrap_or_default();
        let note = self.note.as_ref();
        Ok(Listed {
            name: self.name.clone(),
            id: id.to_string_lossy().into_owned(),
            bytes: note.map_or(0, |note| note.bytes),
            source: note.map_or_else(|| "a folder".to_owned(), |note| note.source.clone()),
            built: note.map(|note| note.built),
            forms: folder::forms(&self.folder)?,
            cells: self.cells()?,
            env: self.env().to_vec(),
            root: self.root(),
        })
    }

    /// How many others hold it.
    fn cells(&self) -> Result<usize, Error> {
        Ok(folder::holders(&self.folder)?.saturating_sub(1))
    }
}

impl Note {
    fn read(folder: &Path) -> Result<Option<Self>, Error> {
        match fs::read(folder.join(folder::NOTE)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).map_err(|error| {
                Error::Image {
                    image: folder.display().to_string(),
                    detail: format!("what is noted about it: {error}"),
                }
            })?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
