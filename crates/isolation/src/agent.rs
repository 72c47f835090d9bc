//! The first process of a virtual machine: the same binary once more.
//!
//! Owns the machine that it runs in: loads the modules, puts the world of the task together, runs
//! the one command as its supervisor, and hands back what it did. It is what nobody in the machine
//! can kill. Trusts its worker and nobody else; has nothing that is worth protecting.

mod network;
mod world;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};

use crate::cell::Terms;
use crate::group::Groups;
use crate::parcel::pack;
use crate::qemu::wire::{Fault, Frame, OUT, Order, PORT};
use crate::supervisor::{Charge, Report, guard, report};
use crate::view::View;
use world::{Halt, World, disk, mount};

/// How long a device may take to show up.
const PATIENCE: Duration = Duration::from_secs(30);
/// A pipe holds this much by default.
const PIPE: usize = 64 * 1024;
/// Files that a process may have open, at first and at most: what distributions allow.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Serves one order. To be called first thing in `main`, when the first argument is the word that
/// makes this program an agent; only as the first process of a machine that is ours.
pub fn main() -> ExitCode {
    if std::process::id() != 1 {
        complain("an agent is the first process of a virtual machine");
        return ExitCode::FAILURE;
    }
    if let Err(error) = serve() {
        complain(&error.to_string());
    }
    // Never off: the worker waits for the end of the machine, and that is what this brings.
    reboot(RebootMode::RB_AUTOBOOT).ok();
    ExitCode::FAILURE
}

fn complain(what: &str) {
    writeln!(io::stderr(), "distci: {what}").ok();
}

fn serve() -> io::Result<()> {
    mount("proc", "/proc", "proc")?;
    mount("sysfs", "/sys", "sysfs")?;
    mount("devtmpfs", "/dev", "devtmpfs")?;
    load_modules()?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.0, OPEN_FILES.1)?;
    let port = Port::open()?;
    port.say(&Frame::Hello)?;
    let order = Order::read(&mut &port)?;
    port.say(&match perform(&order, &port) {
        Ok(report) => Frame::Ended(report),
        Err(halt) => Frame::Fault(Fault::from(halt)),
    })?;
    // The worker switches the machine off once it has read that.
    loop {
        thread::park();
    }
}

/// Those in `/modules`, which are named in the order of loading.
fn load_modules() -> io::Result<()> {
    let mut modules: Vec<PathBuf> = fs::read_dir("/modules")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    modules.sort();
    for module in modules {
        finit_module(File::open(&module)?, c"", ModuleInitFlags::empty())
            .map_err(|errno| io::Error::other(format!("{}: {errno}", module.display())))?;
    }
    Ok(())
}

fn perform(order: &Order, port: &Port) -> Result<Report, Halt> {
    let world = World::make(order)?;
    let ended = Halt::when("running the command", run(order, port));
    let full = world.is_full();
    world.leave()?;
    let mut report = ended?;
    report.excess.disk = full;
    Halt::by_task("packing what comes out", hand_back(&world.places))?;
    Ok(report)
}

fn hand_back(places: &[PathBuf]) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).open(disk(OUT)?)?;
    let most = out.seek(SeekFrom::End(0))?;
    out.rewind()?;
    pack(places, io::BufWriter::with_capacity(1 << 20, &out), most)?;
    out.sync_all()
}

fn run(order: &Order, port: &Port) -> io::Result<Report> {
    let terms = Terms {
        memory: order.memory,
        processes: order.processes,
        ..Terms::default()
    };
    let group = Groups::find().plan("task", &terms);
    let group = group.map_err(io::Error::other)?;
    if let Some(group) = &group {
        group.make(&terms).map_err(io::Error::other)?;
    }
    let charge = Charge {
        group,
        others: None,
        container: false,
        view: View::default(),
        stage: None,
        files: Vec::new(),
    };
    let (program, arguments) = match order.argv.split_first() {
        Some((program, arguments)) => (program.as_os_str(), arguments),
        None => ("".as_ref(), &[][..]),
    };
    let (console, output) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&order.directory)
        .env_clear()
        .envs(order.env.iter().map(|(name, value)| (name, value)))
        .stdout(output.try_clone()?)
        .stderr(output);
    port.say(&Frame::Started)?;
    let lifeline = port.again()?;
    let end = thread::scope(|scope| {
        let pumping = scope.spawn(|| pump(console, port));
        let end = guard(&charge, command, lifeline);
        let pumped = pumping.join();
        pumped.map_err(|_| io::Error::other("the output is lost"))??;
        end
    })?;
    Ok(report(end, charge.group.as_ref()))
}

fn pump(mut from: impl Read, port: &Port) -> io::Result<()> {
    let mut buffer = vec![0; PIPE];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => port.say(&Frame::Output(buffer[..read].to_vec()))?,
        }
    }
}

/// The way to the worker.
struct Port(File);

impl Port {
    fn open() -> io::Result<Self> {
        let named = || -> io::Result<Option<PathBuf>> {
            let folder = Path::new("/sys/class/virtio-ports");
            named(folder, "name", PORT)
        };
        let device = wait_for("the port of the worker", named)?;
        let port = OpenOptions::new().read(true).write(true).open(device)?;
        Ok(Self(port))
    }

    fn again(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    fn say(&self, frame: &Frame) -> io::Result<()> {
        (&self.0).write_all(&frame.to_bytes()?)
    }
}

/// Before the kernel has heard that the worker is there, the port seems to be at its end.
impl Read for &Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let port = || match (&self.0).read(buffer)? {
            0 => Ok(None),
            read => Ok(Some(read)),
        };
        wait_for("the worker", port)
    }
}

/// The device of a class whose file `file` says `name`.
fn named(class: &Path, file: &str, name: &str) -> io::Result<Option<PathBuf>> {
    for device in fs::read_dir(class)? {
        let device = device?;
        let said = fs::read_to_string(device.path().join(file)).unwrap_or_default();
        if said.trim() == name {
            return Ok(Some(Path::new("/dev").join(device.file_name())));
        }
    }
    Ok(None)
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("{what} does not show up")));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
