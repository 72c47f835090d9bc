//! Containers of a docker daemon of this machine, over an image that it is given.
//!
//! The daemon makes them, so they are nobody's descendants here; their control groups are below one of
//! ours all the same.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use async_trait::async_trait;
use distci_model::isolation::{Driver, Network};

use crate::cell::{Cell, Isolation, Site, Terms};
use crate::error::Error;
use crate::group::Groups;
use crate::image::Image;
use crate::oci::{Root, Tool, blocking, image_of};
use crate::probe;

/// Runs commands in containers of a docker daemon.
#[derive(Debug, Clone)]
pub struct Docker {
    /// The command that becomes the supervisor.
    pub supervisor: Vec<OsString>,
    /// Where groups are made: [`Groups::at_the_top`].
    pub groups: Groups,
    /// The program `docker`.
    pub program: PathBuf,
    /// The daemon, as `DOCKER_HOST` names it: `unix:///run/docker.sock`. It must be of this machine,
    /// because it is given folders.
    pub host: String,
    /// The daemon's network for cells with a private one, if there may be such: `bridge` is the one
    /// that it makes by itself.
    pub private: Option<String>,
    /// A static busybox.
    pub busybox: PathBuf,
}

impl Docker {
    fn tool(&self) -> Tool {
        let options = [
            "--pull=never",
            "--log-driver=none",
            "--security-opt=label=disable",
        ];
        Tool {
            driver: Driver::Docker,
            line: vec![
                self.program.clone().into(),
                "--host".into(),
                self.host.clone().into(),
            ],
            env: Vec::new(),
            options: options.map(str::to_owned).to_vec(),
            private: self.private.clone(),
            busybox: self.busybox.clone(),
        }
    }

    /// The daemon's name for `image`, which it is given if it does not have it. Blocks.
    fn import(&self, image: &Image) -> Result<String, Error> {
        let form = image.derived("docker", |path| self.hand_over(image, path))?;
        let id = fs::read_to_string(&form)?;
        let look = ["image", "inspect", "--format", "{{.Id}}", &id];
        if self.tool().call("looking for the image", &look).is_ok() {
            return Ok(id);
        }
        // It is another daemon, or somebody tidied up there.
        fs::remove_file(&form)?;
        let form = image.derived("docker", |path| self.hand_over(image, path))?;
        Ok(fs::read_to_string(form)?)
    }

    /// Gives it the image, and writes down the daemon's name for it.
    fn hand_over(&self, image: &Image, form: &Path) -> Result<(), Error> {
        let no_good = |detail: String| Error::Image {
            image: image.name().to_string(),
            detail,
        };
        let mut tar = Command::new("tar")
            .args(["--numeric-owner", "--xattrs", "-C"])
            .arg(image.root())
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let archive = tar.stdout.take().map_or_else(Stdio::null, Stdio::from);
        let tag = format!("distci:{}", image.name());
        let imported = Command::new(&self.program)
            .args(["--host", &self.host, "import", "-", &tag])
            .stdin(archive)
            .output();
        let packed = tar.wait()?;
        let imported = imported?;
        if !imported.status.success() {
            let said = String::from_utf8_lossy(&imported.stderr);
            return Err(no_good(format!("docker does not take it: {}", said.trim())));
        }
        if !packed.success() {
            return Err(no_good(format!("tar cannot pack it: {packed}")));
        }
        let id = String::from_utf8_lossy(&imported.stdout);
        Ok(fs::write(form, id.trim())?)
    }
}

#[async_trait]
impl Isolation for Docker {
    fn driver(&self) -> Driver {
        Driver::Docker
    }

    async fn probe(&self, image: &Image, folder: &Path) -> Result<(), Error> {
        probe::needs(&self.program, "docker.io")?;
        probe::needs(&self.busybox, "busybox-static")?;
        let tool = self.tool();
        let ask = move || tool.call("asking the docker daemon", &INFO);
        let maker = blocking(ask).await?;
        if maker != "cgroupfs" {
            let why = format!(
                "the docker daemon lets {maker} make control groups: start it with \
                 --exec-opt native.cgroupdriver=cgroupfs"
            );
            return Err(Error::Unsupported(why));
        }
        probe::run_true(self, image, folder).await
    }

    async fn open(&self, site: &Site, terms: &Terms) -> Result<Box<dyn Cell>, Error> {
        let image = image_of(Driver::Docker, terms)?.clone();
        if terms.network == Network::Private && self.private.is_none() {
            let why = "the driver docker has no private network here: the worker's settings name \
                no network of the daemon for it";
            return Err(Error::Unsupported(why.to_owned()));
        }
        if terms.disk.is_some() {
            let why = "the driver docker cannot limit the disk: its containers write where the \
                daemon keeps its data; podman, lxc and qemu can";
            return Err(Error::Unsupported(why.to_owned()));
        }
        let docker = self.clone();
        let root = Root::Imported(blocking(move || docker.import(&image)).await?);
        self.tool()
            .open(&self.supervisor, &self.groups, site, (terms, root))
    }
}

/// Asks who makes control groups for the daemon.
const INFO: [&str; 3] = ["info", "--format", "{{.CgroupDriver}}"];
