//! Images: what fresh worlds are made from.
//!
//! Owns the folder of images of one machine. An image is a root file system, never written to once
//! it is there; what a driver needs in another form is derived from it once and kept beside it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use distci_model::isolation::ImageName;
use nix::fcntl::{Flock, FlockArg};

use crate::error::Error;

/// The images of one machine.
#[derive(Debug, Clone)]
pub struct Images {
    folder: PathBuf,
}

/// One image.
#[derive(Debug, Clone)]
pub struct Image {
    name: ImageName,
    folder: PathBuf,
}

impl Images {
    /// Those in `folder`, which need not exist.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The names of all, in order.
    pub fn names(&self) -> Vec<ImageName> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut names: Vec<ImageName> = names.filter(|name| self.get(name).is_ok()).collect();
        names.sort();
        names
    }

    /// The image of that name.
    ///
    /// # Errors
    /// [`Error::Image`], if there is none.
    pub fn get(&self, name: &ImageName) -> Result<Image, Error> {
        Image::in_folder(&self.folder.join(name.as_str()))
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
        let image = Self {
            name,
            folder: folder.to_owned(),
        };
        if image.root().is_dir() {
            Ok(image)
        } else {
            Err(no_image("there is none"))
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
        let lock = File::create(self.folder.join(format!("{form}.lock")))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        if done.exists() {
            return Ok(done);
        }
        let fresh = self.folder.join(format!("{form}.new"));
        remove(&fresh)?;
        make(&fresh)?;
        fs::rename(&fresh, &done)?;
        Ok(done)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
