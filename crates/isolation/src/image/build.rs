//! How an image comes to be.
//!
//! Owns the order of the stages: what it begins as, the commands in it, its fingerprint, its name. It
//! is made in a folder of its own, and there is nothing of it before it is whole: killed at any point,
//! a build leaves what the next one removes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use distci_model::Timestamp;
use distci_model::image::{ImageDescription, ImageSource};
use distci_model::isolation::ImageName;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::archive::{Base, Laying, Plain};
use super::fingerprint::Fingerprint;
use super::folder::Fresh;
use super::tools::Tools;
use super::tree::Tree;
use super::{Image, Images, Note, busybox, debian, fingerprint, inside, oci};
use crate::error::Error;

/// Makes images.
#[derive(Debug)]
pub struct Builder {
    /// Where they go.
    pub images: Images,
    /// The command that becomes the supervisor of the tools that it takes.
    pub supervisor: Vec<OsString>,
    /// What time it is.
    pub now: Timestamp,
    /// Ends a build before its time.
    pub stop: CancellationToken,
}

/// What is told while an image is made.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// Something else begins.
    Stage(&'a str),
    /// A tool or a command said this.
    Output(&'a [u8]),
}

/// Who hears of it.
type Tell<'t> = &'t mut (dyn for<'p> FnMut(Progress<'p>) + Send);

/// Why an image was not made. Nothing of it is left, and an earlier one of that name is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The files of an image belong to users whom only root can be.
    #[error("only root can make images, for their files have owners: run it as root")]
    NotRoot,
    /// What it was to be made from is no good.
    #[error("{}: {detail}", path.display())]
    Source {
        /// Where that is.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A tool could not do its part.
    #[error("{tool}: {said}")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// What it said last.
        said: String,
    },
    /// A command in the image did not end well.
    #[error("run[{number}] {how}: {said}")]
    Command {
        /// Which, from 0.
        number: usize,
        /// How it ended.
        how: String,
        /// What it said last.
        said: String,
    },
    /// The image does not fit on the disk.
    #[error("the disk of {} is full", .0.display())]
    DiskFull(PathBuf),
    /// It was told to stop.
    #[error("it was stopped")]
    Stopped,
    /// This machine could not do its part.
    #[error(transparent)]
    Isolation(#[from] Error),
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Isolation(error.into())
    }
}

