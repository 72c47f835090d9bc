//! Decides from what was seen of a cluster whether it kept its promises.
//!
//! Owns the form of a history and the laws that it is held against: a pure function from one to a
//! verdict. Simulation, tests on real parts and drills hand theirs to the same function. Never looks at
//! a cluster itself, and never believes one: what tasks did, they have said themselves.

pub mod history;
pub mod journal;
mod laws;
mod predict;
mod verdict;

pub use laws::check;
pub use predict::predict;
pub use verdict::{Breach, Law, Verdict};

#[cfg(test)]
mod tests;
