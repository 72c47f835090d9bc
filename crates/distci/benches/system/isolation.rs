//! What a fresh world costs: from opening a cell to its first instruction and its end, beside the
//! same by the bare tool, begun by hand in the same run; and what all of them leave on the machine.

mod bare;
mod drivers;
mod leaks;

use std::path::{Path, PathBuf};
use std::process::Command as Tool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use distci_components::Docker;
use distci_isolation::machine::kernel_of;
use distci_isolation::{Command, Ended, Image, Images, Isolation, Output, Place, Site, Terms};
use distci_model::isolation::{Driver, Network};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::report::Report;
use leaks::Leaks;

/// How often each is measured; the median counts.
const TIMES: usize = 20;
/// How many tasks of a driver are to leave nothing.
const MANY: usize = 200;
/// The same of emulated machines, each of which takes seconds.
const MANY_EMULATED: usize = 20;
/// What is begun: as little as `true`, but it says that it was there.
const COMMAND: [&str; 2] = ["echo", "here"];

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let name = |driver: Driver| format!("isolation: {driver}");
    let wanted: Vec<Driver> = Driver::ALL
        .into_iter()
        .filter(|driver| report.wants(&name(*driver)))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let bench = Bench::set_up(&wanted)?;
    for driver in wanted {
        let figures = bench.measure(driver, report).await?;
        let (ours, bare) = (figures.ours, figures.bare);
        let (whole, ratio) = aims(driver);
        let ratios = |ours: f64, bare: f64| format!("by hand {bare:.1} ms: × {:.2}", ours / bare);
        report.add(
            &format!("{}, open, run `echo`, close", name(driver)),
            format!("{:.1} ms", ours.whole),
            whole,
            ratios(ours.whole, bare.whole),
        );
        report.add(
            &format!("{}, from open to the first word", name(driver)),
            format!("{:.1} ms", ours.first),
            ratio,
            ratios(ours.first, bare.first),
        );
        report.add(
            &format!("{}, left after {} tasks", name(driver), figures.tasks),
            figures.left,
            "none",
            "–".to_owned(),
        );
    }
    Ok(())
}

/// What is aimed at: for the whole, and for the beginning.
fn aims(driver: Driver) -> (&'static str, &'static str) {
    match driver {
        Driver::Process => ("< 5 ms over fork and exec", "–"),
        Driver::Bubblewrap => ("< 30 ms", "–"),
        Driver::Lxc => ("< 150 ms, ≤ 1.5 × by hand", "≤ 1.5 × by hand"),
        Driver::Qemu => ("≤ 1.2 × by hand", "≤ 1.2 × by hand"),
        Driver::Podman | Driver::Docker => ("–", "–"),
    }
}

/// What all drivers need, in one folder that goes away.
struct Bench {
    folder: TempDir,
    images: Images,
    /// Only if somebody needs one.
    docker: Option<Docker>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Podman mounts its folder over itself, and leaves that.
        let podman = self.path("podman/root/overlay");
        umount2(&podman, MntFlags::MNT_DETACH).ok();
    }
}

/// Of one driver.
struct Figures {
    ours: Took<f64>,
    bare: Took<f64>,
    tasks: usize,
    left: String,
}

/// How long a command took, from the moment that anything was begun for it.
#[derive(Debug, Clone, Copy)]
struct Took<T> {
    /// Until its first word was read.
    first: T,
    /// Until nothing of it was left.
    whole: T,
}