impl Builder {
    /// Makes the image of that name, in the place of one that there may be: who uses that one keeps
    /// it. Paths in the description are paths on this machine.
    ///
    /// # Errors
    /// [`BuildError`].
    ///
    /// # Cancel safety
    /// Dropped, it ends what it runs, and leaves what the next build removes.
    pub async fn build(
        &self,
        name: &ImageName,
        description: &ImageDescription,
        tell: Tell<'_>,
    ) -> Result<Image, BuildError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(BuildError::NotRoot);
        }
        let stop = self.stop.child_token();
        let _guard = stop.clone().drop_guard();
        let folder = self.images.folder.clone();
        let fresh = blocking(move || Fresh::begin(&folder)).await;
        let built = match fresh {
            Ok(fresh) => self.make(fresh, (name, description), &stop, tell).await,
            Err(error) => Err(error),
        };
        built.map_err(|error| self.explain(error, description))
    }

    async fn make(
        &self,
        fresh: Fresh,
        (name, description): (&ImageName, &ImageDescription),
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<Image, BuildError> {
        let (root, scratch) = (fresh.root(), fresh.scratch()?);
        let tools = Tools {
            supervisor: &self.supervisor,
            folder: &scratch,
            stop,
        };
        tell(Progress::Stage(&description.from.to_string()));
        let mut env = begin(&description.from, (&root, &scratch), &tools, tell).await?;
        let own = description.env.iter();
        env.retain(|(name, _)| !description.env.contains_key(name));
        env.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        let completed = root.clone();
        blocking(move || inside::complete(&completed)).await?;
        for (number, command) in description.run.iter().enumerate() {
            tell(Progress::Stage(&format!("run {command}")));
            let output = &mut |bytes: &[u8]| tell(Progress::Output(bytes));
            inside::run((number, command), &env, (&root, &scratch), &tools, output).await?;
        }
        tell(Progress::Stage("fingerprint and sync"));
        let (token, kept) = (stop.clone(), env.clone());
        let Fingerprint { id, bytes } =
            blocking(move || fingerprint::take(&root, &kept, &token)).await?;
        let note = Note {
            name: name.clone(),
            source: description.from.to_string(),
            env,
            bytes,
            built: self.now,
        };
        let text = serde_json::to_vec(&note).map_err(io::Error::from)?;
        let published = name.clone();
        let (folder, hold) = blocking(move || fresh.publish(&published, (&id, &text))).await?;
        Ok(Image {
            name: name.clone(),
            folder,
            note: Some(note),
            _hold: Arc::new(hold),
        })
    }

    /// In words that say what to do: the disk before what followed from it.
    fn explain(&self, error: BuildError, description: &ImageDescription) -> BuildError {
        let folder = self.images.folder.clone();
        match error {
            BuildError::Isolation(Error::Io(error)) => {
                match (error.kind(), path_of(&description.from)) {
                    (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
                        BuildError::DiskFull(folder)
                    }
                    (io::ErrorKind::Interrupted, _) => BuildError::Stopped,
                    (io::ErrorKind::InvalidData | io::ErrorKind::NotFound, Some(path)) => {
                        let detail = error.to_string();
                        BuildError::Source { path, detail }
                    }
                    _ => error.into(),
                }
            }
            // apt looks before it begins, and leaves the disk as it is.
            BuildError::Tool { said, .. } if said.contains("enough free space") => {
                BuildError::DiskFull(folder)
            }
            error => error,
        }
    }
}

/// Makes what the image begins as, and says what environment that wants.
async fn begin(
    source: &ImageSource,
    (root, scratch): (&Path, &Path),
    tools: &Tools<'_>,
    tell: Tell<'_>,
) -> Result<Vec<(String, String)>, BuildError> {
    if let ImageSource::Debian(debian) = source {
        let output = &mut |bytes: &[u8]| tell(Progress::Output(bytes));
        debian::make(debian, root, scratch, tools, output).await?;
        return Ok(Vec::new());
    }
    fs::create_dir(root)?;
    let (source, root) = (source.clone(), root.to_owned());
    let (scratch, stop) = (scratch.to_owned(), tools.stop.clone());
    let begun = spawn_blocking(move || match source {
        ImageSource::Busybox(_) | ImageSource::Debian(_) => {
            busybox::make(&root).map(|()| Vec::new())
        }
        ImageSource::Tar(path) => Ok(tar(Path::new(&path), &root, &stop).map(|()| Vec::new())?),
        ImageSource::Oci(path) => Ok(container(Path::new(&path), &root, &scratch, &stop)?),
    });
    begun.await.map_err(io::Error::other)?
}

fn tar(path: &Path, root: &Path, stop: &CancellationToken) -> io::Result<()> {
    let tree = Tree::at(root)?;
    let mut plain = Plain::of(File::open(path)?)?;
    Laying::on(&tree, Base::Nothing, stop).lay(&mut plain)
}

fn container(
    path: &Path,
    root: &Path,
    scratch: &Path,
    stop: &CancellationToken,
) -> io::Result<Vec<(String, String)>> {
    let tree = Tree::at(root)?;
    if path.is_dir() {
        return oci::lay(path, &tree, stop);
    }
    // Its parts are in no order that could be read in one go.
    let layout = scratch.join("layout");
    fs::create_dir(&layout)?;
    tar(path, &layout, stop)?;
    oci::lay(&layout, &tree, stop)
}

fn path_of(source: &ImageSource) -> Option<PathBuf> {
    match source {
        ImageSource::Tar(path) | ImageSource::Oci(path) => Some(path.into()),
        ImageSource::Debian(_) | ImageSource::Busybox(_) => None,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BuildError> {
    Ok(spawn_blocking(work).await.map_err(io::Error::other)??)
}
