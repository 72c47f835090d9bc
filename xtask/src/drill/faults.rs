//! What can be done to the cluster of a drill, as shell commands.

use anyhow::{Context, Result};
use distci_components::Daemon;
use serde_json::{Value, json};

use crate::drill::lan::{cable, enter};
use crate::drill::site::{Machine, Site};

/// Requests are served again after a death (docs/reliability.md).
const SERVED: u64 = 5;
/// What a dead worker held is done anew: its lease, the turns of those who watch it, and the work.
const BUILT: u64 = 50;

/// The file of faults for `distci drill`.
pub(crate) fn of(site: &Site) -> Result<Value> {
    let mut faults = of_frontends(site)?;
    faults.extend(of_zookeeper(site)?);
    faults.extend(of_ceph(site)?);
    faults.extend(of_workers(site)?);
    let config = site.dir().join("fe-1.toml");
    let check = format!("{} fsck --config {}", site.binary(), config.display());
    Ok(json!({ "faults": faults, "check": check }))
}

fn of_frontends(site: &Site) -> Result<Vec<Value>> {
    let [first, second, third] = site.frontends() else {
        anyhow::bail!("there are three frontends");
    };
    let servers = site.servers()?;
    let addresses = servers
        .iter()
        .filter_map(|(_, _, address)| address.split(':').next());
    let ensemble = format!(
        "ip daddr {{ {} }}",
        addresses.collect::<Vec<_>>().join(", ")
    );
    let gateways = format!(
        "tcp dport {{ {} }}",
        site.gateways().collect::<Vec<_>>().join(", ")
    );
    let all: Vec<&Daemon> = site
        .frontends()
        .iter()
        .map(|machine| &machine.daemon)
        .collect();
    Ok(vec![
        killed("kill -9 of a frontend", &[&first.daemon], 5)?.aims(SERVED, BUILT),
        paused("SIGSTOP of a frontend", &second.daemon, 25).aims(SERVED, BUILT),
        unplugged("a frontend's cable is out", &third.name, 20).aims(SERVED, BUILT),
        deaf(
            "a frontend cut off from ZooKeeper",
            &first.name,
            &ensemble,
            20,
        )
        .aims(SERVED, BUILT),
        deaf("a frontend cut off from S3", &second.name, &gateways, 15).aims(SERVED, BUILT),
        killed("kill -9 of all frontends", &all, 2)?,
        shifted("a frontend's clock is an hour ahead", third, "+3600").aims(SERVED, BUILT),
    ]
    .into_iter()
    .map(Fault::into_json)
    .collect())
}

fn of_zookeeper(site: &Site) -> Result<Vec<Value>> {
    let servers = site.servers()?;
    let daemons: Vec<&Daemon> = servers.iter().map(|(_, daemon, _)| daemon).collect();
    let (second, ..) = servers.get(1).context("there is one server alone")?;
    // The leader is whoever says so when the fault is done.
    let find = servers.iter().map(|(_, daemon, address)| {
        let (host, port) = address.split_once(':').unwrap_or_default();
        let pid = pid_file(daemon);
        format!("if leads {host} {port}; then kill -$1 $(cat '{pid}'); found=1; fi")
    });
    let find = find.collect::<Vec<_>>().join("\n");
    let script = site.dir().join("leader");
    let text = format!(
        "leads() {{ bash -c \"exec 3<>/dev/tcp/$1/$2 && printf srvr >&3 && timeout 2 cat <&3\" \
         2>/dev/null | grep -q 'Mode: leader'; }}\nfound=\n{find}\ntest \"$found\"\n"
    );
    std::fs::write(&script, text).with_context(|| script.display().to_string())?;
    let leader = |signal: &str| format!("sh '{}' {signal}", script.display());
    let again = again(&daemons)?;
    let resume = daemons.iter().map(|daemon| signal(daemon, "CONT"));
    let resume = resume.collect::<Vec<_>>().join("; ");
    let disk = site.disk(2).display().to_string();
    Ok(vec![
        Fault::new(
            "kill -9 of the ZooKeeper leader",
            &leader("KILL"),
            &again,
            5,
        )
        .aims(SERVED, BUILT),
        Fault::new(
            "SIGSTOP of the ZooKeeper leader",
            &leader("STOP"),
            &resume,
            15,
        )
        .aims(10, BUILT),
        unplugged("a ZooKeeper server's cable is out", second, 20).aims(10, BUILT),
        killed("kill -9 of all ZooKeeper servers", &daemons, 3)?,
        Fault::new(
            "the disk of a ZooKeeper server is full",
            &full(&disk),
            &format!("rm -f '{disk}/filler'; {again}"),
            15,
        )
        .aims(10, BUILT),
    ]
    .into_iter()
    .map(Fault::into_json)
    .collect())
}

