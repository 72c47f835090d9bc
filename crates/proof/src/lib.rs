//! The protocol, model-checked with the code that runs in production.
//!
//! Owns models of the shared store and of those who use it, the laws that must hold in every state
//! of them, and planted defects that break a law each. A transition is no copy of the store's: the
//! store's own functions run on the tree of a state, up to the commit that they would send, and what
//! becomes of that commit is chosen in every way there is. Never part of the product.

mod act;
mod cluster;
mod defect;
mod engine;
mod forest;
pub mod laws;
mod look;
mod pool;
pub mod prove;
pub mod reach;
mod script;
mod setup;
mod state;
pub mod watch;
pub mod worlds;

pub use act::{Act, Ending, OrderId};
pub use cluster::Cluster;
pub use defect::Defect;
pub use forest::{CommitId, TreeId};
pub use setup::{Role, Setup};
pub use state::{Action, Actor, Budget, Doing, Flight, State};
