//! Containers by LXC: users of their own, a fresh root over an image, and a kernel that is shared.
//!
//! Owns what the tool is told; the tool is `lxc-start`, in the foreground, once for each command. It
//! has mounts of its own and finds no control groups there, so whatever it starts stays in
//! the group of the cell, and nothing that it makes outlives it.

mod config;
mod ids;
mod init;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use distci_model::isolation::{Driver, Network};

use crate::cell::{
    Account, Cell, Command, Ended, Finished, Isolation, Output, Place, Shared, Site, Stop, Terms,
};
use crate::error::Error;
use crate::group::{Group, Groups};
use crate::image::Image;
use crate::journal::{self, Journal};
use crate::launch::Launch;
use crate::view::{Mount, View};
use ids::Range;
use init::Word;

/// Where the tool finds all that it works on. Hidden below are the control groups of the machine: the tool would move
/// what it starts out of the group of the cell.
const VIEW: &str = "/sys/fs/cgroup";
/// Where the tool keeps files of its own for ever.
const LOCKS: &str = "/run/lxc";
/// The same in every cell, so that nothing can depend on it.
const HOST_NAME: &str = "distci";

/// Runs commands in containers of LXC.
#[derive(Debug)]
pub struct Lxc {
    /// The command that becomes the supervisor.
    pub supervisor: Vec<OsString>,
    /// Where groups are made.
    pub groups: Groups,
}

struct LxcCell {
    tool: PathBuf,
    supervisor: Vec<OsString>,
    site: Site,
    group: Option<Group>,
    lower: PathBuf,
    folders: Vec<Shared>,
}

#[async_trait]
impl Isolation for Lxc {
    fn driver(&self) -> Driver {
        Driver::Lxc
    }

    async fn probe(&self, image: &Image, folder: &Path) -> Result<(), Error> {
        tool()?;
        Range::of_root()?;
        crate::probe::run_true(self, image, folder).await
    }

    async fn open(&self, site: &Site, terms: &Terms) -> Result<Box<dyn Cell>, Error> {
        let Some(image) = terms.image.clone() else {
            let why = "the driver lxc makes its cells from an image, and none is named";
            return Err(Error::Unsupported(why.to_owned()));
        };
        if terms.network == Network::Private {
            let why = "the driver lxc cannot give a cell a network of its own yet";
            return Err(Error::Unsupported(why.to_owned()));
        }
        let (tool, range) = (tool()?, Range::of_root()?);
        let group = self.groups.plan(&site.name, terms)?;
        let journal = Journal {
            group: group.clone(),
            ..Journal::default()
        };
        journal.write(&site.folder)?;
        if let Some(group) = &group {
            group.make(terms)?;
        }
        let lower = tokio::task::spawn_blocking(move || ids::shifted(&image, range));
        let lower = lower.await.map_err(std::io::Error::other)??;
        let mut folders: Vec<Shared> = [Place::Workspace, Place::Temporary, Place::Files]
            .into_iter()
            .map(|place| Shared {
                outside: site.path(place),
                inside: inside(place),
            })
            .collect();
        folders.extend(terms.shared.iter().cloned());
        prepare(site, terms.network, range)?;
        let config = config::text(range, terms.network, &folders)?;
        fs::write(site.folder.join("config"), config)?;
        Ok(Box::new(LxcCell {
            tool,
            supervisor: self.supervisor.clone(),
            site: site.clone(),
            group,
            lower,
            folders,
        }))
    }
}

#[async_trait]
impl Cell for LxcCell {
    fn path(&self, place: Place) -> PathBuf {
        inside(place)
    }

    fn account(&self) -> Account {
        Account::root()
    }

