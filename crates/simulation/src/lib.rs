//! A whole cluster in one thread, from one seed.
//!
//! Owns a simulated store, network, clock, workers and people around real frontends, and who hurts
//! them. Everything that is left to chance follows from the seed, so a run that broke a promise can be
//! had again. Never decides whether a promise was broken: that is the checker's.

mod attempt;
mod blobs;
mod clock;
mod followers;
mod frontends;
mod gate;
mod jobs;
mod line;
mod nemesis;
mod network;
mod people;
mod run;
mod scene;
mod story;
mod verdict;
mod worker;

pub use distci_store::coordination::simulator::Defect;
pub use run::{Outcome, run};
