//! Cells of namespaces, made by bubblewrap: light, with one user and a fresh root over an image.
//!
//! The supervisor mounts the root where only it and bubblewrap see it; bubblewrap does the rest and
//! gives up every power over the machine. What is written to the root lives as long as the cell.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use distci_model::isolation::{Driver, Network};

use crate::cell::{
    Account, Cell, Command, Ended, Finished, Isolation, Output, Place, Shared, Site, Stop, Terms,
};
use crate::error::Error;
use crate::group::{Group, Groups};
use crate::heard::Heard;
use crate::image::Image;
use crate::journal::{self, Journal};
use crate::launch::{Launch, tool_environment};
use crate::probe;
use crate::processes::KEY_VARIABLE;
use crate::stage::Stage;
use crate::supervisor::FIRST_FILE;
use crate::view::View;

/// What of `/proc` a user who is the machine's root could write to: shown, but not to be changed.
const WATCHED: [&str; 8] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/mtrr",
];
/// What the root of a cell may do to what is its own: all that installing and building take.
const POWERS: [&str; 10] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_SYS_CHROOT",
];

/// Runs commands in namespaces of their own.
#[derive(Debug)]
pub struct Bubblewrap {
    /// The command that becomes the supervisor.
    pub supervisor: Vec<OsString>,
    /// Where groups are made.
    pub groups: Groups,
    /// The program `bwrap`.
    pub program: PathBuf,
}

struct BubblewrapCell {
    supervisor: Vec<OsString>,
    program: PathBuf,
    site: Site,
    group: Option<Group>,
    stage: Stage,
    network: Network,
    shared: Vec<Shared>,
}

#[async_trait]
impl Isolation for Bubblewrap {
    fn driver(&self) -> Driver {
        Driver::Bubblewrap
    }

    async fn probe(&self, image: &Image, folder: &Path) -> Result<(), Error> {
        probe::needs(&self.program, "bubblewrap")?;
        probe::run_true(self, image, folder).await
    }

    async fn open(&self, site: &Site, terms: &Terms) -> Result<Box<dyn Cell>, Error> {
        let Some(image) = &terms.image else {
            let why = "the driver bubblewrap needs an image: name one in the task's isolation";
            return Err(Error::Unsupported(why.to_owned()));
        };
        if terms.network == Network::Private {
            let why = "the driver bubblewrap has no private network: it knows host and none; \
                lxc, podman, docker and qemu can have one";
            return Err(Error::Unsupported(why.to_owned()));
        }
        let group = self.groups.plan(&site.name, terms)?;
        let journal = Journal {
            group: group.clone(),
            ..Journal::default()
        };
        journal.write(&site.folder)?;
        if let Some(group) = &group {
            group.make(terms)?;
        }
        let stage = Stage::make(image, &site.folder)?;
        if terms.network == Network::Host {
            stage.lay_name_servers()?;
        }
        Ok(Box::new(BubblewrapCell {
            supervisor: self.supervisor.clone(),
            program: self.program.clone(),
            site: site.clone(),
            group,
            stage,
            network: terms.network,
            shared: terms.shared.clone(),
        }))
    }
}

#[async_trait]
impl Cell for BubblewrapCell {
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
        stop: Stop<'_>,
    ) -> Result<Finished, Error> {
        let options = self.site.folder.join("options");
        let status = self.site.folder.join("status");
        write_privately(&options, &self.options(command))?;
        write_privately(&status, b"")?;
        let mut argv: Vec<OsString> = vec![self.program.clone().into(), "--args".into()];
        argv.push(FIRST_FILE.to_string().into());
        argv.push("--".into());
        argv.extend(command.argv.iter().cloned());
        let launch = Launch {
            supervisor: &self.supervisor,
            key: &self.site.key,
            argv,
            directory: "/".into(),
            env: tool_environment(),
            group: self.group.as_ref(),
            others: None,
            container: true,
            view: View::default(),
            stage: Some(&self.stage),
            files: vec![options, status.clone()],
        };
        let mut heard = Heard::new(output);
        let finished = launch.run(&mut heard, stop).await?;
        judge(finished, &fs::read_to_string(status)?, &heard.words())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(journal::close(&self.site).await?)
    }
}

impl BubblewrapCell {
    /// All that bubblewrap has to know beside the command, as it reads it from a file: the
    /// environment is nothing for a command line, which everybody on the machine can read.
    fn options(&self, command: &Command) -> Vec<u8> {
        let mut options = Options::default();
        options.add(&["--unshare-user", "--uid", "0", "--gid", "0"]);
        options.add(&["--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
        options.add(&["--unshare-cgroup-try", "--hostname", "distci"]);
        if self.network != Network::Host {
            options.add(&["--unshare-net"]);
        }
        options.add(&["--die-with-parent", "--cap-drop", "ALL"]);
        for power in POWERS {
            options.add(&["--cap-add", power]);
        }
        options.add(&["--json-status-fd", &(FIRST_FILE + 1).to_string()]);
        options.bind("--bind", self.stage.root(), "/");
        options.add(&["--proc", "/proc"]);
        for path in WATCHED {
            options.add(&["--ro-bind-try", path, path]);
        }
        match self.stage.devices() {
            Some(devices) => options.bind("--dev-bind", devices, "/dev"),
            None => options.add(&["--dev", "/dev"]),
        }
        for place in Place::ALL {
            options.bind("--bind", self.site.path(place), place.inside());
        }
        for shared in &self.shared {
            options.bind("--bind", &shared.outside, &shared.inside);
        }
        options.add(&["--clearenv"]);
        let key = (OsString::from(KEY_VARIABLE), self.site.key.clone());
        for (name, value) in command.env.iter().chain([&key]) {
            options.bind("--setenv", name, value);
        }
        options.push("--chdir");
        options.push(&command.directory);
        options.0
    }
}

/// Arguments, each with a zero behind it.
#[derive(Default)]
struct Options(Vec<u8>);

impl Options {
    fn add(&mut self, words: &[&str]) {
        for word in words {
            self.push(word);
        }
    }

    fn bind(&mut self, option: &str, outside: impl AsRef<OsStr>, inside: impl AsRef<OsStr>) {
        self.push(option);
        self.push(outside);
        self.push(inside);
    }

    fn push(&mut self, word: impl AsRef<OsStr>) {
        self.0.extend(word.as_ref().as_bytes());
        self.0.push(0);
    }
}

/// Bubblewrap's own exit code stands for the command's only if its status says that there was one.
fn judge(finished: Finished, status: &str, words: &str) -> Result<Finished, Error> {
    const DOING: &str = "bubblewrap making a cell";
    match &finished.ended {
        Ended::NotStarted(why) => Err(Error::driver(DOING, why)),
        Ended::Exit(_) if !status.contains("\"exit-code\"") => {
            let words = words.strip_prefix("bwrap: ").unwrap_or(words);
            match words.strip_prefix("execvp ") {
                Some(why) => Ok(Finished {
                    ended: Ended::NotStarted(why.to_owned()),
                    ..finished
                }),
                None => Err(Error::driver(DOING, &words)),
            }
        }
        Ended::Exit(_) | Ended::Signal(_) | Ended::Stopped => Ok(finished),
    }
}

/// A file that only this user may read.
fn write_privately(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(content)
}
