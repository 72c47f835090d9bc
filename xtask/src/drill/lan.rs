//! Machines that are none: network namespaces, each with a cable to one bridge.
//!
//! Owns the names and addresses. Works in a network namespace that was made for it alone, and refuses
//! any other: it would change the network of this machine.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Result, ensure};
use distci_components::Host;

use crate::step::run_quietly;

/// The bridge, where those are who run in no namespace of their own.
pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// Where names of network namespaces are kept.
const NAMES: &str = "/run/netns";

/// The network.
pub(crate) struct Lan(());

impl Lan {
    /// Makes the bridge. Errors: this is not a network that was made for it.
    pub(crate) fn make() -> Result<Self> {
        let links = run_quietly(&mut words("ip -o link"))?;
        ensure!(
            links.lines().count() == 1,
            "this network namespace is not a new one: {links}"
        );
        for line in [
            "ip link set lo up".to_owned(),
            format!("mkdir -p {NAMES}"),
            // The names of this machine's own namespaces stay out of sight, and ours out of its.
            format!("mount -t tmpfs -o mode=755 tmpfs {NAMES}"),
            "ip link add hub type bridge".to_owned(),
            format!("ip addr add {HUB}/16 dev hub"),
            "ip link set hub up".to_owned(),
        ] {
            run_quietly(&mut words(&line))?;
        }
        Ok(Self(()))
    }

    /// Plugs a new machine in.
    #[expect(clippy::unused_self, reason = "there is no cable without a network")]
    pub(crate) fn host(&self, name: &str, address: Ipv4Addr) -> Result<Host> {
        for line in [
            format!("ip netns add {name}"),
            format!(
                "ip link add {} type veth peer name eth0 netns {name}",
                cable(name)
            ),
            format!("ip link set {} master hub up", cable(name)),
            format!("ip -n {name} link set lo up"),
            format!("ip -n {name} addr add {address}/16 dev eth0"),
            format!("ip -n {name} link set eth0 up"),
        ] {
            run_quietly(&mut words(&line))?;
        }
        Ok(Host {
            address,
            prefix: words_of(&enter(name)),
        })
    }
}

/// The end of a machine's cable at the bridge.
pub(crate) fn cable(name: &str) -> String {
    format!("to-{name}")
}

/// What comes before a command that is to run on a machine. Unlike `ip netns exec`, it leaves the mounts
/// as they are: control groups are among them.
pub(crate) fn enter(name: &str) -> String {
    format!("nsenter --net={NAMES}/{name}")
}

fn words_of(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}
