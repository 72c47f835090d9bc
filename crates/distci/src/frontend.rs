//! `distci frontend`: a frontend over a shared store, without workers.
//!
//! Owns what a process that serves has in common with `standalone`: [`Service`]. The store is that
//! of the configuration's cluster, or without one the embedded store of the data folder.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use distci_client::Token;
use distci_frontend::HookSecrets;
use distci_model::id::WorkerId;
use distci_store::Store;

use crate::cli::Frontend;
use crate::clock::now;
use crate::cluster;
use crate::config::{self, Config};
use crate::connection::{Connection, Home};
use crate::exit::Exit;
use crate::local::{Local, Place};
use crate::out::Out;
use crate::signals::Signals;

pub(crate) async fn run(
    connection: &Connection,
    arguments: Frontend,
    out: &mut Out,
) -> Result<Exit> {
    if arguments.config_sample {
        out.bytes(config::SAMPLE.as_bytes())?;
        return Ok(Exit::Ok);
    }
    let mut config = match &arguments.config {
        Some(file) => Config::load(file)?,
        None => Config::default(),
    };
    if !arguments.listen.is_empty() {
        config.listen = arguments.listen;
    }
    if arguments.check {
        return check(connection, &config, out).await;
    }
    let service = match &config.cluster {
        Some(cluster) => {
            let token = config.token.context("there is no token")?;
            let log = |found: String| {
                tracing::info!("{found}");
                Ok(())
            };
            let store = cluster::open(cluster, log).await?;
            let home = (config.listen, config.public_url);
            Service::shared(store, home, token, config.hooks).await?
        }
        None => Service::embedded(home(connection)?, config, None).await?,
    };
    service.serve().await
}

/// Says in plain words what a frontend with this configuration would find.
async fn check(connection: &Connection, config: &Config, out: &mut Out) -> Result<Exit> {
    for address in &config.listen {
        let listener = std::net::TcpListener::bind(address);
        listener.with_context(|| format!("cannot listen on {address}"))?;
        out.line(format_args!("{address} can be listened on"))?;
    }
    for file in &config.exposed {
        out.line(format_args!(
            "{} can be read by others: chmod 600 it",
            file.display()
        ))?;
    }
    let store = if let Some(cluster) = &config.cluster {
        out.line("the configuration is well-formed, and its secrets can be read")?;
        cluster::open(cluster, |found| Ok(out.line(found)?)).await?
    } else {
        let home = home(connection)?;
        let place = home.path().display();
        out.line(format_args!("the store is embedded, in {place}"))?;
        embedded(home.path())?
    };
    let meta = store.prepare(now()).await?;
    let (cluster, schema, created) = (meta.cluster, meta.schema, meta.created);
    out.line(format_args!(
        "the store is {cluster}, made at {created}, with schema {schema}, which is ours"
    ))?;
    out.line("everything is fine")?;
    Ok(Exit::Ok)
}

/// The data folder of the command line.
pub(crate) fn home(connection: &Connection) -> Result<Home> {
    let directory = connection.data_directory();
    let home = Home::at(directory.context("there is no home folder: give --data")?);
    home.create()?;
    Ok(home)
}

fn embedded(directory: &Path) -> Result<Store> {
    Ok(Store::embedded(directory, Arc::new(now))?)
}

/// DistCI in this process, until it is told to stop.
pub(crate) struct Service {
    pub(crate) local: Local,
    /// Where the command line finds our address, if we told it.
    announced: Option<Home>,
    signals: Signals,
}

impl Service {
    /// Starts a frontend over the store of the data folder, and tells the command line of it.
    pub(crate) async fn embedded(
        home: Home,
        config: Config,
        dead_worker: Option<WorkerId>,
    ) -> Result<Self> {
        let signals = Signals::listen()?;
        let token = match config.token {
            Some(token) => token,
            None => home.token_or_new()?,
        };
        let place = Place {
            store: embedded(home.path())?,
            listen: config.listen,
            token,
            hooks: config.hooks,
            public_url: config.public_url,
            dead_worker,
        };
        let local = Local::start(place).await?;
        home.announce_url(&local.url())?;
        let (data, token) = (home.path().display(), home.token_file());
        tracing::info!(%data, token = %token.display(), "DistCI is at {}; `distci open` shows it", local.url());
        Ok(Self {
            local,
            announced: Some(home),
            signals,
        })
    }

    /// Starts a frontend over a store that others use, too.
    async fn shared(
        store: Store,
        (listen, public_url): (Vec<SocketAddr>, Option<String>),
        token: Token,
        hooks: HookSecrets,
    ) -> Result<Self> {
        let signals = Signals::listen()?;
        let place = Place {
            store,
            listen,
            token,
            hooks,
            public_url,
            // A worker of a cluster lives and dies without any frontend.
            dead_worker: None,
        };
        let local = Local::start(place).await?;
        tracing::info!("DistCI is at {}", local.url());
        Ok(Self {
            local,
            announced: None,
            signals,
        })
    }

    /// Serves until a signal or the end of a part.
    pub(crate) async fn serve(mut self) -> Result<Exit> {
        let failed = tokio::select! {
            error = self.local.failed() => Err(error),
            () = self.signals.next() => Ok(()),
        };
        tracing::info!("stopping; interrupt again to leave at once");
        let forgotten = match &self.announced {
            Some(home) => home.forget_url().context("the file `url`"),
            None => Ok(()),
        };
        let stopped = tokio::select! {
            stopped = self.local.stop() => stopped,
            () = self.signals.next() => return Ok(Exit::Interrupted),
        };
        failed.and(stopped).and(forgotten)?;
        Ok(Exit::Ok)
    }
}
