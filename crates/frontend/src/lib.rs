//! The stateless HTTP frontend over the store.
//!
//! Owns the API, the pages, the matching of waiting workers with queued tickets, and the leases of claims.
//! Never remembers what another frontend would have to know: what it keeps in memory is a mirror of
//! the store's index and the connections that wait here.

mod api;
mod app;
mod auth;
mod barrier;
mod board;
mod cluster_time;
mod drains;
mod error;
mod forsaken;
mod frontend;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hooks;
mod jobs;
mod leases;
mod metrics;
mod mirror;
mod pace;
mod pages;
mod peers;
mod pulse;
mod schedules;
mod seen;
mod shared;
mod signals;
mod timers;
mod vitals;

pub use api::openapi;
pub use frontend::{Frontend, Inner, Settings, StartError, Who};
pub use hooks::HookSecrets;
