//! `distci frontend`: a frontend over the store of the data folder, without workers.
//!
//! Owns what a process that serves has in common with `standalone`: [`Service`].

use std::net::SocketAddr;

use anyhow::{Context, Result};
use distci_model::id::WorkerId;

use crate::cli::Frontend;
use crate::connection::{Connection, Home};
use crate::exit::Exit;
use crate::local::{Local, Place};
use crate::signals::Signals;

pub(crate) async fn run(connection: &Connection, arguments: Frontend) -> Result<Exit> {
    let service = Service::start(connection, arguments.listen, None).await?;
    service.serve().await
}

/// The data folder of the command line.
pub(crate) fn home(connection: &Connection) -> Result<Home> {
    let directory = connection.data_directory();
    let home = Home::at(directory.context("there is no home folder: give --data")?);
    home.create()?;
    Ok(home)
}

/// DistCI in this process, until it is told to stop.
pub(crate) struct Service {
    pub(crate) home: Home,
    pub(crate) local: Local,
    signals: Signals,
}

impl Service {
    /// Starts a frontend over the store of the data folder, and tells the command line of it.
    pub(crate) async fn start(
        connection: &Connection,
        listen: SocketAddr,
        dead_worker: Option<WorkerId>,
    ) -> Result<Self> {
        let signals = Signals::listen()?;
        let home = home(connection)?;
        let place = Place {
            directory: home.path(),
            listen,
            token: home.token_or_new()?,
            dead_worker,
        };
        let local = Local::start(place).await?;
        home.announce_url(&local.url())?;
        let (data, token) = (home.path().display(), home.token_file());
        tracing::info!(%data, token = %token.display(), "DistCI is at {}", local.url());
        Ok(Self {
            home,
            local,
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
        let forgotten = self.home.forget_url().context("the file `url`");
        let stopped = tokio::select! {
            stopped = self.local.stop() => stopped,
            () = self.signals.next() => return Ok(Exit::Interrupted),
        };
        failed.and(stopped).and(forgotten)?;
        Ok(Exit::Ok)
    }
}
