//! A docker daemon of one's own, in a folder of one's choice.
//!
//! Owns the process, its folder, and the one bridge that it is given; no other part of the machine's
//! network is touched. The daemon dies with the thread that started it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemons::tail;
use crate::patience::{LONG, wait_for};

/// The bridge of the daemon's network, made and removed with it.
const BRIDGE: &str = "distci-docker0";

/// A running daemon. There is one at a time on a machine; who wants a second waits.
#[derive(Debug)]
pub struct Docker {
    folder: PathBuf,
    process: Child,
    _lock: Flock<File>,
}

impl Docker {
    /// Starts one in `folder`, which must be its own: whatever is there is removed first.
    pub fn start(folder: &Path) -> Result<Self> {
        let lock = File::create(std::env::temp_dir().join("distci-docker.lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        tidy(folder)?;
        fs::create_dir_all(folder)?;
        // Its own, so that the machine's are not read.
        fs::write(folder.join("settings.json"), "{}")?;
        sh(&format!(
            "ip link add {BRIDGE} type bridge && ip addr add 10.229.7.1/24 dev {BRIDGE} && \
             ip link set {BRIDGE} up"
        ))?;
        let mut daemon = Self {
            folder: folder.to_owned(),
            process: spawn(folder)?,
            _lock: lock,
        };
        daemon.wait_for_answers()?;
        Ok(daemon)
    }

    /// Where it listens, as `DOCKER_HOST` names it.
    pub fn host(&self) -> String {
        host(&self.folder)
    }

    fn wait_for_answers(&mut self) -> Result<()> {
        let (host, log) = (self.host(), self.folder.join("log"));
        wait_for("answers of dockerd", LONG, || {
            let ended = self.process.try_wait()?;
            ensure!(ended.is_none(), "dockerd ended:\n{}", tail(&log));
            let mut ask = Command::new("docker");
            let answer = ask.args(["--host", &host, "info"]).output()?;
            Ok(answer.status.success().then_some(()))
        })
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        self.process.wait().ok();
        // What cannot be removed now is, when the next one starts here.
        tidy(&self.folder).ok();
    }
}

fn spawn(folder: &Path) -> Result<Child> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let path = |name: &str| folder.join(name).display().to_string();
    // It dies with whoever started it, however that ends.
    let mut daemon = Command::new("setpriv");
    daemon
        .args(["--pdeathsig", "KILL", "dockerd", "--bridge", BRIDGE])
        .args(["--config-file", &path("settings.json")])
        .args(["--data-root", &path("data")])
        .args(["--exec-root", &path("exec"), "--pidfile", &path("pid")])
        .args(["--host", &host(folder), "--storage-driver", "overlay2"])
        .args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"])
        .args(["--ip-forward=false", "--userland-proxy=false"])
        .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
        .arg(format!("--default-ulimit=nofile={soft}:{hard}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("log"))?);
    daemon.spawn().context("starting dockerd with setpriv")
}

/// Removes what an earlier daemon left, which may have been killed.
fn tidy(folder: &Path) -> Result<()> {
    let path = folder.display();
    sh(&format!(
        "ip link delete {BRIDGE} 2>/dev/null; \
         for m in $(awk '$2 ~ \"^{path}/\" {{print $2}}' /proc/mounts | sort -r); do \
            umount -l $m; done; \
         rm -rf {path}"
    ))
}

fn sh(script: &str) -> Result<()> {
    let done = Command::new("sh").arg("-c").arg(script).status()?;
    ensure!(done.success(), "{done}: {script}");
    Ok(())
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("socket").display())
}
