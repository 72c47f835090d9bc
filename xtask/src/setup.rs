//! Set-up: what the gate needs and the machine lacks.
//!
//! Installs packages of the system only when a command is missing, and tools only when their
//! pinned version is. A machine that has everything is not touched and not asked for the network.

use anyhow::{Result, bail};
use distci_components::{CEPH_PACKAGES, Package, ZOOKEEPER_PACKAGES, missing as missing_packages};

use crate::machine::Machine;
use crate::step::{run_quietly, step};
use crate::tool::TOOLS;

/// A command that the gate or the tests call, and the Debian package that brings it.
const COMMANDS: [(&str, &str); 28] = [
    ("git", "git"),
    ("cc", "gcc"),
    ("bash", "bash"),
    ("python3", "python3"),
    ("make", "make"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    // A drill's machines, and their clocks.
    ("nsenter", "util-linux"),
    ("faketime", "faketime"),
    // The drivers of isolation, and what their tests' image is made of.
    ("bwrap", "bubblewrap"),
    ("lxc-start", "lxc"),
    ("nft", "nftables"),
    ("busybox", "busybox-static"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    // Fetches the collections of webhooks' payloads that vendors publish.
    ("npm", "npm"),
    // Make the images of tests.
    ("mmdebstrap", "mmdebstrap"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
    // Virtual machines, and what their kernel and disks are made with.
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mksquashfs", "squashfs-tools"),
    ("mkfs.ext4", "e2fsprogs"),
    ("lz4", "lz4"),
    ("strip", "binutils"),
    // Shows the pages.
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

/// Who may have which ids, and the line by which root may give some to containers: behind those that
/// Debian gives to users one after the other.
const IDS: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
const IDS_OF_ROOT: &str = "root:1000000000:65536\n";

/// What drivers of isolation need beside commands.
const DRIVER_PACKAGES: [Package; 1] = [Package {
    name: "netavark",
    brings: "/usr/lib/podman/netavark",
}];

/// Brings the machine to where the gate can run.
pub(crate) fn run(machine: &Machine) -> Result<()> {
    install_packages(machine)?;
    IDS.into_iter().try_for_each(give_ids)?;
    for tool in &TOOLS {
        if !tool.is_present(machine)? {
            let name = format!("install {} {}", tool.krate, tool.version);
            step(&name, || tool.install(machine))?;
        }
    }
    machine.sweep_tools()
}

/// Lets root give ids to containers, if it has none to give.
fn give_ids(file: &str) -> Result<()> {
    let known = std::fs::read_to_string(file).unwrap_or_default();
    if known.lines().any(|line| line.starts_with("root:")) {
        return Ok(());
    }
    if !Machine::is_root() {
        bail!("please add the line {} to {file}", IDS_OF_ROOT.trim());
    }
    step(&format!("add ids of root to {file}"), || {
        Ok(std::fs::write(file, known + IDS_OF_ROOT)?)
    })
}

fn install_packages(machine: &Machine) -> Result<()> {
    let mut missing: Vec<_> = COMMANDS
        .iter()
        .filter(|(command, _)| !machine.has(command))
        .map(|&(_, p)| p)
        .collect();
    // The servers that the tests run on. Their packages are told by more than a command.
    let servers = [&ZOOKEEPER_PACKAGES[..], &CEPH_PACKAGES, &DRIVER_PACKAGES].concat();
    missing.extend(
        missing_packages(&servers)
            .iter()
            .map(|package| package.name),
    );
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !machine.has("apt-get") || !Machine::is_root() {
        bail!("please install {packages}: I am not root on a machine with apt-get");
    }
    step(&format!("install {packages}"), || {
        // The lists of a bare machine may be absent or stale; another apt may be at work.
        let apt = "apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3";
        run_quietly(&mut machine.command(&format!("{apt} update")))?;
        let mut install = machine.command(&format!("{apt} install --yes {packages}"));
        install
            .arg("--no-install-recommends")
            .env("DEBIAN_FRONTEND", "noninteractive");
        run_quietly(&mut install).map(drop)
    })
}
