//! The disks of a virtual machine, and the way of the site's folders to them and back.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command as Tool;

use super::{tool, wire};
use crate::error::Error;
use crate::image::Image;
use crate::parcel;

const BUFFER: usize = 1 << 20;

/// A disk of the machine.
#[derive(Debug)]
pub(super) struct Disk {
    /// By which the agent knows it.
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) writable: bool,
}

impl Disk {
    pub(super) fn read_only(name: &'static str, path: PathBuf) -> Self {
        let writable = false;
        Self {
            name,
            path,
            writable,
        }
    }

    pub(super) fn writable(name: &'static str, path: PathBuf) -> Self {
        let writable = true;
        Self {
            name,
            path,
            writable,
        }
    }
}

/// The image as a file system in one file.
pub(super) fn squashed(image: &Image) -> Result<PathBuf, Error> {
    image.derived("root.squashfs", |path| {
        let mut squash = Tool::new("mksquashfs");
        squash.arg(image.root()).arg(path);
        // More would cost every machine more time than it saves room.
        squash.args(["-comp", "zstd", "-Xcompression-level", "3"]);
        squash.args(["-noappend", "-quiet", "-no-progress"]);
        tool("making a disk of an image", &mut squash).map(drop)
    })
}

/// The disks of one run, in `place`; what goes in is in `folders`.
pub(super) fn make(place: &Path, folders: &[PathBuf], bytes: u64) -> Result<Vec<Disk>, Error> {
    let [input, output, scratch] =
        [wire::IN, wire::OUT, wire::SCRATCH].map(|name| place.join(name));
    let file = BufWriter::with_capacity(BUFFER, File::create(&input)?);
    parcel::pack(folders, file, bytes)?;
    // A tar is larger than what is in it.
    File::create(&output)?.set_len(bytes.saturating_mul(2).saturating_add(BUFFER as u64))?;
    File::create(&scratch)?.set_len(bytes)?;
    let mut format = Tool::new("mkfs.ext4");
    // No journal: nobody looks at it after a crash.
    format.args(["-q", "-F", "-m", "0", "-O", "^has_journal"]);
    format.args(["-E", "lazy_itable_init=1,nodiscard"]);
    tool("making the disk of a virtual machine", format.arg(&scratch))?;
    Ok(vec![
        Disk::read_only(wire::IN, input),
        Disk::writable(wire::OUT, output),
        Disk::writable(wire::SCRATCH, scratch),
    ])
}

/// Lets `folders` show what is on the disk in `place` that came out, and removes the disks there.
///
/// # Errors
/// Whatever could not be written; then the folders show part of it.
pub(super) fn take_back(place: &Path, folders: &[PathBuf]) -> Result<(), Error> {
    let out = File::open(place.join(wire::OUT))?;
    for folder in folders {
        parcel::clear(folder)?;
    }
    parcel::unpack(BufReader::with_capacity(BUFFER, out), folders)?;
    // Their room is better used by what comes next.
    for disk in [wire::IN, wire::OUT, wire::SCRATCH] {
        fs::remove_file(place.join(disk))?;
    }
    Ok(())
}
