//! A ZooKeeper of one server or several, each a small JVM.
//!
//! Owns `zookeeper-I` folders with a `zoo.cfg` and the data. Servers count from 0.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::iter::repeat_with;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::daemons::{Daemon, Daemons};
use crate::packages::{ZOOKEEPER_PACKAGES, require};
use crate::patience::{LONG, wait_for};
use crate::ports;

const JARS: &str = "/usr/share/java";
/// The manifest of zookeeper.jar brings the rest, but neither a logger nor what its Netty socket
/// (needed for TLS) wants.
const CLASSPATH: [&str; 7] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-simple",
    "netty-codec",
    "netty-resolver",
    "netty-transport-native-unix-common",
];
/// Small and quick to start: the second compiler costs 40 MiB a server and pays only after minutes.
const JVM: [&str; 14] = [
    "-Xms32m",
    "-Xmx96m",
    "-Xss512k",
    "-Xshare:auto",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:TieredStopAtLevel=1",
    "-XX:CICompilerCount=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dzookeeper.jmx.log4j.disable=true",
    "-Dzookeeper.preAllocSize=4096",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
];

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperPlan {
    /// One, or an odd number for an ensemble.
    pub servers: usize,
    /// The first of the ports: those for clients, then two more a server; none: free ones.
    pub base_port: Option<u16>,
    /// The tick in milliseconds. A silent leader is noticed after five.
    pub tick_ms: u32,
    /// Whether a write waits for the disk.
    pub fsync: bool,
    /// Where each server runs; none: all on loopback.
    pub hosts: Vec<Host>,
    /// More lines for `zoo.cfg`, such as those of TLS.
    pub extra_config: Vec<String>,
    /// More arguments for the JVM.
    pub extra_jvm: Vec<String>,
}

impl Default for ZooKeeperPlan {
    /// One server on free ports that does not wait for the disk.
    fn default() -> Self {
        Self {
            servers: 1,
            base_port: None,
            tick_ms: 500,
            fsync: false,
            hosts: Vec::new(),
            extra_config: Vec::new(),
            extra_jvm: Vec::new(),
        }
    }
}

/// A machine, or what looks like one, such as a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its address, which this process reaches too.
    pub address: Ipv4Addr,
    /// What comes before a command that is to run there.
    pub prefix: Vec<String>,
}

impl Host {
    fn loopback() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST,
            prefix: Vec::new(),
        }
    }
}

/// The part a server plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The only one.
    Standalone,
    /// Orders the writes of an ensemble.
    Leader,
    /// Follows a leader.
    Follower,
}

/// Running servers. Dropping the value kills them, unless it came from [`ZooKeeper::open`].
#[derive(Debug)]
pub struct ZooKeeper {
    daemons: Daemons,
    addresses: Vec<SocketAddrV4>,
    owned: bool,
}

impl ZooKeeper {
    /// Starts the servers in a folder, which keeps their data, and waits until they serve.
    pub fn start(dir: &Path, plan: &ZooKeeperPlan) -> Result<Self> {
        require(&ZOOKEEPER_PACKAGES)?;
        let daemons = Daemons::in_folder(dir)?;
        if !daemons.all()?.is_empty() {
            bail!("{} holds a ZooKeeper already", daemons.dir().display());
        }
        let ports = ports::take(plan.base_port, 3 * plan.servers)?;
        let (clients, peers) = ports.split_at(plan.servers);
        let (quorum, election) = peers.split_at(plan.servers);
        let hosts = plan.hosts.iter().cloned();
        let hosts: Vec<Host> = hosts
            .chain(repeat_with(Host::loopback))
            .take(plan.servers)
            .collect();
        let peers = hosts.iter().zip(quorum.iter().zip(election));
        let peers: Vec<String> = peers
            .map(|(host, (quorum, election))| format!("{}:{quorum}:{election}", host.address))
            .collect();
        let clients = hosts.iter().zip(clients);
        // Made before the first start: an error on the way takes the started ones with it.
        let servers = Self {
            daemons,
            addresses: clients
                .map(|(host, port)| SocketAddrV4::new(host.address, *port))
                .collect(),
            owned: true,
        };
        for (index, host) in hosts.iter().enumerate() {
            let config = servers.configure(index, plan, &peers)?;
            let daemon = servers.daemon(index)?;
            daemon.start_behind(&host.prefix, &command(plan, config))?;
        }
        servers.wait_until_serving()?;
        servers.daemons.mark_complete()?;
        Ok(servers)
    }

