//! What `distci` is to a driver, as a program of its own for tests: `supervise` is the supervisor,
//! `agent` the first process of a virtual machine,
//! `work DRIVER ROOT NAME SCRIPT [IMAGE]` a worker that opens a cell and runs a script there until it
//! is killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_trait::async_trait;
use distci_isolation::{
    Accelerator, Bubblewrap, Cell, Command, Docker, Groups, Image, Isolation, Lxc, Output, Place,
    Podman, Process, Qemu, Site, Terms,
};
use distci_model::isolation::Driver;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let worked = match arguments.as_slice() {
        [_, "supervise", ..] => return distci_isolation::supervisor::main(),
        [_, "agent"] => return distci_isolation::agent::main(),
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
    let image = image.copied();
    let driver = isolation(driver.parse()?)?;
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

/// Where the tests keep what drivers need.
fn folder() -> Result<PathBuf> {
    let folder = std::env::var_os("TEST_FOLDER").ok_or("TEST_FOLDER is not set")?;
    Ok(folder.into())
}

fn isolation(driver: Driver) -> Result<Box<dyn Isolation>> {
    let own = std::env::current_exe()?;
    let supervisor = vec![own.clone().into(), "supervise".into()];
    match driver {
        Driver::Process => Ok(Box::new(Process {
            supervisor,
            groups: Groups::find(),
        })),
        Driver::Lxc => Ok(Box::new(Lxc {
            supervisor,
            groups: Groups::find(),
        })),
        Driver::Qemu => {
            let kernel = folder()?.join("kernel");
            let agent = (own, "agent".to_owned());
            let qemu = Qemu::new(supervisor, agent, Groups::find(), kernel);
            Ok(Box::new(qemu.with_accelerator(Accelerator::Tcg)))
        }
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
            folder: folder()?.join("podman"),
            busybox: "/bin/busybox".into(),
        })),
        Driver::Docker => {
            let socket = folder()?.join("docker/socket");
            Ok(Box::new(Docker {
                supervisor,
                groups: Groups::at_the_top(),
                program: "docker".into(),
                host: format!("unix://{}", socket.display()),
                private: None,
                busybox: "/bin/busybox".into(),
            }))
        }
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
