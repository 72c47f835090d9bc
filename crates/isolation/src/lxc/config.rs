//! What the tool is told, and what it complains of.

use std::path::{Path, PathBuf};

use super::ids::{COUNT, Range};
use super::{HOST_NAME, VIEW};
use crate::bridge::{BRIDGE, GATEWAY, Lease, PREFIX};
use crate::error::Error;

/// What every container is told.
const ALWAYS: &str = "\
lxc.mount.auto = proc:mixed
lxc.mount.entry = none dev/shm tmpfs nosuid,nodev,mode=1777,create=dir 0 0
lxc.pty.max = 1024
lxc.tty.max = 0
lxc.console.path = none
lxc.apparmor.profile = unconfined
lxc.seccomp.profile = /usr/share/lxc/config/common.seccomp
lxc.cap.drop = mac_admin mac_override sys_boot sys_module sys_rawio sys_time
lxc.proc.oom_score_adj = 200
";

/// How the owners of a folder are those of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// The kernel shows them so.
    Mapped,
    /// They are so for the time of a command.
    Changed,
}

/// How a container is wired.
#[derive(Debug, Clone)]
pub(super) enum Wires {
    /// The machine's own.
    Host,
    /// To itself.
    None,
    /// To the bridge.
    Private {
        /// Its right to be there.
        lease: Lease,
        /// What the interface is marked with.
        site: String,
        /// The tool that marks it.
        ip: PathBuf,
    },
}

/// Where something is that only the tool sees.
pub(super) fn seen(name: &str) -> String {
    format!("{VIEW}/{name}")
}

/// The container of these users, with `folders`, which the tool sees by their numbers.
pub(super) fn text(
    range: Range,
    wires: &Wires,
    folders: &[(&Path, Owners)],
) -> Result<String, Error> {
    let Range { uid, gid } = range;
    let mut lines = vec![
        format!("lxc.uts.name = {HOST_NAME}"),
        format!("lxc.rootfs.path = dir:{}", seen("root")),
        format!("lxc.idmap = u 0 {uid} {COUNT}"),
        format!("lxc.idmap = g 0 {gid} {COUNT}"),
    ];
    for (number, (inside, owners)) in folders.iter().enumerate() {
        let (from, to) = (seen(&number.to_string()), entry(inside)?);
        let owners = match owners {
            Owners::Mapped => ",idmap=container",
            Owners::Changed => "",
        };
        let options = format!("none bind,create=dir{owners} 0 0");
        lines.push(format!("lxc.mount.entry = {from} {to} {options}"));
    }
    lines.extend(network(wires));
    Ok(format!("{ALWAYS}{}\n", lines.join("\n")))
}

fn network(wires: &Wires) -> Vec<String> {
    // The kernel shows a network in sysfs only to whom it belongs.
    let sysfs = "lxc.mount.auto = sys:ro".to_owned();
    match wires {
        Wires::Host => vec!["lxc.net.0.type = none".to_owned()],
        Wires::None => vec![
            sysfs,
            "lxc.net.0.type = empty".to_owned(),
            "lxc.net.0.flags = up".to_owned(),
        ],
        Wires::Private { lease, site, ip } => vec![
            sysfs,
            "lxc.net.0.type = veth".to_owned(),
            format!("lxc.net.0.link = {BRIDGE}"),
            format!("lxc.net.0.veth.pair = {}", lease.link()),
            "lxc.net.0.name = eth0".to_owned(),
            "lxc.net.0.flags = up".to_owned(),
            format!("lxc.net.0.ipv4.address = {}/{PREFIX}", lease.address()),
            format!("lxc.net.0.ipv4.gateway = {GATEWAY}"),
            // A shell runs this, with words behind it that would be too many.
            format!(
                "lxc.net.0.script.up = {} link set dev {} alias {site} #",
                ip.display(),
                lease.link()
            ),
        ],
    }
}

/// A place in the container as fstab(5) spells it.
fn entry(inside: &Path) -> Result<String, Error> {
    let told = inside.to_str().and_then(|path| path.strip_prefix('/'));
    let Some(path) = told.filter(|path| !path.contains('\n')) else {
        let inside = inside.display();
        let why = format!("{inside} is no place in a container where a folder can be shown");
        return Err(Error::Unsupported(why));
    };
    Ok(path
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011"))
}

/// Whether it complains that a file system cannot show its owners as others.
pub(super) fn is_about_owners(log: &str) -> bool {
    log.contains("Failed to idmap detached mount")
}

/// The first errors in the tool's log, without where in its sources they are from.
pub(super) fn complaints(log: &str) -> String {
    const FEW: usize = 3;
    const MOST: usize = 300;
    let errors = log.lines().filter_map(|line| {
        let (_, place) = line.split_once(" ERROR ")?;
        let (_, words) = place.split_once(" - ")?;
        let (_, words) = words.split_once(" - ")?;
        Some(words.chars().take(MOST).collect::<String>())
    });
    errors.take(FEW).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_without_their_places() {
        let log = "lxc-start t 2026 WARN     conf - ../src/lxc/conf.c:f:1 - odd\n\
            lxc-start t 2026 ERROR    conf - ../src/lxc/conf.c:f:12 - Permission denied - no x\n\
            lxc-start t 2026 ERROR    sync - ../src/lxc/sync.c:g:3 - it ended\n";
        assert_eq!(complaints(log), "Permission denied - no x; it ended");
    }

    #[test]
    fn places_are_spelled_as_the_tool_reads_them() {
        assert_eq!(entry(Path::new("/a b/c\\d")).unwrap(), "a\\040b/c\\134d");
        assert!(entry(Path::new("relative")).is_err());
    }
}
