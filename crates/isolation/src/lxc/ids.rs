//! The users of a container on the machine: a range of ids that is root's to give away.
//!
//! Owns the form of an image whose owners are of that range.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::image::Image;

/// As many as a distribution knows.
pub(super) const COUNT: u32 = 65536;

/// Which ids of the machine the users and groups of a container are: root's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Range {
    /// The one that the machine sets aside for root.
    pub(super) fn of_root() -> Result<Self, Error> {
        Ok(Self {
            uid: first("/etc/subuid")?,
            gid: first("/etc/subgid")?,
        })
    }
}

fn first(file: &str) -> Result<u32, Error> {
    let text = fs::read_to_string(file).unwrap_or_default();
    find(&text).ok_or_else(|| {
        Error::Unsupported(format!(
            "the driver lxc needs {COUNT} ids that are root's to give to containers: add a line \
             like root:1000000000:{COUNT} to {file}, with a range that nobody else there has"
        ))
    })
}

/// The first range of root that is large enough.
fn find(text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut parts = line.trim().splitn(3, ':');
        let (owner, first, count) = (parts.next()?, parts.next()?, parts.next()?);
        let enough = count.parse::<u32>().ok()? >= COUNT;
        (["root", "0"].contains(&owner) && enough).then(|| first.parse().ok())?
    })
}

/// The root file system of `image` with owners of `range`: made once. Blocks.
pub(super) fn shifted(image: &Image, range: Range) -> Result<std::path::PathBuf, Error> {
    let form = format!("lxc-{}-{}", range.uid, range.gid);
    image.derived(&form, |path| {
        fs::create_dir(path)?;
        chown(path, Some(range.uid), Some(range.gid))?;
        copy(&image.root(), path, range).map_err(|detail| Error::Image {
            image: image.name().to_string(),
            detail: format!("it cannot be copied to the users of containers: {detail}"),
        })
    })
}

/// Unpacked by the root of a container, what is packed by the machine's gets its owners right, and
/// so do the capabilities of files. Devices cannot be made so, and a container has its own.
fn copy(from: &Path, to: &Path, range: Range) -> Result<(), String> {
    let known = ["--numeric-owner", "--xattrs", "--xattrs-include=*"];
    let mut pack = Command::new("tar");
    pack.args(known)
        .args(["--exclude=./dev/*", "-cf", "-", "."]);
    let pack = pack.current_dir(from).stdout(Stdio::piped());
    let mut pack = pack
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("tar: {error}"))?;
    let packed = pack.stdout.take().map(Stdio::from);
    let mut unpack = Command::new("lxc-usernsexec");
    unpack
        .args(["-m", &format!("u:0:{}:{COUNT}", range.uid)])
        .args(["-m", &format!("g:0:{}:{COUNT}", range.gid)])
        .args(["--", "tar"])
        .args(known)
        .args(["-xpf", "-"]);
    let unpack = unpack
        .current_dir(to)
        .stdin(packed.unwrap_or_else(Stdio::null))
        .output();
    let unpacked = unpack.map_err(|error| format!("lxc-usernsexec: {error}"))?;
    let packed = pack.wait().map_err(|error| format!("tar: {error}"))?;
    if !unpacked.status.success() {
        let said = String::from_utf8_lossy(&unpacked.stderr);
        let lines: Vec<&str> = said.lines().take(3).collect();
        return Err(lines.join("; "));
    }
    // 1 means that something changed meanwhile, which an image does not.
    if packed.success() {
        Ok(())
    } else {
        Err(format!("tar could not read it ({packed})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_large_range_of_root_is_taken() {
        assert_eq!(find("a:1:65536\nroot:5:10\nroot:7:65536\n"), Some(7));
        assert_eq!(find("0:100000:1000000"), Some(100_000));
        assert_eq!(find("root:x:65536\nroot:1"), None);
    }
}