    /// Opens the servers of a folder and starts those that do not run; or makes new ones, where
    /// there are none or their start was interrupted. Errors: there is another number of them.
    pub fn ensure(dir: &Path, plan: &ZooKeeperPlan) -> Result<Self> {
        if !Daemons::is_complete(dir) {
            Daemons::remove(dir)?;
            return Self::start(dir, plan);
        }
        let found = Self::open(dir)?;
        if found.servers() != plan.servers {
            let (dir, servers) = (dir.display(), found.servers());
            bail!("{dir} holds a ZooKeeper of {servers}, not {}", plan.servers);
        }
        found.restart_all()?;
        Ok(found)
    }

    /// Finds the servers of a folder again, running or not. Dropping the value leaves them alone.
    pub fn open(dir: &Path) -> Result<Self> {
        let daemons = Daemons::in_folder(dir)?;
        let mut addresses = Vec::new();
        for index in 0..daemons.all()?.len() {
            let path = daemons.dir().join(name(index)).join("zoo.cfg");
            let config = fs::read_to_string(&path)
                .with_context(|| format!("no ZooKeeper in {}", dir.display()))?;
            let value = |key: &str| {
                let value = config.lines().find_map(|line| line.strip_prefix(key));
                value.with_context(|| format!("zoo.cfg without {key}"))
            };
            let address = value("clientPortAddress=")?.parse()?;
            addresses.push(SocketAddrV4::new(address, value("clientPort=")?.parse()?));
        }
        if addresses.is_empty() {
            bail!("no ZooKeeper in {}", dir.display());
        }
        Ok(Self {
            daemons,
            addresses,
            owned: false,
        })
    }

    /// The folder of the servers.
    pub fn dir(&self) -> &Path {
        self.daemons.dir()
    }

    /// Where clients connect: `host:port` of every server, with commas.
    pub fn connect(&self) -> String {
        let hosts: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        hosts.join(",")
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.addresses.len()
    }

    /// The port of a server for clients.
    pub fn port(&self, server: usize) -> Result<u16> {
        Ok(self.address(server)?.port())
    }

    /// Where a server listens for clients.
    pub fn address(&self, server: usize) -> Result<SocketAddrV4> {
        let address = self.addresses.get(server).copied();
        address.with_context(|| format!("no server {server}"))
    }

    /// The process of a server.
    pub fn daemon(&self, server: usize) -> Result<Daemon> {
        self.port(server)?;
        Ok(self.daemons.get(&name(server)))
    }

    /// The pid of a server that runs.
    pub fn pid(&self, server: usize) -> Result<u32> {
        let pid = self.daemon(server)?.pid();
        pid.with_context(|| format!("server {server} does not run"))
    }

    /// The server that leads; a single one leads itself. Errors: none does at the moment.
    pub fn leader(&self) -> Result<usize> {
        let leads =
            |server: &usize| matches!(self.mode(*server), Ok(Mode::Leader | Mode::Standalone));
        (0..self.servers()).find(leads).context("no server leads")
    }

    /// The part a server plays. Errors: it does not serve at the moment.
    pub fn mode(&self, server: usize) -> Result<Mode> {
        match self.status(server, "Mode: ")?.as_str() {
            "standalone" => Ok(Mode::Standalone),
            "leader" => Ok(Mode::Leader),
            "follower" => Ok(Mode::Follower),
            other => bail!("server {server} is {other}"),
        }
    }

    /// The last write that a server has applied: the difference of two counts the writes between.
    pub fn zxid(&self, server: usize) -> Result<u64> {
        let zxid = self.status(server, "Zxid: ")?;
        let digits = zxid.strip_prefix("0x").context("a zxid starts with 0x")?;
        Ok(u64::from_str_radix(digits, 16)?)
    }

    /// Kills a server as a power cut would.
    pub fn kill(&self, server: usize) -> Result<()> {
        self.daemon(server)?.kill()
    }

