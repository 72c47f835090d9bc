//! The simplest cell: processes of this machine under a supervisor, and nothing between them and
//! the rest of it.
//!
//! Promises that nothing is left behind, not that nothing is reached.

use std::ffi::OsString;
use std::path::PathBuf;

use async_trait::async_trait;
use distci_model::isolation::{Driver, Network};

use crate::cell::{Account, Cell, Command, Finished, Isolation, Output, Place, Site, Stop, Terms};
use crate::error::Error;
use crate::group::{Group, Groups};
use crate::journal::{self, Journal};
use crate::launch::Launch;
use crate::view::View;

/// Runs commands as processes of this machine.
#[derive(Debug)]
pub struct Process {
    /// The command that becomes the supervisor.
    pub supervisor: Vec<OsString>,
    /// Where groups are made.
    pub groups: Groups,
}

struct ProcessCell {
    supervisor: Vec<OsString>,
    site: Site,
    group: Option<Group>,
}

#[async_trait]
impl Isolation for Process {
    fn driver(&self) -> Driver {
        Driver::Process
    }

    async fn open(&self, site: &Site, terms: &Terms) -> Result<Box<dyn Cell>, Error> {
        if let Some(image) = &terms.image {
            let image = image.name();
            let why = format!("the driver process runs nothing in an image, so not in {image}");
            return Err(Error::Unsupported(why));
        }
        if terms.network != Network::Host {
            let why = "the driver process cannot keep anybody from the network";
            return Err(Error::Unsupported(why.to_owned()));
        }
        if let Some(shared) = terms.shared.first() {
            let inside = shared.inside.display();
            let why = format!("the driver process cannot show a folder as {inside}");
            return Err(Error::Unsupported(why));
        }
        let group = self.groups.plan(&site.name, terms)?;
        let journal = Journal {
            group: group.clone(),
            ..Journal::default()
        };
        journal.write(&site.folder)?;
        if let Some(group) = &group {
            group.make(terms)?;
        }
        Ok(Box::new(ProcessCell {
            supervisor: self.supervisor.clone(),
            site: site.clone(),
            group,
        }))
    }
}

#[async_trait]
impl Cell for ProcessCell {
    fn path(&self, place: Place) -> PathBuf {
        self.site.path(place)
    }

    /// The worker's own, as the machine's data have it: its environment may be somebody else's.
    fn account(&self) -> Account {
        match nix::unistd::User::from_uid(nix::unistd::getuid()) {
            Ok(Some(user)) => Account {
                name: user.name,
                home: user.dir,
                shell: user.shell,
            },
            Ok(None) | Err(_) => Account::root(),
        }
    }

    async fn run(
        &self,
        command: &Command,
        output: &mut dyn Output,
        stop: Stop<'_>,
    ) -> Result<Finished, Error> {
        let launch = Launch {
            supervisor: &self.supervisor,
            key: &self.site.key,
            argv: command.argv.clone(),
            directory: command.directory.clone(),
            env: command.env.clone(),
            group: self.group.as_ref(),
            others: None,
            container: false,
            stage: None,
            files: Vec::new(),
            view: View::default(),
        };
        launch.run(output, stop).await
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(journal::close(&self.site).await?)
    }
}
