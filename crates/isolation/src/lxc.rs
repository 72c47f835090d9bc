//! Containers by LXC: users of their own, a fresh root over an image, and a kernel that is shared.
//!
//! Owns what the tool is told; the tool is `lxc-start`, in the foreground, once for each command. It
//! has mounts of its own and finds no control groups there, so whatever it starts stays in the group
//! of the cell, and nothing that it makes outlives it.

mod config;
mod ids;
mod init;
mod owners;

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use distci_model::isolation::{Driver, Network};

use crate::bridge::Lease;
use crate::cell::{
    Account, Cell, Command, Ended, Finished, Isolation, Output, Place, Shared, Site, Stop, Terms,
};
use crate::error::Error;
use crate::group::{Group, Groups};
use crate::image::Image;
use crate::journal::{self, Journal};
use crate::launch::Launch;
use crate::view::{Mount, View};
use config::{Owners, Wires};
use ids::Range;
use init::Word;

/// Where the tool finds all that it works on. Hidden below are the control groups of the machine:
/// the tool would move what it starts out of the group of the cell.
const VIEW: &str = "/sys/fs/cgroup";
/// Where the tool keeps files of its own for ever.
const LOCKS: &str = "/run/lxc";
/// What an image must have, see [`init`].
const SHELL: &str = "/bin/sh";
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
    /// Its name, to tell what is wrong with it.
    image: String,
    tool: PathBuf,
    supervisor: Vec<OsString>,
    site: Site,
    group: Option<Group>,
    lower: PathBuf,
    range: Range,
    wires: Wires,
    /// What it shows of the machine: the folders of the site, then those that others use too.
    folders: Vec<Shared>,
    /// Whether the site is on a file system that cannot show its owners as others.
    stubborn: AtomicBool,
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
        let name = image.name().to_string();
        let lower = tokio::task::spawn_blocking(move || ids::shifted(&image, range));
        let lower = lower.await.map_err(std::io::Error::other)??;
        prepare(site, terms.network, range)?;
        let wires = wires(site, terms.network, journal).await?;
        Ok(Box::new(LxcCell {
            image: name,
            tool,
            supervisor: self.supervisor.clone(),
            site: site.clone(),
            group,
            lower,
            range,
            wires,
            folders: folders(site, terms),
            stubborn: AtomicBool::new(false),
        }))
    }
}

#[async_trait]
impl Cell for LxcCell {
    fn path(&self, place: Place) -> PathBuf {
        place.inside()
    }

    fn account(&self) -> Account {
        Account::root()
    }

    async fn run(
        &self,
        command: &Command,
        output: &mut dyn Output,
        mut stop: Stop<'_>,
    ) -> Result<Finished, Error> {
        let input = self.site.folder.join("init");
        loop {
            let written = init::write(&input, command, &self.site.key)?;
            let mut finished = self.launch(&input, output, &mut stop).await?;
            if finished.ended == Ended::Stopped {
                return Ok(finished);
            }
            finished.ended = match init::read(&input, written)? {
                Word::Nothing => match self.trouble(&finished.ended) {
                    // Nothing ran, so nothing runs twice.
                    Ok(()) => continue,
                    Err(error) => return Err(error),
                },
                // Whoever is first in a container ends without a word only when it is killed.
                Word::Begun => Ended::Signal(9),
                Word::NotStarted => Ended::NotStarted(not_started(command)),
                Word::Ended(code) => Ended::Exit(code),
            };
            return Ok(finished);
        }
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        // If a command was dropped, nobody did so yet.
        let given = self.give(owners::To::Machine).await;
        journal::close(&self.site).await?;
        given
    }
}

