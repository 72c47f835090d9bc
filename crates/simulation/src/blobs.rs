//! The blobs of the simulation: in memory, late, and out of reach now and then.
//!
//! Owns what becomes of each call. Never loses a blob that was stored.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use distci_store::blobs::{BlobFate, Blobs};
use distci_store::coordination::simulator::{Dice, PerMille};

/// How long a call takes, in microseconds.
const WAY: usize = 3000;

/// What becomes of calls. Clones are of the same blobs.
#[derive(Clone)]
pub(crate) struct Mood(Arc<Mutex<State>>);

struct State {
    dice: Dice,
    fails: PerMille,
    /// Nothing is in reach.
    is_away: bool,
}

impl Mood {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            fails: PerMille(0),
            is_away: false,
        })))
    }

    /// Blobs to which happens what this says.
    pub(crate) fn blobs(&self) -> Blobs {
        let mood = self.clone();
        Blobs::fickle(Arc::new(move || mood.fate()))
    }

    /// How often a call fails.
    pub(crate) fn set_failures(&self, fails: PerMille) {
        self.state().fails = fails;
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    fn fate(&self) -> BlobFate {
        let mut state = self.state();
        let (fails, is_away) = (state.fails, state.is_away);
        let (before, after) = (state.dice.roll(fails), state.dice.roll(fails));
        BlobFate {
            delay: Duration::from_micros(state.dice.below(WAY) as u64),
            fails: before || is_away,
            is_unheard: after,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
