//! Ports on loopback that nobody listens on.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};

/// Where we look: below the range from which the kernel takes the ports of outgoing connections.
/// One of those would be gone when a killed server comes back for it.
const FREE: std::ops::Range<u16> = 10_240..32_768;

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
    // A random start: processes that look at the same time find different ports.
    let span = u64::from(FREE.end - FREE.start);
    let start = u16::try_from(RandomState::new().build_hasher().finish() % span)?;
    let ports: Vec<_> = (FREE.start + start..FREE.end)
        .chain(FREE.start..FREE.start + start)
        .filter(|&port| is_free(port))
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
