//! The pool: starts workers for what is wanted, each for one ticket.
//!
//! Owns the workers that it started, as processes: it starts them, counts them and ends them. It
//! claims nothing and tells them nothing; which ticket a worker takes is between the worker and the
//! frontends. Several pools may serve the same frontends without knowing of each other. All that a
//! pool remembers dies with it, and its workers too.

mod backoff;
mod place;
mod pool;
mod start;

pub use pool::{Error, Group, Settings, Start, check, run};
