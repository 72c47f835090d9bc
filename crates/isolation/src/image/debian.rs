//! A Debian, made by mmdebstrap or debootstrap, whichever this machine has.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use distci_model::image::Debian;

use super::build::BuildError;
use super::sources;
use super::tools::{Tools, find, missing};
use crate::cell::Ended;

const NO_SOURCE: &str = "this machine has no sources of packages for that suite: say which mirror \
                         to take it from";

/// Makes it at `root`, a folder that is not there yet.
///
/// # Errors
/// [`BuildError::Tool`] with what the tool said last.
pub(super) async fn make(
    debian: &Debian,
    root: &Path,
    scratch: &Path,
    tools: &Tools<'_>,
    tell: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), BuildError> {
    let (tool, argv) = if find("mmdebstrap").is_some() {
        ("mmdebstrap", mmdebstrap(debian, root, scratch)?)
    } else if find("debootstrap").is_some() {
        ("debootstrap", debootstrap(debian, root)?)
    } else {
        return Err(missing(
            "neither mmdebstrap nor debootstrap is on this machine: install the package mmdebstrap",
        ));
    };
    let said = tools.run(argv, scratch, tell).await?;
    match said.ended {
        Ended::Exit(0) => Ok(()),
        _ => Err(BuildError::Tool {
            tool,
            said: said.last,
        }),
    }
}

fn mmdebstrap(debian: &Debian, root: &Path, scratch: &Path) -> Result<Vec<OsString>, BuildError> {
    let mut argv: Vec<OsString> = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        // Cells are thrown away, and the image itself is synced at its end: nobody needs each file
        // to be on the disk before the next.
        "--dpkgopt=force-unsafe-io",
    ]
    .map(OsString::from)
    .into();
    argv.extend(include(debian));
    argv.push((&debian.suite).into());
    argv.push(root.into());
    if let Some(mirror) = &debian.mirror {
        argv.push(mirror.into());
        return Ok(argv);
    }
    let lines = machine(debian);
    if lines.is_empty() {
        return Err(missing(NO_SOURCE));
    }
    let path = scratch.join("distci.list");
    fs::write(&path, lines.join("\n") + "\n")?;
    argv.push(path.into());
    Ok(argv)
}

fn debootstrap(debian: &Debian, root: &Path) -> Result<Vec<OsString>, BuildError> {
    let mut argv: Vec<OsString> = ["debootstrap", "--variant=minbase"]
        .map(OsString::from)
        .into();
    argv.extend(include(debian));
    argv.push((&debian.suite).into());
    argv.push(root.into());
    let lines = machine(debian);
    let first = lines.iter().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        words.find(|word| word.contains(":/")).map(str::to_owned)
    });
    let mirror = debian.mirror.clone().or(first);
    argv.push(mirror.ok_or_else(|| missing(NO_SOURCE))?.into());
    Ok(argv)
}

fn include(debian: &Debian) -> Option<OsString> {
    let packages = debian.packages.join(",");
    (!packages.is_empty()).then(|| format!("--include={packages}").into())
}

fn machine(debian: &Debian) -> Vec<String> {
    let own = sources::own_suite();
    sources::lines(&debian.suite, Path::new("/etc/apt"), own.as_deref())
}
