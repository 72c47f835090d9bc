//! A cell over an image: it holds that as long as it is open, knows its environment, and
//! says whose fault it is that a program is not there.

use std::path::PathBuf;

use async_trait::async_trait;

use super::Image;
use crate::cell::{Account, Cell, Command, Ended, Finished, Output, Place, Stop};
use crate::error::Error;

/// The cell of a driver, and what it lies on.
pub(crate) struct Held {
    pub(crate) cell: Box<dyn Cell>,
    pub(crate) image: Image,
}

#[async_trait]
impl Cell for Held {
    fn path(&self, place: Place) -> PathBuf {
        self.cell.path(place)
    }

    fn account(&self) -> Account {
        self.cell.account()
    }

    fn env(&self) -> &[(String, String)] {
        self.image.env()
    }

    async fn run(
        &self,
        command: &Command,
        output: &mut dyn Output,
        stop: Stop<'_>,
    ) -> Result<Finished, Error> {
        let mut finished = self.cell.run(command, output, stop).await?;
        if let Ended::NotStarted(why) = finished.ended {
            let why = format!("{why}, in the image {}", self.image.name());
            finished.ended = Ended::NotStarted(why);
        }
        Ok(finished)
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        let Self { cell, image } = *self;
        let closed = cell.close().await;
        drop(image);
        closed
    }
}
