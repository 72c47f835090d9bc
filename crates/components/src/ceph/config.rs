//! The configuration of a small Ceph, and the first maps of its cluster.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{CephPlan, ObjectStore};

/// How much a store may hold.
const STORE_BYTES: u64 = 4 << 30;

/// Writes `ceph.conf`, an empty key ring, and the maps that make a cluster of `plan` out of nothing:
/// with the stores in the first map nobody has to be asked for their numbers.
pub(super) fn write(dir: &Path, plan: &CephPlan, monitor: &[u16]) -> Result<()> {
    let &[v2, v1] = monitor else {
        bail!("a monitor has two ports, not {}", monitor.len());
    };
    let monitor = format!("[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]");
    let fsid = uuid()?;
    let conf = dir.join("ceph.conf");
    fs::write(
        &conf,
        text(&dir.display().to_string(), plan, &fsid, &monitor),
    )?;
    fs::write(dir.join("keyring"), "")?;
    fs::create_dir_all(dir.join(super::MONITOR))?;
    let mut monmap = Command::new("monmaptool");
    monmap.args(["--create", "--fsid", &fsid, "--addv", "a", &monitor]);
    run(monmap.arg(dir.join("monmap")))?;
    let mut osdmap = Command::new("osdmaptool");
    osdmap.args(["--createsimple", &plan.osds.to_string(), "-c"]);
    run(osdmap.arg(&conf).arg(dir.join("osdmap")))
}

/// A random id, by the kernel.
pub(super) fn uuid() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(id.trim().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| program.clone())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}: {said}", output.status);
    }
    Ok(())
}

fn text(dir: &str, plan: &CephPlan, fsid: &str, monitor: &str) -> String {
    let copies = plan.osds.clamp(1, 3);
    let quorum = copies / 2 + 1;
    let store = match plan.store {
        ObjectStore::Memory => "memstore",
        ObjectStore::BlueStore => "bluestore",
    };
    format!(
        "[global]
fsid = {fsid}
mon host = {monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms async op threads = 2
osd pool default size = {copies}
osd pool default min size = {quorum}
{LOCATIONS}{GLOBAL}
[mon]
mon data = {dir}/mon.$id
{MONITOR}
[osd]
osd data = {dir}/osd.$id
osd objectstore = {store}
memstore device bytes = {STORE_BYTES}
bluestore block size = {STORE_BYTES}
{STORE}
[client]
rgw data = {dir}/gateway
{GATEWAY}"
    )
    .replace("@DIR@", dir)
}

const LOCATIONS: &str = "keyring = @DIR@/keyring
run dir = @DIR@/run
admin socket = @DIR@/run/$name.$pid.socket
pid file =
log file = @DIR@/log/$name.own.log
mon cluster log file = @DIR@/log/cluster.own.log
crash dir = @DIR@/log
log to stderr = false
err to stderr = true
log to syslog = false
mon cluster log to syslog = false
";

const GLOBAL: &str = "auth cluster required = none
auth service required = none
auth client required = none
# A gateway would insist on encryption towards the monitor, for which there are no keys: it would hang.
ms mon client mode = crc
# The defaults, meant for thousands of hosts, add ten seconds to a start.
objecter tick interval = 0.5
objecter timeout = 1
ms max backoff = 1
mon client hunt interval = 0.5
mon client hunt interval max multiple = 2
# One host holds all copies.
osd crush chooseleaf type = 0
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 2000
# Both the stores and the monitor read it: a silent store is out after so many seconds.
osd heartbeat grace = 6
";

const MONITOR: &str = "paxos propose interval = 0.05
paxos min wait = 0.01
mon osd min down reporters = 1
mon osd adjust heartbeat grace = false
mon osd reporter subtree level = osd
mon osd down out interval = 600
mon warn on pool no redundancy = false
mon warn on insecure global id reclaim allowed = false
auth allow insecure global id reclaim = false
# The folder may lie on a disk that others fill.
mon data avail warn = 2
mon data avail crit = 1
mon osd nearfull ratio = .95
mon osd backfillfull ratio = .96
mon osd full ratio = .97
rocksdb cache size = 33554432
";

const STORE: &str = "osd journal =
bluestore cache autotune = false
bluestore cache size = 134217728
bluestore fsck on mount = false
osd memory target = 939524096
osd op num shards = 2
osd op num threads per shard = 1
osd class update on start = false
osd heartbeat interval = 1
osd mon heartbeat interval = 5
osd max pg log entries = 500
osd min pg log entries = 100
osd check for log corruption = false
# Only an unhurried end saves what a store in memory holds.
osd fast shutdown = false
";

const GATEWAY: &str = "rgw thread pool size = 64
# A line for every request would fill the memory in which a folder may lie.
debug rgw = 0
rgw num control oids = 2
rgw rados pool pg num min = 8
# Deleted objects stay for two hours by default, and here they stay in memory.
rgw gc obj min wait = 5
rgw gc processor period = 5
rgw gc processor max time = 5
rgw enable usage log = false
rgw enable ops log = false
rgw run sync thread = false
rgw dynamic resharding = false
rgw s3 auth use keystone = false
rgw s3 auth use sts = false
";
