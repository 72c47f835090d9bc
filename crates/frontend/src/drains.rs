//! The drain orders, as far as this frontend has heard of them.
//!
//! Owns a mirror of them, and who wakes when there is a new one. Losing it loses nothing, for the
//! store has them. Never remembers a worker: each says itself how long it has been there.

use distci_model::Timestamp;
use distci_model::drain::DrainOrder;
use distci_model::id::WorkerName;
use tokio::sync::watch;

/// The drain orders. All who are held here for a claim look again at each change.
#[derive(Debug, Default)]
pub(crate) struct Drains(watch::Sender<Vec<DrainOrder>>);

impl Drains {
    /// Makes them exactly these.
    pub(crate) fn reset(&self, orders: Vec<DrainOrder>) {
        self.0.send_if_modified(|known| {
            let changed = *known != orders;
            *known = orders;
            changed
        });
    }

    /// One was given. Told twice, it is one.
    pub(crate) fn add(&self, order: DrainOrder) {
        self.0.send_if_modified(|known| {
            let is_new = !known.contains(&order);
            if is_new {
                known.push(order);
            }
            is_new
        });
    }

    /// One is gone, which is news for nobody.
    pub(crate) fn remove(&self, order: &DrainOrder) {
        self.0.send_if_modified(|known| {
            known.retain(|other| other != order);
            false
        });
    }

    /// Wakes at each new order from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<DrainOrder>> {
        self.0.subscribe()
    }

    /// Those that stand.
    pub(crate) fn all(&self) -> Vec<DrainOrder> {
        self.0.borrow().clone()
    }

    /// The order that is for a worker that was there at `moment`, if there is one.
    pub(crate) fn asks(&self, worker: &WorkerName, moment: Timestamp) -> Option<DrainOrder> {
        let orders = self.0.borrow();
        let mut ours = orders.iter().filter(|order| order.is_for(worker, moment));
        ours.next().cloned()
    }
}
