//! The world of a task in a virtual machine: the image, a layer over it, and the folders of the site.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount as mount_with};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{chroot, fchdir, sethostname};

use super::{named, network, wait_for};
use crate::cell::Excess;
use crate::parcel::unpack;
use crate::qemu::wire::{Blame, Fault, IMAGE, IN, Order, SCRATCH};

const EIO: i32 = nix::errno::Errno::EIO as i32;

/// Why the agent goes no further.
pub(super) struct Halt {
    doing: &'static str,
    why: io::Error,
    blame: Blame,
}

impl Halt {
    pub(super) fn when<T>(doing: &'static str, done: io::Result<T>) -> Result<T, Self> {
        let blame = Blame::Worker;
        done.map_err(|why| Self { doing, why, blame })
    }

    fn by_image<T>(doing: &'static str, done: io::Result<T>) -> Result<T, Self> {
        let blame = Blame::Image;
        done.map_err(|why| Self { doing, why, blame })
    }

    /// For what the task left: it may be too much, or too odd to be carried. A broken disk is ours.
    pub(super) fn by_task<T>(doing: &'static str, done: io::Result<T>) -> Result<T, Self> {
        done.map_err(|why| {
            let excess = Excess {
                disk: why.kind() == io::ErrorKind::StorageFull,
                ..Excess::default()
            };
            let blame = match why.raw_os_error() {
                Some(EIO) => Blame::Worker,
                _ => Blame::Task(excess),
            };
            Self { doing, why, blame }
        })
    }
}

impl From<Halt> for Fault {
    fn from(halt: Halt) -> Self {
        Self {
            doing: halt.doing.to_owned(),
            why: halt.why.to_string(),
            blame: halt.blame,
        }
    }
}

/// Where this process is until it [leaves](World::leave).
pub(super) struct World {
    /// Where the folders of the site are, once left.
    pub(super) places: Vec<PathBuf>,
    /// The root that the machine began with.
    beginning: File,
    /// The disk for all that is written.
    disk: File,
}

impl World {
    /// Makes it and goes there.
    pub(super) fn make(order: &Order) -> Result<Self, Halt> {
        Halt::by_image("mounting the image", mount_image())?;
        Halt::when("mounting the disk", mount_scratch())?;
        let places: Vec<PathBuf> = (0..order.places.len())
            .map(|n| Path::new("/scratch").join(n.to_string()))
            .collect();
        Halt::when("unpacking what goes in", fill(&places))?;
        Halt::by_image("laying a layer over the image", mount_root())?;
        let world = Self {
            places,
            beginning: Halt::when("opening the root", File::open("/"))?,
            disk: Halt::when("opening the disk", File::open("/scratch"))?,
        };
        let opened = world.places.iter().map(File::open);
        let opened = Halt::when("opening a folder", opened.collect::<Result<Vec<_>, _>>())?;
        Halt::when("going to the new root", enter())?;
        for (place, inside) in opened.iter().zip(&order.places) {
            Halt::by_image("showing a folder", show(place, inside))?;
        }
        Halt::when("setting up the network", connect(order.network))?;
        Ok(world)
    }

    /// Whether the disk has no room left to speak of.
    pub(super) fn is_full(&self) -> bool {
        const LITTLE: u64 = 64 * 1024;
        let Ok(disk) = fstatvfs(&self.disk) else {
            return false;
        };
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        let all = disk.blocks().saturating_mul(disk.fragment_size());
        free <= LITTLE.max(all / 200) || disk.files_available() == 0
    }

    /// Goes back to where the machine began: whatever the command did to its root, here is nothing
    /// changed.
    pub(super) fn leave(&self) -> Result<(), Halt> {
        let left = fchdir(&self.beginning).and_then(|()| chroot("."));
        Halt::when("leaving the root", left.map_err(io::Error::from))
    }
}

fn mount_image() -> io::Result<()> {
    let flags = MsFlags::MS_RDONLY;
    mount_at(&disk(IMAGE)?, "/image", "squashfs", flags, "")
}

