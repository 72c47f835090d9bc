//! What must be installed, and how to see that it is.

use std::env;
use std::path::Path;

use anyhow::{Result, bail};

/// A Debian package, known by something that it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: &'static str,
    /// A command, or an absolute path, that is there once it is installed.
    pub brings: &'static str,
}

/// What `ZooKeeper` needs.
pub const ZOOKEEPER_PACKAGES: [Package; 3] = [
    Package {
        name: "libzookeeper-java",
        brings: "/usr/share/java/zookeeper.jar",
    },
    Package {
        name: "libslf4j-java",
        brings: "/usr/share/java/slf4j-simple.jar",
    },
    Package {
        name: "default-jre-headless",
        brings: "java",
    },
];

/// What `Ceph` needs.
pub const CEPH_PACKAGES: [Package; 5] = [
    Package {
        name: "ceph-mon",
        brings: "ceph-mon",
    },
    Package {
        name: "ceph-osd",
        brings: "ceph-osd",
    },
    Package {
        name: "radosgw",
        brings: "radosgw",
    },
    Package {
        name: "ceph-common",
        brings: "radosgw-admin",
    },
    Package {
        name: "curl",
        brings: "curl",
    },
];

/// Those of `packages` that this machine lacks.
pub fn missing(packages: &[Package]) -> Vec<Package> {
    let lacks = |package: &&Package| !is_there(package.brings);
    packages.iter().filter(lacks).copied().collect()
}

/// Refuses to start anything while something is missing, and says how to get it.
pub(crate) fn require(packages: &[Package]) -> Result<()> {
    let names: Vec<_> = missing(packages)
        .iter()
        .map(|package| package.name)
        .collect();
    if !names.is_empty() {
        let names = names.join(" ");
        bail!(
            "install {names}: `apt-get install --no-install-recommends {names}` or `cargo xtask setup`"
        );
    }
    Ok(())
}

fn is_there(brings: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Joining an absolute path yields that path, whatever the folder.
    Path::new(brings).is_file() || env::split_paths(&path).any(|dir| dir.join(brings).is_file())
}
