//! What one machine can do: the drivers that work on it, and its images.
//!
//! Owns the choice of a driver for what a task asks. Every driver is tried out before it is offered.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use distci_model::capability::Capability;
use distci_model::isolation::{Driver, ImageName, Isolation as Wanted};

use crate::bubblewrap::Bubblewrap;
use crate::cell::{Cell, Isolation, Shared, Site, Terms};
use crate::docker::Docker;
use crate::error::Error;
use crate::group::Groups;
use crate::image::{Held, Image, Images};
use crate::lxc::Lxc;
use crate::podman::Podman;
use crate::process::Process;
use crate::qemu::Qemu;

/// Where podman keeps its records of our containers: it wants a short path.
const PODMAN: &str = "/run/distci/podman";
/// Where the machine's docker daemon listens.
const DOCKER: &str = "unix:///run/docker.sock";

/// What a machine is to be used for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command that runs [`crate::supervisor::main`].
    pub supervisor: Vec<OsString>,
    /// The program that becomes the agent in virtual machines, and the word that makes it one: see
    /// [`crate::agent::main`].
    pub agent: (PathBuf, String),
    /// Where control groups are made.
    pub groups: Groups,
    /// A folder for what the trying needs; the worker's own.
    pub scratch: PathBuf,
    /// Where the images are.
    pub images: PathBuf,
    /// The only drivers to use; empty for all that work, but for qemu and docker, which take long to
    /// try out.
    pub drivers: Vec<Driver>,
    /// The image for those who name none and must not run on the machine itself.
    pub default_image: Option<ImageName>,
}

impl Settings {
    fn process(&self) -> Process {
        Process {
            supervisor: self.supervisor.clone(),
            groups: self.groups.clone(),
        }
    }

    fn driver(&self, driver: Driver) -> Box<dyn Isolation> {
        let (supervisor, groups) = (self.supervisor.clone(), self.groups.clone());
        match driver {
            Driver::Process => Box::new(self.process()),
            Driver::Bubblewrap => Box::new(Bubblewrap {
                supervisor,
                groups,
                program: "bwrap".into(),
            }),
            Driver::Qemu => Box::new(Qemu::new(
                supervisor,
                self.agent.clone(),
                groups,
                kernel_of(&self.images),
            )),
            Driver::Lxc => Box::new(Lxc { supervisor, groups }),
            Driver::Podman => Box::new(Podman {
                supervisor,
                groups: Groups::at_the_top(),
                program: "podman".into(),
                runtime: "runc".to_owned(),
                folder: PODMAN.into(),
                busybox: "/bin/busybox".into(),
            }),
            Driver::Docker => Box::new(Docker {
                supervisor,
                groups: Groups::at_the_top(),
                program: "docker".into(),
                host: DOCKER.to_owned(),
                private: Some("bridge".to_owned()),
                busybox: "/bin/busybox".into(),
            }),
        }
    }
}

/// Where the kernel for virtual machines is, beside the images.
pub fn kernel_of(images: &Path) -> PathBuf {
    images.join(".kernel")
}

/// A machine, ready to open cells.
#[derive(Debug)]
pub struct Machine {
    /// For what is trusted, like git: whatever is allowed to tasks.
    own: Process,
    drivers: Vec<Box<dyn Isolation>>,
    images: Images,
    default_image: Option<ImageName>,
}