impl Bench {
    fn set_up(wanted: &[Driver]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("distci-bench-").tempdir()?;
        let images = folder.path().join("images");
        let image = ["image", "build", "--busybox", "--name", "busybox"];
        distci(image.as_slice(), &images)?;
        if wanted.contains(&Driver::Qemu) {
            distci(["image", "kernel"].as_slice(), &images)?;
        }
        let docker = wanted.contains(&Driver::Docker);
        let docker = docker.then(|| Docker::start(&folder.path().join("docker")));
        Ok(Self {
            images: Images::at(images),
            docker: docker.transpose()?,
            folder,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self) -> anyhow::Result<Image> {
        Ok(self.images.get(&"busybox".parse()?)?)
    }

    fn kernel(&self) -> PathBuf {
        kernel_of(self.images.folder())
    }

    async fn measure(&self, driver: Driver, report: &mut Report) -> anyhow::Result<Figures> {
        let isolation = drivers::of(self, driver)?;
        let isolation = isolation.as_ref();
        // The first makes forms of the image, and files that the tool keeps for ever.
        self.cell(isolation).await?;
        bare::run(self, driver).await?;
        let leaks = Leaks::before(self.folder.path());
        // In turn, so that both meet the machine in the same mood.
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            ours.push(self.cell(isolation).await?);
            bare.push(bare::run(self, driver).await?);
        }
        let tasks = match driver {
            Driver::Qemu => MANY_EMULATED,
            _ => MANY,
        };
        for _ in TIMES..tasks {
            self.cell(isolation).await?;
        }
        let left = leaks.after().await;
        if driver == Driver::Qemu {
            let mut boots = Vec::new();
            for _ in 0..TIMES {
                boots.push(bare::boot(self).await?);
            }
            let boot = median(&boots).first;
            report.note(format!(
                "A kernel of qemu alone: its first word after {boot:.1} ms."
            ));
        }
        Ok(Figures {
            ours: median(&ours),
            bare: median(&bare),
            tasks,
            left,
        })
    }

    /// One cell for one command.
    async fn cell(&self, isolation: &dyn Isolation) -> anyhow::Result<Took<Duration>> {
        let folder = TempDir::new_in(self.folder.path())?;
        let site = site(folder.path())?;
        let terms = self.terms(isolation.driver())?;
        let begun = Instant::now();
        let mut first = First(None);
        let cell = isolation.open(&site, &terms).await?;
        let command = Command {
            argv: COMMAND.map(Into::into).to_vec(),
            directory: cell.path(Place::Workspace),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        };
        let never = Box::pin(std::future::pending());
        let finished = cell.run(&command, &mut first, never).await?;
        cell.close().await?;
        let whole = begun.elapsed();
        if finished.ended != Ended::Exit(0) {
            bail!("{}: {:?}", isolation.driver(), finished.ended);
        }
        let first = first.0.context("the command said nothing")? - begun;
        Ok(Took { first, whole })
    }

    fn terms(&self, driver: Driver) -> anyhow::Result<Terms> {
        if !driver.has_images() {
            return Ok(Terms::default());
        }
        Ok(Terms {
            image: Some(self.image()?),
            network: Network::None,
            ..Terms::default()
        })
    }
}

/// When the first word came.
struct First(Option<Instant>);

#[async_trait]
impl Output for First {
    async fn take(&mut self, _: &[u8]) {
        self.0.get_or_insert_with(Instant::now);
    }
}

fn distci(arguments: &[&str], images: &Path) -> anyhow::Result<()> {
    let mut distci = Tool::new(env!("CARGO_BIN_EXE_distci"));
    let done = distci
        .args(arguments)
        .arg("--images")
        .arg(images)
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "distci {arguments:?}: {said}");
    Ok(())
}

fn median(all: &[Took<Duration>]) -> Took<f64> {
    let middle = |part: fn(&Took<Duration>) -> Duration| {
        let mut all: Vec<Duration> = all.iter().map(part).collect();
        all.sort();
        let middle = all.get(all.len() / 2).copied();
        middle.unwrap_or_default().as_secs_f64() * 1000.0
    };
    Took {
        first: middle(|took| took.first),
        whole: middle(|took| took.whole),
    }
}

fn site(root: &Path) -> anyhow::Result<Site> {
    let folder = |name: &str| {
        let path = root.join(name);
        std::fs::create_dir(&path)?;
        anyhow::Ok(path)
    };
    let name = root.file_name().context("a folder without a name")?;
    Ok(Site {
        name: format!("bench-{}", name.to_string_lossy().trim_start_matches('.')),
        folder: folder("cell")?,
        workspace: folder("workspace")?,
        temporary: folder("tmp")?,
        files: folder("files")?,
        key: root.into(),
    })
}
