//! Virtual machines: a kernel and memory of its own for every command.
//!
//! Owns the disks of a machine: the image, the same for all and never written to, and one of bounded
//! size for the rest, made for a run and gone after it. The folders of the site go in and come back
//! in tars on disks of their own, so nothing in the machine ever sees a file system of the worker's.
//! QEMU runs under a supervisor like every tool; the command runs under an [agent](crate::agent).

mod disks;
mod hardware;
mod kernel;
mod line;
pub(crate) mod wire;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command as Tool;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use distci_model::isolation::{Cpus, Driver, Network, Size, Usage};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::cell::{
    Account, Cell, Command, Ended, Excess, Finished, Isolation, Output, Place, Site, Stop, Terms,
};
use crate::error::Error;
use crate::group::{Group, Groups};
use crate::journal::{self, Journal};
use crate::supervisor::Report;
use disks::Disk;
pub use hardware::Accelerator;
use hardware::{Hardware, Over, by_itself};
use kernel::Kernel;
pub use kernel::prepare_kernel;
use line::{Line, Talk};
use wire::{Blame, Order};

/// How long a machine with an accelerator that is any good takes to boot, and then some.
const PROBE: Duration = Duration::from_secs(10);
/// What the kernel and the agent of a machine need beside what the task may have.
const OWN_MEMORY: u64 = 160 << 20;
/// The folders of the site, in the order in which they go in and come back.
const PLACES: [Place; 3] = [Place::Workspace, Place::Temporary, Place::Files];
/// As whoever is killed by somebody else ends.
const SIGKILL: u8 = 9;

/// Runs each command in a virtual machine of its own. Clones share what was found out.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// The command that becomes the supervisor.
    pub supervisor: Vec<OsString>,
    /// The program that becomes the agent, and the word that makes it one: [`crate::agent::main`].
    pub agent: (PathBuf, String),
    /// Where groups are made.
    pub groups: Groups,
    /// Where [`prepare_kernel`] made a kernel.
    pub kernel: PathBuf,
    /// Bytes of memory that a task has where the terms name none: 2 GiB. A machine takes them from
    /// the worker's as it uses them.
    pub memory: u64,
    /// Bytes of the disk where the terms name none: 16 GiB. They are taken as they are written.
    pub disk: u64,
    /// How long a machine may take to boot: 2 minutes, for it may be an emulated one on a busy
    /// worker.
    pub patience: Duration,
    accelerator: Arc<OnceCell<Accelerator>>,
}

impl Qemu {
    /// The driver as the fields say, with an accelerator yet to be tried.
    pub fn new(
        supervisor: Vec<OsString>,
        agent: (PathBuf, String),
        groups: Groups,
        kernel: PathBuf,
    ) -> Self {
        Self {
            supervisor,
            agent,
            groups,
            kernel,
            memory: 2 << 30,
            disk: 16 << 30,
            patience: Duration::from_mins(2),
            accelerator: Arc::default(),
        }
    }

    /// The same, with an accelerator that need not be tried.
    #[must_use]
    pub fn with_accelerator(self, accelerator: Accelerator) -> Self {
        Self {
            accelerator: Arc::new(OnceCell::new_with(Some(accelerator))),
            ..self
        }
    }

    /// What computes its machines, once that was tried.
    pub fn accelerator(&self) -> Option<Accelerator> {
        self.accelerator.get().copied()
    }

    /// Boots a machine with KVM if there is such a thing, for that alone shows whether it is of any
    /// use: it may be there, open, and slower than none.
    async fn try_out(&self, cell: &QemuCell) -> Result<Accelerator, Error> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Accelerator::Tcg);
        }
        let line = Line::open(&cell.site.folder, PROBE)?;
        let hardware = Hardware {
            accelerator: Accelerator::Kvm,
            // The limits of one task say nothing of the worker.
            group: None,
            ..cell.hardware(Vec::new())
        };
        match hardware.run(&line, line.answer()).await.talk {
            Ok(_) => Ok(Accelerator::Kvm),
            Err(why) => {
                tracing::warn!("/dev/kvm is of no use, so machines are emulated: {why}");
                Ok(Accelerator::Tcg)
            }
        }
    }
}

