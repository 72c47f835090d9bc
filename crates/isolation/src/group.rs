//! Control groups: what the processes of a cell may take together, and what they took.
//!
//! Owns everything below the folders named `distci` in the machine's hierarchies, in the old form
//! (a hierarchy for each controller) and the new one (one for all). A limit that cannot be set is an
//! error, never forgotten.

mod layout;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use distci_model::isolation::{Cpus, Size};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cell::{Excess, Terms};
use crate::error::Error;
use layout::{Controller, Layout, Place};

/// The period over which a share of the processors is measured, in microseconds.
const PERIOD: u64 = 100_000;
/// The group of those who make their own below it.
const FOR_OTHERS: &str = "inner";

/// Where this process may make groups.
#[derive(Debug, Clone)]
pub struct Groups {
    layout: Result<Layout, String>,
}

/// The group of one cell: a folder in each hierarchy that is of use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) folders: Vec<Folder>,
}

/// The group's folder in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folder {
    /// What it controls.
    pub(crate) controllers: Vec<Controller>,
    /// Whether the hierarchy has the new form.
    pub(crate) unified: bool,
    /// The folder.
    pub(crate) path: PathBuf,
    /// The folder of the group that the worker itself is in.
    pub(crate) home: PathBuf,
}

impl Folder {
    /// Moves this process, which has one thread, into `group`. A lone thread moves at once; before a
    /// whole process does, the kernel waits some 10 ms until no other can be in the midst of a fork.
    /// The new form cannot part the threads of a process.
    fn take_in(&self, group: &Path) -> io::Result<()> {
        let file = if self.unified {
            "cgroup.procs"
        } else {
            "tasks"
        };
        fs::write(group.join(file), "0")
    }
}

impl Groups {
    /// Looks how this machine has them, and makes room below the group that this process is in. To
    /// be called once, when the process begins: in the new form it moves into a group below.
    pub fn find() -> Self {
        Self {
            layout: Layout::find(Place::Own).map_err(|error| error.to_string()),
        }
    }

    /// At the top of each hierarchy, for drivers whose containers somebody else makes: a daemon knows
    /// nothing of the group that this process is in.
    pub fn at_the_top() -> Self {
        Self {
            layout: Layout::find(Place::Top).map_err(|error| error.to_string()),
        }
    }

    /// None at all: for machines that let us make none.
    pub fn none() -> Self {
        Self {
            layout: Err("control groups are not wanted".to_owned()),
        }
    }

    /// Why limits cannot be kept here, if they cannot.
    pub fn trouble(&self) -> Option<&str> {
        self.layout.as_ref().err().map(String::as_str)
    }

    /// The group of the cell `name`, yet to be [made](Group::make). `None` if this machine lets us
    /// make none and `terms` do not ask for it.
    pub(crate) fn plan(&self, name: &str, terms: &Terms) -> Result<Option<Group>, Error> {
        let wanted = terms.memory.is_some() || terms.cpus.is_some() || terms.processes.is_some();
        match &self.layout {
            Ok(layout) => Ok(Some(Group {
                folders: layout.folders(name),
            })),
            Err(_) if !wanted => Ok(None),
            Err(why) => Err(Error::Unsupported(format!(
                "memory, cpus and processes cannot be limited on this worker: {why}"
            ))),
        }
    }
}

impl Group {
    /// Makes it with these limits.
    pub(crate) fn make(&self, terms: &Terms) -> Result<(), Error> {
        for folder in &self.folders {
            fs::create_dir_all(&folder.path)?;
        }
        if let Some(memory) = terms.memory {
            self.limit_memory(memory)?;
        }
        if let Some(cpus) = terms.cpus {
            self.limit_cpus(cpus)?;
        }
        if let Some(processes) = terms.processes {
            let folder = self.with(Controller::Pids, "processes")?;
            set(&folder.path, "pids.max", &processes.to_string())?;
        }
        Ok(())
    }

    /// Makes it with these limits and a group below, in which others make theirs. What they remove
    /// takes its counts along, so this one keeps the highest that there were.
    pub(crate) fn make_for_others(&self, terms: &Terms) -> Result<(), Error> {
        self.make(terms)?;
        for folder in &self.folders {
            if folder.unified {
                layout::offer(&folder.path, &folder.controllers)?;
            }
            if !folder.controllers.is_empty() {
                fs::create_dir_all(folder.path.join(FOR_OTHERS))?;
            }
        }
        Ok(())
    }

