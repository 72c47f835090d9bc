//! The router over a store in memory: what every client may rely on, and what none may break.

mod artifacts;
mod builds;
mod claims;
mod consoles;
mod counted;
mod door;
mod drains;
mod frontends;
mod hooks;
mod jobs;
mod listing;
mod locks;
mod negative;
mod pages;
mod revisions;
mod scene;
mod schedules;
mod search;
mod test_reports;
mod timers;
mod vitals;
