//! The router over a store in memory: what every client may rely on, and what none may break.

mod artifacts;
mod builds;
mod claims;
mod consoles;
mod door;
mod frontends;
mod jobs;
mod scene;
mod timers;
