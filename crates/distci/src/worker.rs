//! `distci worker`: a worker of its own; and what every worker of this program is like.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use distci_isolation::Groups;
use distci_isolation::machine;
use distci_model::capability::{Kind, Label};
use distci_model::id::{SessionId, WorkerId, WorkerName};
use distci_worker::Settings;
use tokio_util::sync::CancellationToken;

use crate::cli::{self, Worker};
use crate::connection::{Connection, user_directory};
use crate::exit::Exit;
use crate::forges;
use crate::signals::Signals;

pub(crate) async fn run(connection: &Connection, arguments: Worker) -> Result<Exit> {
    let client = connection.patient_client()?;
    let name = arguments.name.map_or_else(new_name, Ok)?;
    let id = match arguments.session {
        Some(session) => WorkerId { name, session },
        None => identity(name)?,
    };
    let mut kinds = arguments.kinds;
    if kinds.is_empty() {
        kinds = Kind::of_workers().collect();
    }
    let settings = Settings {
        kinds,
        labels: labels(arguments.labels),
        once: arguments.once,
        idle: arguments.idle,
        git_credentials: arguments.git_credentials,
        forges: forges::load(arguments.forges.as_deref())?,
        ..settings(
            id,
            arguments.slots,
            directory(arguments.dir)?,
            &arguments.machine,
        )?
    };
    let frontends = client.frontends().join(" ");
    tracing::info!(worker = %settings.id.name, slots = settings.slots, %frontends, "worker starts");
    let stop = CancellationToken::new();
    let mut signals = Signals::listen()?;
    let working = distci_worker::run(settings, client, stop.clone());
    let mut working = std::pin::pin!(working);
    let ended = loop {
        tokio::select! {
            ended = &mut working => break ended,
            () = signals.next() => {
                if stop.is_cancelled() {
                    tracing::warn!("leaving at once; what was claimed will be claimed again");
                    return Ok(Exit::Interrupted);
                }
                tracing::info!("stopping; interrupt again to leave at once");
                stop.cancel();
            }
        }
    };
    ended?;
    Ok(Exit::Ok)
}

/// A worker of every kind without labels.
pub(crate) fn settings(
    id: WorkerId,
    slots: usize,
    directory: PathBuf,
    machine: &cli::Machine,
) -> Result<Settings> {
    Ok(Settings {
        id,
        kinds: Kind::of_workers().collect(),
        labels: Vec::new(),
        slots,
        once: false,
        idle: None,
        directory: directory.clone(),
        machine: machine::Settings {
            supervisor: supervisor(),
            agent: agent()?,
            scratch: directory,
            groups: Groups::find(),
            images: images(machine.images.clone())?,
            drivers: machine.drivers.clone(),
            default_image: machine.default_image.clone(),
        },
        git_credentials: None,
        forges: BTreeMap::new(),
    })
}

/// This program as it lies on the disk, for virtual machines to begin with.
pub(crate) fn agent() -> Result<(PathBuf, String)> {
    let program = std::env::current_exe().context("this program has no file")?;
    Ok((program, "agent".to_owned()))
}

/// The folder of images: the given one, or the user's.
pub(crate) fn images(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(directory) = given {
        return Ok(std::path::absolute(directory)?);
    }
    let data = user_directory("XDG_DATA_HOME", ".local/share");
    let data = data.context("there is no home folder; say where images are with --images")?;
    Ok(data.join("distci/images"))
}

/// This very program, even if another has taken its place on the disk since it was started.
pub(crate) fn supervisor() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), "supervise".into()]
}

/// The given labels, and what every machine is known by: its system and its architecture.
pub(crate) fn labels(given: Vec<Label>) -> Vec<Label> {
    let mut labels = given;
    for name in [std::env::consts::OS, std::env::consts::ARCH] {
        if let Ok(label) = name.parse()
            && !labels.contains(&label)
        {
            labels.push(label);
        }
    }
    labels
}

/// This run of the worker of that name.
pub(crate) fn identity(name: WorkerName) -> Result<WorkerId> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).context("no randomness")?;
    let session = SessionId::from_random(bytes);
    Ok(WorkerId { name, session })
}

/// The machine's name with a random end, so that no two runs share one.
pub(crate) fn new_name() -> Result<WorkerName> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).context("no randomness")?;
    Ok(format!("{}-{}", host(), HEXLOWER.encode(&bytes)).parse()?)
}

/// The machine's name, as much of it as fits into a worker's.
pub(crate) fn host() -> String {
    clean(
        &nix::unistd::gethostname()
            .unwrap_or_default()
            .to_string_lossy(),
    )
}

/// As much of a host's name as fits into a worker's.
fn clean(host: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let host: String = host.chars().filter(fits).take(48).collect();
    let host = host.trim_start_matches(['.', '_', '-']);
    if host.is_empty() { "worker" } else { host }.to_owned()
}

fn directory(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(directory) = given {
        return Ok(directory);
    }
    let cache = user_directory("XDG_CACHE_HOME", ".cache");
    let cache = cache.context("there is no home folder: give --dir")?;
    Ok(cache.join("distci/worker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_gives_a_name() {
        assert_eq!(clean("büro-3.example.org"), "bro-3.example.org");
        assert_eq!(clean("--"), "worker");
        assert!(new_name().is_ok());
        assert_ne!(new_name().unwrap(), new_name().unwrap());
    }

    #[test]
    fn a_machine_is_known_by_its_system_and_architecture() {
        let given: Label = std::env::consts::OS.parse().unwrap();
        let labels = labels(vec![given.clone()]);
        assert_eq!(labels[0], given);
        assert_eq!(labels.len(), 2);
    }
}
