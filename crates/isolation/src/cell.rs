//! The seam: what a worker wants of a driver.
//!
//! Owns the words between them. A cell is opened for one attempt; whatever runs in it is gone when
//! a run is over, and whatever was made for it when it is closed.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use distci_model::isolation::{Cpus, Driver, Network, Size, Usage};

use crate::error::Error;
use crate::image::Image;
use crate::probe;

/// A way of keeping tasks apart from the machine and from each other.
#[async_trait]
pub trait Isolation: fmt::Debug + Send + Sync {
    /// Which driver this is.
    fn driver(&self) -> Driver;

    /// Whether it works here: runs `true` in a cell over `image`, below `folder`, which exists.
    ///
    /// # Errors
    /// What is missing, and how to mend it.
    async fn probe(&self, image: &Image, folder: &Path) -> Result<(), Error> {
        probe::run_true(self, image, folder).await
    }

    /// A cell over the folders of `site`.
    ///
    /// # Errors
    /// [`Error`]; then nothing is left that [`crate::sweep`] of the site's folder does not remove.
    ///
    /// # Cancel safety
    /// Dropped, it leaves what a sweep removes.
    async fn open(&self, site: &Site, terms: &Terms) -> Result<Box<dyn Cell>, Error>;
}

/// The place where the commands of one attempt run.
#[async_trait]
pub trait Cell: Send + Sync {
    /// Where the commands in it find a folder of the site. All paths in a [`Command`] are such.
    fn path(&self, place: Place) -> PathBuf;

    /// As whom the commands run.
    fn account(&self) -> Account;

    /// What its image wants in the environment of commands. Whoever runs them puts it there.
    fn env(&self) -> &[(String, String)] {
        &[]
    }

    /// Runs a command to its end. Nothing that it started is left afterwards, and the folders of the
    /// site show what it did.
    ///
    /// # Errors
    /// [`Error`], if the driver could not do its part: the command may or may not have run.
    ///
    /// # Cancel safety
    /// Dropped, it kills what it runs, though not before it returns.
    async fn run(
        &self,
        command: &Command,
        output: &mut dyn Output,
        stop: Stop<'_>,
    ) -> Result<Finished, Error>;

    /// Removes everything that was made for the cell.
    ///
    /// # Errors
    /// [`Error`], if something is left; a later sweep tries again.
    async fn close(self: Box<Self>) -> Result<(), Error>;
}

/// The folders of one attempt, on the machine.
#[derive(Debug, Clone)]
pub struct Site {
    /// Unique on the machine among all that live: letters, digits, `.` and `-`.
    pub name: String,
    /// The driver's own. It exists, is empty, and nobody else writes there.
    pub folder: PathBuf,
    /// What the tasks of a build hand on.
    pub workspace: PathBuf,
    /// For what the task needs only while it runs.
    pub temporary: PathBuf,
    /// For files between the worker and the script.
    pub files: PathBuf,
    /// What every process of the attempt bears in its environment as [`crate::KEY_VARIABLE`], where
    /// the driver lets it.
    pub key: OsString,
}

impl Site {
    /// A site of its own in the folder `root`, which is made, with everything in it.
    ///
    /// # Errors
    /// What the machine says.
    pub fn make(root: &Path) -> io::Result<Self> {
        let folder = |name: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(&path)?;
            io::Result::Ok(path)
        };
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            folder: folder("cell")?,
            workspace: folder("workspace")?,
            temporary: folder("tmp")?,
            files: folder("files")?,
            key: root.into(),
            name: name.into_owned(),
        })
    }

    /// Where a folder of it is on the machine.
    pub fn path(&self, place: Place) -> PathBuf {
        match place {
            Place::Workspace => self.workspace.clone(),
            Place::Temporary => self.temporary.clone(),
            Place::Files => self.files.clone(),
        }
    }
}

/// A folder of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// [`Site::workspace`].
    Workspace,
    /// [`Site::temporary`].
    Temporary,
    /// [`Site::files`].
    Files,
}

impl Place {
    /// Every place.
    pub(crate) const ALL: [Self; 3] = [Self::Workspace, Self::Temporary, Self::Files];

    /// Where it is in a cell that hides the machine.
    pub(crate) fn inside(self) -> PathBuf {
        let path = match self {
            Self::Workspace => "/workspace",
            Self::Temporary => "/distci/tmp",
            Self::Files => "/distci/files",
        };
        path.into()
    }
}

/// What the cell is made from, and what it may take.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The image; drivers of images need one.
    pub image: Option<Image>,
    /// Most memory.
    pub memory: Option<Size>,
    /// Most processors.
    pub cpus: Option<Cpus>,
    /// Most processes and threads at once.
    pub processes: Option<u32>,
    /// Most bytes on the disk. The site's folders are on a file system that is no larger already;
    /// this is for drivers that have disks of their own.
    pub disk: Option<Size>,
    /// What is reached of the network.
    pub network: Network,
    /// Folders of the machine that the cell shows in other places, to be written to like the
    /// workspace. Only drivers of images can.
    pub shared: Vec<Shared>,
}

/// A folder of the machine, and where it is in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// On the machine.
    pub outside: PathBuf,
    /// In the cell; absolute. It is made there if need be.
    pub inside: PathBuf,
}

/// As whom the commands of a cell run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The home folder, in the cell.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

impl Account {
    /// Who runs things where there is nobody else.
    pub fn root() -> Self {
        Self {
            name: "root".to_owned(),
            home: "/root".into(),
            shell: "/bin/sh".into(),
        }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Where.
    pub directory: PathBuf,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
}

/// Resolves when the command has to end, to how long it may take to do so by itself.
pub type Stop<'a> = Pin<Box<dyn Future<Output = Duration> + Send + 'a>>;

/// Where a command's output goes: what it printed to its output and to its errors, in order.
#[async_trait]
pub trait Output: Send {
    /// Takes the next bytes.
    async fn take(&mut self, bytes: &[u8]);
}

/// How a command ended, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How.
    pub ended: Ended,
    /// What it took of the machine.
    pub usage: Usage,
    /// The limits that it ran into.
    pub excess: Excess,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exit(u8),
    /// By a signal that we did not send.
    Signal(u8),
    /// It never began: there is no such program, or it may not be run.
    NotStarted(String),
    /// It was stopped, as was asked.
    Stopped,
}

/// The limits that a command ran into: what the kernel counted, not what was guessed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Excess {
    /// Something was killed for want of memory.
    #[serde(default)]
    pub memory: bool,
    /// A process or thread could not be made.
    #[serde(default)]
    pub processes: bool,
    /// The disk was full at the end.
    #[serde(default)]
    pub disk: bool,
}
