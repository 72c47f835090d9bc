//! What a command finds when it begins and nobody else sees: mounts of its own, and an input.
//!
//! Owns a mount namespace for the command alone, so what is mounted here is gone with the last who
//! is in it, however they end, and needs no undoing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

/// What only a command sees. Nothing at all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    /// What is mounted, in this order; places that are not there are made.
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
    /// The file that the command reads, and may append to, instead of an empty input.
    #[serde(default)]
    pub(crate) input: Option<PathBuf>,
    /// The file that its errors go to, instead of the console.
    #[serde(default)]
    pub(crate) errors: Option<PathBuf>,
}

/// Something mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mount {
    /// An empty folder that everybody can pass through.
    Empty {
        /// Where.
        at: PathBuf,
    },
    /// A folder in another place.
    Bind {
        /// Which.
        from: PathBuf,
        /// Where.
        at: PathBuf,
    },
    /// One folder over another: what is written goes to `upper`.
    Overlay {
        /// What is only read.
        lower: PathBuf,
        /// What is written to.
        upper: PathBuf,
        /// An empty folder beside `upper`, for the kernel.
        work: PathBuf,
        /// Where.
        at: PathBuf,
    },
}

impl View {
    /// Starts `command` so that it sees this. An error of the outer kind is ours, one of the inner the command's.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<io::Result<Child>> {
        command.stdin(self.input()?);
        if let Some(path) = &self.errors {
            command.stderr(File::create(path)?);
        }
        if self.mounts.is_empty() {
            return Ok(command.spawn());
        }
        // A namespace of mounts belongs to a thread, and whom it starts begins there.
        let spawn = || {
            self.set()?;
            Ok(command.spawn())
        };
        std::thread::scope(|scope| scope.spawn(spawn).join())
            .map_err(|_| io::Error::other("the thread that mounts broke"))?
    }

    fn input(&self) -> io::Result<Stdio> {
        let Some(path) = &self.input else {
            return Ok(Stdio::null());
        };
        let file: File = OpenOptions::new().read(true).append(true).open(path)?;
        Ok(file.into())
    }

    fn set(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        // What the machine unmounts goes here too, but nothing goes from here to the machine.
        let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)?;
        self.mounts.iter().try_for_each(Mount::make)
    }
}

impl Mount {
    fn make(&self) -> io::Result<()> {
        let none = MsFlags::empty();
        let (at, mounted) = match self {
            Self::Empty { at } => {
                let options = "mode=755,size=1m";
                place(at)?;
                (
                    at,
                    mount(Some("none"), at, Some("tmpfs"), none, Some(options)),
                )
            }
            Self::Bind { from, at } => {
                place(at)?;
                let bind = MsFlags::MS_BIND;
                (at, mount(Some(from), at, None::<&str>, bind, None::<&str>))
            }
            Self::Overlay {
                lower,
                upper,
                work,
                at,
            } => {
                place(at)?;
                let options = overlay(lower, upper, work)?;
                let options = Some(options.as_str());
                (at, mount(Some("none"), at, Some("overlay"), none, options))
            }
        };
        mounted.map_err(|errno| {
            let at = at.display();
            io::Error::other(format!("{at} cannot be mounted: {errno}"))
        })
    }
}

fn place(at: &Path) -> io::Result<()> {
    fs::create_dir_all(at).map_err(|error| {
        let at = at.display();
        io::Error::new(error.kind(), format!("{at} cannot be made: {error}"))
    })
}

/// Folders of an image may be renamed as if they were not of a layer below: packages do.
fn overlay(lower: &Path, upper: &Path, work: &Path) -> io::Result<String> {
    let mut options = vec!["redirect_dir=on".to_owned()];
    for (name, path) in [("lowerdir", lower), ("upperdir", upper), ("workdir", work)] {
        let path = path.to_str().unwrap_or(",");
        if path.contains([',', ':', '\\']) {
            let why = format!("{path} cannot be a layer: a comma, a colon or a backslash is in it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        options.push(format!("{name}={path}"));
    }
    Ok(options.join(","))
}