fn of_ceph(site: &Site) -> Result<Vec<Value>> {
    let (store, gateway) = (site.ceph("osd.0")?, site.ceph("rgw.1")?);
    Ok(vec![
        paused("SIGSTOP of the Ceph store", &store, 15),
        killed("kill -9 of the Ceph store", &[&store], 5)?,
        killed("kill -9 of one Ceph gateway of two", &[&gateway], 10)?.aims(SERVED, BUILT),
    ]
    .into_iter()
    .map(Fault::into_json)
    .collect())
}

fn of_workers(site: &Site) -> Result<Vec<Value>> {
    let decider = site.deciders().next().context("nobody decides")?;
    let runners: Vec<&Machine> = site.runners().collect();
    let [first, second, third, fourth, fifth, ..] = &runners[..] else {
        anyhow::bail!("there are too few workers");
    };
    let everyone = site
        .deciders()
        .chain(site.runners())
        .map(|machine| &machine.daemon);
    let everyone: Vec<&Daemon> = everyone.collect();
    let disk = site.dir().join(&fifth.name).display().to_string();
    Ok(vec![
        killed("kill -9 of a worker", &[&first.daemon], 5)?
            .ends(&first.name)
            .aims(SERVED, BUILT),
        killed("kill -9 of build control", &[&decider.daemon], 5)?
            .ends(&decider.name)
            .aims(SERVED, BUILT),
        paused("SIGSTOP of a worker", &second.daemon, 40).aims(SERVED, BUILT),
        unplugged("a worker's cable is out", &third.name, 40).aims(SERVED, BUILT),
        shifted("a worker's clock is an hour behind", fourth, "-3600").aims(SERVED, BUILT),
        Fault::new(
            "the disk of a worker is full",
            &full(&disk),
            &format!("rm -f '{disk}/filler'"),
            15,
        )
        .aims(SERVED, BUILT),
        killed("kill -9 of all workers", &everyone, 3)?,
    ]
    .into_iter()
    .map(Fault::into_json)
    .collect())
}

/// A fault in the making.
struct Fault(Value);

impl Fault {
    fn new(name: &str, hurt: &str, heal: &str, lasts: u64) -> Self {
        Self(json!({ "name": name, "hurt": hurt, "heal": heal, "lasts": lasts }))
    }

    fn aims(mut self, served: u64, built: u64) -> Self {
        self.0["served_within"] = json!(served);
        self.0["built_within"] = json!(built);
        self
    }

    fn ends(mut self, worker: &str) -> Self {
        self.0["ends"] = json!(worker);
        self
    }

    fn into_json(self) -> Value {
        self.0
    }
}

fn killed(name: &str, daemons: &[&Daemon], lasts: u64) -> Result<Fault> {
    let kill = daemons.iter().map(|daemon| signal(daemon, "KILL"));
    let kill = kill.collect::<Vec<_>>().join("; ");
    Ok(Fault::new(name, &kill, &again(daemons)?, lasts))
}

fn paused(name: &str, daemon: &Daemon, lasts: u64) -> Fault {
    Fault::new(
        name,
        &signal(daemon, "STOP"),
        &signal(daemon, "CONT"),
        lasts,
    )
}

fn unplugged(name: &str, machine: &str, lasts: u64) -> Fault {
    let cable = cable(machine);
    let (out, back) = (
        format!("ip link set {cable} down"),
        format!("ip link set {cable} up"),
    );
    Fault::new(name, &out, &back, lasts)
}

/// What a machine sends to some of the others is lost without a word.
fn deaf(name: &str, machine: &str, to: &str, lasts: u64) -> Fault {
    let enter = enter(machine);
    let cut = format!(
        "{enter} nft 'add table inet cut; \
         add chain inet cut out {{ type filter hook output priority 0; }}; \
         add rule inet cut out {to} drop'"
    );
    Fault::new(
        name,
        &cut,
        &format!("{enter} nft delete table inet cut"),
        lasts,
    )
}

fn shifted(name: &str, machine: &Machine, by: &str) -> Fault {
    let clock = machine.clock.display();
    let set = |by: &str| format!("echo {by} > '{clock}'");
    Fault::new(name, &set(by), &set("+0"), 20)
}

/// Fills a disk to the last byte.
fn full(disk: &str) -> String {
    format!("cat /dev/zero > '{disk}/filler' 2>/dev/null; test -s '{disk}/filler'")
}

fn signal(daemon: &Daemon, signal: &str) -> String {
    format!("kill -{signal} $(cat '{}')", pid_file(daemon))
}

fn pid_file(daemon: &Daemon) -> String {
    daemon.pid_file().display().to_string()
}

fn again(daemons: &[&Daemon]) -> Result<String> {
    let lines = daemons.iter().map(|daemon| daemon.start_line());
    Ok(lines.collect::<Result<Vec<_>>>()?.join("; "))
}
