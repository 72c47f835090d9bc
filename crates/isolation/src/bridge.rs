//! A network for each cell that reaches the world, but neither the machine's own services nor the
//! other cells.
//!
//! Owns the bridge `distci0`, the tables `distci` of nftables and the folder `/run/distci`, which are
//! one for all workers of a machine and stay on it. A cell has the lease of one number, from which
//! its address and the name of its interface follow; whoever holds the lease owns the interface.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::cell::Site;
use crate::error::Error;
use crate::journal;

/// The bridge.
pub(crate) const BRIDGE: &str = "distci0";
/// The machine on the bridge, and the way out.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
/// How many bits of an address all cells have in common.
pub(crate) const PREFIX: u8 = 16;
/// What only this module touches.
const FOLDER: &str = "/run/distci";
/// The first number of a cell; lower ones are the machine's.
const FIRST: u16 = 2;
/// Beyond the last one, which would be a broadcast.
const END: u16 = u16::MAX;
/// Who goes through the machine, and who does not. Loaded as a whole each time, because others may
/// empty all tables: then a cell would reach what it must not.
const RULES: &str = r#"
add table inet distci
flush table inet distci
table inet distci {
    chain input {
        type filter hook input priority -10; policy accept;
        iifname "distci0" drop
    }
    chain forward {
        type filter hook forward priority -10; policy accept;
        iifname "distci0" oifname "distci0" drop
        iifname "distci0" meta nfproto ipv6 drop
        iifname "distci0" ip saddr != 10.213.0.0/16 drop
        iifname "distci0" ip daddr 169.254.0.0/16 drop
        oifname "distci0" ct state established,related accept
        oifname "distci0" drop
    }
    chain out {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.213.0.0/16 oifname != "distci0" masquerade
    }
}
add table bridge distci
flush table bridge distci
table bridge distci {
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname "distci-*" drop
    }
}
"#;

/// The right of one cell to an address and an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    number: u16,
    /// The driver's own folder of the cell; by this the lease is known.
    folder: PathBuf,
}

impl Lease {
    /// Makes sure of the bridge and takes a lease for the cell of `site`, after `note` has noted it.
    /// Blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`], if this machine cannot have such a network; it says why.
    pub(crate) fn take(
        site: &Site,
        note: impl FnOnce(&Self) -> io::Result<()>,
    ) -> Result<Self, Error> {
        fs::create_dir_all(addresses())?;
        let lock = File::create(Path::new(FOLDER).join("network.lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        prepare().map_err(|why| {
            Error::Unsupported(format!("a private network cannot be had here: {why}"))
        })?;
        let lease = Self {
            number: free()?,
            folder: site.folder.clone(),
        };
        note(&lease)?;
        fs::write(lease.file(), lease.folder.as_os_str().as_encoded_bytes())?;
        Ok(lease)
    }

    /// The name of the interface that the machine sees.
    pub(crate) fn link(&self) -> String {
        format!("distci-{}", self.number)
    }

