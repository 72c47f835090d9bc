//! Whether a driver works on this machine: tried, not guessed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use distci_model::isolation::Network;

use crate::cell::{Command, Ended, Isolation, Output, Place, Site, Terms};
use crate::error::Error;
use crate::image::Image;

/// How long a cell that does nothing may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Most bytes of what it prints that are told.
const MOST: usize = 300;

struct Printed(Vec<u8>);

#[async_trait]
impl Output for Printed {
    async fn take(&mut self, bytes: &[u8]) {
        let room = MOST.saturating_sub(self.0.len());
        self.0.extend(bytes.iter().take(room));
    }
}

/// Runs `true` in a cell of `image` whose folders are in `folder`, which exists and is empty.
pub(crate) async fn run_true(
    isolation: &dyn Isolation,
    image: &Image,
    folder: &Path,
) -> Result<(), Error> {
    let site = site(folder)?;
    let terms = Terms {
        image: Some(image.clone()),
        network: Network::None,
        ..Terms::default()
    };
    let cell = isolation.open(&site, &terms).await?;
    let command = Command {
        argv: vec!["true".into()],
        directory: cell.path(Place::Workspace),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
    };
    let mut printed = Printed(Vec::new());
    let late = Box::pin(async {
        tokio::time::sleep(PATIENCE).await;
        Duration::ZERO
    });
    let finished = cell.run(&command, &mut printed, late).await;
    cell.close().await?;
    match finished?.ended {
        Ended::Exit(0) => Ok(()),
        ended => {
            let printed = String::from_utf8_lossy(&printed.0).trim().to_owned();
            let detail = format!("it ended with {ended:?} and printed {printed:?}");
            Err(Error::driver("trying out a cell", &detail))
        }
    }
}

fn site(folder: &Path) -> Result<Site, Error> {
    let make = |name: &str| {
        let path = folder.join(name);
        fs::create_dir(&path).map(|()| path)
    };
    Ok(Site {
        name: format!("probe-{}", std::process::id()),
        folder: make("cell")?,
        workspace: make("workspace")?,
        temporary: make("tmp")?,
        files: make("files")?,
        key: folder.into(),
    })
}
