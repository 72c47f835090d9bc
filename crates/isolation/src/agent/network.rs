//! The network of a virtual machine, told to its kernel as `ip` does it (rtnetlink(7)).
//!
//! The numbers are those that QEMU gives to every guest of its user-mode network.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, send, socket};

/// Who knows names.
pub(super) const NAMES: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const OWN_BITS: u8 = 24;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

const INET: u8 = 2;
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// It is a request, to be acknowledged, and makes what is not there.
const FLAGS: u16 = 0x1 | 0x4 | 0x400;
const UP: u32 = 1;

/// Brings up the machine's way to itself.
pub(super) fn local() -> io::Result<()> {
    up(&open()?, 1)
}

/// Brings up the way to the world.
pub(super) fn outward() -> io::Result<()> {
    let index = fs::read_to_string("/sys/class/net/eth0/ifindex")?;
    let index: u32 = index.trim().parse().map_err(io::Error::other)?;
    let kernel = open()?;
    up(&kernel, index)?;
    // Family, bits, flags, scope.
    let mut address = vec![INET, OWN_BITS, 0, 0];
    address.extend(index.to_ne_bytes());
    for kind in [1, 2] {
        attribute(&mut address, kind, OWN.octets());
    }
    ask(&kernel, NEW_ADDRESS, &address)?;
    // To everywhere: the main table, made at boot, through a gateway.
    let mut route = vec![INET, 0, 0, 0, 254, 3, 0, 1];
    route.extend(0_u32.to_ne_bytes());
    attribute(&mut route, 5, GATEWAY.octets());
    ask(&kernel, NEW_ROUTE, &route)
}

fn up(kernel: &OwnedFd, index: u32) -> io::Result<()> {
    let mut link = vec![0; 4];
    for number in [index, UP, UP] {
        link.extend(number.to_ne_bytes());
    }
    ask(kernel, NEW_LINK, &link)
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?)
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    to.extend(8_u16.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
}

fn ask(kernel: &OwnedFd, kind: u16, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(FLAGS.to_ne_bytes());
    // Which request and of whom: there is no other.
    request.extend([0; 8]);
    request.extend(body);
    send(kernel.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 1024];
    recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let [
        _,
        _,
        _,
        _,
        k0,
        k1,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        e0,
        e1,
        e2,
        e3,
        ..,
    ] = answer;
    match (
        u16::from_ne_bytes([k0, k1]),
        i32::from_ne_bytes([e0, e1, e2, e3]),
    ) {
        (ERROR, 0) => Ok(()),
        (ERROR, error) => Err(io::Error::from_raw_os_error(-error)),
        (kind, _) => Err(io::Error::other(format!("the kernel answered with {kind}"))),
    }
}
