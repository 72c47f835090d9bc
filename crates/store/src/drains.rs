//! Drain orders: workers that are asked to finish what they hold and leave.
//!
//! Owns `/drain`: an empty node for each order, whose name says everything. An order takes the place
//! of earlier ones of its pattern, and of those that are too old to be for anybody. Never knows a
//! worker: whom an order is for is a law, `model::drain`.

use std::time::Duration;

use bytes::Bytes;
use distci_model::Timestamp;
use distci_model::drain::DrainOrder;
use distci_model::id::NamePattern;

use crate::coordination::{Event, Watch};
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Transaction, Tried, until_done};

/// How long an order is kept: longer than any task of a worker that it finds at work.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// Most orders that there may be: each is looked at for each claim.
const MOST: usize = 1000;
/// Most orders that another one takes away.
const MOST_REMOVED: usize = 100;

/// News of drain orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainNews {
    /// An order was given.
    Given(DrainOrder),
    /// It is gone: a later one is in its place, or it was too old.
    Gone(DrainOrder),
    /// News were missed: list again.
    Gap,
}

/// Follows the drain orders.
#[derive(Debug)]
pub struct DrainWatch(Watch);

impl DrainWatch {
    /// Forgets the news that are queued, for whoever lists next sees what they tell.
    pub fn skip(&mut self) {
        self.0.skip();
    }

    /// The next news; `None` when the store is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<DrainNews> {
        loop {
            let news = match self.0.next().await? {
                Event::Created(path) => keys::parse_drain(path.name()).map(DrainNews::Given),
                Event::Deleted(path) => keys::parse_drain(path.name()).map(DrainNews::Gone),
                Event::Changed(_) => None,
                Event::Gap => Some(DrainNews::Gap),
            };
            if let Some(news) = news {
                return Some(news);
            }
        }
    }
}

impl Store {
    /// Follows the drain orders.
    pub fn watch_drains(&self) -> DrainWatch {
        DrainWatch(self.coordination.watch(&keys::drains()))
    }

    /// All drain orders, earliest first. Watch first, then list.
    pub async fn drains(&self) -> Result<Vec<DrainOrder>, StoreError> {
        let mut names = self.coordination.list(&keys::drains()).await?;
        names.sort();
        Ok(names
            .iter()
            .filter_map(|name| keys::parse_drain(name))
            .collect())
    }

    /// Asks the workers that are there now, and whose names fit, to leave.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if there are too many orders for other patterns.
    ///
    /// # Idempotence
    /// Repeated, the order is for those who came meanwhile as well.
    pub async fn drain(
        &self,
        pattern: &NamePattern,
        now: Timestamp,
    ) -> Result<DrainOrder, StoreError> {
        let order = DrainOrder::new(pattern.clone(), now);
        until_done!(self.coordination, self.try_drain(&order))
    }

    async fn try_drain(&self, order: &DrainOrder) -> Result<Tried<DrainOrder>, StoreError> {
        let known = self.drains().await?;
        let same = |other: &&DrainOrder| other.pattern == order.pattern;
        if let Some(later) = known.iter().filter(same).find(|other| other.at >= order.at) {
            // For all of ours, and maybe ours.
            return Ok(Tried::Done(later.clone()));
        }
        let over = |other: &&DrainOrder| {
            other.pattern == order.pattern
                || order.at.duration_since(other.at).unsigned_abs() > KEPT
        };
        let over: Vec<_> = known.iter().filter(over).collect();
        if known.len() - over.len() >= MOST {
            let detail = format!(
                "there are {MOST} drain orders for other patterns: ask for one that fits them all"
            );
            return Err(StoreError::Refused { detail });
        }
        let mut transaction = Transaction::default();
        transaction.create(keys::drain(order), Bytes::new());
        for order in over.into_iter().take(MOST_REMOVED) {
            transaction.delete(keys::drain(order));
        }
        let committed = transaction.commit(&*self.coordination).await?;
        Ok(committed.map_or(Tried::Again, |_| Tried::Done(order.clone())))
    }
}
