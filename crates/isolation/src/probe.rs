//! Whether a driver works on this machine.
//!
//! Owns the trial: a throw-away cell in which `true` is run. What a driver needs beforehand it looks
//! at itself, because it knows what to say.

use std::fs;
use std::path::Path;

use async_trait::async_trait;

use crate::cell::{Command, Ended, Isolation, Output, Place, Site, Terms};
use crate::error::Error;
use crate::heard::Heard;
use crate::image::Image;
use crate::journal::sweep;

/// Whether there is such a program, given by its path or by a name.
fn is_there(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Refuses a machine on which it is missing.
pub(crate) fn needs(program: &Path, package: &str) -> Result<(), Error> {
    if is_there(program) {
        return Ok(());
    }
    let program = program.display();
    let why = format!("there is no {program}: install the package {package}");
    Err(Error::Unsupported(why))
}

/// Runs `true` in a cell over `image`, below `folder`, and leaves nothing there.
pub(crate) async fn run_true(
    isolation: &(impl Isolation + ?Sized),
    image: &Image,
    folder: &Path,
) -> Result<(), Error> {
    let name = format!("probe-{}-{}", isolation.driver(), std::process::id());
    let root = folder.join(name);
    let tried = try_one(isolation, image, Site::make(&root)?).await;
    sweep(&root.join("cell"))?;
    fs::remove_dir_all(&root)?;
    tried
}

async fn try_one(
    isolation: &(impl Isolation + ?Sized),
    image: &Image,
    site: Site,
) -> Result<(), Error> {
    let terms = Terms {
        image: Some(image.clone()),
        ..Terms::default()
    };
    let cell = isolation.open(&site, &terms).await?;
    let command = Command {
        argv: vec!["true".into()],
        directory: cell.path(Place::Workspace),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
    };
    let mut nobody = Nobody;
    let mut heard = Heard::new(&mut nobody);
    let never = Box::pin(std::future::pending());
    let finished = cell.run(&command, &mut heard, never).await?;
    cell.close().await?;
    match finished.ended {
        Ended::Exit(0) => Ok(()),
        other => {
            let words = heard.words();
            let detail = format!("true ended with {other:?}: {words}");
            Err(Error::driver("trying the driver", &detail))
        }
    }
}

struct Nobody;

#[async_trait]
impl Output for Nobody {
    async fn take(&mut self, _bytes: &[u8]) {}
}