#[async_trait]
impl Isolation for Qemu {
    fn driver(&self) -> Driver {
        Driver::Qemu
    }

    async fn open(&self, site: &Site, terms: &Terms) -> Result<Box<dyn Cell>, Error> {
        let Some(image) = terms.image.clone() else {
            let why = "the driver qemu needs an image";
            return Err(Error::Unsupported(why.to_owned()));
        };
        if terms.network == Network::Private {
            // Whoever is let out by QEMU itself reaches what listens on the worker.
            let why = "the driver qemu has no private network: name none or host";
            return Err(Error::Unsupported(why.to_owned()));
        }
        let kernel = Kernel::in_folder(&self.kernel)?;
        // The machine bounds its memory and processes itself.
        let outside = Terms {
            cpus: terms.cpus,
            ..Terms::default()
        };
        let group = self.groups.plan(&site.name, &outside)?;
        let journal = Journal {
            group: group.clone(),
            ..Journal::default()
        };
        journal.write(&site.folder)?;
        if let Some(group) = &group {
            group.make(&outside)?;
        }
        let (program, begun) = (self.agent.0.clone(), kernel.clone());
        let forms = blocking(move || Ok((begun.initrd(&program)?, disks::squashed(&image)?)));
        let (initrd, image) = forms.await?;
        let cell = QemuCell {
            qemu: self.clone(),
            site: site.clone(),
            terms: terms.clone(),
            group,
            kernel,
            initrd,
            image,
        };
        let found = self.accelerator.get_or_try_init(|| self.try_out(&cell));
        found.await?;
        Ok(Box::new(cell))
    }
}

struct QemuCell {
    qemu: Qemu,
    site: Site,
    terms: Terms,
    group: Option<Group>,
    kernel: Kernel,
    initrd: PathBuf,
    image: PathBuf,
}

#[async_trait]
impl Cell for QemuCell {
    fn path(&self, place: Place) -> PathBuf {
        match place {
            Place::Workspace => "/workspace".into(),
            Place::Temporary => "/distci/tmp".into(),
            Place::Files => "/distci/files".into(),
        }
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
        let (folders, folder) = (self.folders(), self.site.folder.clone());
        let bytes = self.disk();
        let disks = blocking(move || disks::make(&folder, &folders, bytes)).await?;
        let line = Line::open(&self.site.folder, self.patience())?;
        let hardware = self.hardware(disks);
        let order = self.order(command);
        let talking = line.talk(&order, output, stop);
        let over = hardware.run(&line, talking).await;
        self.finish(over, output).await
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(journal::close(&self.site).await?)
    }
}

impl QemuCell {
    /// The folders of the machine that it shows.
    fn folders(&self) -> Vec<PathBuf> {
        let own = PLACES.map(|place| self.site.path(place));
        let shared = self.terms.shared.iter();
        let shared = shared.map(|shared| shared.outside.clone());
        own.into_iter().chain(shared).collect()
    }

    fn disk(&self) -> u64 {
        self.terms.disk.map_or(self.qemu.disk, Size::bytes)
    }

    /// Who may have little of a processor boots slowly.
    fn patience(&self) -> Duration {
        let share = self.terms.cpus.map_or(1000, Cpus::thousandths).min(1000);
        self.qemu.patience * 1000 / share
    }