    /// The address of the cell.
    pub(crate) fn address(&self) -> Ipv4Addr {
        let [a, b, ..] = GATEWAY.octets();
        let [c, d] = self.number.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    /// Removes the interface and gives the number back. That it was never taken is no error. Blocks.
    pub(crate) fn end(&self) -> io::Result<()> {
        if fs::read(self.file()).ok() != Some(self.folder.as_os_str().as_encoded_bytes().to_vec()) {
            return Ok(());
        }
        let link = self.link();
        if is_link(&link) {
            let deleted = run("ip", &["link", "delete", "dev", &link], "");
            // The kernel removes it too, when the last process of its cell is gone.
            if is_link(&link) {
                deleted.map_err(io::Error::other)?;
            }
        }
        fs::remove_file(self.file())
    }

    fn file(&self) -> PathBuf {
        addresses().join(self.number.to_string())
    }
}

fn addresses() -> PathBuf {
    Path::new(FOLDER).join("addresses")
}

fn is_link(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// A number that no cell has, or one that is gone. To be called under the lock.
fn free() -> Result<u16, Error> {
    let somewhere = RandomState::new().build_hasher().finish();
    let count = u64::from(END - FIRST);
    let skip = usize::try_from(somewhere % count).unwrap_or_default();
    let mut numbers = (FIRST..END)
        .cycle()
        .skip(skip)
        .take(usize::from(END - FIRST));
    let is_free = |number: &u16| {
        let lease = addresses().join(number.to_string());
        fs::read_to_string(lease).map_or(true, |folder| !journal::is_in(Path::new(&folder)))
    };
    numbers.find(is_free).ok_or_else(|| {
        let why = "all addresses of private networks are taken on this machine";
        Error::Unsupported(why.to_owned())
    })
}

/// Makes what is missing of the bridge, and the rules around it.
fn prepare() -> Result<(), String> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let routes: Vec<Route> = routes.lines().filter_map(Route::parse).collect();
    if let Some(other) = routes.iter().find(|route| route.is_in_the_way()) {
        let device = &other.device;
        return Err(format!("{device} leads to addresses of {GATEWAY}/{PREFIX}"));
    }
    // First the rules: nothing may come through before they are there.
    run("nft", &["--file", "-"], RULES)?;
    if !is_link(BRIDGE) {
        run("ip", &["link", "add", BRIDGE, "type", "bridge"], "")?;
    }
    let address =
        format!("address replace {GATEWAY}/{PREFIX} dev {BRIDGE}\nlink set {BRIDGE} up\n");
    run("ip", &["-batch", "-"], &address)?;
    let ways_out = routes.iter().filter(|route| route.mask == 0);
    let devices = ways_out.map(|route| route.device.as_str());
    devices.chain([BRIDGE]).try_for_each(forward)
}

/// Lets what comes in there go on elsewhere.
fn forward(device: &str) -> Result<(), String> {
    let switch = format!("/proc/sys/net/ipv4/conf/{device}/forwarding");
    if fs::read_to_string(&switch).is_ok_and(|text| text.trim() == "1") {
        return Ok(());
    }
    fs::write(&switch, "1").map_err(|error| format!("{switch} cannot be set: {error}"))
}

/// A line of `/proc/net/route`.
struct Route {
    device: String,
    network: u32,
    mask: u32,
}

impl Route {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // In the order of the network's bytes, as the machine has such a number in memory.
        let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_be);
        Some(Self {
            device: (*fields.first()?).to_owned(),
            network: number(fields.get(1)?)?,
            mask: number(fields.get(7)?)?,
        })
    }

    /// Whether it is somebody else's and leads to addresses of ours.
    fn is_in_the_way(&self) -> bool {
        let common = self.mask & (u32::MAX << (32 - PREFIX));
        self.device != BRIDGE
            && self.mask != 0
            && self.network & common == GATEWAY.to_bits() & common
    }
}

/// Runs a tool with this input. What it complains of is the error.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(program)
        .args(arguments)
        // Where these tools are, an ordinary path does not always lead.
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}; install iproute2 and nftables"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that does not read tells why at its end.
        pipe.write_all(input.as_bytes()).ok();
    }
    let done = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).take(3).collect();
    Err(format!("{program}: {}", lines.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_an_address_and_a_name() {
        let lease = Lease {
            number: 258,
            folder: "/nowhere".into(),
        };
        assert_eq!(lease.address(), Ipv4Addr::new(10, 213, 1, 2));
        assert_eq!(lease.link(), "distci-258");
        // The kernel allows 15 bytes.
        assert!(format!("distci-{END}").len() <= 15);
        lease.end().unwrap();
    }

    #[test]
    fn routes_in_the_way_are_seen() {
        let route = |device: &str, network: &str, mask: &str| {
            let line = format!("{device}\t{network}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0");
            Route::parse(&line).unwrap()
        };
        assert!(route("eth0", "0001D50A", "00FFFFFF").is_in_the_way());
        assert!(route("eth0", "0000000A", "000000FF").is_in_the_way());
        assert!(!route("eth0", "00000000", "00000000").is_in_the_way());
        assert!(!route("eth0", "000200C0", "00FFFFFF").is_in_the_way());
        assert!(!route(BRIDGE, "0000D50A", "0000FFFF").is_in_the_way());
        assert!(Route::parse("Iface\tDestination\tGateway").is_none());
    }
}
