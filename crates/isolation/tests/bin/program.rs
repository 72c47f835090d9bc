//! What `distci` is to a driver, as a program of its own for tests: `supervise` is the supervisor,
//! `work DRIVER ROOT NAME SCRIPT [IMAGE]` a worker that opens a cell and runs a script there until it
//! is killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_trait::async_trait;
use distci_isolation::{
    Bubblewrap, Cell, Command, Docker, Groups, Image, Isolation, Output, Place, Podman, Process,
    Site, Terms,
};
use distci_model::isolation::Driver;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let worked = match arguments.as_slice() {
        [_, "supervise", ..] => return distci_isolation::supervisor::main(),
        [_, "work", driver, root, name, script, image @ ..] => {
            work((driver, Path::new(root), name), script, image.first())
        }
        _ => Err("unknown command".into()),
    };
    match worked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            std::io::stderr()
                .write_all(format!("{error}\n").as_bytes())
                .ok();
            ExitCode::FAILURE
        }
    }
}

fn work(
    (driver, root, name): (&str, &Path, &str),
    script: &str,
    image: Option<&&str>,
) -> Result<()> {
    let images = image.and_then(|image| Path::new(*image).parent());
    let driver = isolation(driver.parse()?, images)?;
    let image = image
        .map(|folder| Image::in_folder(Path::new(folder)))
        .transpose()?;
    let terms = Terms {
        image,
        ..Terms::default()
    };
    let site = Site {
        name: name.to_owned(),
        folder: root.join("cell"),
        workspace: root.join("workspace"),
        temporary: root.join("tmp"),
        files: root.join("files"),
        key: root.into(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let cell = driver.open(&site, &terms).await?;
        if script.is_empty() {
            std::io::stdout().write_all(b"ready\n")?;
        } else {
            run(cell.as_ref(), script).await?;
        }
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn isolation(driver: Driver, images: Option<&Path>) -> Result<Box<dyn Isolation>> {
    let supervisor = vec![std::env::current_exe()?.into(), "supervise".into()];
    match driver {
        Driver::Process => Ok(Box::new(Process {
            supervisor,
            groups: Groups::find(),
        })),
        Driver::Bubblewrap => Ok(Box::new(Bubblewrap {
            supervisor,
            groups: Groups::find(),
            program: "bwrap".into(),
        })),
        Driver::Podman => Ok(Box::new(Podman {
            supervisor,
            groups: Groups::at_the_top(),
            program: "podman".into(),
            runtime: "runc".to_owned(),
            // The tests keep what drivers need beside their images.
            folder: images.ok_or("an image is needed")?.with_file_name("podman"),
            busybox: "/bin/busybox".into(),
        })),
        Driver::Docker => {
            let images = images.ok_or("an image is needed")?;
            let socket = images.with_file_name("docker").join("socket");
            Ok(Box::new(Docker {
                supervisor,
                groups: Groups::at_the_top(),
                program: "docker".into(),
                host: format!("unix://{}", socket.display()),
                private: None,
                busybox: "/bin/busybox".into(),
            }))
        }
        other => Err(format!("{other} is not known here").into()),
    }
}

async fn run(cell: &dyn Cell, script: &str) -> Result<()> {
    let path: PathBuf = cell.path(Place::Temporary);
    let command = Command {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        directory: cell.path(Place::Workspace),
        env: vec![
            ("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("TMPDIR".into(), path.into()),
        ],
    };
    let never = Box::pin(std::future::pending());
    cell.run(&command, &mut Console, never).await?;
    Ok(())
}

struct Console;

#[async_trait]
impl Output for Console {
    async fn take(&mut self, bytes: &[u8]) {
        std::io::stdout().write_all(bytes).ok();
        std::io::stdout().flush().ok();
    }
}
