//! The driver of a docker daemon's containers, on a daemon of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use distci_isolation::{Docker, Error, Groups, Isolation, Terms};
use distci_model::isolation::{Network, Size};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::image::busybox;
use crate::laws::contract;
use crate::powers;
use crate::scene::{Scene, Subject, supervisor};

/// The bridge of the daemon's network, made and removed with it.
const BRIDGE: &str = "distci-docker0";

/// A daemon in a folder of its own, which touches nothing of the machine's network but its bridge.
struct Daemon {
    folder: PathBuf,
    process: Child,
    _lock: Flock<File>,
}

impl Daemon {
    fn start() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker");
        let lock = File::create(folder.with_extension("lock")).unwrap();
        let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        tidy(&folder);
        fs::create_dir_all(&folder).unwrap();
        // Its own, so that the machine's are not read.
        fs::write(folder.join("settings.json"), "{}").unwrap();
        let bridge = format!(
            "ip link add {BRIDGE} type bridge && ip addr add 10.229.7.1/24 dev {BRIDGE} && \
             ip link set {BRIDGE} up"
        );
        sh(&bridge);
        let open_files = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let (soft, hard) = open_files.unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        // It dies with this test, however that ends.
        let mut daemon = Command::new("setpriv");
        daemon
            .args(["--pdeathsig", "KILL", "dockerd", "--bridge", BRIDGE])
            .args([
                "--config-file",
                &path("settings.json"),
                "--data-root",
                &path("data"),
            ])
            .args(["--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--host", &host(&folder), "--storage-driver", "overlay2"])
            .args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"])
            .args(["--ip-forward=false", "--userland-proxy=false"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .arg(format!("--default-ulimit=nofile={soft}:{hard}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log")).unwrap());
        let process = daemon.spawn().unwrap();
        let mut daemon = Self {
            folder,
            process,
            _lock: lock,
        };
        daemon.await_answers();
        daemon
    }

    fn await_answers(&mut self) {
        let patience = Instant::now() + Duration::from_mins(1);
        let host = host(&self.folder);
        let answers = || {
            let mut ask = Command::new("docker");
            ask.args(["--host", &host, "info"]);
            ask.output().unwrap().status.success()
        };
        while !answers() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let is_running = self.process.try_wait().unwrap().is_none();
            let waits = is_running && Instant::now() < patience;
            assert!(waits, "no answer from dockerd: {log}");
            sleep(Duration::from_millis(100));
        }
    }

    fn driver(&self) -> Docker {
        let groups = Groups::at_the_top();
        assert_eq!(groups.trouble(), None);
        Docker {
            supervisor: supervisor(),
            groups,
            program: "docker".into(),
            host: host(&self.folder),
            private: Some("bridge".to_owned()),
            busybox: "/bin/busybox".into(),
        }
    }

    fn subject(&self) -> Subject {
        Subject {
            isolation: Box::new(self.driver()),
            image: Some(busybox()),
            networks: &[Network::Host, Network::None, Network::Private],
            scale: 4,
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        self.process.wait().ok();
        tidy(&self.folder);
    }
}

/// Removes what an earlier daemon left, which may have been killed.
fn tidy(folder: &Path) {
    let path = folder.display();
    sh(&format!(
        "ip link delete {BRIDGE} 2>/dev/null; \
         for m in $(awk '$2 ~ \"^{path}/\" {{print $2}}' /proc/mounts | sort -r); do \
            umount -l $m; done; \
         rm -rf {path}"
    ));
}

fn sh(script: &str) {
    let done = Command::new("sh").arg("-c").arg(script).status().unwrap();
    assert!(done.success(), "{script}");
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("socket").display())
}

/// One daemon keeps all laws: to start one for each would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract() {
    let daemon = Daemon::start();
    let subject = daemon.subject();
    contract!(in order &subject);
    powers::none_over_the_machine(&subject).await;
    powers::none_to_read_the_environment(&subject).await;
    refusals(&daemon).await;
    probes(&daemon).await;
    an_image_that_the_daemon_lost(&daemon).await;
}

async fn refusals(daemon: &Daemon) {
    let scene = Scene::new();
    let mut driver = daemon.driver();
    driver.private = None;
    let mut terms = daemon.subject().terms();
    terms.network = Network::Private;
    let limited = Terms {
        disk: Size::from_bytes(1 << 30),
        ..daemon.subject().terms()
    };
    for terms in [terms, limited] {
        let refused = driver.open(&scene.site, &terms).await.err();
        assert!(
            matches!(refused, Some(Error::Unsupported(_))),
            "{refused:?}"
        );
    }
    scene.assert_clean();
}

async fn probes(daemon: &Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let (image, mut driver) = (busybox(), daemon.driver());
    driver.probe(&image, folder.path()).await.unwrap();
    driver.host = String::from("unix:///no/such/socket");
    let tried = driver.probe(&image, folder.path()).await;
    powers::assert_says(&tried, "/no/such/socket");
    driver.program = "no-such-docker".into();
    let tried = driver.probe(&image, folder.path()).await;
    powers::assert_says(&tried, "install the package docker.io");
}

async fn an_image_that_the_daemon_lost(daemon: &Daemon) {
    let subject = daemon.subject();
    Scene::run(&subject, &subject.terms(), "true").await;
    let host = host(&daemon.folder);
    sh(&format!(
        "docker --host {host} image rm --force distci:busybox >/dev/null"
    ));
    let (finished, _) = Scene::run(&subject, &subject.terms(), "exit 4").await;
    assert_eq!(finished.ended, distci_isolation::Ended::Exit(4));
}