fn mount_scratch() -> io::Result<()> {
    let flags = MsFlags::MS_NOATIME;
    // What nobody uses need not be cleaned.
    mount_at(&disk(SCRATCH)?, "/scratch", "ext4", flags, "noinit_itable")?;
    fs::create_dir("/scratch/upper")?;
    fs::create_dir("/scratch/work")?;
    // The root of a world is read by everybody in it.
    let mode = fs::metadata("/image")?.permissions().mode();
    fs::set_permissions("/scratch/upper", Permissions::from_mode(mode))
}

fn fill(places: &[PathBuf]) -> io::Result<()> {
    for place in places {
        fs::create_dir(place)?;
    }
    let input = File::open(disk(IN)?)?;
    unpack(io::BufReader::with_capacity(1 << 20, input), places)
}

fn mount_root() -> io::Result<()> {
    let layers = "lowerdir=/image,upperdir=/scratch/upper,workdir=/scratch/work";
    mount_at(
        Path::new("overlay"),
        "/world",
        "overlay",
        MsFlags::empty(),
        layers,
    )?;
    let beside = |inside: &str| format!("/world/{inside}");
    for (kind, inside) in [
        ("proc", "proc"),
        ("sysfs", "sys"),
        ("cgroup2", "sys/fs/cgroup"),
        ("devtmpfs", "dev"),
        ("devpts", "dev/pts"),
        ("tmpfs", "dev/shm"),
    ] {
        mount(kind, &beside(inside), kind)?;
    }
    for (name, to) in [
        ("fd", ""),
        ("stdin", "/0"),
        ("stdout", "/1"),
        ("stderr", "/2"),
    ] {
        symlink(format!("/proc/self/fd{to}"), beside(&format!("dev/{name}")))?;
    }
    // A stray write there would end the machine, and with it all that the task did.
    let (null, trigger) = (Path::new("/dev/null"), beside("proc/sysrq-trigger"));
    let none: Option<&str> = None;
    Ok(mount_with(
        Some(null),
        trigger.as_str(),
        none,
        MsFlags::MS_BIND,
        none,
    )?)
}

/// As containers do it, moving the mount: who is in a mere `chroot` may have no namespaces.
fn enter() -> io::Result<()> {
    std::env::set_current_dir("/world")?;
    let none: Option<&str> = None;
    mount_with(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    chroot(".")?;
    std::env::set_current_dir("/")?;
    if !Path::new("/tmp").exists() {
        fs::create_dir("/tmp")?;
        fs::set_permissions("/tmp", Permissions::from_mode(0o1777))?;
    }
    Ok(sethostname("distci")?)
}

fn show(place: &File, inside: &Path) -> io::Result<()> {
    fs::create_dir_all(inside)?;
    let outside = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let none: Option<&str> = None;
    Ok(mount_with(
        Some(&outside),
        inside,
        none,
        MsFlags::MS_BIND,
        none,
    )?)
}

fn connect(network: bool) -> io::Result<()> {
    network::local()?;
    if !network {
        return Ok(());
    }
    network::outward()?;
    let names = Path::new("/etc/resolv.conf");
    // It may be a link to what a service of the image would have written.
    match fs::remove_file(names) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all("/etc")?;
    fs::write(names, format!("nameserver {}\n", network::NAMES))
}

/// The device that holds the disk of this name.
pub(super) fn disk(name: &str) -> io::Result<PathBuf> {
    let what = format!("the disk {name}");
    wait_for(&what, || named(Path::new("/sys/block"), "serial", name))
}

/// Mounts what has no device, on a folder that is made.
pub(super) fn mount(source: &str, target: &str, kind: &str) -> io::Result<()> {
    mount_at(Path::new(source), target, kind, MsFlags::empty(), "")
}

fn mount_at(
    source: &Path,
    target: &str,
    kind: &str,
    flags: MsFlags,
    options: &str,
) -> io::Result<()> {
    fs::create_dir_all(target)?;
    mount_with(Some(source), target, Some(kind), flags, Some(options))
        .map_err(|errno| io::Error::other(format!("{target}: {errno}")))
}
