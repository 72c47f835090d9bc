//! A place of one's own on the shared servers: a chroot of `ZooKeeper` and a prefix of a bucket.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use distci_components::{S3Access, shared};
use tempfile::TempDir;

use crate::program::distci;

/// What clients of it must show.
pub(crate) const TOKEN: &str = "t0ken";

/// A configuration over the shared servers, with a chroot and a prefix of its own.
pub(crate) struct Cluster {
    folder: TempDir,
    zookeeper: String,
    s3: S3Access,
    place: String,
}

impl Cluster {
    /// `name` tells it from others when something is left behind.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let drawn = folder.path().display().to_string();
        let drawn = drawn.rsplit("/.").next().unwrap_or_default().to_owned();
        let cluster = Self {
            folder,
            zookeeper: shared::zookeeper()?,
            s3: shared::ceph()?,
            place: format!("system-{name}-{drawn}"),
        };
        cluster.secret("token", TOKEN)?;
        cluster.secret("s3-secret", &cluster.s3.secret_key)?;
        Ok(cluster)
    }

    /// The folder of the configuration, and of what it names.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file beside the configuration that only its owner may read.
    pub(crate) fn secret(&self, name: &str, text: &str) -> Result<()> {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text)?;
        let mode = std::fs::Permissions::from_mode(0o600);
        Ok(std::fs::set_permissions(file, mode)?)
    }

    /// The configuration of a frontend.
    pub(crate) fn text(&self) -> String {
        let Self {
            zookeeper,
            s3,
            place,
            ..
        } = self;
        format!(
            "listen = ['127.0.0.1:0']\ntoken-file = 'token'\n\
             [zookeeper]\nhosts = ['{}']\nchroot = '/{place}'\n\
             [s3]\nendpoints = ['{}']\nbucket = '{}'\naccess-key = '{}'\n\
             secret-key-file = 's3-secret'\nprefix = '{place}'\n",
            zookeeper.replace(',', "', '"),
            s3.endpoints.join("', '"),
            s3.bucket,
            s3.access_key,
        )
    }

    fn write(&self, text: &str) -> Result<PathBuf> {
        let file = self.folder.path().join("frontend.toml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// `distci` with these arguments and the configuration `text`.
    pub(crate) fn distci(&self, arguments: &[&str], text: &str) -> Result<Command> {
        let mut command = distci();
        command
            .args(arguments)
            .arg("--config")
            .arg(self.write(text)?);
        Ok(command)
    }
}