    fn hardware(&self, mut disks: Vec<Disk>) -> Hardware<'_> {
        if !disks.is_empty() {
            disks.push(Disk::read_only(wire::IMAGE, self.image.clone()));
        }
        let memory = self.terms.memory.map_or(self.qemu.memory, Size::bytes);
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = self.terms.cpus.map(Cpus::whole);
        Hardware {
            supervisor: &self.qemu.supervisor,
            key: &self.site.key,
            group: self.group.as_ref(),
            folder: &self.site.folder,
            kernel: self.kernel.vmlinux(),
            initrd: self.initrd.clone(),
            word: self.qemu.agent.1.clone(),
            accelerator: self.qemu.accelerator().unwrap_or(Accelerator::Tcg),
            memory: memory.saturating_add(OWN_MEMORY),
            processors: cpus.unwrap_or_else(|| u32::try_from(all()).unwrap_or(1)),
            disks,
            network: self.terms.network == Network::Host,
        }
    }

    fn order(&self, command: &Command) -> Order {
        let own = PLACES.map(|place| self.path(place));
        let shared = self.terms.shared.iter();
        let shared = shared.map(|shared| shared.inside.clone());
        Order {
            argv: command.argv.clone(),
            directory: command.directory.clone(),
            env: command.env.clone(),
            places: own.into_iter().chain(shared).collect(),
            memory: self.terms.memory,
            processes: self.terms.processes,
            network: self.terms.network == Network::Host,
        }
    }

    async fn finish(&self, over: Over<Talk>, output: &mut dyn Output) -> Result<Finished, Error> {
        let Over {
            talk,
            machine,
            tail,
        } = over;
        let usage = match &machine {
            Ok(finished) => finished.usage,
            Err(_) => Usage::default(),
        };
        let finished = |ended| Finished {
            ended,
            usage,
            excess: Excess::default(),
        };
        match talk {
            Talk::Ended(report) => {
                self.take_back().await?;
                told(report, usage)
            }
            Talk::Stopped(report) => {
                let mut finished = finished(Ended::Stopped);
                if let Some(report) = report {
                    match self.take_back().await {
                        Ok(()) => finished.excess = report.excess,
                        Err(error) => tracing::warn!("what a stopped task left is lost: {error}"),
                    }
                }
                Ok(finished)
            }
            Talk::Lost { started: true } if by_itself(&machine) => {
                let said = format!("\ndistci: the virtual machine ended before the task\n{tail}\n");
                output.take(said.as_bytes()).await;
                Ok(finished(Ended::Signal(SIGKILL)))
            }
            Talk::Fault(fault) => {
                let detail = format!("{}: {}", fault.doing, fault.why);
                match fault.blame {
                    Blame::Worker => Err(broken(&machine, &detail, &tail)),
                    Blame::Image => Err(Error::Image {
                        image: self.image.display().to_string(),
                        detail,
                    }),
                    Blame::Task(excess) => {
                        output
                            .take(format!("\ndistci: {detail}\n").as_bytes())
                            .await;
                        let killed = finished(Ended::Signal(SIGKILL));
                        Ok(Finished { excess, ..killed })
                    }
                }
            }
            Talk::Silent(why) => Err(broken(&machine, &why, &tail)),
            Talk::Lost { .. } => Err(broken(&machine, "it fell silent", &tail)),
        }
    }

    /// Lets the folders of the site show what the command did.
    async fn take_back(&self) -> Result<(), Error> {
        let (place, folders) = (self.site.folder.clone(), self.folders());
        blocking(move || disks::take_back(&place, &folders)).await
    }
}

/// How a command ended, in a machine that took `usage` of ours.
fn told(report: Report, usage: Usage) -> Result<Finished, Error> {
    let finished = Finished::try_from(report)?;
    Ok(Finished {
        usage: Usage {
            // What QEMU has beside is not the task's, and its limit is not about that.
            memory_peak: finished.usage.memory_peak,
            ..usage
        },
        ..finished
    })
}

/// Why there is nothing to tell of a command.
fn broken(machine: &Result<Finished, Error>, why: &str, tail: &str) -> Error {
    let doing = "running a virtual machine";
    match machine {
        Ok(finished) => match &finished.ended {
            Ended::NotStarted(why) => {
                let mend = "install qemu-system-x86 and seabios";
                Error::driver(doing, &format!("{why}: {mend}"))
            }
            Ended::Exit(_) | Ended::Signal(_) | Ended::Stopped => {
                Error::driver(doing, &format!("{why}; the last it said:\n{tail}"))
            }
        },
        Err(error) => Error::driver(doing, &format!("{why}: {error}")),
    }
}

/// Runs a tool to its end, and gives what it printed.
fn tool(doing: &'static str, command: &mut Tool) -> Result<Vec<u8>, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .map_err(|error| Error::driver(doing, &format!("{name}: {error}")))?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let last: Vec<&str> = said.trim().lines().rev().take(5).collect();
    let said = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(Error::driver(doing, &format!("{name}: {said}")))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(std::io::Error::other)?
}
