//! The root of a cell: an image below a layer of the cell's own, and devices of the cell's own.
//!
//! Owns the mounts of it, as a rule in a mount namespace of the supervisor's. The machine never sees
//! those, and they go with the last process that does, so there is nothing to note and nothing to
//! undo. What was written stays in the cell's folder, and the next command finds it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::image::Image;

/// The character devices that programs count on.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// What is to be mounted, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// The image.
    lower: PathBuf,
    /// The driver's own folder of the cell.
    folder: PathBuf,
}

impl Stage {
    /// A stage over `image` for the cell of `folder`, with what belongs in it there already.
    pub(crate) fn make(image: &Image, folder: &Path) -> io::Result<Self> {
        let stage = Self {
            lower: image.root(),
            folder: folder.to_owned(),
        };
        for place in ["upper", "work", "root", "dev"] {
            fs::create_dir_all(folder.join(place))?;
        }
        // The root of a cell has the mode of the layer, whatever this process's mask.
        fs::set_permissions(stage.layer(), Permissions::from_mode(0o755))?;
        stage.folder_in_the_layer("tmp", 0o1777)?;
        Ok(stage)
    }

    /// Where the whole is seen, by the command alone.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Where the cell's devices are, to be bound to `/dev`. `None` for ordinary users, who may not
    /// make any: what is bound of the machine's they can do no harm.
    pub(crate) fn devices(&self) -> Option<PathBuf> {
        geteuid().is_root().then(|| self.folder.join("dev"))
    }

    /// Lets the cell ask the name servers that the machine asks.
    pub(crate) fn lay_name_servers(&self) -> io::Result<()> {
        let etc = self.folder_in_the_layer("etc", 0o755)?;
        match fs::read("/etc/resolv.conf") {
            Ok(servers) => fs::write(etc.join("resolv.conf"), servers),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn layer(&self) -> PathBuf {
        self.folder.join("upper")
    }

    fn folder_in_the_layer(&self, name: &str, mode: u32) -> io::Result<PathBuf> {
        let folder = self.layer().join(name);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(mode))?;
        Ok(folder)
    }

    /// Leaves the machine's mounts and makes these, for this process and what it starts from now on.
    /// To be called while it has one thread.
    pub(crate) fn enter(&self) -> io::Result<()> {
        if geteuid().is_root() {
            unshare(CloneFlags::CLONE_NEWNS)?;
        } else {
            enter_as_an_ordinary_user()?;
        }
        let nothing = None::<&str>;
        let alone = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, alone, nothing)?;
        self.mount_root()?;
        match self.devices() {
            Some(devices) => lay_devices(&devices),
            None => Ok(()),
        }
    }

    /// Mounts the root alone, where this process is: for tools that have to see it on the machine.
    pub(crate) fn mount_root(&self) -> io::Result<()> {
        let overlay = Some("overlay");
        let mut options = self.options();
        if !geteuid().is_root() {
            // The marks of an overlay that need no privilege.
            options.push_str(",userxattr");
        }
        let options = Some(options.as_str());
        let mounted = mount(overlay, &self.root(), overlay, MsFlags::MS_NODEV, options);
        mounted.map_err(|errno| {
            let image = self.lower.display();
            io::Error::other(format!(
                "an overlay over {image} cannot be mounted: {errno}"
            ))
        })
    }

    fn options(&self) -> String {
        let path = |path: &Path| {
            let mut escaped = String::new();
            for letter in path.display().to_string().chars() {
                if matches!(letter, ',' | ':' | '\\') {
                    escaped.push('\\');
                }
                escaped.push(letter);
            }
            escaped
        };
        format!(
            "lowerdir={},upperdir={},workdir={}",
            path(&self.lower),
            path(&self.layer()),
            path(&self.folder.join("work"))
        )
    }
}

/// Who is nobody special on the machine may mount in a user namespace.
fn enter_as_an_ordinary_user() -> io::Result<()> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // The kernel wants this before it lets such a process say anything about groups.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// A root that is the machine's could change the modes of the machine's devices, so a cell gets its
/// own.
fn lay_devices(folder: &Path) -> io::Result<()> {
    let nothing = None::<&str>;
    let tmpfs = Some("tmpfs");
    mount(tmpfs, folder, tmpfs, MsFlags::MS_NOSUID, Some("mode=0755"))?;
    let mask = umask(Mode::empty());
    let all = Mode::from_bits_truncate(0o666);
    for (name, major, minor) in DEVICES {
        let path = folder.join(name);
        mknod(&path, SFlag::S_IFCHR, all, makedev(major, minor))?;
    }
    umask(mask);
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, folder.join(name))?;
    }
    let shared_memory = folder.join("shm");
    fs::create_dir(&shared_memory)?;
    fs::set_permissions(&shared_memory, Permissions::from_mode(0o1777))?;
    let terminals = folder.join("pts");
    fs::create_dir(&terminals)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some("newinstance,ptmxmode=0666,mode=620");
    mount(nothing, &terminals, Some("devpts"), flags, options)?;
    Ok(())
}