impl LxcCell {
    /// Runs the tool once.
    async fn launch(
        &self,
        input: &Path,
        output: &mut dyn Output,
        stop: &mut Stop<'_>,
    ) -> Result<Finished, Error> {
        let config = config::text(self.range, &self.wires, &self.binds())?;
        fs::write(self.site.folder.join("config"), config)?;
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
            others: None,
            container: true,
            stage: None,
            files: Vec::new(),
            view: self.view(input.to_owned()),
        };
        self.give(owners::To::Container).await?;
        let finished = launch.run(output, Box::pin(stop.as_mut())).await;
        self.give(owners::To::Machine).await?;
        finished
    }

    fn is_stubborn(&self) -> bool {
        self.stubborn.load(Ordering::Relaxed)
    }

    /// The places of the folders in the container, and how their owners are shown.
    fn binds(&self) -> Vec<(&Path, Owners)> {
        let owners = |number| {
            if self.is_stubborn() && number < Place::ALL.len() {
                Owners::Changed
            } else {
                Owners::Mapped
            }
        };
        let folders = self.folders.iter().enumerate();
        folders
            .map(|(number, folder)| (folder.inside.as_path(), owners(number)))
            .collect()
    }

    /// Changes the owners in the folders where there is no better way.
    async fn give(&self, to: owners::To) -> Result<(), Error> {
        for place in Place::ALL.into_iter().filter(|_| self.is_stubborn()) {
            let (path, range) = (self.site.path(place), self.range);
            let given = tokio::task::spawn_blocking(move || owners::give(&path, range, to));
            given.await.map_err(std::io::Error::other)??;
        }
        Ok(())
    }

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
        argv.extend(["--logpriority", "ERROR", "--", SHELL, "-s"].map(OsString::from));
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
        mounts.extend(folders.map(|(number, folder)| Mount::Bind {
            from: folder.outside.clone(),
            at: config::seen(&number.to_string()).into(),
        }));
        View {
            mounts,
            input: Some(input),
            errors: Some(folder.join("errors")),
        }
    }

    /// What the tool says of why nothing ran. `Ok`, if there is another way to be tried.
    fn trouble(&self, ended: &Ended) -> Result<(), Error> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        if config::is_about_owners(&log) {
            // It does not say which folder. The cell's own are changed; the others must not be.
            if !self.stubborn.swap(true, Ordering::Relaxed) {
                return Ok(());
            }
            let why = "a shared folder cannot be shown in a container: its file system cannot show \
                       owners as others (idmapped mounts)";
            return Err(Error::Unsupported(why.to_owned()));
        }
        let said = config::complaints(&log);
        if said.contains("Failed to exec") {
            // What follows is what came of that.
            let why = said.split("; ").next().unwrap_or_default();
            return Err(Error::Image {
                image: self.image.clone(),
                detail: format!("no {SHELL} there that runs: {why}"),
            });
        }
        let errors = fs::read_to_string(self.site.folder.join("errors")).unwrap_or_default();
        let detail = match ended {
            Ended::NotStarted(why) => why.clone(),
            _ if !said.is_empty() => said,
            _ => format!("{} ({ended:?})", errors.lines().next().unwrap_or("no word")),
        };
        Err(Error::driver("starting a container", &detail))
    }
}

/// All that a cell shows of the machine: first what is its own.
fn folders(site: &Site, terms: &Terms) -> Vec<Shared> {
    let own = Place::ALL.map(|place| Shared {
        outside: site.path(place),
        inside: place.inside(),
    });
    own.into_iter()
        .chain(terms.shared.iter().cloned())
        .collect()
}

fn not_started(command: &Command) -> String {
    let program = command.argv.first().cloned().unwrap_or_default();
    let program = program.display();
    format!("{program}: no such program, or it may not be run")
}

/// The folder of what the cell writes to its root, and in it what the image cannot know.
fn prepare(site: &Site, network: Network, range: Range) -> Result<(), Error> {
    let upper = site.folder.join("upper");
    // The worker's mask and account are nothing that a container should notice.
    let own = |path: &Path, mode: u32| {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        chown(path, Some(range.uid), Some(range.gid))
    };
    let folder = |path: &Path, mode: u32| fs::create_dir(path).and_then(|()| own(path, mode));
    fs::create_dir(site.folder.join("work"))?;
    folder(&upper, 0o755)?;
    folder(&upper.join("tmp"), 0o1777)?;
    if network != Network::None {
        let file = upper.join("etc/resolv.conf");
        folder(&upper.join("etc"), 0o755)?;
        fs::write(&file, resolver(network))?;
        own(&file, 0o644)?;
    }
    Ok(())
}

/// Wires it to that network, noting first what that makes on the machine.
async fn wires(site: &Site, network: Network, mut journal: Journal) -> Result<Wires, Error> {
    match network {
        Network::Host => return Ok(Wires::Host),
        Network::None => return Ok(Wires::None),
        Network::Private => {}
    }
    let ip = find_program("ip", "iproute2")?;
    let (site, name) = (site.clone(), site.name.clone());
    let taking = tokio::task::spawn_blocking(move || {
        Lease::take(&site, |lease| {
            journal.lease = Some(lease.clone());
            journal.write(&site.folder)
        })
    });
    Ok(Wires::Private {
        lease: taking.await.map_err(std::io::Error::other)??,
        site: name,
        ip,
    })
}

/// The name servers of the machine, without those that only the machine reaches, if need be.
fn resolver(network: Network) -> String {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if network == Network::Host {
        return text;
    }
    let is_local = |line: &str| {
        let server = line.trim().strip_prefix("nameserver");
        let server = server.and_then(|server| server.trim().parse::<std::net::IpAddr>().ok());
        server.is_some_and(|server| server.is_loopback())
    };
    if text.lines().any(is_local) {
        // What systemd keeps for those who cannot ask its own server.
        return fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or_default();
    }
    text
}

/// The tool, which only root can use so.
fn tool() -> Result<PathBuf, Error> {
    if !nix::unistd::geteuid().is_root() {
        let why = "the driver lxc needs a worker that is root";
        return Err(Error::Unsupported(why.to_owned()));
    }
    find_program("lxc-start", "lxc")
}

/// Where a program is, or what to install.
fn find_program(name: &str, package: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    found.ok_or_else(|| {
        let why = format!("the driver lxc needs the program {name}: install the package {package}");
        Error::Unsupported(why)
    })
}