    /// Freezes a server: it keeps its connections and does not answer.
    pub fn pause(&self, server: usize) -> Result<()> {
        self.daemon(server)?.pause()
    }

    /// Lets a paused server go on.
    pub fn resume(&self, server: usize) -> Result<()> {
        self.daemon(server)?.resume()
    }

    /// Starts a server again, killing it first if it runs, and waits until it serves. For that an
    /// ensemble needs a majority: see [`ZooKeeper::restart_all`].
    pub fn restart(&self, server: usize) -> Result<()> {
        self.kill(server)?;
        self.daemon(server)?.start_again()?;
        self.wait_for_server(server)
    }

    /// Starts every server that does not run, and waits until all serve.
    pub fn restart_all(&self) -> Result<()> {
        for server in 0..self.servers() {
            self.daemon(server)?.start_again()?;
        }
        self.wait_until_serving()
    }

    /// Waits until every server serves. Errors: one ended, or it takes minutes.
    pub fn wait_until_serving(&self) -> Result<()> {
        (0..self.servers()).try_for_each(|server| self.wait_for_server(server))
    }

    /// Leaves the servers running and gives up the ownership.
    pub fn leave(mut self) {
        self.owned = false;
    }

    /// Ends the servers; their data stays in the folder. They are made to be killed.
    pub fn stop(mut self) -> Result<()> {
        self.owned = false;
        self.daemons.kill_all()
    }

    fn wait_for_server(&self, server: usize) -> Result<()> {
        let daemon = self.daemon(server)?;
        let in_office = || {
            daemon.require_running()?;
            Ok(self.mode(server).ok())
        };
        wait_for(daemon.name(), LONG, in_office)
            .map(drop)
            .with_context(|| daemon.log_tail())
    }

    /// One line of what a server tells about itself.
    fn status(&self, server: usize, key: &str) -> Result<String> {
        let answer = four_letters(self.address(server)?, "srvr")?;
        let line = answer.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::to_owned)
            .with_context(|| format!("server {server} does not serve: {answer}"))
    }

    /// Writes the folder of a server, and returns the path of its configuration.
    fn configure(&self, index: usize, plan: &ZooKeeperPlan, peers: &[String]) -> Result<String> {
        let dir = self.dir().join(name(index));
        let data = dir.join("data");
        fs::create_dir_all(&data)?;
        fs::write(data.join("myid"), format!("{}\n", index + 1))?;
        let mut config = format!(
            "tickTime={}\ninitLimit=20\nsyncLimit=5\ndataDir={}\n\
             clientPort={}\nclientPortAddress={}\nmaxClientCnxns=0\n\
             minSessionTimeout=1000\nmaxSessionTimeout=60000\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\n\
             autopurge.snapRetainCount=3\nautopurge.purgeInterval=1\n",
            plan.tick_ms,
            data.display(),
            self.address(index)?.port(),
            self.address(index)?.ip(),
        );
        if peers.len() > 1 {
            for (id, peer) in (1..).zip(peers) {
                writeln!(config, "server.{id}={peer}")?;
            }
        }
        for line in &plan.extra_config {
            writeln!(config, "{line}")?;
        }
        let path = dir.join("zoo.cfg");
        fs::write(&path, config)?;
        Ok(path.display().to_string())
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        if self.owned && self.daemons.kill_all().is_err() {
            // Nobody is left to tell; the folder still names what runs, and `open` finds it.
        }
    }
}

fn name(server: usize) -> String {
    format!("zookeeper-{server}")
}

fn command(plan: &ZooKeeperPlan, config: String) -> Vec<String> {
    let jars: Vec<_> = CLASSPATH
        .iter()
        .map(|jar| format!("{JARS}/{jar}.jar"))
        .collect();
    let fsync = if plan.fsync { "yes" } else { "no" };
    let mut words = vec!["java".to_owned()];
    words.extend(JVM.map(str::to_owned));
    words.push(format!("-Dzookeeper.forceSync={fsync}"));
    words.extend(plan.extra_jvm.iter().cloned());
    words.extend(["-cp".to_owned(), jars.join(":")]);
    words.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".to_owned());
    words.push(config);
    words
}

/// Asks a server by one of ZooKeeper's four-letter words.
fn four_letters(address: SocketAddrV4, word: &str) -> Result<String> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address.into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
