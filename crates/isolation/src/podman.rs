//! Containers of podman, over an overlay of the cell's own.
//!
//! Podman keeps its own records below a folder of ours, apart from those of whoever else uses it on
//! this machine.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use distci_model::isolation::Driver;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit};

use crate::cell::{Cell, Isolation, Site, Terms};
use crate::error::Error;
use crate::group::Groups;
use crate::image::Image;
use crate::oci::{Root, Tool, blocking, image_of};
use crate::probe;

/// Runs commands in containers of podman.
#[derive(Debug, Clone)]
pub struct Podman {
    /// The command that becomes the supervisor.
    pub supervisor: Vec<OsString>,
    /// Where groups are made: [`Groups::at_the_top`].
    pub groups: Groups,
    /// The program `podman`.
    pub program: PathBuf,
    /// What makes the containers for it: `runc` or `crun`.
    pub runtime: String,
    /// Where it keeps its records. It need not survive a restart of the machine, nor exist. Podman
    /// wants its path to be short: at most 40 bytes.
    pub folder: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
}

impl Podman {
    fn tool(&self) -> Tool {
        let path = |name: &str| self.folder.join(name).into_os_string();
        let line = [
            self.program.clone().into(),
            "--root".into(),
            path("root"),
            "--runroot".into(),
            path("run"),
            "--tmpdir".into(),
            path("tmp"),
        ];
        let mut options: Vec<String> = [
            "--cgroups=no-conmon",
            "--log-driver=none",
            "--pull=never",
            "--http-proxy=false",
            // Removing it must not wait for it to end by itself.
            "--stop-timeout=0",
            "--security-opt=label=disable",
            // The cell's group has the limit; podman's own would stop a task that has none.
            "--pids-limit=-1",
        ]
        .map(str::to_owned)
        .to_vec();
        options.extend(limits());
        options.push("--rootfs".to_owned());
        Tool {
            driver: Driver::Podman,
            line: line.to_vec(),
            env: vec![("CONTAINERS_CONF".into(), path("containers.conf"))],
            options,
            private: Some("bridge".to_owned()),
            busybox: self.busybox.clone(),
        }
    }

    /// Writes down how podman has to work, and lets it make its records before several of it try.
    /// Blocks.
    fn prepare(&self) -> Result<(), Error> {
        let ready = self.folder.join("ready");
        let settings = self.settings();
        if fs::read_to_string(&ready).is_ok_and(|text| text == settings) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let lock = File::create(self.folder.join("lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| std::io::Error::from(errno))?;
        fs::write(self.folder.join("containers.conf"), &settings)?;
        self.tool().call("preparing podman", &["ps", "--quiet"])?;
        Ok(fs::write(ready, settings)?)
    }

    fn settings(&self) -> String {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let (networks, runtime) = (quoted(&self.folder.join("networks")), &self.runtime);
        format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             lock_type = \"file\"\nruntime = {runtime:?}\n\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = {networks}\n"
        )
    }
}

#[async_trait]
impl Isolation for Podman {
    fn driver(&self) -> Driver {
        Driver::Podman
    }

    async fn probe(&self, image: &Image, folder: &Path) -> Result<(), Error> {
        for (program, package) in [
            (&self.program, "podman"),
            (&PathBuf::from(&self.runtime), self.runtime.as_str()),
            (&self.busybox, "busybox-static"),
        ] {
            probe::needs(program, package)?;
        }
        probe::run_true(self, image, folder).await
    }

    async fn open(&self, site: &Site, terms: &Terms) -> Result<Box<dyn Cell>, Error> {
        image_of(Driver::Podman, terms)?;
        let podman = self.clone();
        blocking(move || podman.prepare()).await?;
        let terms = (terms, Root::Mounted);
        self.tool()
            .open(&self.supervisor, &self.groups, site, terms)
    }
}

/// This process's own limits: podman would raise them, which not every root may.
fn limits() -> Vec<String> {
    // More processes than there are numbers for are refused by podman itself.
    let numbers = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    let numbers = numbers.trim().parse().unwrap_or(u64::MAX);
    [
        ("nofile", Resource::RLIMIT_NOFILE, u64::MAX),
        ("nproc", Resource::RLIMIT_NPROC, numbers),
    ]
    .into_iter()
    .filter_map(|(name, resource, most)| {
        let (soft, hard) = getrlimit(resource).ok()?;
        Some(format!(
            "--ulimit={name}={}:{}",
            soft.min(most),
            hard.min(most)
        ))
    })
    .collect()
}