    /// The group below that others may use, as they name it in every hierarchy.
    pub(crate) fn name_for_others(&self) -> Option<String> {
        let folder = self.folders.first()?;
        let path = folder.path.strip_prefix(&folder.home).ok()?;
        Some(format!("/{}/{FOR_OTHERS}", path.display()))
    }

    fn limit_memory(&self, memory: Size) -> Result<(), Error> {
        let folder = self.with(Controller::Memory, "memory")?;
        let (path, bytes) = (&folder.path, memory.bytes().to_string());
        if folder.unified {
            set(path, "memory.max", &bytes)?;
            // Absent where the machine cannot swap.
            set_if_there(path, "memory.swap.max", "0")?;
            // One of them alone may be of no use to the rest.
            return set_if_there(path, "memory.oom.group", "0");
        }
        set_if_there(path, "memory.use_hierarchy", "1")?;
        set(path, "memory.limit_in_bytes", &bytes)?;
        set_if_there(path, "memory.memsw.limit_in_bytes", &bytes)
    }

    fn limit_cpus(&self, cpus: Cpus) -> Result<(), Error> {
        let folder = self.with(Controller::Cpu, "cpus")?;
        let quota = u64::from(cpus.thousandths()) * PERIOD / 1000;
        if folder.unified {
            return set(&folder.path, "cpu.max", &format!("{quota} {PERIOD}"));
        }
        set(&folder.path, "cpu.cfs_period_us", &PERIOD.to_string())?;
        set(&folder.path, "cpu.cfs_quota_us", &quota.to_string())
    }

    fn with(&self, controller: Controller, limit: &str) -> Result<&Folder, Error> {
        let has = |folder: &&Folder| folder.controllers.contains(&controller);
        self.folders.iter().find(has).ok_or_else(|| {
            Error::Unsupported(format!(
                "{limit} cannot be limited on this worker: no control group of it may be made"
            ))
        })
    }

    fn find(&self, controller: Controller) -> Option<&Folder> {
        self.with(controller, "").ok()
    }