impl Machine {
    /// Tries out the drivers. One that makes its cells from images is tried with one of them.
    ///
    /// # Errors
    /// [`Error`], if one that was asked for by name does not work here.
    pub async fn prepare(settings: Settings) -> Result<Self, Error> {
        let images = Images::at(settings.images.clone());
        let sample = images.names().first().map(|name| images.get(name));
        let sample = sample.transpose()?;
        let mut drivers = Vec::new();
        for driver in Driver::ALL {
            let named = settings.drivers.contains(&driver);
            let unasked = !matches!(driver, Driver::Qemu | Driver::Docker);
            if !(named || settings.drivers.is_empty() && unasked) {
                continue;
            }
            let isolation = settings.driver(driver);
            if !driver.has_images() {
                drivers.push(isolation);
                continue;
            }
            match (&sample, named) {
                (Some(sample), _) => match isolation.probe(sample, &settings.scratch).await {
                    Ok(()) => drivers.push(isolation),
                    Err(error) if named => return Err(error),
                    Err(error) => tracing::info!("the driver {driver} is of no use here: {error}"),
                },
                (None, true) => {
                    let images = settings.images.display();
                    tracing::warn!("the driver {driver} is untried: no image is in {images}");
                    drivers.push(isolation);
                }
                (None, false) => {}
            }
        }
        Ok(Self {
            own: settings.process(),
            drivers,
            images,
            default_image: settings.default_image,
        })
    }

    /// The drivers that tasks may use, the preferred first.
    pub fn drivers(&self) -> impl Iterator<Item = Driver> {
        self.drivers.iter().map(|isolation| isolation.driver())
    }

    /// What it offers to tasks at this moment.
    pub fn offers(&self) -> Vec<Capability> {
        let has_images = self.drivers().any(Driver::has_images);
        let images = if has_images {
            self.images.names()
        } else {
            Vec::new()
        };
        let drivers = self.drivers().map(Capability::Driver);
        drivers
            .chain(images.into_iter().map(Capability::Image))
            .collect()
    }

    /// Its images.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// A cell for the worker's own tools: nothing is kept from them.
    ///
    /// # Errors
    /// See [`Isolation::open`].
    pub async fn open_own(&self, site: &Site) -> Result<Box<dyn Cell>, Error> {
        self.own.open(site, &Terms::default()).await
    }

    /// Whether a cell of this kind could be opened: its image is here, and a driver for it.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, wanted: &Wanted) -> Result<(), Error> {
        self.choose(wanted).map(drop)
    }

    /// The driver for what is wanted, and the image.
    fn choose(&self, wanted: &Wanted) -> Result<(&dyn Isolation, Option<Image>), Error> {
        let allowed = |driver: Driver| self.drivers().any(|known| known == driver);
        let mut image = match &wanted.image {
            Some(image) => Some(image.parse::<ImageName>().map_err(|error| {
                // Checked when the job was written; whoever posts past that gets it here.
                Error::Unsupported(error.to_string())
            })?),
            None => None,
        };
        let on_machine = wanted.driver.unwrap_or(Driver::Process) == Driver::Process;
        if image.is_none() && !(on_machine && allowed(Driver::Process)) {
            image.clone_from(&self.default_image);
        }
        let image = match image {
            Some(name) => Some(self.images.get(&name)?),
            None => None,
        };
        let fits = |isolation: &dyn Isolation| {
            let driver = isolation.driver();
            driver.has_images() == image.is_some() && wanted.driver.is_none_or(|own| own == driver)
        };
        let Some(isolation) = self.drivers.iter().find(|driver| fits(driver.as_ref())) else {
            let what = match &image {
                Some(image) => format!("an image, such as {}", image.name()),
                None => "the machine itself".to_owned(),
            };
            let why = format!("no driver of this worker runs tasks in {what}");
            return Err(Error::Unsupported(why));
        };
        Ok((isolation.as_ref(), image))
    }

    /// A cell for a task.
    ///
    /// # Errors
    /// See [`Isolation::open`]; and [`Error::Unsupported`], if no driver fits.
    pub async fn open(
        &self,
        site: &Site,
        wanted: &Wanted,
        shared: Vec<Shared>,
    ) -> Result<Box<dyn Cell>, Error> {
        let (isolation, image) = self.choose(wanted)?;
        let terms = Terms {
            image: image.clone(),
            memory: wanted.memory,
            cpus: wanted.cpus,
            processes: wanted.processes,
            disk: wanted.disk,
            network: wanted.network.unwrap_or_default(),
            shared,
        };
        let cell = isolation.open(site, &terms).await?;
        Ok(match image {
            Some(image) => Box::new(Held { cell, image }),
            None => cell,
        })
    }
}
