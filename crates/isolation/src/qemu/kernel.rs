//! The kernel of virtual machines, and what it begins with.
//!
//! Owns a folder with a kernel of the distribution and the modules that a guest needs, and the
//! initial file system made from these and this program. A kernel is made once by
//! [`prepare_kernel`]; it is the same for all images.

mod initrd;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};
use walkdir::WalkDir;

use crate::error::Error;

/// The package that stands for the newest kernel for guests.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// What a guest has to be able to do. Those that the kernel has built in are in no file.
const MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "virtio_net",
    "squashfs",
    "overlay",
    "ext4",
];
/// How the compressed kernels begin that are in a bootable one, and who reads them.
const PACKERS: [(&[u8], &str); 4] = [
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x1f, 0x8b, 0x08], "gzip"),
];
const DOING: &str = "preparing a kernel";
const ELF: &[u8] = b"\x7fELF";

/// A kernel that is there.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// The one in `folder`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], if there is none.
    pub(super) fn in_folder(folder: &Path) -> Result<Self, Error> {
        let kernel = Self {
            folder: folder.to_owned(),
        };
        if kernel.vmlinux().is_file() {
            return Ok(kernel);
        }
        Err(Error::Unsupported(format!(
            "there is no kernel for virtual machines in {}: `distci image kernel` makes it",
            folder.display()
        )))
    }

    /// The kernel itself.
    pub(super) fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The file system that it begins with, in which `program` is the first process. Made anew for
    /// each version of the program. Blocks.
    pub(super) fn initrd(&self, program: &Path) -> Result<PathBuf, Error> {
        let found = fs::metadata(program)?;
        let (size, inode) = (found.len(), found.ino());
        let changed = (found.mtime(), found.mtime_nsec());
        let name = format!("initrd-{size:x}-{inode:x}-{:x}-{:x}", changed.0, changed.1);
        let done = self.folder.join(&name);
        if done.exists() {
            return Ok(done);
        }
        let _lock = lock(&self.folder.join("initrd.lock"))?;
        if done.exists() {
            return Ok(done);
        }
        let fresh = self.folder.join("initrd.new");
        initrd::write(&fresh, program, &self.modules()?)?;
        for old in fs::read_dir(&self.folder)?.flatten() {
            if old.file_name().to_string_lossy().starts_with("initrd-") {
                // Whoever runs on it has read it.
                fs::remove_file(old.path())?;
            }
        }
        fs::rename(fresh, &done)?;
        Ok(done)
    }

    fn modules(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.folder.join("modules"))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }
}

/// Makes the kernel in `folder`, if it is not there yet, from the packages of the distribution:
/// downloaded and unpacked, not installed. Blocks.
///
/// # Errors
/// [`Error::Unsupported`] on other machines than those that the package is for; [`Error::Driver`],
/// if a tool could not do its part.
pub fn prepare_kernel(folder: &Path) -> Result<(), Error> {
    if !cfg!(target_arch = "x86_64") {
        let why = "the driver qemu knows only machines of x86_64";
        return Err(Error::Unsupported(why.to_owned()));
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    let _lock = lock(&folder.with_extension("lock"))?;
    if Kernel::in_folder(folder).is_ok() {
        return Ok(());
    }
    let fresh = folder.with_extension("new");
    for old in [folder, &fresh] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    fs::create_dir_all(fresh.join("modules"))?;
    let unpacked = unpack(&fresh)?;
    fs::write(fresh.join("vmlinux"), uncompressed(&unpacked)?)?;
    for (n, content) in modules(&unpacked)?.iter().enumerate() {
        fs::write(fresh.join(format!("modules/{n:02}.ko")), content)?;
    }
    fs::remove_dir_all(unpacked)?;
    Ok(fs::rename(fresh, folder)?)
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    let lock = File::create(path)?;
    Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Gives the folder where the content of the kernel's package is.
fn unpack(folder: &Path) -> Result<PathBuf, Error> {
    let depends = run(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let depends = String::from_utf8_lossy(&depends).into_owned();
    let mut names = depends
        .lines()
        .filter_map(|line| line.split_once("Depends:"));
    let Some((_, name)) = names.next() else {
        let detail = format!("apt-cache knows no {PACKAGE}: `apt-get update` may mend that");
        return Err(Error::driver(DOING, &detail));
    };
    let unpacked = folder.join("package");
    fs::create_dir(&unpacked)?;
    let mut download = Command::new("apt-get");
    download.args(["-q", "download", name.trim()]);
    run(download.current_dir(&unpacked))?;
    for entry in fs::read_dir(&unpacked)? {
        let package = entry?.path();
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(&unpacked))?;
        fs::remove_file(package)?;
    }
    Ok(unpacked)
}

/// The kernel as it is in memory, which starts in half the time of one that unpacks itself.
fn uncompressed(unpacked: &Path) -> Result<Vec<u8>, Error> {
    let boot = files(&unpacked.join("boot"));
    let bootable = boot.iter().find(|path| name(path).starts_with("vmlinuz"));
    let bootable = bootable.ok_or_else(|| Error::driver(DOING, &"the package has no kernel"))?;
    let bytes = fs::read(bootable)?;
    for (magic, packer) in PACKERS {
        let places = bytes.windows(magic.len()).enumerate();
        for (place, _) in places.filter(|(_, window)| window == &magic) {
            let kernel = through(packer, &bytes[place..])?;
            if kernel.starts_with(ELF) {
                return Ok(kernel);
            }
        }
    }
    Err(Error::driver(DOING, &"nobody can unpack the kernel"))
}

/// The content of [`MODULES`] and those they need, each after those.
fn modules(unpacked: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let mut known = HashMap::new();
    for path in files(unpacked) {
        if let Some((module, _)) = name(&path).split_once(".ko") {
            known.insert(module.replace('-', "_"), path);
        }
    }
    let (mut ordered, mut seen) = (Vec::new(), HashSet::new());
    for module in MODULES {
        add(module, &known, &mut seen, &mut ordered)?;
    }
    Ok(ordered)
}

fn add(
    module: &str,
    known: &HashMap<String, PathBuf>,
    seen: &mut HashSet<String>,
    ordered: &mut Vec<Vec<u8>>,
) -> Result<(), Error> {
    let Some(path) = known.get(module) else {
        return Ok(());
    };
    if !seen.insert(module.to_owned()) {
        return Ok(());
    }
    let bytes = fs::read(path)?;
    let packers = PACKERS.iter().find(|(magic, _)| bytes.starts_with(magic));
    let content = match packers {
        Some((_, packer)) => through(packer, &bytes)?,
        None => bytes,
    };
    // Among the texts of the section `.modinfo`.
    let depends = content.split(|byte| *byte == 0);
    let depends = depends.filter_map(|text| text.strip_prefix(b"depends="));
    let depends: Vec<String> = depends
        .flat_map(|names| names.split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect();
    for needed in depends {
        add(&needed, known, seen, ordered)?;
    }
    ordered.push(content);
    Ok(())
}

fn run(command: &mut Command) -> Result<Vec<u8>, Error> {
    super::tool(DOING, command)
}

/// What a tool unpacks, though something else follows.
fn through(packer: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |error: io::Error| Error::driver(DOING, &format!("{packer}: {error}"));
    let mut child = Command::new(packer)
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let input = child.stdin.take();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It closes its input when it has enough.
            input.map(|mut input| input.write_all(bytes).ok());
        });
        child.wait_with_output()
    })
    .map(|done| done.stdout)
    .map_err(failed)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = WalkDir::new(folder).into_iter().flatten();
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}
