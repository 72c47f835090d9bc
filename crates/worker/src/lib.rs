//! The worker: pulls tickets, does what they ask, hands back what came of it.
//!
//! Owns everything that happens on the machine where a task runs: the folder of an attempt, its
//! processes, its console, its workspace. Never sees the store; all it knows comes by the HTTP API,
//! and all it keeps between two tickets is a cache that may be deleted at any time. The beats and the
//! loop of build control are open to others: the simulation runs them without a machine.

mod attempt;
mod beats;
mod caches;
mod cell;
mod console;
mod control;
mod disk;
mod errands;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod interrupt;
mod kinds;
mod leaving;
mod reports;
mod room;
mod signals;
mod trouble;
mod worker;
mod workspace;

pub use beats::{Beats, Keeping, Pending};
pub use control::control;
pub use interrupt::{Interrupt, Interrupts};
pub use signals::ignores;
pub use worker::{Error, Settings, run};