    async fn run(
        &self,
        command: &Command,
        output: &mut dyn Output,
        stop: Stop<'_>,
    ) -> Result<Finished, Error> {
        let input = self.site.folder.join("init");
        let written = init::write(&input, command, &self.site.key)?;
        // The last run's words are not this one's.
        drop(fs::remove_file(self.log()));
        let launch = Launch {
            supervisor: &self.supervisor,
            key: &self.site.key,
            argv: self.argv(),
            directory: self.site.folder.clone(),
            // Without a path the tool finds no `newuidmap` and does itself, as root, what two
            // more programs would do much more slowly.
            env: vec![("PATH".into(), "/nowhere".into())],
            group: self.group.as_ref(),
            container: true,
            stage: None,
            files: Vec::new(),
            view: self.view(input.clone()),
        };
        let mut finished = launch.run(output, stop).await?;
        if finished.ended == Ended::Stopped {
            return Ok(finished);
        }
        let program = command.argv.first().cloned().unwrap_or_default();
        finished.ended = match init::read(&input, written)? {
            Word::Nothing => return Err(self.trouble(&finished.ended)),
            // Whoever is first in a container ends without a word only when it is killed.
            Word::Begun => Ended::Signal(9),
            Word::NotStarted => Ended::NotStarted(format!(
                "{}: no such program, or it may not be run",
                program.display()
            )),
            Word::Ended(code) => Ended::Exit(code),
        };
        Ok(finished)
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(journal::close(&self.site).await?)
    }
}

impl LxcCell {
    fn log(&self) -> PathBuf {
        self.site.folder.join("log")
    }

    fn argv(&self) -> Vec<OsString> {
        let mut argv = vec![self.tool.clone().into_os_string()];
        argv.extend(["--foreground", "--quiet", "--lxcpath"].map(OsString::from));
        argv.push(config::seen("lxc").into());
        argv.push("--name".into());
        argv.push(self.site.name.clone().into());
        argv.push("--rcfile".into());
        argv.push(self.site.folder.join("config").into());
        argv.push("--logfile".into());
        argv.push(self.log().into());
        argv.extend(["--logpriority", "ERROR", "--", "/bin/sh", "-s"].map(OsString::from));
        argv
    }

    fn view(&self, input: PathBuf) -> View {
        let folder = &self.site.folder;
        let mut mounts = vec![
            Mount::Empty { at: VIEW.into() },
            Mount::Empty { at: LOCKS.into() },
            Mount::Empty {
                at: config::seen("lxc").into(),
            },
            Mount::Overlay {
                lower: self.lower.clone(),
                upper: folder.join("upper"),
                work: folder.join("work"),
                at: config::seen("root").into(),
            },
        ];
        let folders = self.folders.iter().enumerate();
        mounts.extend(folders.map(|(number, shared)| Mount::Bind {
            from: shared.outside.clone(),
            at: config::seen(&number.to_string()).into(),
        }));
        View {
            mounts,
            input: Some(input),
        }
    }

    /// What the tool says of why nothing ran.
    fn trouble(&self, ended: &Ended) -> Error {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let said = config::complaints(&log);
        let detail = match ended {
            Ended::NotStarted(why) => why.clone(),
            _ if said.is_empty() => format!("it ended ({ended:?}) and said nothing"),
            _ => said,
        };
        Error::driver("starting a container", &detail)
    }
}

fn inside(place: Place) -> PathBuf {
    match place {
        Place::Workspace => "/workspace",
        Place::Temporary => "/distci/tmp",
        Place::Files => "/distci/files",
    }
    .into()
}

/// The folder of what the cell writes to its root, and in it what the image cannot know.
fn prepare(site: &Site, network: Network, range: Range) -> Result<(), Error> {
    let upper = site.folder.join("upper");
    let etc = upper.join("etc");
    let (uid, gid) = (Some(range.uid), Some(range.gid));
    fs::create_dir(site.folder.join("work"))?;
    fs::create_dir(&upper)?;
    chown(&upper, uid, gid)?;
    if network != Network::None {
        fs::create_dir(&etc)?;
        chown(&etc, uid, gid)?;
        let resolver = etc.join("resolv.conf");
        fs::write(&resolver, fs::read("/etc/resolv.conf").unwrap_or_default())?;
        chown(&resolver, uid, gid)?;
    }
    Ok(())
}

/// The program, or what to install.
fn tool() -> Result<PathBuf, Error> {
    if !nix::unistd::geteuid().is_root() {
        let why = "the driver lxc needs a worker that is root";
        return Err(Error::Unsupported(why.to_owned()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/bin".into()])
        .map(|folder| folder.join("lxc-start"))
        .find(|program| program.is_file());
    found.ok_or_else(|| {
        let why = "the driver lxc needs the program lxc-start: install the package lxc";
        Error::Unsupported(why.to_owned())
    })
}
