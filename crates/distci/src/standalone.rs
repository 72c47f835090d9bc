//! `distci standalone`: store, frontend and a worker of every kind in one process.
//!
//! Owns the identity of its worker on disk: when a killed standalone is started again, the claims of
//! the worker that died with it need not wait for their lease.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use distci_frontend::HookSecrets;
use distci_model::event::Source;
use distci_model::id::WorkerId;

use crate::cli::Standalone;
use crate::config::Config;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::frontend::{Service, home};
use crate::{forges, worker};

pub(crate) async fn run(connection: &Connection, arguments: Standalone) -> Result<Exit> {
    let home = home(connection)?;
    let (directory, file) = (home.path().join("worker"), home.path().join("worker-id"));
    let before: Option<WorkerId> = std::fs::read_to_string(&file)
        .ok()
        .and_then(|id| id.trim().parse().ok());
    // The store's lock has been taken when this returns: that worker's process is gone.
    let config = Config {
        listen: vec![arguments.listen],
        public_url: arguments.public_url,
        hooks: secrets(&arguments.webhook_secrets)?,
        ..Config::default()
    };
    let forges = forges::load(arguments.forges.as_deref())?;
    let mut service = Service::embedded(home, config, before).await?;
    let id = worker::identity(worker::new_name()?)?;
    write_id(&file, &id)?;
    let settings = distci_worker::Settings {
        labels: worker::labels(arguments.labels),
        git_credentials: arguments.git_credentials,
        forges,
        ..worker::settings(id, arguments.slots, directory, &arguments.machine)?
    };
    service.local.start_worker(settings)?;
    service.serve().await
}

/// Reads the secrets of webhooks, each a forge with a file that has one a line.
fn secrets(files: &[(Source, PathBuf)]) -> Result<HookSecrets> {
    let mut secrets = HookSecrets::default();
    for (source, file) in files {
        let place = || format!("the secret of {source}, {}", file.display());
        let lines = std::fs::read_to_string(file).with_context(place)?;
        if lines.trim().is_empty() {
            bail!("{} is empty", place());
        }
        secrets.add(*source, &lines);
    }
    Ok(secrets)
}

/// Before the worker claims anything, so that no claim is by a worker that nobody knows.
fn write_id(file: &std::path::Path, id: &WorkerId) -> Result<()> {
    let place = || file.display().to_string();
    let folder = file.parent().with_context(place)?;
    let new = tempfile::NamedTempFile::new_in(folder).with_context(place)?;
    std::fs::write(new.path(), format!("{id}\n")).with_context(place)?;
    new.persist(file).with_context(place)?;
    Ok(())
}
