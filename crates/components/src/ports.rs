//! Ports on loopback that nobody listens on.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// Where we look: below the range from which the kernel takes the ports of outgoing connections.
/// One of those would be gone when a killed server comes back for it.
const FREE: std::ops::Range<u16> = 10_240..32_768;

static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// `count` ports: from `base` on if given, else free ones from anywhere.
///
/// Errors: a port from `base` on is taken, which would make another's server look like ours.
pub fn take(base: Option<u16>, count: usize) -> Result<Vec<u16>> {
    let Some(base) = base else {
        return free(count);
    };
    let mut ports = Vec::new();
    for offset in 0..u16::try_from(count)? {
        let port = base.checked_add(offset).context("ports end at 65535")?;
        if !is_free(port) {
            bail!("port {port} is taken by another process");
        }
        ports.push(port);
    }
    Ok(ports)
}

fn free(count: usize) -> Result<Vec<u16>> {
    // A random start: processes that look at the same time rarely meet.
    let span = u64::from(FREE.end - FREE.start);
    let start = u16::try_from(RandomState::new().build_hasher().finish() % span)?;
    let ports: Vec<_> = (FREE.start + start..FREE.end)
        .chain(FREE.start..FREE.start + start)
        .filter(|&port| is_free(port) && reserve(port))
        .take(count)
        .collect();
    if ports.len() < count {
        bail!("no {count} free ports in {FREE:?}");
    }
    Ok(ports)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Keeps a port from others of this crate until its server listens, and for as long as this process
/// lives: by the port of the same number for UDP, which none of the servers uses.
fn reserve(port: u16) -> bool {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    reserved.push(socket);
    true
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let mut given = HashSet::new();
        // So many that random places alone would mostly collide.
        for _ in 0..30 {
            given.extend(take(None, 20).unwrap());
        }
        assert_eq!(given.len(), 30 * 20);
    }

    #[test]
    fn a_base_gives_its_neighbours() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert!(take(Some(taken), 1).is_err());
        let base = take(None, 3).unwrap()[0];
        assert_eq!(take(Some(base), 1).unwrap(), [base]);
    }
}