    /// Moves this process into the group. To be called while it has one thread.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let mut folders = self.folders.iter();
        folders.try_for_each(|folder| folder.take_in(&folder.path))
    }

    /// Moves this process, though not what it started, back to where the worker is. To be called
    /// while it has one thread.
    pub(crate) fn leave(&self) -> io::Result<()> {
        let mut folders = self.folders.iter();
        folders.try_for_each(|folder| folder.take_in(&folder.home))
    }

    /// The most memory that it had, in bytes, if that is counted.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        let folder = self.find(Controller::Memory)?;
        let name = if folder.unified {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        number(&folder.path.join(name))
    }

    /// Processor time in milliseconds, if that is counted.
    pub(crate) fn cpu_ms(&self) -> Option<u64> {
        let folder = self.find(Controller::CpuAccounting)?;
        if folder.unified {
            return counted(&folder.path.join("cpu.stat"), "usage_usec").map(|usec| usec / 1000);
        }
        number(&folder.path.join("cpuacct.usage")).map(|nanoseconds| nanoseconds / 1_000_000)
    }

    /// Listens for want of memory, where the counts of it may be gone at the end.
    pub(crate) fn listen(&self) -> io::Result<Option<Alarm>> {
        let Some(folder) = self.find(Controller::Memory).filter(|f| !f.unified) else {
            return Ok(None);
        };
        let alarm = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let what = File::open(folder.path.join("memory.oom_control"))?;
        let order = format!("{} {}", alarm.as_raw_fd(), what.as_raw_fd());
        fs::write(folder.path.join("cgroup.event_control"), order)?;
        Ok(Some(Alarm(alarm)))
    }

    /// The limits that it ran into. What belongs to groups below counts as long as these are there.
    pub(crate) fn excess(&self) -> Excess {
        let any = |controller, file: &str, word: &str| {
            let folder = self.find(controller);
            let groups = folder.map(|folder| tree(&folder.path)).unwrap_or_default();
            let count = |group: &PathBuf| counted(&group.join(file), word).unwrap_or_default();
            groups.iter().map(count).any(|count| count > 0)
        };
        Excess {
            // In the new form these count what is below too, in the old one they do not.
            memory: any(Controller::Memory, "memory.events", "oom_kill")
                || any(Controller::Memory, "memory.oom_control", "oom_kill"),
            processes: any(Controller::Pids, "pids.events", "max") || self.was_refused_processes(),
            disk: false,
        }
    }

    /// Whether a group below had more processes for a moment than this one may have: the kernel
    /// counts a new process from the innermost group outwards, and stops at the limit.
    fn was_refused_processes(&self) -> bool {
        let Some(folder) = self.find(Controller::Pids) else {
            return false;
        };
        let peak = number(&folder.path.join(FOR_OTHERS).join("pids.peak"));
        let most = number(&folder.path.join("pids.max"));
        matches!((peak, most), (Some(peak), Some(most)) if peak > most)
    }

    /// Sends a signal to those in it, and below, that `whom` finds.
    pub(crate) fn signal(&self, whom: impl Fn(i32) -> bool, signal: Signal) {
        let folders = self.folders.iter();
        // Each is found in every hierarchy, and must not be asked twice.
        let found: BTreeSet<i32> = folders.flat_map(|folder| members(&folder.path)).collect();
        for pid in found.into_iter().filter(|pid| whom(*pid)) {
            // One that is gone meanwhile is as good as signalled.
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    /// Kills everything in it at once, if the kernel offers that. Says whether it did.
    pub(crate) fn kill(&self) -> bool {
        let kill = |folder: &Folder| fs::write(folder.path.join("cgroup.kill"), "1").is_ok();
        self.folders
            .iter()
            .filter(|folder| folder.unified)
            .any(kill)
    }

    /// Kills what is in it and removes it. One that is not there is as good as removed. Blocks.
    pub(crate) fn end(&self) -> io::Result<()> {
        self.kill();
        let mut outcome = Ok(());
        for folder in &self.folders {
            outcome = outcome.and(remove(&folder.path));
        }
        outcome
    }
}

/// Rings when something in a group wanted for memory, in hierarchies of the old form.
#[derive(Debug)]
pub(crate) struct Alarm(EventFd);

impl Alarm {
    /// Whether it rang.
    pub(crate) fn rang(&self) -> bool {
        self.0.read().is_ok_and(|times| times > 0)
    }
}

/// A group and those below it, each before its parent.
fn tree(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = folders.flat_map(|entry| tree(&entry.path())).collect();
    all.push(group.to_owned());
    all
}

/// Removes a group and those below it. The dead leave a group a moment after they are reaped.
fn remove(group: &Path) -> io::Result<()> {
    const ROUNDS: usize = 400;
    const PAUSE: Duration = Duration::from_millis(5);
    let mut outcome = Ok(());
    for _ in 0..ROUNDS {
        outcome = tree(group)
            .iter()
            .try_for_each(|group| match fs::remove_dir(group) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            });
        if outcome.is_ok() {
            return Ok(());
        }
        kill_members(group);
        thread::sleep(PAUSE);
    }
    outcome.map_err(|error| {
        let group = group.display();
        io::Error::new(error.kind(), format!("control group {group}: {error}"))
    })
}

/// For hierarchies of the old form, which cannot kill.
fn kill_members(group: &Path) {
    for pid in members(group) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

/// The processes in a group and those below it.
fn members(group: &Path) -> impl Iterator<Item = i32> {
    let texts = tree(group).into_iter();
    let texts = texts.map(|group| fs::read_to_string(group.join("cgroup.procs")));
    let pids = texts.flat_map(|text| {
        let text = text.unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse().ok());
        pids.collect::<Vec<i32>>()
    });
    // 0 stands for a process that is not of our namespace.
    pids.filter(|pid| *pid > 0)
}

fn set(group: &Path, file: &str, value: &str) -> Result<(), Error> {
    let path = group.join(file);
    fs::write(&path, value).map_err(|error| {
        let path = path.display();
        Error::Unsupported(format!(
            "the limit {path} cannot be set to {value}: {error}"
        ))
    })
}

fn set_if_there(group: &Path, file: &str, value: &str) -> Result<(), Error> {
    if group.join(file).exists() {
        set(group, file, value)
    } else {
        Ok(())
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind `word` in a file of such lines.
fn counted(file: &Path, word: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
